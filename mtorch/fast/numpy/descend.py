"""The update of a parameter: large ones in one pass over memory, small ones without the time that errstate takes."""

from math import inf
from types import ModuleType

import numpy

from mtorch import parameter
from mtorch.accelerate import replace
from mtorch.arrays import ACCIDENTS, Array
from mtorch.fast.axpby import LARGE, axpby


def descend(xp: ModuleType, value: Array, direction: Array, rate: float, scratch: Array) -> None:
    if value.size >= LARGE and axpby(-rate, direction, 1, value):
        return
    try:
        factor = numpy.array(rate, value.dtype)
    except ACCIDENTS:
        factor = numpy.array(inf, value.dtype)
    try:  # where NumPy's warnings are errors, it raises them after it has written
        numpy.multiply(direction, factor, scratch)
    except ACCIDENTS:
        pass
    try:
        value -= scratch
    except ACCIDENTS:
        pass


replace(parameter.descend, numpy, descend)
