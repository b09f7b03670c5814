"""One library's process: answers one JSON line for each JSON line it reads, and sleeps in between.

`python -m benchmarks.worker LIBRARY` knows `{"do": "time", "workload": name, "steps": n}` (n may be null: as many as
fit into "seconds"), `{"do": "losses", …}` and `{"do": "memory", …}`. Each request builds the workload afresh, so that
all turns start from the same values and nothing that one of them leaves burdens the next.
"""

import gc
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

from .machine import memory_kb, versions
from .workloads import WORKLOADS

PACKAGES = {"torch": "torch", "numpy": "numpy", "jax": "jax", "sklearn": "scikit-learn", "pydynet": "pydynet"}


class Missing(Exception):
    """The library, or the layer, that a side needs is not there."""


def build(name: str, side: str) -> Callable[[], object]:
    try:
        return WORKLOADS[name].sides[side]()
    except ImportError as error:
        package = (error.name or "").partition(".")[0]
        if package == "mtorch":
            raise Missing(str(error)) from error
        if package in PACKAGES:
            raise Missing(f"{PACKAGES[package]} is not installed: pip install {PACKAGES[package]}") from error
        raise
    except AttributeError as error:
        if getattr(error.obj, "__name__", "").startswith("mtorch"):
            raise Missing(f"{error.obj.__name__} has no {error.name} yet") from error
        raise


def timed(step: Callable[[], object], steps: int | None, seconds: float, settle: float = 0.0) -> tuple[int, float]:
    """Seconds a step over `steps` steps, after a warm-up of at least three steps, a tenth of the time and `settle`."""
    count, start = 0, time.perf_counter()
    while count < 3 or time.perf_counter() - start < max(0.1 * seconds, settle):
        step()
        count += 1
    if steps is None:
        start = time.perf_counter()
        step()
        steps = max(1, round(seconds / (time.perf_counter() - start)))
    start = time.perf_counter()
    for _ in range(steps):
        step()
    return steps, (time.perf_counter() - start) / steps


def answer(side: str, do: str, workload: str = "", steps: int | None = None, seconds: float = 0.2) -> dict:
    if do == "versions":
        return {"versions": versions(side)}
    if do == "memory":
        build("digit", side)()  # imports the library
        before = memory_kb("VmRSS")
        step = build(workload, side)
        for _ in range(steps or 5):
            step()
        return {"growth_kb": memory_kb("VmHWM") - before, "peak_kb": memory_kb("VmHWM")}
    step = build(workload, side)
    if do == "losses":
        import numpy as np

        return {"losses": [np.asarray(step(), dtype=float).tolist() for _ in range(steps or 4)]}
    steps, each = timed(step, steps, seconds, WORKLOADS[workload].settle)
    return {"steps": steps, "seconds": each}


def main() -> None:
    side = sys.argv[1]
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever a library prints goes to stderr
    warnings.filterwarnings("ignore", "Cupy is not installed")  # by PyDyNet
    for line in sys.stdin:
        try:
            reply = answer(**{"side": side} | json.loads(line))
        except Missing as error:
            reply = {"missing": str(error)}
        except Exception as error:  # one broken workload must not end the table
            reply = {"error": f"{type(error).__name__}: {error}"}
        gc.collect()
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):  # Ctrl-C reaches all processes: the first one says so
        main()
