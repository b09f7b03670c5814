"""Worker processes: forks of this process that compute beside it, each with an interpreter of its own.

Threads share one interpreter: while NumPy computes they let go of it, but a step of a small net is hundreds of short
calls, and waiting for the interpreter between them costs more than a second core gains. A forked process waits for
nobody. It starts with all that this process has. Arrays made by `shared` stay common to both; whatever else a worker
must know travels in messages: a pickle through a pipe, its arrays through shared memory beside it.

A worker may compute for as long as it likes, but one that was stopped, or that waits for a lock that nobody will
release, answers never. The sign of life is its processor time: one that uses none for the seconds of a pool's patience
is taken to be lost.
"""

import os
import pickle
import select
import signal
import socket
import struct
import threading
import time
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable
from contextlib import suppress
from mmap import mmap
from typing import Any, NoReturn

import numpy

from mtorch.arrays import Array
from mtorch.fast import threads
from mtorch.parallel.system import cpu_count

SHARED = 1 << 26  # bytes of arrays in one message beyond which they go through the pipe
LINE = 64  # bytes of a cache line
LENGTH = struct.Struct("=Q")  # what stands before a message: its bytes
STOPS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}  # a whole group may get them: the first process decides alone
SPIN = 2e-3  # seconds of looking for a message before sleeping until it comes: a core takes long to wake
SAVED = 1e-4  # seconds by which a message comes sooner to a process that is awake

forking = threading.Lock()  # held while a pool forks: a worker must not inherit the pipes of another pool


class WorkerEnded(RuntimeError):
    """A worker process is no longer there."""


class Lost(TimeoutError):
    """A worker process shows no sign of life."""


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

    The workers end with this object, with this process, or when one of them has ended by itself, or has used no
    processor time for `patience` seconds of waiting for it (None: for ever).
    """

    def __init__(self, size: int, answer: Callable[..., Any], patience: float | None = None):
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
                    memory, spin = mmap(-1, SHARED), SPIN if size < cpu_count() else 0
                    ours, theirs = socket.socketpair()
                    try:
                        pid = os.fork()
                    except OSError:
                        for end in (ours, theirs):
                            end.close()
                        self._finalizer()
                        raise
                    if not pid:
                        ours.close()
                        _work(rank, answer, _Channel(theirs, memory, spin))
                    self.pids.append(pid)
                    self.channels.append(_Channel(ours, memory, spin, pid, patience))
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
            channel.end.close()

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
                raise WorkerEnded(str(error) if isinstance(error, Lost) else "a worker process has ended") from error
        self.running = False
        for succeeded, result in outcomes:
            if not succeeded:
                raise result
        return [result for _, result in outcomes]


class _Channel:
    """One end of a pipe, and the shared memory that holds the arrays of the message under way.

    pid: the process at the other end, if it is to be lost after `patience` seconds without a sign of life.
    """

    def __init__(self, end: socket.socket, memory: mmap, spin: float, pid: int = 0, patience: float | None = None):
        self.end, self.memory, self.spin, self.pid, self.patience = end, memory, spin, pid, patience
        self.spinning = threads.Payoff(most=spin, pause=0.2, longest=10.0)
        end.setblocking(False)
        self.readable, self.writable = select.poll(), select.poll()
        self.readable.register(end, select.POLLIN)
        self.writable.register(end, select.POLLOUT)

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
        message = pickle.dumps(([view.nbytes for view in views], text), 5)
        left = memoryview(LENGTH.pack(len(message)) + message)
        while left:
            try:
                left = left[self.end.send(left) :]
            except BlockingIOError:
                self._wait(self.writable)

    def receive(self, copy: bool) -> Any:
        """The next message; its arrays are copies, or are valid until this end sends again."""
        if self.spin and self.spinning.pays():
            self._spin()
        sizes, text = pickle.loads(self._read(LENGTH.unpack(self._read(LENGTH.size))[0]))
        start, buffers = 0, []
        for size in sizes:
            array = numpy.frombuffer(self.memory, "uint8", size, start)
            buffers.append(array.copy() if copy else array)
            start += -(-size // LINE) * LINE
        return pickle.loads(text, buffers=buffers)

    def _spin(self) -> None:
        """Looks for a message, and notes whether that paid: on a busy machine the other process may need this core."""
        limit = time.perf_counter() + self.spin
        while not self.readable.poll(0):
            if time.perf_counter() > limit:
                self.spinning.add(-self.spin)
                return
        self.spinning.add(SAVED)

    def _read(self, count: int) -> bytearray:
        found = bytearray(count)
        left = memoryview(found)
        while left:
            try:
                size = self.end.recv_into(left)
            except BlockingIOError:
                self._wait(self.readable)
                continue
            if not size:
                raise EOFError
            left = left[size:]
        return found

    def _wait(self, ready: select.poll) -> None:
        """Sleeps until the other process has read or written; raises Lost when it gives no sign of life."""
        if not self.pid or self.patience is None:
            ready.poll()
            return
        wait, silent = min(1.0, self.patience / 4), 0.0  # waits are counted, for this process may be stopped as well
        used = 0.0
        while not ready.poll(1000 * wait):
            before, used = used, processor_time(self.pid)
            silent = silent + wait if used == before else 0.0
            if silent >= self.patience:
                raise Lost(
                    f"worker process {self.pid} has used no processor time for {self.patience:g} s and was ended: was "
                    "it stopped (SIGSTOP, a debugger), or is the machine out of memory? A longer patience= waits longer"
                )


def processor_time(pid: int) -> float:
    """The seconds of processor time that a process has used; 0 where the system does not tell."""
    try:
        return time.clock_gettime((~pid << 3) | 2)  # what clock_getcpuclockid(3) gives on Linux
    except (OSError, OverflowError):
        return 0.0


def _work(rank: int, answer: Callable[..., Any], channel: _Channel) -> NoReturn:
    """The life of a worker: it answers until the other end of its channel is closed."""
    try:
        for stop in STOPS:
            signal.signal(stop, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)
        threads.one_thread_for_good()
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
            channel.end.close()
        for pid in pids:
            with suppress(ChildProcessError):  # somebody else has waited for it
                os.waitpid(pid, 0)
