"""The command line of the digit recogniser."""

import argparse
import math
import sys
from collections.abc import Callable, Sequence

from apps.mnist.predict import predict, test
from apps.mnist.recipes import LOSSES, OPTIMIZERS, RECIPES
from apps.mnist.train import train

COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], str]] = {
    "train": (train, "train a model (the default)"),
    "evaluate": (test, "test the trained model again"),
    "predict": (predict, "read the digit off each picture"),
}


def number(kind: type, least: float, strict: bool = False) -> Callable[[str], float]:
    """An argparse type: a finite number of that kind, at least (or above) `least`."""

    def parse(text: str) -> float:
        value = kind(text)
        if not math.isfinite(value) or value < least or (strict and value == least):
            raise argparse.ArgumentTypeError(f"expected a number {'above' if strict else 'of at least'} {least}: {text}")
        return value

    parse.__name__ = "number"
    return parse


def parser() -> argparse.ArgumentParser:
    main = argparse.ArgumentParser(prog="python -m apps.mnist", description=__doc__)
    commands = main.add_subparsers(dest="command", metavar="|".join(COMMANDS))
    for name, (_, text) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        if name != "predict":
            command.add_argument("--data", default="auto", metavar="auto|mnist|digits|DIR", help="where digits come from")
        command.add_argument("--device", choices=("cpu", "gpu", "auto"), default="cpu")
        command.add_argument("--out", default="runs/mnist", metavar="DIR", help="the folder of the run (%(default)s)")
        if name == "predict":
            command.add_argument("images", nargs="+", metavar="IMAGE")
        if name == "train":
            add_training_options(command)
    return main


def add_training_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--model", choices=RECIPES, default="mlp")
    command.add_argument("--epochs", type=number(int, 0))
    command.add_argument("--batch-size", type=number(int, 1))
    command.add_argument("--lr", type=number(float, 0, strict=True), help="default: the optimizer's own")
    command.add_argument("--optimizer", choices=OPTIMIZERS, help="default: the model's own")
    command.add_argument("--loss", choices=LOSSES, help="default: the model's own")
    command.add_argument("--seed", type=number(int, 0), default=0)
    command.add_argument("--resume", action="store_true", help="go on from the checkpoint in --out")


def main(argv: Sequence[str] | None = None) -> int:
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments or (arguments[0] not in COMMANDS and arguments[0] not in ("-h", "--help")):
        arguments.insert(0, "train")
    args = parser().parse_args(arguments)
    try:
        return COMMANDS[args.command][0](args)
    except BrokenPipeError:
        sys.stderr.close()
        return 1
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
