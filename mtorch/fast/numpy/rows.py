"""Sums along rows. NumPy starts a reduction anew for every row, which for short rows costs more than the work: there a
product with ones sums.
"""

import numpy

from mtorch.arrays import Array, ones

SHORT = 1024


def row_sums(x: Array) -> Array:
    """x (M, K) -> (M,)."""
    return row_dots(x, ones(numpy, x.shape[1], x.dtype)) if x.shape[1] <= SHORT else x.sum(axis=1)


def row_dots(x: Array, w: Array) -> Array:
    """x (M, K), w (K,) -> x @ w (M,).

    For K = 5 OpenBLAS (0.3.31, AVX-512, float32) computes on stack it has not written; the result is right, but what
    lies there may raise "invalid value encountered".
    """
    return numpy.vecdot(x, w) if x.shape[1] == 5 else x.dot(w)


def row_squares(x: Array) -> Array:
    """x (M, K) -> the sums of the squares of each row (M,); a longer product would lose digits."""
    return numpy.vecdot(x, x) if x.shape[1] <= SHORT else (x * x).sum(axis=1)
