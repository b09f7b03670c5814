"""Several threads for one call, while BLAS has one.

NumPy lets go of the interpreter while it computes, so the ranges of one call can run in several threads: copies and
elementwise passes as well as products. BLAS is limited to one thread meanwhile, or *held* (`single_threaded_blas`): its
own threads take a share of products for which one thread is faster, wait for each other awake, and go on spinning for
some 20 ms afterwards, on the cores that the ranges and other programs need.

**On a busy machine** a thread gets its core late, or for part of the time. So a range belongs to nobody: whichever
thread is free takes the next one, and a thread that comes late finds nothing left. What sharing gains and costs is
added up (`Payoff`): while it does not pay, the caller does all ranges by itself. How a call is divided depends on its
size and on the number of threads alone, so results have the same bits however busy the machine is.

There are as many threads as the OpenBLAS that NumPy has loaded would use (`OPENBLAS_NUM_THREADS`, threadpoolctl, or
else the number of cores). Where it cannot be asked (another BLAS, a browser), there is one.
"""

import os
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from functools import cache
from math import inf
from queue import SimpleQueue
from threading import Lock, Thread, get_ident
from time import perf_counter
from typing import Any, NamedTuple

from mtorch.blas import openblas

# An operation is a multiplication of a product, or other work that takes as long.
WORTH = 1 << 24  # operations for which waking a thread pays (measured)
WORTH_IN_A_ROW = 1 << 25  # the same for `together`, whose calls follow each other, as those of convolutions do

ENOUGH = 0.85  # of the time that one thread would take: sharing counts as gain below it, and as loss above

last_together = -inf  # when `together` was last done with work that is worth several threads
_busy: dict[str, object] = {}  # "by": whom the threads work for. After acquire() of a lock Ctrl-C could leave it taken
_lock = Lock()  # guards the next two
_holders: dict[int, int] = {}  # how often each thread of Python holds BLAS to one thread
_threads = 1  # how many BLAS had before
_undivided: ContextVar[bool] = ContextVar("undivided", default=False)  # whether calls in this context stay undivided


class Payoff:
    """Whether something has paid lately: seconds gained and lost are added up, and below zero there is a pause.

    No more than `most` seconds of gain are kept to outweigh later losses. The first pause takes `pause` seconds, and
    each further one twice as long, up to `longest`, until `most` seconds have been gained again.
    """

    def __init__(self, most: float, pause: float, longest: float):
        self.most, self.first, self.longest = most, pause, longest
        self.balance, self.pause, self.again = most, pause, -inf

    def pays(self) -> bool:
        return perf_counter() >= self.again

    def add(self, seconds: float) -> None:
        self.balance += seconds
        if self.balance >= self.most:
            self.balance, self.pause = self.most, self.first
        elif self.balance < 0:
            self.balance, self.again = 0.0, perf_counter() + self.pause
            self.pause = min(2 * self.pause, self.longest)


sharing = Payoff(most=0.02, pause=0.1, longest=1.0)


# ---------------------------------------------------------------------- one thread for BLAS


def _hold() -> Generator[None]:
    """Holds BLAS to one thread until it is closed. Ctrl-C may come after any call here; nothing may then stay held."""
    global _threads
    blas, ours, holds = _blas_threads(), get_ident(), False
    try:
        with _lock:
            first, depth = not _holders, _holders.get(ours, 0)
            if first:
                _threads = blas.get() if blas else 1
            _holders[ours], holds = depth + 1, True
            if blas and first and _threads > 1:
                blas.set(1)
        yield
    finally:
        interruption = None
        while holds:
            try:
                with _lock:
                    holds = False
                    if ours in _holders:  # else one_thread_for_good() came in between
                        _holders[ours] -= 1
                        try:
                            if blas and _threads > 1 and _holders == {ours: 0}:
                                blas.set(_threads)
                        finally:
                            if not _holders[ours]:
                                del _holders[ours]
            except BaseException as error:
                if not holds:
                    raise
                interruption = error  # it came while this waited for the lock
        if interruption:
            raise interruption


single_threaded_blas = contextmanager(_hold)  # Ctrl-C inside of contextlib's own functions can leave BLAS held


