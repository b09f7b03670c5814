"""The rectifier without a mask of booleans."""

import math

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array, constant
from mtorch.fast import aligned
from mtorch.layers.relu import ReLU


def relu(layer: ReLU, x: Array) -> tuple[Array, Array]:
    """NumPy clips large arrays of floats up to three times faster than it takes a maximum."""
    if layer.dim is not None:
        layer.check_size(x)
    if x.dtype.kind == "f" and x.dtype.isnative:
        y = x.clip(0.0, math.inf, out=aligned.empty_like(x))
    else:
        y = numpy.maximum(x, constant(numpy, 0, x.dtype))
    return y, y


def relu_grad(layer: ReLU, y: Array, output_grad: Array) -> Array:
    """As an integer the bits of y are 0 where y is 0 and positive where y is. Clipped to 0 or 1 they multiply the bits
    of the gradient, and so keep or clear them: NumPy multiplies by that faster than by a mask of booleans.
    """
    if not y.dtype == output_grad.dtype == numpy.float32:
        return output_grad * numpy.sign(y)
    bits = y.view(numpy.int32).clip(0, 1, out=aligned.empty_like(y, numpy.int32))
    bits *= output_grad.view(numpy.int32)
    return bits.view(y.dtype)


replace(ReLU, numpy, forward=relu, backward=relu_grad, least=4097)
