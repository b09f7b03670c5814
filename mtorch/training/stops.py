"""Stops by signal: Ctrl-C, SIGTERM and a closed terminal end a command in order, with a status of their own.

`run` (command_line.py) installs the handlers. While a command reads or draws, a signal raises `Stopped` at once. Within
`deferred()` it is only noted: a Trainer finishes its step, saves, and raises `Stopped` itself. A second signal ends the
process at once; a file that is being written is then not there, or still the old one. Where no handler is installed (a
notebook, a thread, a browser) nothing here touches a signal.
"""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

try:
    import signal
except ImportError:  # some Pythons have none
    signal = None  # type: ignore[assignment]  # a module, or none

NAMES = ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK")  # those that this system has
INTERRUPTED = 130  # what a shell gives for Ctrl-C: 128 + the number of the signal
TWICE = 0.1  # seconds within which a second signal is the first one once more: `timeout` sends two


class Stopped(KeyboardInterrupt):
    """A signal asks the command to end. status: what the process ends with, 128 + the signal's number."""

    def __init__(self, *text: str, status: int = INTERRUPTED):
        super().__init__(*text)
        self.status = status


class _Handlers:
    """The handlers of this process, and what they have noted."""

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}  # the handlers that were there, by signal
        self.hook: Any = None  # the hook for unraisable exceptions that was there
        self.hint: Callable[[], str] = str  # what the last words of an abrupt end say about going on
        self.raises = False  # whether a signal raises; else it is noted
        self.raised = False  # whether one has
        self.signal, self.at = 0, 0.0  # the first signal that came, and when

    def install(self) -> bool:
        """Whether they were installed now: by the main thread, and not where they are already."""
        if self.before or signal is None:
            return False
        self.signal, self.raises, self.raised, self.hint = 0, False, False, str
        for number in [getattr(signal, name) for name in NAMES if hasattr(signal, name)]:
            if signal.getsignal(number) in (signal.SIG_IGN, None):  # a job in the background hears no Ctrl-C
                continue
            with suppress(ValueError, OSError, RuntimeError):
                self.before[number] = signal.signal(number, self.handle)
        if self.before:
            self.hook, sys.unraisablehook = sys.unraisablehook, self.swallowed
        return bool(self.before)

    def restore(self) -> None:
        while self.before:
            signal.signal(*self.before.popitem())
        if self.hook is not None:
            sys.unraisablehook, self.hook = self.hook, None
        self.signal = 0

    def ignore(self) -> None:
        """For the end of a process: what comes now changes nothing any more."""
        for number in self.before:
            signal.signal(number, signal.SIG_IGN)

    def handle(self, number: int, frame: Any) -> None:
        now = time.monotonic()
        if self.signal:
            if now - self.at > TWICE:
                end_at_once(128 + number)
            return
        self.signal, self.at = number, now
        if self.raises:
            self.raised = True
            self.check()

    def check(self) -> None:
        """Raises `Stopped` if a signal has come."""
        if self.signal:
            raise Stopped(status=128 + self.signal)

    def swallowed(self, unraisable: Any) -> None:
        """In place of `sys.unraisablehook`: where no exception can leave (a finalizer), the process ends instead."""
        if isinstance(unraisable.exc_value, Stopped):
            end_at_once(unraisable.exc_value.status)
        self.hook(unraisable)


handlers = _Handlers()


def end_at_once(status: int) -> None:
    """Ends the process without another step; whole files stay whole."""
    with suppress(Exception):
        sys.stdout.flush()
    with suppress(Exception):
        os.write(2, f"stopped at once{handlers.hint()}\n".encode())
    os._exit(status)


def noted() -> int:
    """The number of the signal that has asked this process to stop, 0 if none has."""
    return handlers.signal


def check() -> None:
    """Raises `Stopped` if a signal has asked this process to stop: for whoever runs within `deferred()`."""
    if _in_main_thread():
        handlers.check()


@contextmanager
def deferred() -> Iterator[None]:
    """Within it a signal raises nothing: whoever is inside calls `check()`. At its end it raises `Stopped`.

    In another thread than the main one, where signals arrive, it does nothing.
    """
    if not _in_main_thread():
        yield
        return
    before, handlers.raises = handlers.raises, False
    try:
        yield
    finally:
        handlers.raises = before
    if before:
        handlers.check()


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
