"""Trains a recurrent net to read sine and give cosine, or to tell the next point of a noisy sine."""

import shlex
import sys
from collections.abc import Sequence

from apps.rnn_sin_cos.tasks import CELLS, TASKS
from apps.rnn_sin_cos.train import train
from mtorch.training import Parser, folder_name, number, run, run_process


def parser() -> Parser:
    main = Parser(prog="python -m apps.rnn_sin_cos", description=__doc__)
    main.add_argument("--task", choices=TASKS, default="sine-cosine")
    main.add_argument("--cell", choices=CELLS, default="rnn")
    main.add_argument("--steps", type=number(int, 0), help="default: the task's own")
    main.add_argument("--lr", type=number(float, 0, above=True), help="default: the task's own")
    main.add_argument("--seed", type=number(int, 0), default=0)
    main.add_argument("--device", choices=("cpu", "gpu", "auto"), default="cpu", help="auto: the GPU, if it computes")
    out, text = "runs/rnn_sin_cos", "the folder of the run (%(default)s)"
    main.add_argument("--out", type=folder_name, default=out, metavar="DIR", help=text)
    main.add_argument("--free-run", action="store_true", help="draw how the net goes on by itself: free_run.png")
    text = "save so often (default: 30); a stopped run loses no more than this"
    main.add_argument("--checkpoint-every", type=number(float, 0), metavar="SECONDS", help=text)
    main.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")
    return main


def main(argv: Sequence[str] | None = None) -> int:
    arguments = sys.argv[1:] if argv is None else argv
    again = shlex.join(["python", "-m", "apps.rnn_sin_cos", *arguments])
    return run(lambda: train(parser().parse_args(arguments)), again=again)


if __name__ == "__main__":
    run_process(main)
