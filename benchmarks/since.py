"""`python -m benchmarks.since COMMIT`: our step times now, against those of a commit of this clone.

Two processes of the same code can differ by 5 % for as long as they live. So each time is that of a fresh process, and
the two versions make pairs, in changing order. The `mtorch` of the commit runs in the benchmark of now. A row's ratio,
now over then, is the median over the pairs; the true one is in the range behind it with 95 % confidence.

`--write` puts the table into RESULTS.md; `python -m benchmarks --write`, which measures all else, leaves it out again.
"""

import argparse
import datetime
import json
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

from . import report
from .commands import mistake, run
from .pairs import LEAST, Pairs
from .results import Results
from .rounds import ROOT, Worker, first_quartile
from .workloads import TABLE, matching, unknown

TURNS, SECONDS = 5, 0.2  # turns of each process and their length; the first quartile of its turns counts
ROWS = [w.name for w in TABLE if "ours" in w.sides and not w.name.endswith("-parallel") and w.name != "mlp-adam-fused"]
RESULTS = ROOT / "benchmarks" / "results.json"


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise ValueError(f"git {' '.join(arguments)}: {done.stderr.decode().strip()}")
    return done.stdout


@contextmanager
def mtorch_of(commit: str) -> Iterator[Path]:
    """A folder with the package of that commit and the benchmark of now; ValueError where there is no such commit."""
    found = git("rev-parse", "--verify", "--end-of-options", f"{commit}^{{commit}}").decode().strip()
    packed = git("archive", found, "mtorch")
    with tempfile.TemporaryDirectory() as folder:
        with tarfile.open(fileobj=BytesIO(packed)) as archive:
            archive.extractall(folder, filter="data")
        (Path(folder) / "benchmarks").symlink_to(ROOT / "benchmarks")
        yield Path(folder)


def seconds_of(folder: Path, row: str, steps: int | None, turns: int = TURNS) -> tuple[float, int]:
    """Seconds of a step in a fresh process, and how many steps a turn had."""
    worker, times = Worker("ours", folder=folder), []
    try:
        for _ in range(turns):
            reply = worker.ask(do="time", workload=row, steps=steps, seconds=SECONDS)
            if "seconds" not in reply:
                raise RuntimeError(f"{row}: {reply.get('missing') or reply['error']}")
            steps = reply["steps"]
            times.append(reply["seconds"])
    finally:
        worker.close()
    return first_quartile(times), steps or 0


def compare(before: Path, row: str, count: int) -> Pairs:
    found = Pairs()
    _, steps = seconds_of(ROOT, row, None, turns=1)
    order = [(found.then, before), (found.now, ROOT)]
    for _ in range(count):
        for times, folder in order:
            times.append(seconds_of(folder, row, steps)[0])
        order.reverse()
    return found


def text(row: str, found: Pairs) -> str:
    then, now = (1e3 * first_quartile(times) for times in (found.then, found.now))
    low, high = found.range()
    return f"{row}: {now:.4g} ms, then {then:.4g} ms, ratio {found.ratio():.3f} ({low:.3f} to {high:.3f})"


def keep(commit: str, rows: dict[str, Pairs]) -> None:
    """Puts the rows into results.json and RESULTS.md; of the other tables, rows that the benchmark no longer has go."""
    results = json.loads(RESULTS.read_text())
    today = datetime.date.today().isoformat()
    results["since"] = {"commit": commit, "date": today, "rows": {name: vars(pairs) for name, pairs in rows.items()}}
    report.write(Results.from_dict(results), RESULTS.parent)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.since", description=__doc__)
    parser.add_argument("commit")
    parser.add_argument("--only", metavar="PATTERN", action="append", help=f"of {', '.join(ROWS)}")
    parser.add_argument("--pairs", type=int, default=15, metavar="N", help="of processes (default 15)")
    parser.add_argument("--write", action="store_true", help="into benchmarks/RESULTS.md and results.json too")
    options = parser.parse_args()
    wrong = unknown(options.only or [], ROWS)
    if reason := mistake(wrong, "--pairs", options.pairs, LEAST if options.write else 1):
        print(reason, file=sys.stderr)
        return 2
    rows = {}
    try:
        with mtorch_of(options.commit) as before:
            for row in matching(options.only or ["*"], ROWS):
                rows[row] = compare(before, row, options.pairs)
                print(text(row, rows[row]), flush=True)
    except (ValueError, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 2
    if options.write:
        keep(options.commit, rows)
    return 0


if __name__ == "__main__":
    run(main)
