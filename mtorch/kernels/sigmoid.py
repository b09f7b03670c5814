"""The logistic function without overflow."""

from types import ModuleType

from mtorch.arrays import Array


def sigmoid(xp: ModuleType, x: Array) -> Array:
    """1 / (1 + exp(-x)) as a new array.

    exp(-x) would overflow below the logarithm of the largest number, where the result is 0 to within rounding:
    x is held above that point (88 for float32, 709 for float64).
    """
    y = xp.asarray(xp.maximum(x, -_largest_exponent(x.dtype)))
    xp.negative(y, out=y)
    xp.exp(y, out=y)
    y += 1
    return xp.reciprocal(y, out=y)


def _largest_exponent(dtype) -> float:
    return _LARGEST.get(dtype.itemsize, 709.0)


_LARGEST = {2: 11.0, 4: 88.0}
