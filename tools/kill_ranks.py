"""Kills one rank of an MPI job, or one worker of DataParallel, at a random moment, again and again.

    python tools/kill_ranks.py [--count 50] [--seed 0]

Half of the runs of the digit recogniser have three ranks (`mpiexec -n 3 ... --parallel mpi`), half have three
processes of one machine (`--workers 3`). Each time one process that is not the first is killed. Then the whole run must
end within ten seconds, with a status that is not 0 and a text that says what happened; the checkpoint must be readable;
and the run must go on from it. At the end each run is finished; its scores must be close to those of one process, which
adds in another order.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from mtorch.checkpoint import read_notes  # noqa: E402

LIMIT, EPOCHS = 10.0, 40


def command(kind: str, out: Path, epochs: int) -> list[str]:
    app = [sys.executable, "-m", "apps.mnist", "--data", "digits", "--model", "lenet", "--epochs", str(epochs)]
    app += ["--out", str(out), "--checkpoint-every", "0.1", "--resume"]
    if kind == "workers":
        return [*app, "--workers", "3"]
    return app if kind == "alone" else [mpiexec(), "-n", "3", *app, "--parallel", "mpi"]


def mpiexec() -> str:
    beside = Path(sys.executable).with_name("mpiexec")
    found = str(beside) if beside.exists() else shutil.which("mpiexec")
    if found is None:
        sys.exit("there is no mpiexec: pip install -e '.[mpi]'")
    return found


def below(pid: int) -> list[int]:
    """The processes of Python below that one, oldest first."""
    found = []
    for child in map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split()):
        name = os.readlink(f"/proc/{child}/exe")
        found += [child] * ("python" in name) + below(child)
    return found


def attempt(kind: str, out: Path, rng: random.Random, epochs: int) -> str | None:
    """Goes on with the run and kills one of its processes; what went wrong, "", or None if none was killed."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    run = subprocess.Popen(
        command(kind, out, epochs), cwd=ROOT, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    begin = time.monotonic()
    wanted = 3 if kind == "ranks" else 2
    victims: list[int] = []
    while len(victims) < wanted and run.poll() is None and time.monotonic() - begin < 60:
        time.sleep(0.02)
        try:
            victims = below(run.pid)
        except OSError:  # one of them ended meanwhile
            victims = []
    time.sleep(rng.uniform(0.0, 1.5))
    killed = False
    if run.poll() is None and victims:
        try:
            os.kill(rng.choice(victims[-2:]), signal.SIGKILL)
            killed = True
        except ProcessLookupError:
            pass
    try:
        text, _ = run.communicate(timeout=LIMIT)
    except subprocess.TimeoutExpired:
        run.kill()
        return f"{kind}: it did not end within {LIMIT:.0f} s"
    if run.returncode == 0 or not killed:
        return None  # it was finished before
    if not any(words in text for words in ("EXIT CODE", "worker process", "rank ")):
        return f"{kind}: status {run.returncode} without a word about it: {text[-400:]}"
    model = out / "model.npz"
    if model.exists():
        try:
            read_notes(model)
        except (OSError, ValueError) as error:
            return f"{kind}: the checkpoint is not readable: {error}"
    return ""


def finished(kind: str, out: Path, epochs: int) -> list[float]:
    """The last row of the history, after the rest of the run."""
    env = os.environ | {"PYTHONPATH": str(ROOT), "OPENBLAS_NUM_THREADS": "1"}
    subprocess.run(command(kind, out, epochs), cwd=ROOT, env=env, check=True, stdout=subprocess.DEVNULL)
    return [float(number) for number in (out / "history.csv").read_text().splitlines()[-1].split(",")]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    args = parser.parse_args()
    rng, wrong = random.Random(args.seed), []
    folder = Path(tempfile.mkdtemp(prefix="kill_ranks-"))
    kinds = [kind for kind in ("ranks", "workers") if args.count]
    number, runs = 0, dict.fromkeys(kinds, 0)
    while number < args.count:
        kind = kinds[number % 2]
        trouble = attempt(kind, folder / f"{kind}-{runs[kind]}", rng, args.epochs)
        if trouble is None:
            runs[kind] += 1  # another run
            continue
        number += 1
        if trouble:
            wrong.append(trouble)
            print(trouble, flush=True)
    alone = finished("alone", folder / "alone", args.epochs)
    for kind in kinds:
        last = finished(kind, folder / f"{kind}-{runs[kind]}", args.epochs)
        if len(last) != len(alone) or any(abs(a - b) > 0.03 for a, b in zip(last[1:], alone[1:], strict=True)):
            wrong.append(f"{kind}: it ended with {last}, in one process with {alone}")
            print(wrong[-1])
        else:
            print(f"{kind}: ended with {last}, in one process {alone}")
    print(f"{args.count} processes killed: {len(wrong)} times something was wrong")
    if not wrong:
        shutil.rmtree(folder)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
