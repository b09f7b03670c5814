"""The digit recogniser: trains a net on handwritten digits, tests it, reads digits off pictures."""

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence

from apps.mnist.compare import compare
from apps.mnist.predict import predict, test
from apps.mnist.recipes import LOSSES, OPTIMIZERS, RECIPES
from apps.mnist.serve import add_options as add_serve_options
from apps.mnist.serve import serve
from apps.mnist.train import train
from mtorch.training import Parser, folder_name, number, run, run_process

COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int | None], str]] = {
    "train": (train, "train a model (the default)"),
    "evaluate": (test, "test the trained model again"),
    "predict": (predict, "read the digit off each picture"),
    "compare": (compare, "train several models and draw their curves in one figure"),
    "serve": (serve, "open a page to draw digits on, and watch the nets read them"),
}


def parser() -> argparse.ArgumentParser:
    more = "Without a command it trains. What can be set: python -m apps.mnist train --help, and so for the others."
    main = Parser(prog="python -m apps.mnist", description=__doc__, epilog=more)
    commands = main.add_subparsers(dest="command", metavar="|".join(COMMANDS))
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name == "serve":
            add_serve_options(command)
            continue
        if name == "predict":
            command.add_argument("images", nargs="+", metavar="IMAGE")
            command.add_argument("--digits", action="store_true", help="read all digits of a row, from left to right")
            text = "draw each picture with what the net saw of it"
            command.add_argument("--show", type=picture_name, metavar="OUT.png", help=text)
        else:
            where, text = "auto|mnist|digits|DIR", "where digits come from"
            command.add_argument("--data", type=folder_name, default="auto", metavar=where, help=text)
        if name == "train":
            command.add_argument("--model", choices=RECIPES, default="mlp")
        if name == "compare":
            names = ", ".join(RECIPES)
            command.add_argument("--models", type=several_models, required=True, metavar="A,B,...", help=f"of {names}")
        if name in ("train", "compare"):
            add_training_options(command)
        if name == "train":
            text = "divide each batch among the ranks of an MPI job: mpiexec -n 4 python -m apps.mnist --parallel mpi"
            command.add_argument("--parallel", choices=("mpi",), help=text)
        if name == "compare":
            command.set_defaults(parallel=None)
        command.add_argument(
            "--device", choices=("cpu", "gpu", "auto"), default="cpu", help="auto: the GPU, if it computes"
        )
        out, text = "runs/compare" if name == "compare" else "runs/mnist", "the folder of the run (%(default)s)"
        command.add_argument("--out", type=folder_name, default=out, metavar="DIR", help=text)
    return main


def add_training_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--epochs", type=number(int, 0), help="default: the model's own")
    command.add_argument("--batch-size", type=number(int, 1), help="default: the model's own")
    command.add_argument("--lr", type=number(float, 0, above=True), help="default: the optimizer's own")
    command.add_argument("--gamma", type=number(float, 0, above=True), help="multiplies the rate after each epoch")
    command.add_argument("--optimizer", choices=OPTIMIZERS, help="default: the model's own")
    command.add_argument("--loss", choices=LOSSES, help="default: the model's own")
    command.add_argument("--seed", type=number(int, 0), default=0)
    text = "divide each batch among so many processes (%(default)s); worth it for convolutions, on Linux, on the CPU"
    command.add_argument("--workers", type=number(int, 1), default=1, help=text)
    text = "save so often, beside the ends of epochs (default: 30); a stopped run loses no more than this"
    command.add_argument("--checkpoint-every", type=number(float, 0), metavar="SECONDS", help=text)
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def picture_name(text: str) -> str:
    if not text.lower().endswith(".png"):
        raise argparse.ArgumentTypeError(f"expected the name of a PNG file, got {text!r}")
    return text


def several_models(text: str) -> list[str]:
    names = text.split(",")
    unknown = [name for name in names if name not in RECIPES]
    if unknown or len(set(names)) < len(names):
        wrong = f"there is no {unknown[0]!r}" if unknown else "each once"
        raise argparse.ArgumentTypeError(f"expected models of {', '.join(RECIPES)}: {wrong}")
    return names


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    return run(command, arguments, again=shlex.join(["python", "-m", "apps.mnist", *arguments]))


def command(arguments: list[str]) -> int | None:
    if not arguments or (arguments[0].startswith("-") and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "train")
    args = parser().parse_args(arguments)
    return COMMANDS[args.command][0](args)


if __name__ == "__main__":
    run_process(main)
