"""Large arrays that begin on a cache line.

Of a product that BLAS need not pack (`unpacked.py`) it reads the right factor as it lies, a register of AVX-512 at a
time. A register is as long as a cache line: where all rows begin on one, such a product takes up to a fifth less time.

The gradients that such products read need it. Results of convolutions and of ReLU do not, but lie like these: so both
take equally long blocks of memory, and each fits where another one was freed.
"""

from math import prod
from typing import Any

import numpy

from mtorch.arrays import Array

LINE = 64  # bytes of a cache line
LARGE = 1 << 22  # bytes of an image from which it pays (measured)


def is_large(x: Array) -> bool:
    return x.nbytes >= LARGE


def aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """numpy.empty, on a cache line."""
    dtype = numpy.dtype(dtype)
    memory = numpy.empty(prod(shape) * dtype.itemsize + LINE, "uint8")
    return numpy.ndarray(shape, dtype, memory, -memory.ctypes.data % LINE)


def empty(shape: tuple[int, ...], dtype: Any) -> Array:
    """numpy.empty, on a cache line where it is large."""
    y = numpy.empty(shape, dtype)
    return aligned(shape, dtype) if is_large(y) else y


def empty_like(x: Array, dtype: Any = None, shape: tuple[int, ...] | None = None) -> Array:
    """numpy.empty_like, on a cache line where it is large."""
    y = numpy.empty_like(x, dtype, shape=shape)
    return numpy.ndarray(y.shape, y.dtype, aligned((y.nbytes,), "uint8"), 0, y.strides) if is_large(y) else y
