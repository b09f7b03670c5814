"""Worker processes: forks of this process that compute beside it, each with an interpreter of its own.

Threads share one interpreter: while NumPy computes they let go of it, but a step of a small net is hundreds of short
calls, and waiting for the interpreter between them costs more than a second core gains. A forked process waits for
nobody. It starts with all that this process has. Arrays made by `shared` stay common to both; whatever else a worker
must know travels in messages: a pickle through a pipe, its arrays through shared memory beside it.
"""

import os
import pickle
import signal
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from mmap import mmap
from multiprocessing import Pipe
from typing import Any, NoReturn

import numpy

from mtorch.arrays import Array
from mtorch.fast import threads
from mtorch.parallel.system import cpu_count

SHARED = 1 << 26  # bytes of arrays in one message beyond which they go through the pipe
LINE = 64  # bytes of a cache line
STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # a whole group may get them: the first process decides alone
SPIN = 2e-3  # seconds of looking for a message before sleeping until it comes: a core takes long to wake

forking = threading.Lock()  # held while a pool forks: a worker must not inherit the pipes of another pool


class WorkerEnded(RuntimeError):
    """A worker process is no longer there."""


class _SharedMemory(mmap):
    """Anonymous memory that a process shares with its forks."""


def shared(x: Array) -> Array:
    """A copy of x in memory that this process shares with the workers it forks from now on; x itself if it is there."""
    owner = x
    while isinstance(owner, numpy.ndarray):
        owner = owner.base
    if isinstance(getattr(owner, "obj", owner), _SharedMemory):  # a memoryview tells whose memory it shows
        return x
    copy = numpy.frombuffer(_SharedMemory(-1, max(x.nbytes, 1)), x.dtype, x.size).reshape(x.shape)
    copy[...] = x
    return copy


class WorkerPool:
    """`size` workers. The one of rank r (from 1; this process has rank 0) answers a message with answer(r, *message).

    The workers end with this object, with this process, or when one of them has ended by itself.
    """

    def __init__(self, size: int, answer: Callable[..., Any]):
        self.parent = os.getpid()
        self.pids: list[int] = []
        self.channels: list[_Channel] = []
        self.running = False  # between the first message of a request and its last answer
        self._finalizer = weakref.finalize(self, _end, self.parent, self.pids, self.channels)
        with threads.single_threaded_blas(), forking, warnings.catch_warnings():
            # Python warns of forks beside threads. Those of BLAS are prepared for it, and there are no others.
            warnings.simplefilter("ignore", DeprecationWarning)
            mask = signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)  # until the worker has learnt to ignore them
            try:
                for rank in range(1, size + 1):
                    ours, theirs = Pipe()
                    memory, spin = mmap(-1, SHARED), SPIN if size < cpu_count() else 0
                    pid = os.fork()
                    if not pid:
                        ours.close()
                        _work(rank, answer, _Channel(theirs, memory, spin))
                    self.pids.append(pid)
                    self.channels.append(_Channel(ours, memory, spin))
                    theirs.close()
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, mask)

    @property
    def ended(self) -> bool:
        """Whether no request can be made: a worker is gone, a request was broken off, or this process is a fork."""
        return self.running or not self._finalizer.alive or self.parent != os.getpid()

    def detach(self) -> None:
        """Lets go of the workers in a process that was forked by somebody else."""
        for channel in self.channels:
            channel.pipe.close()

    def run(self, function: Callable[[], Any], messages: Iterable[tuple]) -> list[Any]:
        """[function() here, the answer of rank 1 to the first message, ...], computed at the same time.

        The arrays of an answer are valid until the next request. Raises the first error once all have answered. Ends
        all workers and raises WorkerEnded when one does not answer.
        """
        outcomes, asked = [], []
        self.running = True
        try:
            for channel, message in zip(self.channels, messages, strict=False):
                channel.send((numpy.geterr(), message))
                asked.append(channel)
            outcomes.append(_outcome(function))
            outcomes.extend(channel.receive(copy=False) for channel in asked)
        except BaseException as error:
            self._finalizer()
            if not isinstance(error, OSError | EOFError):
                raise
            if not outcomes or outcomes[0][0]:
                raise WorkerEnded("a worker process has ended") from error
        self.running = False
        for succeeded, result in outcomes:
            if not succeeded:
                raise result
        return [result for _, result in outcomes]


class _Channel:
    """One end of a pipe, and the shared memory that holds the arrays of the message under way."""

    def __init__(self, pipe: Any, memory: mmap, spin: float):
        self.pipe, self.memory, self.spin = pipe, memory, spin

    def send(self, message: Any) -> None:
        buffers: list[pickle.PickleBuffer] = []
        text = pickle.dumps(message, 5, buffer_callback=buffers.append)
        views = [buffer.raw() for buffer in buffers]
        if sum(view.nbytes + LINE for view in views) > SHARED:
            text, views = pickle.dumps(message, 5), []
        start = 0
        for view in views:
            self.memory[start : start + view.nbytes] = view
            start += -(-view.nbytes // LINE) * LINE
        self.pipe.send(([view.nbytes for view in views], text))

    def receive(self, copy: bool) -> Any:
        """The next message; its arrays are copies, or are valid until this end sends again."""
        limit = time.perf_counter() + self.spin
        while time.perf_counter() < limit and not self.pipe.poll():
            pass
        sizes, text = self.pipe.recv()
        start, buffers = 0, []
        for size in sizes:
            array = numpy.frombuffer(self.memory, "uint8", size, start)
            buffers.append(array.copy() if copy else array)
            start += -(-size // LINE) * LINE
        return pickle.loads(text, buffers=buffers)


def _work(rank: int, answer: Callable[..., Any], channel: _Channel) -> NoReturn:
    """The life of a worker: it answers until the other end of its channel is closed."""
    try:
        for stop in STOPS:
            signal.signal(stop, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        threads.after_fork()
        while True:
            settings, message = channel.receive(copy=True)
            with numpy.errstate(**settings):
                succeeded, result = _outcome(answer, rank, *message)
            channel.send((succeeded, result if succeeded else _readable(result, rank)))
    except (OSError, EOFError):
        pass
    finally:
        os._exit(0)


def _outcome(function: Callable[..., Any], *args: Any) -> tuple[bool, Any]:
    """(True, the result) or (False, the error)."""
    try:
        return True, function(*args)
    except BaseException as error:
        return False, error


def _readable(error: BaseException, rank: int) -> BaseException:
    """The error as the other process can read it, with the traceback as a note."""
    text = "".join(traceback.format_exception(error))
    try:
        error = pickle.loads(pickle.dumps(error))
    except Exception:
        error = RuntimeError(f"{type(error).__name__}: {error}")
    error.add_note(f"in worker process {rank}:\n{text}")
    return error


def _end(parent: int, pids: list[int], channels: list[_Channel]) -> None:
    if os.getpid() == parent:
        for pid, channel in zip(pids, channels, strict=False):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            channel.pipe.close()
        for pid in pids:
            with suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(pid, 0)
