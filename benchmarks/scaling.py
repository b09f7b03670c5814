"""What it costs to divide a training step among machines, on paper: writes the table of docs/ranks.md.

    python -m benchmarks.scaling --write

Bytes and messages are counted by a communicator that stands in for the other ranks. The time of a step is measured
here, in one process; what a network adds is computed for 10 Gb/s and 50 microseconds a message:

    all-reduce of B bytes among R ranks: 2 (R - 1) / R * B / bandwidth + 2 (R - 1) * latency (in a ring)
    a gather of B bytes, or a small message to all: (R - 1) / R * B / bandwidth + (R - 1) * latency

It pays from the batch on at which a step of R ranks, N t / R + network, is shorter than N t, with t the time of a
sample.
"""

import re
import statistics
import sys
import time
from pathlib import Path

import numpy

from apps.mnist.recipes import RECIPES
from mtorch import SGD, CrossEntropyLoss, DataParallel, Module

PAGE = Path(__file__).parents[1] / "docs" / "ranks.md"
BANDWIDTH, LATENCY, RANKS = 10e9 / 8, 50e-6, 4


class Counting:
    """Rank 0 of R ranks that say what it says; it counts bytes and messages."""

    rank, local_size = 0, 1

    def __init__(self, size: int):
        self.size, self.small, self.added, self.gathered, self.sums, self.gathers = size, 0, 0, 0, 0, 0

    def exchange(self, error, item):
        self.small += 1
        return [(error, item)] * self.size

    def allreduce(self, flat):
        self.added += flat.nbytes
        self.sums += 1

    def allgather(self, flat, sizes):
        self.gathered += sum(sizes) * flat.itemsize
        self.gathers += 1
        return [numpy.zeros(size, flat.dtype) for size in sizes]

    def broadcast(self, flat):
        pass


def step_of(net, batch: int):
    module = Module(net)
    loss_func, optimizer = CrossEntropyLoss(module), SGD(module, lr=1e-3)
    rng = numpy.random.default_rng(0)
    x, labels = rng.standard_normal((batch, 784)).astype("float32"), rng.integers(0, 10, batch)

    def step():
        loss_func(module(x), labels).backward()
        optimizer.step()

    return step


def measured(step) -> float:
    """Seconds of a step: the median of eleven medians of some steps each."""
    for _ in range(3):
        step()
    times = []
    for _ in range(11):
        few = []
        for _ in range(5):
            start = time.perf_counter()
            step()
            few.append(time.perf_counter() - start)
        times.append(statistics.median(few))
    return statistics.median(times)


def row(name: str) -> str:
    batch, build = RECIPES[name].batch_size, RECIPES[name].build
    batch_for_counting = batch // RANKS * RANKS
    comm = Counting(RANKS)
    step = step_of(DataParallel(build(rng=0), comm=comm), batch_for_counting)
    step()
    comm.small = comm.added = comm.gathered = comm.sums = comm.gathers = 0
    step()
    passed = 2 * (RANKS - 1) / RANKS * comm.added + (RANKS - 1) / RANKS * comm.gathered
    waits = 2 * (RANKS - 1) * comm.sums + (RANKS - 1) * (comm.gathers + comm.small)
    network = passed / BANDWIDTH + waits * LATENCY
    seconds = measured(step_of(build(rng=0), batch))
    pays = network / (seconds / batch * (1 - 1 / RANKS))
    messages = comm.sums + comm.gathers + comm.small
    return (
        f"| `{name}` | {batch} | {comm.added / 1e6:.2f} MB | {comm.gathered / 1e3:.1f} kB | {messages} "
        f"| {seconds * 1e3:.2f} ms | {network * 1e3:.2f} ms | {max(RANKS, round(pays)):,} |"
    )


def main() -> None:
    lines = [
        "| model | batch | gradients added | results gathered | messages | a step alone | network | pays from batch |",
        "|---|---|---|---|---|---|---|---|",
        *(row(name) for name in RECIPES),
    ]
    print("\n".join(lines))
    if "--write" in sys.argv:
        text = PAGE.read_text()
        table = "<!-- table: written by benchmarks/scaling.py -->\n" + "\n".join(lines) + "\n<!-- end of table -->"
        PAGE.write_text(re.sub(r"<!-- table.*?end of table -->", lambda _: table, text, flags=re.S))


if __name__ == "__main__":
    main()
