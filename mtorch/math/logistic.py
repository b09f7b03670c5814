"""The logistic function without overflow, for the layers and losses that share it."""

from types import ModuleType

from mtorch.arrays import Array, constant

_LARGEST = {2: 11.0, 4: 88.0}  # exp of it is finite, by the size of the type in bytes; the wider ones go to 709


def sigmoid(xp: ModuleType, x: Array) -> Array:
    """1 / (1 + exp(-x)), as a new array.

    Computed as e / (1 + e) with e = exp(x), which keeps its relative accuracy for very negative x. For large x the
    quotient is 1 to within rounding long before exp(x) overflows: x is held below that point.
    """
    largest = constant(xp, _LARGEST.get(x.dtype.itemsize, 709.0), x.dtype)
    e = xp.asarray(xp.exp(xp.minimum(x, largest)))
    e /= e + constant(xp, 1.0, x.dtype)
    return e