def with_one_thread_of_blas(function: Callable[..., Any], *args: Any) -> Any:
    """function(*args) while this thread holds BLAS. It begins sooner than in a `with`."""
    if blas_is_held():
        return function(*args)
    hold = _hold()
    try:
        next(hold)
        return function(*args)
    finally:
        hold.close()


def blas_is_held() -> bool:
    """Whether this thread is inside `single_threaded_blas`."""
    return get_ident() in _holders


def blas_has_one_thread() -> bool:
    """Whether BLAS has one thread for the caller, whatever other threads of Python do, or cannot be asked."""
    return blas_is_held() or count() == 1


@contextmanager
def _turn() -> Iterator[bool]:
    """Whether the threads were free; then they are the caller's inside."""
    ours = object()
    try:
        yield _busy.setdefault("by", ours) is ours
    finally:
        if "by" in _busy and _busy["by"] is ours:
            del _busy["by"]


def with_all_threads_of_blas(function: Callable[..., Any], *args: Any) -> bool:
    """Calls function(*args) while BLAS has its threads back; False unless the caller, and nobody else, holds BLAS.

    Whoever wants to hold BLAS, or asks for the number of threads, waits meanwhile.
    """
    blas = _blas_threads()
    with _lock:
        if blas is None or list(_holders) != [get_ident()]:
            return False
        try:
            blas.set(_threads)
            function(*args)
        finally:
            blas.set(1)
    return True


@contextmanager
def one_thread() -> Iterator[None]:
    """Everything inside happens in this thread, undivided: the other cores are at something else."""
    before = _undivided.get()
    with _turn(), single_threaded_blas():
        try:
            _undivided.set(True)
            yield
        finally:
            _undivided.set(before)


def one_thread_for_good() -> None:
    """For a worker process, forked in the middle of whatever its parent did: no locks either."""
    global _busy, _lock, _holders, _threads
    _busy, _lock, _holders, _threads = {}, Lock(), {}, 1
    blas = _blas_threads()
    if blas and blas.get() > 1:  # setting it starts BLAS's threads anew, and they spin
        blas.set(1)


def _forked() -> None:
    """In any process that was forked: the other threads of Python, that may have held what is here, are not there."""
    global _busy, _lock, _holders
    _busy, _lock, before = {}, Lock(), _holders
    _holders = {thread: depth for thread, depth in before.items() if thread == get_ident()}
    blas = _blas_threads()
    if blas and before and not _holders and _threads > 1:
        blas.set(_threads)


if hasattr(os, "register_at_fork"):
    # In the middle of a call of OpenBLAS's own threads a fork would stop them, and the call would never end.
    os.register_at_fork(before=lambda: _lock.acquire(), after_in_parent=lambda: _lock.release(), after_in_child=_forked)


# ---------------------------------------------------------------------- several threads for tasks


class Task(NamedTuple):
    """function(range) for ranges that divide range(length), of so many operations in all; `finish` joins the results.

    `function` must not write where another range reads or writes.
    """

    function: Callable[[range], Any]
    length: int
    operations: float
    finish: Callable[[list[Any]], Any] = list


def count() -> int:
    """The number of threads that share a large task here; 1 inside of a range and of `one_thread`."""
    blas = None if _undivided.get() else _blas_threads()
    if blas is None:
        return 1
    with _lock:  # between a holder's two steps BLAS has one thread already, or still
        return _threads if _holders else blas.get()


def in_threads(function: Callable[[range], Any], length: int, operations: float) -> list[Any]:
    """[function(range) ...] for ranges that divide range(length), in order."""
    return together(Task(function, length, operations))[0]


def together(*tasks: Task) -> list[Any]:
    """`share` for layers whose calls follow each other closely, so that `product` must leave BLAS's threads asleep."""
    global last_together
    try:
        return share(*tasks, least=WORTH_IN_A_ROW)
    finally:
        if sum(task.operations for task in tasks) >= WORTH_IN_A_ROW:
            last_together = perf_counter()


