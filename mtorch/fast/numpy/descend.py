"""The update of a parameter in one pass, or in place where it is small."""

from types import ModuleType

import numpy

from mtorch import parameter
from mtorch.accelerate import replace
from mtorch.arrays import ACCIDENTS, Array
from mtorch.fast.axpby import LARGE, axpby


def descend(xp: ModuleType, value: Array, direction: Array, rate: float, scratch: Array) -> None:
    if value.size >= LARGE and axpby(-rate, direction, 1, value):
        return
    try:  # where NumPy's warnings are errors, it raises them after it has written
        numpy.multiply(direction, numpy.array(rate, value.dtype), scratch)
    except ACCIDENTS:
        pass
    try:
        value -= scratch
    except ACCIDENTS:
        pass


replace(parameter.descend, numpy, descend)
