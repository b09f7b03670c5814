"""Copies of this process that work beside it, each with an interpreter of its own.

Threads share one interpreter: while NumPy computes they let go of it, but a step of a small net is hundreds of short
calls, and waiting for the interpreter between them costs more than a second core gains. A forked copy waits for
nobody. It starts with all that this process has, arrays made by `shared` stay common to both, and what else is to be
known travels in messages: a pickle through a pipe, its arrays through common memory beside it.
"""

import os
import pickle
import signal
import sys
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from mmap import mmap
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import LINE, Array, is_numpy
from mtorch.kernels import threads
from mtorch.kernels.memory import empty

ROOM = 1 << 26  # bytes of arrays in one message beyond which they go through the pipe
SPIN = 2e-3  # seconds of looking for a message before sleeping until it comes: a core takes long to wake
BYTES = numpy.dtype("uint8")

_starting = threading.Lock()  # a copy must not inherit the ends of another's pipe while they are being made
_here = threading.local()  # .busy while this thread does its own part of what several processes do
_forking = _is_copy = False


class Ended(RuntimeError):
    """A copy is no longer there."""


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork(xp: ModuleType) -> bool:
    """Whether arrays of that module survive a fork, and whether this process may make copies now."""
    return is_numpy(xp) and sys.platform == "linux" and not _is_copy and not getattr(_here, "busy", False)


class _Common(mmap):
    """Memory that a process has in common with those it forks."""


def shared(x: Array) -> Array:
    """x in memory that this process and the copies it makes from now on have in common: a copy, if it is not yet."""
    owner = x
    while isinstance(owner, numpy.ndarray):
        owner = owner.base
    if isinstance(getattr(owner, "obj", owner), _Common):  # a memoryview tells whose memory it shows
        return x
    common = numpy.frombuffer(_Common(-1, max(x.nbytes, 1)), x.dtype, x.size).reshape(x.shape)
    common[...] = x
    return common


class Crew:
    """`count` copies of this process; number i (from 1) answers a message with `answer(i, message)`.

    They end with this object, with this process, or when one of them has ended by itself.
    """

    def __init__(self, count: int, answer: Callable[[int, Any], Any]):
        global _forking
        from multiprocessing import Pipe

        self.lines: list[_Line] = []
        self.copies: list[int] = []  # their process numbers
        self.home, self.core = os.getpid(), -1  # whose copies they are, and the core that they keep off
        self.busy = False  # between the first message of a call and the last answer
        self._finalizer = weakref.finalize(self, _end, self.home, self.copies, self.lines)
        with threads.held(), _starting, warnings.catch_warnings():  # a copy that finds one BLAS thread starts no more
            warnings.simplefilter("ignore", DeprecationWarning)  # BLAS's threads are the only ones, and it is prepared
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # until the copy has learnt to ignore it
            _forking = True
            try:
                for i in range(1, count + 1):
                    ours, theirs = Pipe()
                    line = _Line(ours, mmap(-1, ROOM), SPIN if count < cores() else 0)
                    copy = os.fork()
                    if not copy:
                        _live(i, answer, _Line(theirs, line.room, line.spin), ours)
                    self.copies.append(copy)
                    self.lines.append(line)
                    theirs.close()
            finally:
                _forking = False
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def ended(self) -> bool:
        """Whether it cannot be asked: a copy is gone, a call was broken off, or this process is a fork itself."""
        return self.busy or not self._finalizer.alive or self.home != os.getpid()

    def part(self) -> None:
        """For a process that was forked by somebody else: the copies are not its own."""
        for line in self.lines:
            line.pipe.close()

    def together(self, function: Callable[[], Any], messages: Iterable[Any]) -> list[Any]:
        """[function() here, the first copy's answer to the first message, ...], all at the same time.

        The arrays of an answer last until the next call.
        Raises the first error, after all have answered; Ended, and ends the others, when a copy does not answer.
        """
        core, settings, outcomes, asked = threads.this_core(), numpy.geterr(), [], []
        if core != self.core:
            self.core = core
            for copy in self.copies:
                threads.keep_off(copy, core)
        self.busy = True
        try:
            for line, message in zip(self.lines, messages, strict=False):
                line.send((settings, message))
                asked.append(line)
            outcomes.append(_alone(function))
            outcomes.extend(line.receive(keep=False) for line in asked)
        except BaseException as error:
            self._finalizer()
            if not isinstance(error, OSError | EOFError):
                raise
            if not outcomes or outcomes[0][0]:
                raise Ended("a process beside this one has ended") from error
        self.busy = False
        for succeeded, result in outcomes:
            if not succeeded:
                raise result
        return [result for _, result in outcomes]


