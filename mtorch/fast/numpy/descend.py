"""The update of a parameter: large ones in one pass over memory, small ones without the time that errstate takes."""

import inspect
from math import inf
from types import ModuleType

import numpy

from mtorch import parameter
from mtorch.accelerate import replace
from mtorch.arrays import ACCIDENTS, Array
from mtorch.fast.axpby import LARGE, axpby


def descend(xp: ModuleType, value: Array, direction: Array, rate: float, scratch: Array) -> None:
    if value.size >= LARGE and isinstance(rate, float) and axpby(-rate, direction, 1.0, value):
        return
    if direction is not scratch:
        reference(xp, value, direction, rate, scratch)
        return
    try:
        factor = numpy.array(rate, value.dtype)
    except ACCIDENTS:
        factor = numpy.array(inf, value.dtype)
    try:  # where NumPy's warnings are errors, it raises them after it has written
        scratch *= factor
    except ACCIDENTS:
        pass
    try:
        value -= scratch
    except ACCIDENTS:
        pass


reference = inspect.unwrap(parameter.descend)
replace(parameter.descend, numpy, descend)
