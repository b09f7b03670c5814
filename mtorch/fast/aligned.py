"""Large arrays that begin on a cache line.

Of a product that BLAS need not pack (`unpacked.py`) it reads the right factor as it lies, a register of AVX-512 at a
time. A register is as long as a cache line: where all rows begin on one, such a product takes up to a fifth less time.

Gradients are such factors. Results of convolutions and of ReLU begin on a line as well: not for speed, but so that
their blocks of memory are as long as those of gradients, and each fits where another one was freed.
"""

from math import prod
from typing import Any

import numpy

from mtorch.arrays import Array

LINE = 64  # bytes of a cache line
LARGE = 1 << 22  # bytes of an array from which it pays (measured)


def is_large(nbytes: int) -> bool:
    return nbytes >= LARGE


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """numpy.empty, on a cache line."""
    dtype = numpy.dtype(dtype)
    memory = numpy.empty(prod(shape) * dtype.itemsize + LINE, "uint8")
    return numpy.ndarray(shape, dtype, memory, -memory.ctypes.data % LINE)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """numpy.empty, on a cache line where it is large."""
    nbytes = prod(shape) * numpy.dtype(dtype).itemsize
    return aligned(shape, dtype) if is_large(nbytes) else numpy.empty(shape, dtype)


def empty_like(x: Array, dtype: Any = None, shape: tuple[int, ...] | None = None) -> Array:
    """numpy.empty_like, on a cache line where it is large."""
    y = numpy.empty_like(x, dtype, shape=shape)
    if not is_large(y.nbytes):
        return y
    shape, dtype, strides, nbytes = y.shape, y.dtype, y.strides, y.nbytes
    del y  # its block is free again for the next line
    return numpy.ndarray(shape, dtype, aligned((nbytes,), "uint8"), 0, strides)