def forked_by_others(function: Callable[[], None]) -> None:
    """Calls the function in every process that is forked off this one and is no copy of a crew."""

    def after() -> None:
        if not _forking:
            function()

    if hasattr(os, "register_at_fork"):
        os.register_at_fork(after_in_child=after)


class _Line:
    """One end of a pipe, and the common room for the arrays of the message under way."""

    def __init__(self, pipe: Any, room: mmap, spin: float):
        self.pipe, self.room, self.spin = pipe, room, spin

    def send(self, message: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        text = pickle.dumps(message, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        if sum(view.nbytes + LINE for view in views) > ROOM:
            text, views = pickle.dumps(message, 5), []
        start = 0
        for view in views:
            self.room[start : start + view.nbytes] = view
            start += -(-view.nbytes // LINE) * LINE
        self.pipe.send(([view.nbytes for view in views], text))

    def receive(self, keep: bool) -> Any:
        """The message; unless they are to be kept, its arrays last until the next one is sent."""
        limit = time.perf_counter() + self.spin
        while time.perf_counter() < limit and not self.pipe.poll():
            pass
        sizes, text = self.pipe.recv()
        room, start, buffers = numpy.frombuffer(self.room, BYTES), 0, []
        for size in sizes:
            part = room[start : start + size]
            if keep:
                part, common = empty((size,), BYTES), part
                part[...] = common
            buffers.append(part)
            start += -(-size // LINE) * LINE
        return pickle.loads(text, buffers=buffers)


def _alone(function: Callable[[], Any]) -> tuple[bool, Any]:
    """The outcome of this process's own part, for which there is one core."""
    _here.busy = True
    try:
        with threads.undivided():
            return True, function()
    except BaseException as error:
        return False, error
    finally:
        _here.busy = False


def _live(number: int, answer: Callable[[int, Any], Any], line: _Line, far: Any) -> None:
    """The life of a copy: it answers until the other end of its line is closed."""
    global _is_copy
    _is_copy = True
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
        far.close()
        threads.start_again()
        while True:
            settings, message = line.receive(keep=True)
            with numpy.errstate(**settings):
                outcome = _outcome(number, answer, message)
            line.send(outcome)
    except (OSError, EOFError):
        pass
    finally:
        os._exit(0)


def _outcome(number: int, answer: Callable[[int, Any], Any], message: Any) -> tuple[bool, Any]:
    """(True, the answer) or (False, the error), which the other side can read."""
    try:
        return True, answer(number, message)
    except BaseException as error:
        text = traceback.format_exc()
        try:
            error = pickle.loads(pickle.dumps(error))
        except Exception:
            error = RuntimeError(f"{type(error).__name__}: {error}")
        error.add_note(f"in process {number}, which tells:\n{text}")
        return False, error


def _end(home: int, copies: list[int], lines: list[_Line]) -> None:
    if os.getpid() == home:
        for copy, line in zip(copies, lines, strict=False):
            with suppress(ProcessLookupError):
                os.kill(copy, signal.SIGKILL)
            line.pipe.close()
        for copy in copies:
            with suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(copy, 0)
