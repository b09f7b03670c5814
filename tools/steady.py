"""Does training keep its memory? Steps of nets with inputs of ever other sizes, and the memory that the process holds.

    python tools/steady.py [--steps N] [--nets NAME ...]

Each net trains with Adam in a process of its own, on batches of 1 to 32 samples: the CNN of `mtorch.models` on images
of 28 x 28, one on images of every size from 8 to 40, one on signals of 64 to 4,095 samples, and a two-layer LSTM on
sequences of 1 to 40 steps, also with lengths. Sizes repeat rarely, so that whatever is kept for each size would add up.
The resident memory at each tenth of the rest is compared with what it was after the first 1,000 steps: it may not grow
by more than 2 MB. The exit code is 1 if it does.

It reads /proc/self/statm, which Linux has.
"""

import argparse
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy  # noqa: E402

import mtorch  # noqa: E402
from mtorch import layers, models  # noqa: E402

ALLOWED = 2.0  # MB
SETTLED = 1000  # steps after which memory may not grow
STEPS = 20_000
Draw = Callable[[numpy.random.Generator], Any]


def cnn() -> tuple[Any, Draw]:
    net = models.cnn(channels=4, rng=0)
    return net, lambda rng: rng.standard_normal((rng.integers(1, 33), 784), dtype="float32")


def sizes() -> tuple[Any, Draw]:
    nn = layers.on(rng=0)
    net = mtorch.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.GELU(), nn.AvgPool2d(2, ceil_mode=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.1), nn.Linear(4, 10),
    )  # fmt: skip
    return net, lambda rng: rng.standard_normal((rng.integers(2, 17), 1, *rng.integers(8, 41, 2)), dtype="float32")


def signals() -> tuple[Any, Draw]:
    nn = layers.on(rng=0)
    net = mtorch.Sequential(
        nn.Conv1d(1, 2, 9, padding=4), nn.ReLU(), nn.MaxPool1d(4), nn.Conv1d(2, 2, 5, stride=2), nn.BatchNorm1d(2),
        nn.Tanh(), nn.AvgPool1d(3), nn.Mean(axis=2), nn.Linear(2, 10),
    )  # fmt: skip
    return net, lambda rng: rng.standard_normal((2, 1, rng.integers(64, 4096)), dtype="float32")


def lstm() -> tuple[Any, Draw]:
    nn = layers.on(rng=0)
    net = mtorch.Sequential(
        nn.LSTM(8, 16, num_layers=2, dropout=0.1), nn.LayerNorm(16), nn.Max(axis=0), nn.Linear(16, 10)
    )

    def draw(rng: numpy.random.Generator) -> Any:
        steps, batch = int(rng.integers(1, 41)), int(rng.integers(1, 33))
        x = rng.standard_normal((steps, batch, 8), dtype="float32")
        return (None, x, rng.integers(1, steps + 1, batch)) if rng.integers(2) else x

    return net, draw


NETS = {"cnn": cnn, "sizes": sizes, "signals": signals, "lstm": lstm}


def resident() -> float:
    """The resident memory of this process in MB."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measured(name: str, steps: int, settled: int) -> list[float]:
    """The resident memory after the step `settled`, and at ten moments from there to the last step."""
    net, draw = NETS[name]()
    module = mtorch.Module(net)
    loss_func, optimizer = mtorch.CrossEntropyLoss(module), mtorch.Adam(module, 1e-3)
    rng, found = numpy.random.default_rng(1), []
    for step in range(1, steps + 1):
        prediction = module(draw(rng))
        loss_func(prediction, rng.integers(0, 10, len(prediction))).backward()
        optimizer.step()
        if step % 10 == 0:
            module.predict(draw(rng))
        if step >= settled and (step - settled) % max(1, (steps - settled) // 10) == 0:
            found.append(resident())
    return found


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS))
    parser.add_argument("--measure", choices=NETS, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if not os.path.exists("/proc/self/statm"):
        print("left out: this system has no /proc/self/statm")
        return 0
    settled = max(1, min(SETTLED, args.steps // 2))
    if args.measure:
        print(*(f"{size:.3f}" for size in measured(args.measure, args.steps, settled)))
        return 0
    failed = 0
    for name in args.nets:
        command = [sys.executable, __file__, "--steps", str(args.steps), "--measure", name]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            print(done.stderr)
            return 2
        first, *later = map(float, done.stdout.split())
        grown = max(later) - first
        failed += grown > ALLOWED
        print(f"{name}: {args.steps:,} steps, {first:.1f} MB after {settled:,}, then up to {grown:+.2f} MB", flush=True)
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