def share(*tasks: Task, least: float = WORTH, alone: bool = False) -> list[Any]:
    """`finish` of the results of each task. Where there is too little to do, and inside of a range, it has one range.

    alone: this thread does all ranges. Of several ranges the first error is raised once all are done.
    """
    operations = sum([task.operations for task in tasks])
    threads = count() if operations >= least else 1
    if threads == 1:
        return [task.finish([task.function(range(task.length))]) for task in tasks]
    work = _Work(tasks, operations, threads)
    with_one_thread_of_blas(work.make, alone)
    return work.results()


class _Work:
    """The ranges of some tasks, and the result or the error of each."""

    def __init__(self, tasks: tuple[Task, ...], operations: float, threads: int):
        self.tasks, self.operations, self.threads = tasks, operations, threads
        self.ranges = [(task, part) for task in tasks for part in _ranges(task.length, threads)]
        self.left = deque(range(len(self.ranges)))
        self.outcomes: list[Any] = [None] * len(self.ranges)
        self.errors: dict[int, BaseException] = {}
        self.done: SimpleQueue = SimpleQueue()  # one entry for each range that is done

    def make(self, alone: bool) -> None:
        """All ranges, by this thread and, where it pays and they are free, others."""
        if len(self.ranges) > 1 and not alone and sharing.pays():
            with _turn() as free:
                if free:
                    self._make_with_others()
        self.take()  # what is left: all, or nothing

    def _make_with_others(self) -> None:
        start, ranges = perf_counter(), len(self.ranges)
        try:
            with suppress(RuntimeError):  # the system starts no more threads
                core = _core_of_caller()()
                for i in range(1, min(self.threads, ranges)):
                    _worker(i, os.getpid()).call(self, core)
            part, own_seconds = self.take(), perf_counter() - start
            for _ in range(ranges):
                self.done.get()
        except BaseException:  # Ctrl-C: what no thread has begun stays undone
            self.left.clear()
            raise
        if part:  # this thread alone would take own_seconds / part
            sharing.add(ENOUGH * own_seconds / part - (perf_counter() - start))

    def take(self) -> float:
        """Does one range after the other until none is left; their part of the operations."""
        before, operations = _undivided.get(), 0.0
        try:
            _undivided.set(True)
            while self.left:
                try:
                    i = self.left.popleft()
                except IndexError:  # another thread was faster
                    break
                task, part = self.ranges[i]
                try:
                    self.outcomes[i] = task.function(part)
                except BaseException as error:
                    self.errors[i] = error
                operations += task.operations * len(part) / max(1, task.length)
                self.done.put(i)
        finally:
            _undivided.set(before)
        return operations / max(1, self.operations)

    def results(self) -> list[Any]:
        if self.errors:
            raise self.errors[min(self.errors)]
        found = list(zip(self.ranges, self.outcomes, strict=True))
        return [task.finish([result for (of, _), result in found if of is task]) for task in self.tasks]


def _ranges(length: int, threads: int) -> list[range]:
    """At most one for each thread, of nearly equal lengths, a longest one first."""
    n = max(1, min(length, threads))
    return [range(-(-length * i // n), -(-length * (i + 1) // n)) for i in range(n)]


class _Worker:
    """A thread and the queue that it takes its work from."""

    def __init__(self, number: int):
        self.inbox: SimpleQueue = SimpleQueue()
        self.core = -1  # the core that it keeps off
        self.thread = Thread(target=self._serve, name=f"mtorch-{number}", daemon=True)
        self.thread.start()

    def call(self, work: _Work, core: int) -> None:
        self.keep_off(core)
        self.inbox.put((copy_context(), work))

    def _serve(self) -> None:
        while True:
            context, work = self.inbox.get()
            context.run(work.take)
            del context, work  # while it waits it keeps nothing alive

    def keep_off(self, core: int) -> None:
        """Lets the thread run on every core but that of its caller: Linux may wake it there, and then it waits."""
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


class BlasThreads(NamedTuple):
    """How to ask BLAS for its number of threads, and how to set it."""

    get: Callable[[], int]
    set: Callable[[int], Any]


@cache
def _blas_threads() -> "BlasThreads | None":
    """Those of the OpenBLAS that NumPy has loaded; None for another BLAS."""
    get, set_ = openblas("get_num_threads"), openblas("set_num_threads")
    return None if get is None or set_ is None else BlasThreads(get, set_)
