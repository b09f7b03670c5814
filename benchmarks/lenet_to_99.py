"""Seconds from the start of the process to 99 % on MNIST's test digits: `python -m apps.mnist --model lenet`, alone
and with `--workers` for all cores, beside a PyTorch script of the same net, initial values, data order and optimizer.

`python -m benchmarks.lenet_to_99 --data DIR [--seeds 3] [--epochs 20] [--goal 0.99] [--json FILE]`; both run to the
end of the first epoch that reaches the goal, one after the other. The last bits of their sums differ, so their paths
part after some hundred steps: look at the seconds an epoch as well.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from .commands import run
from .machine import measuring_environment
from .rounds import ROOT

SIDES = ("ours", "workers", "torch")
LINE = re.compile(r"epoch +(\d+) .*test loss [\d.]+, accuracy ([\d.]+)%")


def start_of(seed: int, data: str, epochs: int, path: Path) -> None:
    """Writes what the app begins with for this seed, and the order of its batches, for the other side."""
    from apps.mnist.__main__ import parser
    from apps.mnist.recipes import RECIPES
    from apps.mnist.train import Run
    from mtorch.training import RunFolder

    if "lenet" not in RECIPES:
        raise NotImplementedError("apps.mnist has no model lenet yet")
    arguments = ["train", "--model", "lenet", "--seed", str(seed), "--data", data]
    run = Run.of(parser().parse_args(arguments), RunFolder(path.parent))
    values, batches = list(run.trainer.module.state_dict().values()), run.trainer.batches.loader
    size, rng = len(batches.dataset), batches.rng
    orders = [np.random.default_rng(int(rng.integers(2**63))).permutation(size) for _ in range(epochs)]
    settings = {key: run.settings[key] for key in ("optimizer", "lr", "gamma", "batch_size", "loss")}
    np.savez(
        path,
        settings=json.dumps(settings),
        orders=np.array(orders, np.int32),
        **{f"value{i:03}": value for i, value in enumerate(values)},
    )


def race(command: list[str], goal: float) -> dict:
    """Runs the command until a line reports the goal; seconds, epochs and accuracies from its output."""
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE, env=measuring_environment())
    accuracies, moments = [], []
    for line in process.stdout:
        if found := LINE.match(line):
            accuracies.append(float(found[2]) / 100)
            moments.append(time.perf_counter() - start)
            if accuracies[-1] >= goal:
                break
    process.terminate()
    process.stdout.close()
    code = process.wait()
    if not moments:
        raise RuntimeError(f"{' '.join(command)} ended with code {code} before its first epoch")
    return {
        "seconds": moments[-1] if accuracies[-1] >= goal else None,
        "epochs": len(moments),
        "seconds_an_epoch": moments[-1] / len(moments),
        "accuracies": accuracies,
    }


def torch_side(start: str, data: str) -> None:
    """The PyTorch script. Reads the same files, standardises each image as the app does, tests after each epoch."""
    import gzip

    import torch
    from torch import nn

    from .workloads.images import torch_lenet

    def idx(name: str, header: int) -> np.ndarray:
        folder = Path(data) / "mnist" if (Path(data) / "mnist").is_dir() else Path(data)
        packed = folder / f"{name}.gz"
        raw = gzip.decompress(packed.read_bytes()) if packed.exists() else (folder / name).read_bytes()
        return np.frombuffer(raw, np.uint8, offset=header)

    def images(name: str) -> torch.Tensor:
        x = idx(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784).astype(np.float32)
        x -= x.mean(axis=1, keepdims=True)
        x /= x.std(axis=1, keepdims=True)
        return torch.from_numpy(x)

    def classes(name: str) -> torch.Tensor:
        return torch.from_numpy(idx(f"{name}-labels-idx1-ubyte", 8).astype(np.int64))

    given = np.load(start)
    settings = json.loads(str(given["settings"]))
    net = torch_lenet()
    keys = sorted(key for key in given.files if key.startswith("value"))
    with torch.no_grad():
        for parameter, key in zip(net.parameters(), keys, strict=True):
            parameter.copy_(torch.from_numpy(given[key]))
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}[settings["optimizer"]]
    optimizer, size = kind(net.parameters(), lr=settings["lr"]), settings["batch_size"]
    falling = torch.optim.lr_scheduler.StepLR(optimizer, 1, settings["gamma"])
    if settings["loss"] != "cross_entropy":
        raise ValueError(f"expected the loss cross_entropy, got {settings['loss']}")
    x, y, test_x, test_y = images("train"), classes("train"), images("t10k"), classes("t10k")

    for epoch, order in enumerate(given["orders"], 1):
        total, right = 0.0, 0
        net.train()
        for rows in torch.from_numpy(order.astype(np.int64)).split(size):
            batch, labels = x[rows], y[rows]
            optimizer.zero_grad()
            scores = net(batch)
            loss = nn.functional.cross_entropy(scores, labels)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(rows)
            right += (scores.argmax(dim=1) == labels).sum().item()
        falling.step()
        net.eval()
        with torch.inference_mode():
            scores = torch.cat([net(part) for part in test_x.split(500)])
            test_loss = nn.functional.cross_entropy(scores, test_y).item()
            hits = (scores.argmax(dim=1) == test_y).float().mean().item()
        print(
            f"epoch {epoch:>3}   train loss {total / len(y):.4f}, accuracy {right / len(y):.2%}   "
            f"test loss {test_loss:.4f}, accuracy {hits:.2%}",
            flush=True,
        )


def compare(data: str, seeds: int = 3, epochs: int = 20, goal: float = 0.99) -> list[dict]:
    """One race of all sides for each seed."""
    from mtorch.parallel.system import cpu_count as cores

    results = []
    for seed in range(seeds):
        with tempfile.TemporaryDirectory() as folder:
            start = Path(folder) / "start.npz"
            start_of(seed, data, epochs, start)
            app = [
                sys.executable,
                "-u",
                "-m",
                "apps.mnist",
                "train",
                "--model",
                "lenet",
                "--data",
                data,
                "--epochs",
                str(epochs),
                "--seed",
                str(seed),
                "--out",
                str(Path(folder) / "run"),
            ]
            workers = [*app[:-1], str(Path(folder) / "workers"), "--workers", str(cores())]
            torch = [sys.executable, "-u", "-m", "benchmarks.lenet_to_99", "--torch", str(start), "--data", data]
            for side, command in (("ours", app), ("workers", workers), ("torch", torch)):
                result = {"seed": seed, "side": side, **race(command, goal)}
                reached = "not reached" if result["seconds"] is None else f"{result['seconds']:.1f} s"
                print(
                    f"seed {seed} {side:<7} {reached} after {result['epochs']} epochs, "
                    f"{result['seconds_an_epoch']:.2f} s an epoch, best {max(result['accuracies']):.2%}",
                    flush=True,
                )
                results.append(result)
    return results


def summary(results: list[dict]) -> dict[str, dict[str, float | None]]:
    """Medians by side: seconds to the goal (None when it was missed) and seconds an epoch."""
    found = {}
    for side in SIDES:
        mine = [r for r in results if r["side"] == side]
        seconds = [r["seconds"] for r in mine]
        found[side] = {
            "seconds": None if None in seconds else statistics.median(seconds),
            "seconds_an_epoch": statistics.median(r["seconds_an_epoch"] for r in mine),
        }
    return found


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lenet_to_99", description=__doc__.partition("\n\n")[0])
    parser.add_argument("--data", required=True, metavar="DIR", help="the folder with MNIST's four files")
    parser.add_argument("--seeds", type=int, default=3, metavar="N")
    parser.add_argument("--epochs", type=int, default=20, metavar="N", help="give up after so many")
    parser.add_argument("--goal", type=float, default=0.99, metavar="SHARE")
    parser.add_argument("--json", metavar="FILE")
    parser.add_argument("--torch", metavar="START", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.data = str(Path(options.data).resolve())
    if options.torch:
        torch_side(options.torch, options.data)
        return 0
    results = compare(options.data, options.seeds, options.epochs, options.goal)
    found = summary(results)
    for side, line in found.items():
        reached = "not reached by every seed" if line["seconds"] is None else f"{line['seconds']:.1f} s"
        print(f"{side:<7} {options.goal:.0%}: {reached}; {line['seconds_an_epoch']:.2f} s an epoch")
    if options.json:
        Path(options.json).write_text(json.dumps({"summary": found, "runs": results}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    run(main)
