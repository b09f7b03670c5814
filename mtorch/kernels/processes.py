"""Copies of this process that work beside it, each with an interpreter of its own.

Threads share one interpreter: while NumPy computes they let go of it, but a step of a small net is hundreds of short
calls, and waiting for the interpreter between them costs more than a second core gains. A forked copy waits for
nobody. It starts with all that this process has, arrays made by `shared` stay common to both, and what else is to be
known travels in messages: a pickle through a pipe, its arrays through common memory beside it.
"""

import multiprocessing
import os
import pickle
import signal
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable
from mmap import mmap
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, is_numpy
from mtorch.kernels import threads
from mtorch.kernels.memory import LINE, empty

ROOM = 1 << 26  # bytes of arrays in one message beyond which they go through the pipe
SPIN = 2e-3  # seconds of looking for a message before sleeping until it comes: a core takes long to wake
BYTES = numpy.dtype("uint8")

_is_copy = False


class Ended(RuntimeError):
    """A copy is no longer there."""


def cores() -> int:
    """The number of cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork(xp: ModuleType) -> bool:
    """Whether arrays of that module survive a fork here; a copy makes no copies of its own."""
    return is_numpy(xp) and sys.platform == "linux" and not _is_copy


def shared(x: Array) -> Array:
    """A copy of x in memory that this process and the copies it makes from now on have in common."""
    common = numpy.frombuffer(mmap(-1, max(x.nbytes, 1)), x.dtype, x.size).reshape(x.shape)
    common[...] = x
    return common


class Crew:
    """`count` copies of this process; number i (from 1) answers a message with `answer(i, message)`.

    They end with this object, with this process, or when one of them has ended by itself.
    """

    def __init__(self, count: int, answer: Callable[[int, Any], Any]):
        context, self.lines, processes = multiprocessing.get_context("fork"), [], []
        self._finalizer = weakref.finalize(self, _end, os.getpid(), processes, self.lines)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # BLAS's threads are the only ones, and it is prepared
            for i in range(1, count + 1):
                ours, theirs = context.Pipe()
                line = _Line(ours, mmap(-1, ROOM), SPIN if count < cores() else 0)
                far = _Line(theirs, line.room, line.spin)
                process = context.Process(target=_serve, args=(i, answer, far, ours), daemon=True, name=f"mtorch-{i}")
                process.start()
                theirs.close()
                processes.append(process)
                self.lines.append(line)

    @property
    def ended(self) -> bool:
        return not (self.lines and self._finalizer.alive)

    def together(self, function: Callable[[], Any], messages: Iterable[Any]) -> list[Any]:
        """[function() here, the first copy's answer to the first message, ...], all at the same time.

        Raises the first error, after all have answered; Ended, and ends the others, when a copy does not answer.
        """
        outcomes, busy = [], []
        try:
            for line, message in zip(self.lines, messages, strict=False):
                line.send(message)
                busy.append(line)
            with threads.undivided():
                outcomes.append(_outcome(function))
            outcomes.extend(line.receive() for line in busy)
        except (OSError, EOFError) as error:
            self._finalizer()
            raise Ended(f"process {len(outcomes) or 1} of {len(self.lines)} beside this one has ended") from error
        except BaseException:
            self._finalizer()
            raise
        for succeeded, result in outcomes:
            if not succeeded:
                raise result
        return [result for _, result in outcomes]

    def __reduce__(self):
        return Crew, (0, None)  # processes are not copied


class _Line:
    """One end of a pipe, and the common room for the arrays of the message under way."""

    def __init__(self, pipe: Connection, room: mmap, spin: float):
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

    def receive(self) -> Any:
        limit = time.perf_counter() + self.spin
        while time.perf_counter() < limit and not self.pipe.poll():
            pass
        sizes, text = self.pipe.recv()
        room, start, buffers = numpy.frombuffer(self.room, BYTES), 0, []
        for size in sizes:
            buffers.append(empty((size,), BYTES))
            buffers[-1][...] = room[start : start + size]
            start += -(-size // LINE) * LINE
        return pickle.loads(text, buffers=buffers)


def _outcome(function: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    try:
        return True, function(*args)
    except BaseException as error:
        return False, error


def _serve(number: int, answer: Callable[[int, Any], Any], line: _Line, far: Connection) -> None:
    """The life of a copy: it answers until the other end of its line is closed."""
    global _is_copy
    _is_copy = True
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    far.close()
    threads.start_again()
    while True:
        try:
            message = line.receive()
        except (OSError, EOFError):
            return
        succeeded, result = _outcome(answer, number, message)
        try:
            line.send((succeeded, result))
        except OSError:
            return
        except Exception as error:  # an error, or a result, that cannot be pickled
            line.send((False, RuntimeError(f"{result!r} cannot be sent: {error}")))


def _end(owner: int, processes: list, lines: list[_Line]) -> None:
    if os.getpid() == owner:
        for process, line in zip(processes, lines, strict=True):
            process.kill()
            process.join()
            line.pipe.close()
