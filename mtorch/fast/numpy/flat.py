"""Weight and bias of a linear map in one flat array, values and gradients alike, so that one pass moves both.

In a small net a step is a dozen calls of NumPy on a few numbers each; this halves them.
"""

import inspect
from math import inf

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.checks import check_rate
from mtorch.fast.numpy.update import descend
from mtorch.layer import Layer
from mtorch.layers.linear import Linear
from mtorch.parameter import Parameter


class Flat:
    """The two flat arrays of a layer, and the parts of them that its parameters had when they were made."""

    __slots__ = ("values", "grads", "parts")

    def __init__(self, weight: Parameter, bias: Parameter):
        self.values = numpy.concatenate((weight.value.ravel(), bias.value))
        self.grads = numpy.zeros_like(self.values)
        size = weight.value.size
        for parameter, part in ((weight, slice(size)), (bias, slice(size, None))):
            shape = parameter.value.shape
            parameter.value = self.values[part].reshape(shape)
            parameter.collect_in(self.grads[part].reshape(shape))
        self.parts = weight.value, bias.value, weight._grad, bias._grad

    def __reduce__(self):
        return type(None), ()  # the parameters of a copy have arrays of their own


def hold(layer: Linear, weight: Array, bias: Array | None) -> None:
    reference(layer, weight, bias)
    layer._flat = None if layer.bias is None else Flat(layer.weight, layer.bias)  # type: ignore[attr-defined]  # its own


def step(layer: Linear, lr: float) -> None:
    """One pass where both parameters have the arrays they were made with and follow their gradients; else `Layer.step`.

    A layer with attributes that its constructor did not make may have more parameters.
    """
    own, weight, bias = layer.__dict__, layer.weight, layer.bias
    flat = own.get("_flat")
    if flat is not None and bias is not None and layer.__class__ is Linear and len(own) == ATTRIBUTES:
        parts = flat.parts
        if (
            weight.value is parts[0] and bias.value is parts[1] and weight._grad is parts[2] and bias._grad is parts[3]
            and weight.has_grad and bias.has_grad and weight._trainable and bias._trainable
            and weight.direction is bias.direction is None
        ):  # fmt: skip
            if lr.__class__ is not float or not 0 <= lr < inf:
                check_rate(layer, lr)
            descend(flat.values, flat.grads, float(lr))
            weight.has_grad = bias.has_grad = False
            return
    Layer.step(layer, lr)


reference = inspect.unwrap(Linear.hold)
replace(Linear.hold, numpy, hold)
replace(Linear.step, numpy, step)
ATTRIBUTES = len(vars(Linear(1, 1, rng=0)))
