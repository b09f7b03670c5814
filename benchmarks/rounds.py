"""Long-lived workers, one for each library, that take turns: A B C, B C A, … until each has had its rounds."""

import json
import math
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from .machine import busy_seconds, measuring_environment, process_seconds
from .workloads import FLOORS, OTHERS, PARTS, SIDES, WORKLOADS

ROOT = Path(__file__).resolve().parent.parent
QUIET = 0.05  # a turn counts as undisturbed when other processes had less than this share of the machine


class Worker:
    """The process of one side, in an environment with these changes, in that folder."""

    def __init__(self, side: str, changes: Mapping[str, str] | None = None, *command: str, folder: Path = ROOT) -> None:
        self.side = side
        self.process = subprocess.Popen(
            [sys.executable, "-m", *(command or ["benchmarks.worker"]), side],
            cwd=folder,
            text=True,
            env=measuring_environment(**changes or {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def ask(self, **request) -> dict:
        try:
            print(json.dumps(request), file=self.process.stdin, flush=True)
            line = self.process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            return {"error": f"the {self.side} process ended with code {self.process.wait()}"}
        return json.loads(line)

    def settle(self) -> None:
        """Wait until threads that spin after a parallel region have gone to sleep."""
        for _ in range(50):
            before = process_seconds(self.process.pid)
            time.sleep(0.02)
            if process_seconds(self.process.pid) - before < 0.0005:
                return

    def close(self) -> None:
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


@dataclass
class Row:
    """The seconds of a step of one workload, for each side a list of rounds."""

    name: str
    times: dict[str, list[float]] = field(default_factory=dict)
    disturbed: dict[str, list[float]] = field(default_factory=dict)  # share of the machine that others had
    notes: dict[str, str] = field(default_factory=dict)  # side -> why there is no time

    def time(self, side: str) -> float | None:
        """The first quartile of the rounds: other programs, also on the same host, make a turn longer, not shorter."""
        return first_quartile(self.times[side]) if self.times.get(side) else None

    def spread(self, side: str) -> float:
        """Half the range between the quartiles as a share of the first one."""
        low, _, high = self.quartiles(side)
        return (high - low) / 2 / low

    def quartiles(self, side: str) -> list[float]:
        return quartiles(self.times[side])

    def out_of_reach(self, side: str, goal: float) -> bool:
        """Whether NumPy's products and passes alone take longer than that side's time times the goal."""
        floor = sum(self.time(each) or 0.0 for each in FLOORS)
        return floor > goal * (self.time(side) or math.inf)

    def ratio(self, side: str) -> float | None:
        mine, other = self.time("ours"), self.time(side)
        return mine / other if mine and other else None

    def differences(self) -> dict[str, str]:
        """What the sides that have a time compute instead, by side."""
        return {side: text for side, text in WORKLOADS[self.name].differs.items() if self.time(side)}

    def fastest_other(self) -> str | None:
        """The quickest of the libraries that a user would pick instead."""
        found = [side for side in OTHERS if self.time(side)]
        return min(found, key=self.time) if found else None


def quartiles(times: list[float]) -> list[float]:
    return statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else 3 * times


def first_quartile(times: list[float]) -> float:
    return quartiles(times)[0]


class Bench:
    """The processes of all sides, and the turns that they take."""

    def __init__(self, rounds: int = 9, seconds: float = 0.2, retries: int = 3) -> None:
        self.rounds, self.seconds, self.retries = rounds, seconds, retries
        self.loud = 0  # turns in a row that others disturbed
        self.company: list[int] = []  # processes of ours that are to compute beside a turn, and do not disturb it
        self.workers = self.start()

    def start(self) -> dict[str, Worker]:
        return {side: Worker(side) for side in SIDES if side not in PARTS}

    def __enter__(self) -> "Bench":
        return self

    def __exit__(self, *_) -> None:
        for worker in self.workers.values():
            worker.close()

    def versions(self) -> dict[str, dict]:
        return {side: worker.ask(do="versions").get("versions", {}) for side, worker in self.workers.items()}

    def worker(self, side: str) -> Worker:
        """The process of that side; the parts of a step are NumPy's."""
        return self.workers["numpy" if side in PARTS else side]

    def losses(self, name: str, steps: int = 4) -> dict[str, dict]:
        return {
            side: self.worker(side).ask(do="losses", workload=name, steps=steps)
            for side in WORKLOADS[name].sides
            if side not in PARTS
        }

    def row(self, name: str, sides: Iterable[str] = SIDES) -> Row:
        row = Row(name)
        steps = self.calibrate(row, (side for side in sides if side in WORKLOADS[name].sides))
        row.times, row.disturbed = {side: [] for side in steps}, {side: [] for side in steps}
        for side in self.turns(steps):
            if side not in row.notes:
                self.add_turn(row, side, steps[side])
        return row

    def turns(self, sides: Iterable[str]) -> Iterator[str]:
        """All sides in each round, and another one first in the next."""
        order = list(sides)
        for _ in range(self.rounds):
            yield from order
            order = order[1:] + order[:1]

    def calibrate(self, row: Row, sides: Iterable[str]) -> dict[str, int]:
        """How many steps fill a turn of each side; a note for every side that cannot make one."""
        steps = {}
        for side in sides:
            reply = self.request(side, row.name, None)
            self.worker(side).settle()
            if "steps" in reply:
                steps[side] = reply["steps"]
            else:
                row.notes[side] = reply.get("missing") or reply["error"]
        return steps

    def request(self, side: str, name: str, steps: int | None) -> dict:
        worker = self.worker(side)
        asked = side if side in PARTS else worker.side  # several workers may be of one side
        return worker.ask(do="time", side=asked, workload=name, steps=steps, seconds=self.seconds)

    def add_turn(self, row: Row, side: str, steps: int, key: str = "") -> None:
        """One turn for the row, under the name of the side or another key; a side that fails leaves a note instead."""
        key = key or side
        try:
            each, others = self.turn(side, row.name, steps)
        except RuntimeError as error:
            row.notes[side] = str(error)
            del row.times[key], row.disturbed[key]
            return
        row.times[key].append(each)
        row.disturbed[key].append(others)

    def turn(self, side: str, name: str, steps: int) -> tuple[float, float]:
        """Seconds of a step, and the share that others had. A disturbed turn is repeated; the least disturbed counts.

        After ten turns for which no repeat helped the machine is taken as it is, until it is quiet again.
        """
        tries = []
        for _ in range(1 + (self.retries if self.loud < 10 else 0)):
            tries.append(self.watched(side, name, steps))
            if tries[-1][1] < QUIET:
                break
        each, others = min(tries, key=lambda seconds_and_others: seconds_and_others[1])
        self.loud = 0 if others < QUIET else self.loud + 1
        return each, others

    def watched(self, side: str, name: str, steps: int) -> tuple[float, float]:
        """Seconds of a step, and the share of the machine that others had during the turn."""
        pids, start = [self.worker(side).process.pid, *self.company], time.perf_counter()
        mine, busy = sum(map(process_seconds, pids)), busy_seconds()
        reply = self.request(side, name, steps)
        mine, busy = sum(map(process_seconds, pids)) - mine, busy_seconds() - busy
        wall = time.perf_counter() - start
        self.worker(side).settle()
        if "seconds" not in reply:
            raise RuntimeError(reply.get("missing") or reply.get("error") or str(reply))
        return reply["seconds"], max(0.0, busy - mine) / (wall * (os.cpu_count() or 1))
