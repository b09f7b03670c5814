"""Parts of one kernel call side by side.

NumPy lets go of the interpreter while it computes, so the parts of a call can run in several threads: copies and
elementwise passes as well as products.  The products must then not spread over the cores themselves, so the BLAS
library that NumPy has loaded is held to one thread meanwhile.  How many threads there are is what that library would
use (`OPENBLAS_NUM_THREADS`, threadpoolctl, or else the number of cores); where it cannot be asked, there is one.

BLAS's own threads go on spinning for some 20 ms after each product that they shared, on the cores that the parts need,
which then take more than twice as long.  So a net with layers that work in parts (`Layer.multithreaded`) holds BLAS to
one thread during all of a pass, and its large products are made in parts as well (`product`).
"""

import ctypes
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context, copy_context
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.kernels.memory import empty

UNPACKED = 1_000_000  # multiplications of a product up to which OpenBLAS has kernels that take matrices as they lie
WORTH = 1 << 25  # operations below which waking a thread costs more than it saves

_busy, _door = Lock(), Lock()
_holders, _threads = 0, 1  # how many hold BLAS to one thread, and what it had before


@contextmanager
def held() -> Iterator[int]:
    """Holds BLAS to one thread inside; gives the number of threads that there are instead."""
    global _holders, _threads
    with _door:
        blas = _blas_threads()
        if not _holders:
            _threads = blas[0]() if blas else 1
            if _threads > 1:
                blas[1](1)
        _holders += 1
    try:
        yield _threads
    finally:
        with _door:
            _holders -= 1
            if not _holders and _threads > 1:
                blas[1](_threads)


def holding() -> bool:
    """Whether somebody holds BLAS to one thread, so that the other cores are free."""
    return _holders > 0


def takes_unpacked() -> bool:
    """Whether BLAS makes a product of up to `UNPACKED` multiplications without packing: one thread, with AVX-512."""
    blas = _blas_threads()
    return blas is not None and blas[0]() == 1 and _kernels() in ("SkylakeX", "Cooperlake", "SapphireRapids")


def several() -> bool:
    """Whether `in_parts` has several threads now."""
    blas = _blas_threads()
    return blas is not None and not _busy.locked() and (_threads if _holders else blas[0]()) > 1


