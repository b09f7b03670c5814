"""Is a run that was killed at random moments, and resumed, the run that was never killed? To the bit, for every model.

    python tools/kills.py [--count N] [--models A,B,...|all] [--seed S] [--jobs N] [--keep DIR]

For each model of both apps a short run is made once without a stop. The same run is then stopped at a random moment,
resumed, stopped again, and so on, and at last left alone. Two of three stops are SIGKILL, the others SIGTERM and Ctrl-C
(SIGINT), some of them twice. Checkpoints are written after every step, or so many seconds apart that the resumed run
asks for something else; so many stops fall into the middle of a file that is being written.

After each stop every file in the folder must be readable; a stop by SIGTERM or SIGINT must end with status 143 or 130
and one line that says where to go on, without a traceback. At the end parameters, optimizer, generators, history,
metrics (but for seconds) and pictures must have the same bytes as those of the run without a stop, and no other file
may lie there. The exit code is 1 if anything differs; the folder is then kept and named.
"""

import argparse
import csv
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

SCANS = ("rnn", "gru", "lstm")  # models of the digit app that read the built-in digits as 8 x 8 scans
SINE = [f"sine:{task}:{cell}" for task in ("sine-cosine", "noisy-sine") for cell in ("rnn", "gru", "lstm")]
CHILD = """
import sys
from importlib import import_module
from mtorch.training import run_process
from mtorch.training.stops import handlers
main = import_module(sys.argv[1] + ".__main__").main
handlers.install()
print("ready", flush=True)
run_process(lambda: main(sys.argv[2:]))
"""
PARTS = re.compile(r"\.(part|tmp)$|^\.")


@dataclass
class Case:
    """A run: the module of its app, its arguments without --out, and the moments for which it can be stopped."""

    name: str
    module: str
    arguments: list[str]
    seconds: float = 0.0  # from "ready" to the end, without a stop


def cases(names: list[str], data: Path) -> list[Case]:
    from apps.mnist.recipes import RECIPES

    every = [*RECIPES, "workers", *SINE]
    unknown = [name for name in names if name not in every]
    if unknown:
        raise SystemExit(f"error: there is no {unknown[0]}: there are {', '.join(every)}")
    found = []
    for name in names or every:
        if name.startswith("sine:"):
            _, task, cell = name.split(":")
            found.append(Case(name, "apps.rnn_sin_cos", ["--task", task, "--cell", cell, "--steps", "57"]))
            continue
        model, more = ("dropout", ["--workers", "2"]) if name == "workers" else (name, [])
        small = ["--data", "digits", "--batch-size", "256"] if name in SCANS else ["--data", str(data)]
        size = [] if name in SCANS else ["--batch-size", "8"]
        arguments = ["train", "--model", model, *small, *size, "--epochs", "3", *more]
        found.append(Case(name, "apps.mnist", arguments))
    return found


def write_data(folder: Path, train: int = 60, test: int = 24) -> None:
    """Some of the built-in digits, as files in MNIST's format."""
    from mtorch.data import digits

    data = digits()
    parts = {
        "train-images-idx3-ubyte": data.train_images[:train],
        "train-labels-idx1-ubyte": data.train_labels[:train],
        "t10k-images-idx3-ubyte": data.test_images[:test],
        "t10k-labels-idx1-ubyte": data.test_labels[:test],
    }
    for name, array in parts.items():
        head = bytes([0, 0, 8, array.ndim]) + b"".join(n.to_bytes(4, "big") for n in array.shape)
        (folder / name).write_bytes(head + array.astype("uint8").tobytes())


class Failure(Exception):
    """What a check found."""


def start(case: Case, out: Path, *more: str) -> subprocess.Popen:
    """The process, once it is ready: from then on a signal must be answered in order."""
    threads = {"OPENBLAS_NUM_THREADS": "1", "MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    hear = None
    if os.name == "posix":  # a job in the background ignores Ctrl-C
        hear = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, case.module, *case.arguments, "--out", str(out), *more],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | threads, preexec_fn=hear,
    )  # fmt: skip
    assert process.stdout is not None
    if process.stdout.readline() != "ready\n":
        raise Failure(f"it did not start: {process.communicate()[1]}")
    return process


def check_files(out: Path) -> None:
    """Every file that is not a temporary one can be read to its end."""
    from mtorch.checkpoint import read_notes

    for path in out.iterdir() if out.exists() else ():
        if PARTS.search(path.name):
            continue
        try:
            if path.suffix == ".npz":
                read_notes(path)
                with numpy.load(path, allow_pickle=False) as file:
                    for name in file.files:
                        file[name]
            elif path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".csv":
                rows = list(csv.reader(path.read_text().splitlines()))
                if any(len(row) != len(rows[0]) for row in rows):
                    raise ValueError("a row is cut off")
            elif path.suffix == ".png" and not path.read_bytes().endswith(b"IEND\xaeB`\x82"):
                raise ValueError("the picture is cut off")
        except Exception as error:
            raise Failure(f"{path.name} cannot be read: {error!r}") from error


