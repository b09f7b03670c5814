"""Products in pieces for OpenBLAS's small-matrix kernels, which take the matrices as they lie.

Of a large product OpenBLAS first copies ("packs") both factors, in the order in which its kernel reads them. Where one
has few rows, or the result few entries, that takes up to a third of the time. With AVX-512 and one thread it packs
nothing of products up to a million multiplications, unless the right factor is transposed.
"""

from functools import lru_cache

import numpy

from mtorch.arrays import Array
from mtorch.blas import kernel
from mtorch.fast import threads

UNPACKED = 1_000_000  # multiplications up to which OpenBLAS has kernels for small matrices
NARROW = 32  # a piece with fewer columns takes longer than packing would (measured with factors on a cache line)
SHORT = 100  # so does a piece whose sums have fewer entries (measured)
REGISTER = 16  # single-precision numbers in a register of AVX-512: columns come in multiples of it


def has_small_kernels() -> bool:
    """Whether BLAS uses its kernels for small matrices here."""
    return threads.blas_has_one_thread() and kernel() in ("SkylakeX", "Cooperlake", "SapphireRapids")


def in_columns(a: Array, b: Array, out: Array) -> None:
    """out = a b for matrices, or stacks of them: some columns of b after the others."""
    width = _width(a.shape[-2] * a.shape[-1], b.shape[-1]) if b.dtype.char == "f" else 0  # in double precision none pay
    if width and has_small_kernels():
        a, b, out = a[..., None, :, :], _cut(b, width), _cut(out, width)
    numpy.matmul(a, b, out=out)


@lru_cache(maxsize=1000)
def _width(size: int, columns: int) -> int:
    """The most columns, in equal pieces, for which a matrix of so many entries needs no packing; 0 for no pieces."""
    if size * columns > UNPACKED:
        for count in range(2, columns // NARROW + 1):
            width, rest = divmod(columns, count)
            if not rest and width % REGISTER == 0 and size * width <= UNPACKED:
                return width
    return 0


def _cut(x: Array, width: int) -> Array:
    """(..., R, C) -> (..., C / width, R, width)."""
    return x.reshape(*x.shape[:-1], x.shape[-1] // width, width).swapaxes(-2, -3)


def sums_pay(a: Array, b: Array) -> bool:
    """Whether `in_sums` takes less time than one product."""
    entries, inner = len(a) * b.shape[1], a.shape[1]
    if entries * inner <= UNPACKED or entries * SHORT > UNPACKED or inner != len(b):
        return False
    return a.dtype == b.dtype and a.dtype.char in "fd" and b.strides[1] == b.itemsize and has_small_kernels()


def in_sums(a: Array, b: Array, out: Array | None = None) -> Array:
    """a b of two matrices: the sum over some columns of a and rows of b after the others."""
    (rows, inner), columns = a.shape, b.shape[1]
    length = inner // -(-rows * inner * columns // UNPACKED)
    count, rest = divmod(inner, length)
    whole = count * length
    parts = numpy.matmul(_cut(a[:, :whole], length), b[:whole].reshape(count, length, columns))
    y = parts.sum(axis=0, out=out)
    if rest:
        y += a[:, whole:] @ b[whole:]
    return y
