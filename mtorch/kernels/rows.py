"""Reductions along rows. NumPy starts a reduction anew for every row of the last axis, which for short rows costs more
than the work: there a product with ones sums, and a transposed copy finds maxima.
"""

from types import ModuleType

import numpy

from mtorch.arrays import Array, flat_rows, is_numpy, ones, quiet  # noqa: F401

SHORT_SUM, SHORT_MAX = 1024, 32


def row_sums(xp: ModuleType, x: Array) -> Array:
    """x (M, K) -> (M,)."""
    if is_numpy(xp) and x.shape[1] <= SHORT_SUM:
        return row_dots(xp, x, ones(xp, x.shape[1], x.dtype))
    return x.sum(axis=1)


def row_dots(xp: ModuleType, x: Array, w: Array) -> Array:
    """x (M, K), w (K,) -> x @ w (M,).

    For K = 5 OpenBLAS (0.3.31, AVX-512, float32) computes on stack it has not written; the result is right, but what
    lies there may raise "invalid value encountered".
    """
    return numpy.vecdot(x, w) if is_numpy(xp) and x.shape[1] == 5 else x.dot(w)


def row_squares(xp: ModuleType, x: Array) -> Array:
    """x (M, K) -> the sums of the squares of each row (M,)."""
    return numpy.vecdot(x, x) if is_numpy(xp) and x.shape[1] <= SHORT_SUM else (x * x).sum(axis=1)


def sum_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """x.sum(axis, keepdims=True)."""
    if axis in (-1, x.ndim - 1):
        return row_sums(xp, flat_rows(x)).reshape(x.shape[:-1] + (1,))
    return x.sum(axis=axis, keepdims=True)


def max_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """x.max(axis, keepdims=True)."""
    if is_numpy(xp) and axis in (-1, x.ndim - 1) and x.shape[-1] <= SHORT_MAX:
        return xp.maximum.reduce(flat_rows(x).T.copy(), 0).reshape(x.shape[:-1] + (1,))
    return x.max(axis=axis, keepdims=True)
