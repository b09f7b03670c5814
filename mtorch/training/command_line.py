"""What command lines share: numbers with bounds, one line for what went wrong, an ending for each kind of stop."""

import argparse
import math
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from mtorch.checks import LARGEST, plain, shown
from mtorch.training.folder import NOTHING, RunFolder
from mtorch.training.stops import Stopped, handlers

LONGEST = 2000  # characters of a line about what went wrong: texts from a file may have any length
FAILED, PIPE_CLOSED = 2, 141  # exit codes; the second is what a shell gives for SIGPIPE


class Parser(argparse.ArgumentParser):
    """An ArgumentParser whose errors take one line, and whose options have no shorter names."""

    def __init__(self, **options: Any):
        super().__init__(**{"allow_abbrev": False, **options})

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


def run(command: Callable[..., int | None], *args: Any, again: str = "") -> int:
    """command(*args) and its exit code; what its user can set right becomes one line on stderr and exit code 2.

    A signal that asks for a stop (Ctrl-C, SIGTERM) raises `Stopped`, a KeyboardInterrupt, in the command, from its
    first line to its last: one line on stderr and 128 + the signal's number. Whoever knows how to go on says so in it
    (`going_on`).  again: the command line that begins again; the line names it where nobody knows better.
    """
    installed = False
    try:
        try:
            installed = handlers.install()
            handlers.hint = lambda: f": go on with: {again}" if again else ""
            handlers.raises = True
            handlers.check()
            code = command(*args) or 0
            if sys.stdout is not None:
                sys.stdout.flush()
            handlers.check()  # what raised and was swallowed
            return code
        finally:
            handlers.raises = False
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or (handlers.signal and not isinstance(error, SystemExit)):
            # of a stop that was raised, compiled code may have made an error of its own: then the hint says more
            known = error.args if isinstance(error, KeyboardInterrupt) else not (handlers.raised and handlers.hint())
            _say(f"stopped: {_text(error)}" if known else f"stopped{handlers.hint()}")
            return error.status if isinstance(error, Stopped) else 128 + (handlers.signal or 2)
        if isinstance(error, BrokenPipeError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes it once more
            return PIPE_CLOSED
        if isinstance(error, OSError | ValueError | RuntimeError | FloatingPointError | ImportError | MemoryError):
            _say(f"error: {_text(error)}")
            return FAILED
        raise
    finally:
        if installed:
            handlers.restore()


def run_process(main: Callable[[], int]) -> NoReturn:
    """Ends this process with main(), and lets no signal turn its last moments into another end."""
    handlers.install()
    try:
        sys.exit(main())
    finally:
        handlers.ignore()


@contextmanager
def going_on(folder: RunFolder, command: str, resumed: bool = False) -> Iterator[None]:
    """A stop within it says what is kept in the folder of the run, and that `command --resume` goes on.

    resumed: whether it was given --resume already. While this run has kept nothing, what lies there is of another one.
    """

    def words() -> str:
        other = folder.kept == NOTHING and not resumed and folder.model.exists()
        return f"{folder.kept}; go on with: {command}{'' if other else ' --resume'}"

    before, handlers.hint = handlers.hint, lambda: f": {words()}"
    try:
        yield
    except KeyboardInterrupt as stop:
        stop.args = stop.args or (words(),)
        raise
    handlers.hint = before  # an error goes on to `run`, which may still ask for these words


def _say(line: str) -> None:
    with suppress(OSError, AttributeError):  # a terminal that was closed, or none at all
        print(plain(" ".join(line.split()), LONGEST), file=sys.stderr, flush=True)


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
