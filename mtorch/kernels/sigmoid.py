"""The logistic function without overflow."""

from types import ModuleType

import numpy

from mtorch.arrays import Array, constant, whole

_LARGEST = {2: 11.0, 4: 88.0}  # exp of it is finite, by the size of the type in bytes; the wider ones go to 709


def sigmoid(xp: ModuleType, x: Array) -> Array:
    """e / (1 + e) with e = exp(x), as a new array.

    For large x the quotient is 1 to within rounding long before exp(x) overflows: x is held below that point. For
    very negative x it keeps its relative accuracy, as 1 / (1 + exp(-x)) does.
    """
    dtype = x.dtype
    e = whole(xp, xp.minimum(x, constant(xp, largest_exponent(dtype), dtype)))
    xp.exp(e, out=e)
    e /= e + constant(xp, 1.0, dtype)
    return e


def largest_exponent(dtype: numpy.dtype) -> float:
    """A number whose exponential is finite in that type."""
    return _LARGEST.get(dtype.itemsize, 709.0)
