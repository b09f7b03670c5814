"""Measurements that need a fresh process each time: cold start and peak memory."""

import statistics
import subprocess
import sys
import time

from .machine import measuring_environment
from .rounds import ROOT, Worker
from .workloads import WORKLOADS

ONE_STEP = """
from benchmarks.workloads.{module} import {function} as build
build()()
"""
START = {"ours": ("digit_net", "ours"), "torch": ("digit_net", "pytorch"), "numpy": ("digit_net", "by_hand")}


def seconds_of(code: str) -> float | None:
    # as after an installation: byte code is kept, as it is for the packages that this is compared with
    environment = {key: value for key, value in measuring_environment().items() if key != "PYTHONDONTWRITEBYTECODE"}
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, env=environment)
    return time.perf_counter() - start if done.returncode == 0 else None


def medians(codes: dict[str, str], rounds: int) -> dict[str, float | None]:
    """Each code in its own process, in turns; the first turn fills the disk cache and does not count."""
    times: dict[str, list[float | None]] = {key: [] for key in codes}
    for _ in range(rounds + 1):
        for key, code in codes.items():
            times[key].append(seconds_of(code))
    return {key: None if None in line else statistics.median(line[1:]) for key, line in times.items()}


def cold_start(rounds: int = 7) -> dict[str, dict[str, float | None]]:
    """Seconds from nothing to the end of the digit net's first step, and of the imports alone.

    Both include the start of the interpreter, which is given by itself as "python".
    """
    steps = {side: ONE_STEP.format(module=m, function=f) for side, (m, f) in START.items()}
    imports = {"ours": "import mtorch", "torch": "import torch", "numpy": "import numpy"}
    return {
        "import and one step": medians({"python": ""} | steps, rounds),
        "import": medians({"python": ""} | imports, rounds),
    }


def peak_memory(name: str = "cnn", rounds: int = 3) -> dict[str, dict]:
    """Peak of five steps over the memory after import, and of the whole process, in MiB."""
    found = {}
    for side in (side for side in START if side in WORKLOADS[name].sides):
        replies = []
        for _ in range(rounds):
            worker = Worker(side)
            replies.append(worker.ask(do="memory", workload=name))
            worker.close()
        if all("growth_kb" in reply for reply in replies):
            found[side] = {
                key: statistics.median(reply[f"{key}_kb"] for reply in replies) / 1024 for key in ("growth", "peak")
            }
    return found
