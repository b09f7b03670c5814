"""Large products of two matrices in parts, each made by one thread.

OpenBLAS can divide a product by itself. But then all its threads wait when another program takes one core. So the
product is divided here, into parts of one size, which either of two groups of threads makes, with the same bits:

- ours (`threads.share`), which sleep until they are called;
- those of OpenBLAS, in one call for all parts (`cblas_?gemm_batch_strided`). They wait awake and so begin sooner, but
  spin for some 20 ms afterwards, in the way of other threads. So they are called only in a pass that holds BLAS, where
  `threads.together` has had no large work for longer than that, and while they are faster than one thread.
"""

import sys
from collections.abc import Callable
from functools import lru_cache
from math import inf
from time import perf_counter
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.blas import address, cblas
from mtorch.fast import threads
from mtorch.fast.threads import Payoff, Task, with_all_threads_of_blas, with_one_thread_of_blas
from mtorch.fast.unpacked import UNPACKED, in_sums, sums_pay

BLAS_UNDIVIDED = 1 << 18  # multiplications up to which OpenBLAS takes one thread by itself
TALL, SHORT = 128, 4  # rows of a part, and entries of a sum for each of them, with which rows are divided (measured)
ASLEEP_AFTER = 0.05  # seconds without work after which threads of OpenBLAS are surely asleep: they spin for some 20 ms
QUIET = frozenset(("ignore", "warn"))  # settings of errstate with which an overflow may go without a word, as of dot
LOOK_AGAIN = 1.0  # seconds after which one thread makes such a product again, to see how long it takes
Shape = tuple[int, ...]
C_ORDER, AS_IT_IS, TRANSPOSED = 101, 111, 112  # CBLAS's numbers
BATCHED = "eee" + "iii" + "n" + "pii" + "pii" + "n" + "pii" + "i"  # layouts, sizes, alpha, a, b, beta, y, count

# Gives the object that NumPy keeps for the errstate of now; numpy.geterr() takes some microseconds after a product.
error_state: Any = getattr(getattr(sys.modules.get("numpy._core.umath"), "_extobj_contextvar", None), "get", object)
spinning = Payoff(most=0.05, pause=1.0, longest=8.0)


