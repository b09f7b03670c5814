"""Several threads for one kernel call, while BLAS has one.

NumPy lets go of the interpreter while it computes, so the ranges of one call can run in several threads: copies and
elementwise passes as well as products. BLAS must keep to one thread meanwhile. Its own threads go on spinning for some
20 ms after each product that they shared, on the cores that the ranges need, which then take more than twice as long.
So a net with layers that work in several threads holds BLAS to one thread during a whole pass
(`single_threaded_blas`), and its large products are divided here as well (`product`).

There are as many threads as the OpenBLAS that NumPy has loaded would use (`OPENBLAS_NUM_THREADS`, threadpoolctl, or
else the number of cores). Where it cannot be asked (another BLAS, a browser), there is one.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.blas import kernel as _kernels
from mtorch.blas import openblas

UNPACKED = 1_000_000  # multiplications of a product up to which OpenBLAS has kernels that take matrices as they lie
WORTH = 1 << 25  # operations below which waking a thread costs more than it saves

_busy = Lock()  # held while the threads work
_lock = Lock()  # guards the next two
_holders, _threads = 0, 1  # the contexts that hold BLAS to one thread, and what it had before


@contextmanager
def single_threaded_blas() -> Iterator[int]:
    """Holds BLAS to one thread inside; gives the number of threads that `in_threads` has instead."""
    global _holders, _threads
    with _lock:
        blas = _blas_threads()
        if not _holders:
            _threads = blas[0]() if blas else 1
            if blas and _threads > 1:
                blas[1](1)
        _holders += 1
    try:
        yield _threads
    finally:
        with _lock:
            _holders -= 1
            if blas and not _holders and _threads > 1:
                blas[1](_threads)


def blas_is_held() -> bool:
    """Whether some thread is inside `single_threaded_blas`, so that the other cores are free."""
    return _holders > 0


def takes_unpacked() -> bool:
    """Whether BLAS makes a product of up to `UNPACKED` multiplications without packing: one thread, with AVX-512."""
    blas = _blas_threads()
    return blas is not None and blas[0]() == 1 and _kernels() in ("SkylakeX", "Cooperlake", "SapphireRapids")


def several_threads() -> bool:
    """Whether `in_threads` has several threads now."""
    blas = _blas_threads()
    return blas is not None and not _busy.locked() and (_threads if _holders else blas[0]()) > 1


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything inside happens in this thread: the other cores are at something else."""
    with single_threaded_blas():
        free = _busy.acquire(blocking=False)
        try:
            yield
        finally:
            if free:
                _busy.release()


def after_fork() -> None:
    """For a worker process, forked in the middle of whatever its parent did: no locks, and one thread for good."""
    global _busy, _lock, _holders, _threads
    _busy, _lock, _holders, _threads = Lock(), Lock(), 0, 1
    blas = _blas_threads()
    if blas and blas[0]() > 1:  # setting it starts BLAS's threads anew, and they spin
        blas[1](1)


def in_threads(function: Callable[[range], Any], count: int, operations: float) -> list[Any]:
    """[function(range) ...] for ranges that divide range(count), in order, each in a thread of its own.

    There is one range where there is too little to do, or where the threads are at work already. `function` must not
    write where another range reads or writes.
    """
    if operations < WORTH or count < 2:
        return [function(range(count))]
    with single_threaded_blas() as threads:
        if threads < 2 or not _busy.acquire(blocking=False):
            return [function(range(count))]
        try:
            return _divided(function, count, min(threads, count))
        finally:
            _busy.release()


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """a.dot(b) of two matrices; while BLAS is held to one thread, a large one is divided among the threads."""
    if a.dtype != b.dtype:
        return a.dot(b) if out is None else numpy.matmul(a, b, out=out, casting="same_kind")
    rows, columns = len(a), b.shape[1]
    y = numpy.empty((rows, columns), a.dtype) if out is None else out
    if not _holders or a.size * columns < WORTH:
        return a.dot(b, y)

    def by_rows(part: range) -> None:
        numpy.matmul(a[part.start : part.stop], b, out=y[part.start : part.stop])

    def by_columns(part: range) -> None:
        numpy.matmul(a, b[:, part.start : part.stop], out=y[:, part.start : part.stop])

    in_threads(by_rows if rows >= columns else by_columns, max(rows, columns), a.size * columns)
    return y


def _divided(function: Callable[[range], Any], count: int, threads: int) -> list[Any]:
    """[function(range) ...], the first range in this thread. Raises the first error once all have ended."""
    try:
        workers = [_worker(i, os.getpid()) for i in range(1, threads)]
    except RuntimeError:  # the system starts no more threads
        return [function(range(count))]
    bounds = [count * i // threads for i in range(threads + 1)]
    own, *others = (range(start, stop) for start, stop in zip(bounds, bounds[1:], strict=False))
    done: SimpleQueue = SimpleQueue()
    outcomes: list[Any] = [None] * threads
    core = _core_of_caller()()
    for i, (worker, part) in enumerate(zip(workers, others, strict=True), 1):
        worker.keep_off(core)
        worker.inbox.put((copy_context(), function, part, i, done))
    outcomes[0] = _outcome(function, own)
    for _ in workers:
        i, outcome = done.get()
        outcomes[i] = outcome
    for error, _ in outcomes:
        if error is not None:
            raise error
    return [result for _, result in outcomes]


class _Worker:
    """A thread and the queue that it takes its work from."""

    def __init__(self, number: int):
        self.inbox: SimpleQueue = SimpleQueue()
        self.core = -1  # the one that it keeps off
        self.thread = Thread(target=self._serve, name=f"mtorch-{number}", daemon=True)
        self.thread.start()

    def _serve(self) -> None:
        while True:
            context, function, part, i, done = self.inbox.get()
            done.put((i, context.run(_outcome, function, part)))
            del context, function, done  # while it waits it keeps nothing alive

    def keep_off(self, core: int) -> None:
        """Lets the thread run on every core but that of its caller, where Linux may wake it and let it wait."""
        if core != self.core:
            self.core = core
            with suppress(OSError):  # there is no other core, or this process may not choose
                os.sched_setaffinity(self.thread.native_id or 0, os.sched_getaffinity(0) - {core})


@cache
def _worker(number: int, process: int) -> _Worker:
    """Thread `number`. A process that was forked has none yet and starts its own."""
    return _Worker(number)


@cache
def _core_of_caller() -> Callable[[], int]:
    with suppress(ImportError, OSError):  # a browser loads no library
        import ctypes

        if hasattr(os, "sched_setaffinity"):
            return getattr(ctypes.PyDLL(None), "sched_getcpu", lambda: -1)
    return lambda: -1


def _outcome(function: Callable[[range], Any], part: range) -> tuple[BaseException | None, Any]:
    """(None, the result) or (the error, None)."""
    try:
        return None, function(part)
    except BaseException as error:
        return error, None


@cache
def _blas_threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """How to ask the OpenBLAS that NumPy has loaded for its number of threads, and how to set it."""
    get, set_ = openblas("get_num_threads"), openblas("set_num_threads")
    return None if get is None or set_ is None else (get, set_)
