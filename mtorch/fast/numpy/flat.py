"""Weight and bias of a linear map in one flat array, values and gradients alike, so that one pass moves both.

In a small net a step is a dozen calls of NumPy on a few numbers each; this halves them.
"""

from types import ModuleType

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import ACCIDENTS, constant
from mtorch.checks import check_rate
from mtorch.layer import Layer
from mtorch.layers.linear import Linear, parameters
from mtorch.parameter import Parameter


def flat_parameters(
    xp: ModuleType, weight: numpy.ndarray, bias: numpy.ndarray | None
) -> tuple[Parameter, Parameter | None]:
    """Their values are parts of one array, their gradients of another."""
    first = Parameter(weight)
    if bias is None:
        return first, None
    second, size = Parameter(bias), weight.size
    values = numpy.concatenate((weight.ravel(), bias))
    grads = numpy.zeros_like(values)
    for parameter, part in ((first, slice(size)), (second, slice(size, None))):
        shape = parameter.value.shape
        parameter.value = values[part].reshape(shape)
        parameter.collect_in(grads[part].reshape(shape))
    return first, second


def step(layer: Linear, lr: float) -> None:
    """One pass where both lie flat, move, and have nothing but their gradients to follow; else `Layer.step`.

    A copy, a shared parameter or an array that was assigned lies elsewhere. A layer with attributes that its
    constructor did not make may have more parameters.
    """
    weight, bias = layer.weight, layer.bias
    known = layer.__class__ is Linear and len(layer.__dict__) == ATTRIBUTES
    if known and bias is not None and weight.has_grad and bias.has_grad:
        values, grads = weight.value.base, weight._grad.base
        if (
            values is not None and values is bias.value.base and grads is not None and grads is bias._grad.base
            and weight.trainable and bias.trainable and weight.direction is bias.direction is None
            and values.size == weight.value.size + bias.value.size
        ):  # fmt: skip
            if lr.__class__ is not float or not 0 <= lr < numpy.inf:
                check_rate(layer, lr)
            try:
                grads *= constant(numpy, lr, values.dtype)
            except ACCIDENTS:
                pass
            try:
                values -= grads
            except ACCIDENTS:
                pass
            weight.has_grad = bias.has_grad = False
            return
    Layer.step(layer, lr)


replace(parameters, numpy, flat_parameters)
ATTRIBUTES = len(vars(Linear(1, 1, rng=0)))
replace(Linear.step, numpy, step)
