"""`python -m mtorch`: explanations of every class, and a doctor for the installation."""

import argparse
import io
import os
import sys
from collections.abc import Sequence

HELP = """\
A neural-network library in which every layer carries its own hand-written
derivative.

  python -m mtorch explain Conv2d     equation, shapes, derivation, an example
                                      with all its numbers, the code, a proof
  python -m mtorch explain            the names that can be explained
  python -m mtorch doctor             what is installed, what works, what mends
                                      the rest

In a clone, `python -m apps.mnist` trains a digit recogniser.
"""


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        "python -m mtorch", description=HELP, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", metavar="{explain,doctor}")
    explain = commands.add_parser("explain", help="explain a layer, loss, optimizer or schedule")
    explain.add_argument("name", nargs="?", help="its name, such as Conv2d or Adam; without one all are listed")
    explain.add_argument(
        "--html", nargs="?", const="-", metavar="PATH", help="one self-contained page, written to PATH or printed"
    )
    commands.add_parser("doctor", help="say what is installed, what works, and what mends the rest")
    args = parser.parse_args(argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal may know no other letters than its own
    try:
        status = run(args, parser)
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `| head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return 130


def run(args: argparse.Namespace, parser: argparse.ArgumentParser) -> int:
    if args.command == "explain":
        from mtorch.insight.explain import main as explain_one

        if args.name is None and args.html not in (None, "-"):  # explain --html Conv2d
            args.name, args.html = args.html, "-"
        return explain_one(args.name, args.html)
    if args.command == "doctor":
        from mtorch.insight.doctor import main as examine

        return examine()
    parser.print_help()
    return 0


if __name__ == "__main__":
    sys.exit(main())
