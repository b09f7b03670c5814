"""The update of a parameter along its gradient, without errstate, which takes longer than a small update itself."""

import inspect
from math import inf

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import ACCIDENTS, Array
from mtorch.parameter import Parameter


def step(self: Parameter, lr: float) -> None:
    if self.direction is None and self.has_grad and self._trainable and lr.__class__ is float and 0 <= lr < inf:
        grad: Array = self._grad
        descend(self.value, grad, lr)
        self.has_grad = False
    else:
        reference(self, lr)


def descend(value: Array, grad: Array, lr: float) -> None:
    """value -= lr * grad, and grad is used up. An overflow may warn; it raises nothing."""
    try:
        rate = numpy.array(lr, value.dtype)
    except ACCIDENTS:
        rate = numpy.array(inf, value.dtype)
    try:  # where NumPy's warnings are errors, it raises them after it has written
        grad *= rate
    except ACCIDENTS:
        pass
    try:
        value -= grad
    except ACCIDENTS:
        pass


reference = inspect.unwrap(Parameter.step)
replace(Parameter.step, numpy, step)
