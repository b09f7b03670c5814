"""The logistic function without overflow."""

from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, constant, whole

_LARGEST = {2: 11.0, 4: 88.0}  # exp of it is finite, by the size of the type in bytes; the wider ones go to 709


def sigmoid(xp: ModuleType, x: Array) -> Array:
    """e / (1 + e) with e = exp(x), as a new array.

    For large x the quotient is 1 to within rounding long before exp(x) overflows: x is held below that point. For
    very negative x it keeps its relative accuracy, as 1 / (1 + exp(-x)) does.
    """
    largest, one = _constants(xp, x.dtype)
    e = whole(xp, xp.minimum(x, largest))
    xp.exp(e, out=e)
    e /= e + one
    return e


@lru_cache(maxsize=16)
def _constants(xp: ModuleType, dtype: numpy.dtype) -> tuple[Any, Any]:
    return constant(xp, _LARGEST.get(dtype.itemsize, 709.0), dtype), constant(xp, 1.0, dtype)
