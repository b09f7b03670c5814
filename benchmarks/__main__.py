"""`python -m benchmarks`: step times of ours, PyTorch, hand-written NumPy, and of what a user would pick instead."""

import argparse
import datetime
import json
import os
import sys
from importlib.util import find_spec
from pathlib import Path

from . import busy, fresh, lenet_to_99, report
from .commands import run
from .machine import describe
from .results import Results
from .rounds import Bench, Row
from .workloads import PARTS, SCALING, TABLE, WORKLOADS, matching, unknown

HERE = Path(__file__).resolve().parent
IMAGES = HERE.parent / "docs" / "images"
ROWS = [workload.name for workload in TABLE]
EXTRAS = ("busy", "cold-start", "memory", "scaling", "lenet-to-99")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "--only",
        metavar="PATTERN",
        action="append",
        help=f"names of rows (shell pattern, repeatable), or of {', '.join(EXTRAS)}",
    )
    parser.add_argument("--rounds", type=int, default=9, metavar="N", help="turns of each library (default 9)")
    parser.add_argument("--retries", type=int, default=3, metavar="N", help="repeats of a disturbed turn (default 3)")
    parser.add_argument("--quick", action="store_true", help="3 short rounds, and no extras but those of --only")
    parser.add_argument(
        "--data",
        default=os.environ.get("MTORCH_DATA"),
        metavar="DIR",
        help="the folder with MNIST's four files, for lenet-to-99 (default: MTORCH_DATA)",
    )
    parser.add_argument("--check", action="store_true", help="compare the losses of the first steps, time nothing")
    parser.add_argument("--list", action="store_true", help="the names that --only knows")
    parser.add_argument("--json", metavar="FILE", help="results for machines")
    parser.add_argument("--figure", metavar="FILE", help="results as a picture, with the scaling (needs matplotlib)")
    parser.add_argument(
        "--write",
        action="store_true",
        help="benchmarks/RESULTS.md, results.json and results.png, docs/images/speed.png",
    )
    parser.add_argument("--redraw", action="store_true", help="the same from the times in results.json")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    wanted = options.only or ["*"]
    names, extras = matching(wanted, ROWS), matching(wanted, EXTRAS)
    if options.list:
        print("\n".join([*ROWS, *EXTRAS]))
        return 0
    if reason := obstacle(options):
        print(reason, file=sys.stderr)
        return 2
    if options.redraw:
        write(Results.from_dict(json.loads((HERE / "results.json").read_text())))
        return 0
    if options.check:
        return check(names)
    if options.quick:
        options.rounds, options.retries = 3, 0
    if options.quick and not options.only:
        extras = []
    elif not options.only and not (options.figure or options.write or options.json):
        extras = ["cold-start", "memory"]

    with Bench(options.rounds, 0.05 if options.quick else 0.2, options.retries) as bench:
        machine = {"machine": describe(), "versions": bench.versions()}
        print("\n".join(report.machine_lines(machine)), end="\n\n")
        show = report.RowPrinter(names)
        rows = [show(progress(bench, name)) for name in names]
        scaling = (
            {axis: [(size, progress(bench, w.name)) for size, w in line] for axis, line in SCALING.items()}
            if "scaling" in extras
            else {}
        )
    results = Results(datetime.date.today().isoformat(), machine, rows, scaling)
    if "busy" in extras:
        with busy.Busy(options.rounds, bench.seconds, options.retries) as beside:
            results.busy = [progress(beside, name) for name in busy.NAMES if not names or name in names]
    if "cold-start" in extras:
        results.more["cold_start"] = fresh.cold_start()
    if "memory" in extras:
        results.more["memory"] = fresh.peak_memory()
    keep(results, options)
    if "lenet-to-99" in extras:
        results.more |= race(options.data)
        keep(results, options)
    print("\n" + report.remainder(results))
    return 0


def keep(results: Results, options: argparse.Namespace) -> None:
    """Writes what there is so far."""
    if options.json:
        Path(options.json).write_text(results.as_json())
    if options.figure:
        from .figure import overview

        overview(options.figure, results)
    if options.write:
        write(results)


def obstacle(options: argparse.Namespace) -> str | None:
    """Why the options cannot be followed: it is said before anything is measured."""
    if found := unknown(options.only or [], [*ROWS, *EXTRAS]):
        return f"nothing is called {', '.join(found)}; --list shows the names"
    rows = matching(options.only or [], ROWS)
    if "busy" in (options.only or []) and rows and not set(rows) & set(busy.NAMES):
        return f"beside a busy process there is no row {', '.join(rows)}, but {', '.join(busy.NAMES)}"
    if options.rounds < 1:
        return "--rounds must be at least 1"
    for path in filter(None, (options.json, options.figure)):
        if Path(path).is_dir() or not Path(path).resolve().parent.is_dir():
            return f"{path} cannot be written: it is a folder, or its folder does not exist"
    if options.redraw and not (HERE / "results.json").exists():
        return f"{HERE / 'results.json'} does not exist; --write makes it"
    if (options.figure or options.write or options.redraw) and not find_spec("matplotlib"):
        return "pictures need matplotlib, which is not installed: pip install matplotlib"
    return None


def write(results: Results) -> None:
    """RESULTS.md, results.json and both pictures."""
    from .figure import overview, side_by_side

    report.write(results, HERE)
    overview(str(HERE / "results.png"), results)
    side_by_side(str(IMAGES / "speed.png"), results)


def race(data: str | None) -> dict:
    if not data:
        print("\nlenet-to-99 is left out: name MNIST's folder with --data")
        return {}
    print("\nLeNet-5 from the start of the process to 99 % of MNIST's test digits")
    try:
        return {"lenet_to_99": lenet_to_99.summary(lenet_to_99.compare(str(Path(data).resolve())))}
    except (NotImplementedError, RuntimeError) as error:
        print(error)
        return {}


def progress(bench: Bench, name: str) -> Row:
    if sys.stderr.isatty():
        print(f"\r{name:<40}", end="", file=sys.stderr, flush=True)
    row = bench.row(name)
    if sys.stderr.isatty():
        print("\r" + " " * 40 + "\r", end="", file=sys.stderr, flush=True)
    return row


def check(names: list[str], tolerance: float = 2e-4) -> int:
    """The loss before each of the first four updates must be the same for all sides."""
    import numpy as np

    wrong = 0
    with Bench() as bench:
        for name in names:
            replies = bench.losses(name)
            found = {side: np.asarray(reply["losses"]) for side, reply in replies.items() if "losses" in reply}
            first = next(iter(found.values()), None)
            errors = {side: float(np.max(np.abs(v - first) / (1e-3 + np.abs(first)))) for side, v in found.items()}
            equal = WORKLOADS[name].equal
            differs = WORKLOADS[name].differs
            bad = [s for s, error in errors.items() if equal and s not in differs and not error <= tolerance]
            verdict = f"differs: {', '.join(bad)}" if bad else "equal" if equal else "may differ"
            absent = [side for side in WORKLOADS[name].sides if side not in (*found, *PARTS)]
            broken = [f"{side}: {reply['error']}" for side, reply in replies.items() if "error" in reply]
            wrong += bool(bad or broken)
            print(
                f"{name:<20} {verdict:<10} "
                + " ".join(f"{s} {error:.0e}" + " (another step)" * (s in differs) for s, error in errors.items())
                + (f"  missing: {', '.join(absent)}" if absent else "")
                + "".join(f"  {b}" for b in broken)
            )
    return 1 if wrong else 0


if __name__ == "__main__":
    run(main)
