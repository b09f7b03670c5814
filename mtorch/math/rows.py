"""Reductions that layers and losses share."""

from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array

LONG = 4096  # entries up to which one product sums their squares without a loss of digits

quiet = numpy.errstate(over="ignore", invalid="ignore")  # for functions that answer infinities with their limit or NaN


def sum_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """The sum along an axis, which is kept with one entry."""
    return x.sum(axis=axis, keepdims=True)


def max_along(xp: ModuleType, x: Array, axis: int) -> Array:
    """The maximum along an axis, which is kept with one entry."""
    return x.max(axis=axis, keepdims=True)


def sum_squares(xp: ModuleType, x: Array) -> Any:
    """The sum of the squares of all entries."""
    return xp.vdot(x, x) if x.size <= LONG else (x * x).sum()