def contents(out: Path) -> dict[str, bytes | str]:
    """What must be the same in the end, file by file: bytes, and of metrics all but the clock."""
    found: dict[str, bytes | str] = {}
    for path in sorted(out.iterdir()):
        if path.suffix == ".npz":
            with numpy.load(path, allow_pickle=False) as file:
                for name in file.files:
                    found[f"{path.name}: {name}"] = (
                        f"{file[name].dtype}{file[name].shape}".encode() + file[name].tobytes()
                    )
        elif path.suffix == ".json":
            found[path.name] = json.dumps(json.loads(path.read_text()) | {"seconds": 0})
        else:
            found[path.name] = path.read_bytes()
    return found


def stop(process: subprocess.Popen, moment: float, rng: random.Random) -> str:
    """Lets it run so long, stops it and looks at how it ended; which signal it was, "" if it had ended by then."""
    kind = rng.choice(["SIGKILL", "SIGKILL", rng.choice(["SIGTERM", "SIGINT"])])
    twice = rng.random() < 0.2
    try:
        _, err = process.communicate(timeout=moment)
        if process.returncode:
            raise Failure(f"it ended with status {process.returncode}: {err}")
        return ""
    except subprocess.TimeoutExpired:
        process.send_signal(getattr(signal, kind))
    if kind != "SIGKILL" and twice:
        time.sleep(0.15)
        process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=120)
    lines, wanted = err.splitlines(), {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130}[kind]
    if kind == "SIGKILL":
        return kind if process.returncode == wanted else ""
    if process.returncode == 0 and not lines:
        return ""  # its work was done
    statuses = {wanted, 143} if twice else {wanted}
    good = len(lines) == 1 and re.match(r"stopped( at once)?: (.*; )?go on with: python -m ", lines[0])
    if process.returncode not in statuses or not good:
        raise Failure(f"{kind} ended it with status {process.returncode}: {err or 'no line'}")
    return kind


def run(case: Case, kills: int, seed: int, folder: Path) -> dict[str, int]:
    """Both runs of one case; how many stops of each kind there were."""
    rng, whole, parts = random.Random(f"{seed} {case.name}"), folder / "whole", folder / "parts"
    process = start(case, whole)
    begin = time.monotonic()
    _, err = process.communicate(timeout=600)
    case.seconds = time.monotonic() - begin
    if process.returncode:
        raise Failure(f"the run without a stop ended with status {process.returncode}: {err}")
    wanted, counts, done = contents(whole), dict.fromkeys(("SIGKILL", "SIGTERM", "SIGINT"), 0), 0
    for _ in range(20 * kills):
        if done == kills:
            break
        every = rng.choice(["0", "0", "0.02", "30"])
        process = start(case, parts, "--resume", "--checkpoint-every", every)
        kind = stop(process, rng.uniform(0, 1.1 * case.seconds), rng)
        check_files(parts)
        if kind:
            counts[kind] += 1
            done += 1
        elif rng.random() < 0.5:  # it was finished: sometimes begin anew, sometimes stop the finished run's resume
            shutil.rmtree(parts)
    process = start(case, parts, "--resume", "--checkpoint-every", rng.choice(["0", "1"]))
    _, err = process.communicate(timeout=600)
    if process.returncode:
        raise Failure(f"the resumed run ended with status {process.returncode}: {err}")
    found = contents(parts)
    different = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
    if different:
        raise Failure(f"{', '.join(different)}: not the same as without a stop")
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=300, help="stops, all models together (%(default)s)")
    parser.add_argument("--models", default="all", help="names that are separated by commas, or all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    args = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="kills-"))
    (folder / "data").mkdir()
    write_data(folder / "data")
    chosen = cases([] if args.models == "all" else args.models.split(","), folder / "data")
    order = random.Random(args.seed)
    order.shuffle(chosen)
    chosen = chosen[: args.count]
    shares = [args.count * (i + 1) // len(chosen) - args.count * i // len(chosen) for i in range(len(chosen))]
    total, failed, begin = dict.fromkeys(("SIGKILL", "SIGTERM", "SIGINT"), 0), [], time.monotonic()

    def one(case: Case, kills: int) -> None:
        place = folder / case.name.replace(":", "-")
        place.mkdir()
        try:
            counts = run(case, kills, args.seed, place)
        except (Failure, subprocess.TimeoutExpired) as error:
            failed.append(case.name)
            print(f"{case.name}: {error}\n  see {place}", flush=True)
            return
        for kind, count in counts.items():
            total[kind] += count
        print(f"{case.name}: {', '.join(f'{count} {kind}' for kind, count in counts.items() if count)}", flush=True)
        shutil.rmtree(place)

    with ThreadPoolExecutor(args.jobs) as pool:
        list(pool.map(one, chosen, shares))
    stops = sum(total.values())
    print(
        f"{stops} stops ({', '.join(f'{count} {kind}' for kind, count in total.items())}) of {len(chosen)} runs "
        f"in {time.monotonic() - begin:.0f} s: {len(failed)} failed, {len(chosen) - len(failed)} end with the same bits"
    )
    if not failed:
        shutil.rmtree(folder)
    return 1 if failed or not stops else 0


if __name__ == "__main__":
    sys.exit(main())
