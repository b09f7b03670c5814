"""Parts of one kernel call side by side.

NumPy lets go of the interpreter while it computes, so the parts of a call can run in several threads: copies and
elementwise passes as well as products.  The products must then not spread over the cores themselves, so the BLAS
library that NumPy has loaded is held to one thread meanwhile.  How many threads there are is what that library would
use (`OPENBLAS_NUM_THREADS`, threadpoolctl, or else the number of cores); where it cannot be asked, there is one.
"""

import ctypes
import os
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import cache
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any

import numpy

WORTH = 1 << 22  # operations below which waking a thread costs more than it saves

_busy = Lock()


def in_parts(function: Callable[[range], Any], count: int, operations: float) -> list[Any]:
    """[function(range) ...] for ranges that divide range(count), in order, each in a thread of its own.

    In one part where there is too little to do, or where the threads are at work already. `function` must not write
    where another part reads or writes.
    """
    blas = _blas_threads()
    threads = min(blas[0](), count) if blas and operations >= WORTH else 1
    if threads < 2 or not _busy.acquire(blocking=False):
        return [function(range(count))]
    get, set_to = blas
    before = get()
    set_to(1)
    try:
        bounds = [count * i // threads for i in range(threads + 1)]
        parts = [range(a, b) for a, b in zip(bounds, bounds[1:], strict=False)]
        done: SimpleQueue = SimpleQueue()
        results: list[Any] = [None] * threads
        for i in range(1, threads):
            _inbox(i, os.getpid()).put((copy_context(), function, parts[i], i, done))
        try:
            results[0] = True, function(parts[0])
        except BaseException as error:
            results[0] = False, error
        for _ in range(1, threads):
            i, *results[i] = done.get()
    finally:
        set_to(before)
        _busy.release()
    for succeeded, result in results:
        if not succeeded:
            raise result
    return [result for _, result in results]


@cache
def _inbox(number: int, process: int) -> SimpleQueue:
    """What a thread takes its work from. A process that was forked has no threads yet and starts its own."""
    inbox: SimpleQueue = SimpleQueue()
    Thread(target=_serve, args=(inbox,), name=f"mtorch-{number}", daemon=True).start()
    return inbox


def _serve(inbox: SimpleQueue) -> None:
    while True:
        _answer(*inbox.get())


def _answer(context: Context, function: Callable[[range], Any], part: range, i: int, done: SimpleQueue) -> None:
    try:
        done.put((i, True, context.run(function, part)))
    except BaseException as error:
        done.put((i, False, error))


@cache
def _blas_threads() -> tuple[Callable[[], int], Callable[[int], Any]] | None:
    """How to ask the OpenBLAS that NumPy has loaded for its number of threads, and how to set it."""
    try:
        library = ctypes.CDLL(numpy._core._multiarray_umath.__file__)
    except (AttributeError, OSError):
        return None
    for prefix in ("scipy_openblas", "openblas"):
        for suffix in ("64_", ""):
            get, set_to = (getattr(library, f"{prefix}_{verb}_num_threads{suffix}", None) for verb in ("get", "set"))
            if get and set_to:
                return get, set_to
    return None