def product(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """a b of two matrices, or a b + bias."""
    operations = a.size * b.shape[1]
    if operations >= threads.WORTH and _divisible(a, b, out):
        y = numpy.empty((len(a), b.shape[1]), a.dtype) if out is None else out
        _in_parts(a, b, y, operations)
    elif operations <= BLAS_UNDIVIDED:
        y = _whole(a, b, out)
    else:
        y = with_one_thread_of_blas(_whole, a, b, out)
    if bias is not None:
        y += bias
    return y


def _whole(a: Array, b: Array, out: Array | None) -> Array:
    """a b by this thread, in the fastest of three ways."""
    if a.shape[1] == 1 and (out is None or (out.flags.carray and out.dtype == a.dtype == b.dtype)):
        return a.dot(b, out)  # matmul is slow where a row and a column have one entry
    if sums_pay(a, b) and _divisible(a, b, out):
        return in_sums(a, b, out)
    return numpy.matmul(a, b, out=out)


def _divisible(a: Array, b: Array, out: Array | None) -> bool:
    """Whether parts of the product can be written straight into `out`."""
    return (a.dtype == b.dtype and a.shape[1] == len(b)) and (
        out is None
        or (out.dtype == a.dtype and out.shape == (len(a), b.shape[1]) and out.flags.writeable)
        and not (numpy.may_share_memory(out, a) or numpy.may_share_memory(out, b))
    )


def _in_parts(a: Array, b: Array, y: Array, operations: int) -> None:
    """y = a b by whichever threads are at hand; once in a second by this one alone, to be compared with them."""
    start, measure, count = perf_counter(), False, threads.count()
    call = _one_call(a.shape, a.strides, b.shape, b.strides, y.strides, y.dtype, count)
    if call is not None and _may_spin():
        at = address(a), address(b), address(y)
        if at[0] != at[1]:  # of a matrix and its transpose matmul makes a half
            measure = start - call.measured_at > LOOK_AGAIN
            if not measure and with_all_threads_of_blas(call.make, *at):
                spinning.add(threads.ENOUGH * call.seconds_alone - (perf_counter() - start))
                return
    threads.share(_task(a, b, y, operations, count), alone=measure)
    if call is not None and measure:
        call.measured_at, call.seconds_alone = start, perf_counter() - start


def _task(a: Array, b: Array, y: Array, operations: int, count: int) -> Task:
    def some_rows(part: range) -> None:
        numpy.matmul(a[part.start : part.stop], b, out=y[part.start : part.stop])

    def some_columns(part: range) -> None:
        numpy.matmul(a, b[:, part.start : part.stop], out=y[:, part.start : part.stop])

    if _rows_are_faster(len(a), a.shape[1], b.shape[1], count):
        return Task(some_rows, len(y), operations)
    return Task(some_columns, y.shape[1], operations)


def _rows_are_faster(rows: int, inner: int, columns: int, count: int) -> bool:
    """Whether parts of the rows take less time than parts of the columns.

    For each part of the rows BLAS packs the whole right factor, for each part of the columns the whole left one. But
    parts of the rows have whole lines of the right factor and of the result: for short sums this counts for more.
    """
    part = rows // count
    return rows >= columns or (part >= TALL and inner <= SHORT * part)


def _may_spin() -> bool:
    """Whether the threads of OpenBLAS are in nobody's way, and may keep quiet about an overflow."""
    asleep = perf_counter() - threads.last_together >= ASLEEP_AFTER
    return asleep and spinning.pays() and _is_quiet(error_state())


@lru_cache(maxsize=1)
def _is_quiet(state: object) -> bool:
    """Whether the errstate of now lets accidents pass. It is asked again when that is another object."""
    return QUIET.issuperset(numpy.geterr().values())


class _Call:
    """How OpenBLAS makes such a product in parts of one size, and how long one thread takes for it."""

    def __init__(self, make: Callable[[Any, Any, Any], Any]):
        self.make, self.measured_at, self.seconds_alone = make, -inf, inf


@lru_cache(maxsize=1000)
def _one_call(
    of_a: Shape, strides_a: Shape, of_b: Shape, strides_b: Shape, strides_y: Shape, dtype: numpy.dtype, count: int
) -> _Call | None:
    """For y = a b in `count` parts of its rows or columns; None where one call cannot make them."""
    (rows, inner), columns, item = of_a, of_b[1], dtype.itemsize
    by_rows = _rows_are_faster(rows, inner, columns, count)
    multiply = cblas("?gemm_batch_strided", dtype.char, BATCHED) if dtype.isnative else None
    layouts = _layout(of_a, strides_a, item), _layout(of_b, strides_b, item), _layout((rows, columns), strides_y, item)
    if multiply is None or None in layouts or count < 2 or (rows if by_rows else columns) % count:
        return None
    (order_a, lda), (order_b, ldb), (order_y, ldy) = layouts  # type: ignore[misc]  # none is None
    if by_rows:
        m, n = rows // count, columns
        steps = m * strides_a[0] // item, 0, m * ldy
    else:
        m, n = rows, columns // count
        steps = 0, n * strides_b[1] // item, n
    if order_y != AS_IT_IS or min(m, n, inner) < 2 or m * n * inner <= UNPACKED:  # matmul has other kernels
        return None
    size, a, b, y = (C_ORDER, order_a, order_b, m, n, inner, 1), (lda, steps[0]), (ldb, steps[1]), (ldy, steps[2])
    return _Call(lambda at_a, at_b, at_y: multiply(*size, at_a, *a, at_b, *b, 0, at_y, *y, count))


def _layout(shape: Shape, strides: Shape, item: int) -> tuple[int, int] | None:
    """How a matrix lies in memory, and the entries from one line of it to the next; None where BLAS cannot take it."""
    (rows, columns), (down, right) = shape, strides
    if right == item and down >= columns * item and not down % item:
        return AS_IT_IS, down // item
    if down == item and right >= rows * item and not right % item:
        return TRANSPOSED, right // item
    return None
