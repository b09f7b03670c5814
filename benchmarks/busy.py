"""Step times beside a busy process: ours and PyTorch's, with the default number of threads and with one, alone and
beside a loop that keeps one core busy.

Each library has two processes, and all four take turns, in some rounds alone and then in as many beside the loop. The
ratio to the better number of threads says what a library loses because it does not know that a core is busy. Rows of
`DataParallel` are left out: it starts as many processes however many threads each of them has.
"""

import subprocess
import sys

from .rounds import Bench, Row, Worker
from .workloads import TABLE

GOAL = 1.15  # of our ratio to the better number of threads
SIDES = ("ours", "torch")
PLACES = ("alone", "beside")
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
NAMES = [
    w.name
    for w in TABLE
    if w.name != "mlp-adam-fused" and not w.name.startswith("predict-") and not w.name.endswith("-parallel")
]
LOOP = """
import os
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    for _ in range(1_000_000): pass
"""


class Loop:
    """A process that computes all the time, on the last of our cores where the system allows the choice.

    It ends with its parent, however that ends.
    """

    def __enter__(self) -> subprocess.Popen:
        self.process = subprocess.Popen([sys.executable, "-c", LOOP], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.process.stdout.readline()
        return self.process

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()


class Busy(Bench):
    """Four processes: each library with its default number of threads, and with one."""

    def start(self) -> dict[str, Worker]:
        found = {side: Worker(side) for side in SIDES}
        return found | {f"{side} one thread": Worker(side, ONE_THREAD) for side in SIDES}

    def row(self, name: str) -> Row:
        """Times by worker and place: "ours alone", "ours one thread beside", …"""
        row = Row(name)
        steps = self.calibrate(row, self.workers)
        keys = [f"{key} {place}" for place in PLACES for key in steps]
        row.times, row.disturbed = {key: [] for key in keys}, {key: [] for key in keys}

        def rounds(place: str) -> None:
            for key in self.turns(steps):
                if key not in row.notes:
                    self.add_turn(row, key, steps[key], f"{key} {place}")

        rounds("alone")
        with Loop() as loop:
            self.company = [loop.pid]
            rounds("beside")
        self.company = []
        return row


def ratio_to_better(row: Row, side: str, place: str) -> float | None:
    """The time with the default number of threads over the shorter of that and the time with one, in that place."""
    times = [row.time(f"{key} {place}") for key in (side, f"{side} one thread")]
    return None if None in times else times[0] / min(times)