def alone(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) while BLAS is held to one thread."""
    with held():
        return function(*args)


@contextmanager
def undivided() -> Iterator[None]:
    """Everything inside happens in this thread: the other cores are at something else."""
    with held():
        free = _busy.acquire(blocking=False)
        try:
            yield
        finally:
            if free:
                _busy.release()


def start_again() -> None:
    """For a process that was forked, in the middle of whatever its parent did: no locks, and one thread for good."""
    global _busy, _door, _holders, _threads
    _busy, _door, _holders, _threads = Lock(), Lock(), 0, 1
    blas = _blas_threads()
    if blas and blas[0]() > 1:  # setting it starts BLAS's threads anew, and they spin
        blas[1](1)


def keep_off(task: int, core: int) -> None:
    """Lets that thread or process run on every core but one.

    Linux wakes a task on the core of the one that wakes it, and may leave it there, behind that one, for many
    milliseconds.
    """
    with suppress(OSError):  # no other core, or not allowed to
        os.sched_setaffinity(task, os.sched_getaffinity(0) - {core})


def in_parts(function: Callable[[range], Any], count: int, operations: float) -> list[Any]:
    """[function(range) ...] for ranges that divide range(count), in order, each in a thread of its own.

    In one part where there is too little to do, or where the threads are at work already. `function` must not write
    where another part reads or writes.
    """
    if operations < WORTH or count < 2:
        return [function(range(count))]
    with held() as threads:
        return _shared(function, count, min(threads, count))


def product(a: Array, b: Array, out: Array | None = None) -> Array:
    """a.dot(b) of two matrices; in parts, by rows or by columns of the result, where BLAS is held to one thread."""
    if a.__class__ is not numpy.ndarray:
        return a.dot(b, out)
    if a.dtype != b.dtype:
        return a.dot(b) if out is None else numpy.matmul(a, b, out=out, casting="same_kind")
    rows, columns = len(a), b.shape[1]
    y = empty((rows, columns), a.dtype) if out is None else out
    if not _holders or a.size * columns < WORTH:
        return a.dot(b, y)

    def by_rows(part: range) -> None:
        numpy.matmul(a[part.start : part.stop], b, out=y[part.start : part.stop])

    def by_columns(part: range) -> None:
        numpy.matmul(a, b[:, part.start : part.stop], out=y[:, part.start : part.stop])

    in_parts(by_rows if rows >= columns else by_columns, max(rows, columns), a.size * columns)
    return y


def _shared(function: Callable[[range], Any], count: int, threads: int) -> list[Any]:
    if threads < 2 or not _busy.acquire(blocking=False):
        return [function(range(count))]
    try:
        bounds = [count * i // threads for i in range(threads + 1)]
        parts = [range(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
        done: SimpleQueue = SimpleQueue()
        core = this_core()
        results: list[Any] = [None] * threads
        for i in range(1, threads):
            worker = _worker(i, os.getpid())
            worker.keep_off(core)
            worker.inbox.put((copy_context(), function, parts[i], i, done))
        try:
            results[0] = True, function(parts[0])
        except BaseException as error:
            results[0] = False, error
        for _ in range(1, threads):
            i, *results[i] = done.get()
    finally:
        _busy.release()
    for succeeded, result in results:
        if not succeeded:
            raise result
    return [result for _, result in results]


class _Worker:
    """A thread and what it takes its work from."""

    def __init__(self, number: int):
        self.inbox: SimpleQueue = SimpleQueue()
        self.thread = Thread(target=self._serve, name=f"mtorch-{number}", daemon=True)
        self.thread.start()
        self.core = -1  # the one it keeps off

    def _serve(self) -> None:
        while True:
            _answer(*self.inbox.get())

    def keep_off(self, core: int) -> None:
        if core != self.core:
            self.core = core
            keep_off(self.thread.native_id, core)


@cache
def _worker(number: int, process: int) -> _Worker:
    """A process that was forked has no threads yet and starts its own."""
    return _Worker(number)


@cache
def _core_of_caller() -> Callable[[], int]:
    found = getattr(ctypes.PyDLL(None), "sched_getcpu", None) if hasattr(os, "sched_setaffinity") else None
    return found or (lambda: -1)


def this_core() -> int:
    """The core that the caller runs on, where the system tells; else -1."""
    return _core_of_caller()()


def _answer(context: Context, function: Callable[[range], Any], part: range, i: int, done: SimpleQueue) -> None:
    try:
        done.put((i, True, context.run(function, part)))
    except BaseException as error:
        done.put((i, False, error))


@cache
def _blas_threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """How to ask the OpenBLAS that NumPy has loaded for its number of threads, and how to set it."""
    return next(filter(all, _of_openblas("get_num_threads", "set_num_threads")), None)


@cache
def _kernels() -> str:
    """The kind of processor that OpenBLAS has chosen its kernels for."""
    for (name,) in filter(all, _of_openblas("get_corename")):
        name.restype = ctypes.c_char_p
        return name().decode()
    return ""


def _of_openblas(*names: str) -> Iterator[tuple[Callable[..., Any] | None, ...]]:
    """Those functions of the OpenBLAS that NumPy has loaded, for every way in which its builds spell them."""
    with suppress(AttributeError, OSError):
        library = ctypes.PyDLL(numpy._core._multiarray_umath.__file__)
        for prefix in ("scipy_openblas", "openblas"):
            for suffix in ("64_", ""):
                yield tuple(getattr(library, f"{prefix}_{name}{suffix}", None) for name in names)
