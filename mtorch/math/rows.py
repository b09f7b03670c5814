"""Reductions that layers and losses share."""

from types import ModuleType

import numpy

from mtorch.arrays import Array

quiet = numpy.errstate(over="ignore", invalid="ignore")  # for functions that answer infinities with their limit or NaN


def sum_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """The sum along an axis, which is kept with one entry."""
    return x.sum(axis=axis, keepdims=True)


def max_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """The maximum along an axis, which is kept with one entry."""
    return x.max(axis=axis, keepdims=True)
