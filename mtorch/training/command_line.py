"""What command lines share: numbers with bounds, one line for what went wrong, an ending for each kind of stop."""

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

from mtorch.checks import LARGEST, shown

FAILED, INTERRUPTED, PIPE_CLOSED = 2, 130, 141  # exit codes; the last two are what a shell gives for these signals


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors take one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"error: {message} (see {self.prog} --help)\n")


def number(kind: type, least: float, above: bool = False) -> Callable[[str], Any]:
    """An argparse type: a finite number of that kind, at least (or above) `least`."""

    def parse(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not least <= value <= (LARGEST if kind is int else sys.float_info.max) or (above and value == least):
            expected = f"{'an integer' if kind is int else 'a number'} {'above' if above else 'of at least'} {least}"
            raise argparse.ArgumentTypeError(f"expected {expected}, got {shown(text)}")
        return value

    return parse


def folder_name(text: str) -> str:
    """An argparse type: the name of a folder, which an empty text is not."""
    if not text.strip():
        raise argparse.ArgumentTypeError(f"expected the name of a folder, got {shown(text)}")
    return text


def run(command: Callable[..., int | None], *args: Any) -> int:
    """command(*args) and its exit code; what its user can set right becomes one line on stderr and exit code 2.

    A command that is interrupted raises KeyboardInterrupt with what to say about that.
    """
    try:
        code = command(*args) or 0
        if sys.stdout is not None:
            sys.stdout.flush()
        return code
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
        return PIPE_CLOSED
    except KeyboardInterrupt as stop:
        _say(f"stopped{f': {stop}' if stop.args else ''}")
        return INTERRUPTED
    except (OSError, ValueError, RuntimeError, ImportError, MemoryError) as error:
        _say(f"error: {_text(error)}")
        return FAILED


def _say(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr)


def _text(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename:
        return f"{error.filename}: {error.strerror}"
    return str(error) or type(error).__name__


def written(args: argparse.Namespace, names: Iterable[str]) -> str:
    """These options as a user writes them; those without a value, and flags that are not set, are left out."""
    words: list[str] = []
    for name in names:
        value = getattr(args, name)
        if value is not None and value is not False:
            words += [f"--{name.replace('_', '-')}"] + ([] if value is True else [str(value)])
    return shlex.join(words)
