"""Large products of two matrices in parts, each made by one thread.

OpenBLAS can divide a product by itself. But then all its threads wait when another program takes one core. So the
product is divided here, into parts of one size, which either of two groups of threads makes, with the same bits:

- ours (`threads.share`), which sleep until they are called;
- those of OpenBLAS, in one call for all parts (`cblas_?gemm_batch_strided`). They wait awake and so begin sooner, but
  spin for some 20 ms afterwards, in the way of other threads. So they are called only where `threads.together` has had
  nothing to do for longer than that, and while they are faster than one thread.
"""

from functools import cache, lru_cache
from math import inf
from time import perf_counter
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.blas import cblas
from mtorch.fast import threads
from mtorch.fast.threads import Payoff, Task, single_threaded_blas, with_all_threads_of_blas

BLAS_UNDIVIDED = 1 << 18  # multiplications up to which OpenBLAS takes one thread by itself
ASLEEP_AFTER = 0.05  # seconds without work after which threads of OpenBLAS are surely asleep: they spin for some 20 ms
LOOK_AGAIN = 1.0  # seconds after which one thread makes such a product again, to see how long it takes
C_ORDER, AS_IT_IS, TRANSPOSED = 101, 111, 112  # CBLAS's numbers

spinning = Payoff(most=0.01, pause=1.0, longest=8.0)


def product(a: Array, b: Array, out: Array | None = None, bias: Array | None = None) -> Array:
    """a b of two matrices, or a b + bias."""
    rows, columns = len(a), b.shape[1]
    plain = a.dtype == b.dtype and a.shape[1] == len(b)
    if out is not None:
        like_y = out.dtype == a.dtype and out.shape == (rows, columns) and out.flags.writeable
        plain = plain and like_y and not _overlap(out, a, b)
    if not plain:  # NumPy converts, makes copies, or refuses
        y = a.dot(b) if out is None else numpy.matmul(a, b, out=out)
        return y if bias is None else numpy.add(y, bias, out=out)
    operations = a.size * columns
    y = numpy.empty((rows, columns), a.dtype) if out is None else out
    if operations < threads.WORTH:
        if threads.blas_is_held() or operations <= BLAS_UNDIVIDED:
            _whole(a, b, y)
        else:
            with single_threaded_blas():
                _whole(a, b, y)
    else:
        _in_parts(a, b, y, operations)
    if bias is not None:
        y += bias
    return y


def _whole(a: Array, b: Array, y: Array) -> None:
    """dot copies factors that lie with gaps; matmul is slow where a row and a column have one entry."""
    if a.shape[1] == 1 and y.flags.c_contiguous:
        a.dot(b, y)
    else:
        numpy.matmul(a, b, out=y)


def _overlap(out: Array, *factors: Array) -> bool:
    return any(numpy.may_share_memory(out, each) for each in factors)


def _in_parts(a: Array, b: Array, y: Array, operations: int) -> None:
    """y = a b by whichever threads are at hand; once in a second by this one alone, to be compared with them."""

    def by_rows(part: range) -> None:
        numpy.matmul(a[part.start : part.stop], b, out=y[part.start : part.stop])

    def by_columns(part: range) -> None:
        numpy.matmul(a, b[:, part.start : part.stop], out=y[:, part.start : part.stop])

    task = Task(by_rows if len(y) >= len(y.T) else by_columns, max(y.shape), operations)
    call = _one_call(a, b, y, threads.count()) if _may_spin() else None
    if call is None:
        threads.share(task)
        return
    start, alone = perf_counter(), _alone(*y.shape, len(b), y.dtype.char)
    if start - alone["when"] > LOOK_AGAIN:
        threads.share(task, alone=True)
        alone["when"], alone["seconds"] = start, perf_counter() - start
    elif with_all_threads_of_blas(*call):
        spinning.add(alone["seconds"] - (perf_counter() - start))
    else:
        threads.share(task)


def _may_spin() -> bool:
    """Whether the threads of OpenBLAS are in nobody's way, and may keep quiet about an overflow."""
    asleep = perf_counter() - threads.last_together >= ASLEEP_AFTER
    return asleep and spinning.pays() and {"ignore", "warn"}.issuperset(numpy.geterr().values())


def _one_call(a: Array, b: Array, y: Array, count: int) -> tuple | None:
    """The function of OpenBLAS that makes y = a b in `count` equal parts, and its arguments; None if it cannot."""
    (rows, columns), inner, item = y.shape, len(b), y.itemsize
    multiply = _batched(y.dtype.char) if y.dtype.isnative else None
    layouts = [_layout(x) for x in (a, b, y)]
    if multiply is None or None in layouts or count < 2 or max(rows, columns) % count:
        return None
    (of_a, lda), (of_b, ldb), (of_y, ldy) = layouts  # type: ignore[misc]  # none is None
    if rows >= columns:
        m, n = rows // count, columns
        steps = m * a.strides[0] // item, 0, m * ldy
    else:
        m, n = rows, columns // count
        steps = 0, n * b.strides[1] // item, n
    at_a, at_b, at_y = (x.ctypes.data for x in (a, b, y))
    # Matmul makes a small part by other kernels, and of a matrix and its transpose one half.
    if of_y != AS_IT_IS or min(m, n, inner) < 2 or m * n * inner <= threads.UNPACKED or at_a == at_b:
        return None
    first, second, third = (at_a, lda, steps[0]), (at_b, ldb, steps[1]), (at_y, ldy, steps[2])
    return multiply, C_ORDER, of_a, of_b, m, n, inner, 1, *first, *second, 0, *third, count


@lru_cache(maxsize=1000)
def _alone(rows: int, columns: int, inner: int, dtype: str) -> dict[str, float]:
    """How long one thread took for such a product, and when."""
    return {"when": -inf, "seconds": inf}


def _layout(x: Array) -> tuple[int, int] | None:
    """How a matrix lies in memory, and the entries from one line of it to the next; None where BLAS cannot take it."""
    (rows, columns), (down, right), item = x.shape, x.strides, x.itemsize
    if right == item and down >= columns * item and not down % item:
        return AS_IT_IS, down // item
    if down == item and right >= rows * item and not right % item:
        return TRANSPOSED, right // item
    return None


@cache
def _batched(dtype: str) -> Any:
    """`cblas_?gemm_batch_strided`: in one call, products of matrices of one size that lie at equal distances."""
    letter = {"f": "s", "d": "d"}.get(dtype)
    function, plain = (cblas(f"{letter}gemm{end}") if letter else None for end in ("_batch_strided", ""))
    if plain is None or not plain.__name__.endswith("64_"):  # its integers may have 32 bits; the other's name tells not
        return None
    if function is not None:
        import ctypes

        number, size = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype], ctypes.c_int64
        matrix = [ctypes.c_void_p, size, size]
        function.restype = None
        function.argtypes = [*[ctypes.c_int] * 3, *[size] * 3, number, *matrix, *matrix, number, *matrix, size]
    return function
