"""The rectifier without a mask of booleans."""

import math

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array
from mtorch.fast.passes import entrywise
from mtorch.layers.relu import ReLU


def relu(layer: ReLU, x: Array) -> tuple[Array, Array]:
    """NumPy clips large arrays up to three times faster than it takes a maximum."""
    y = numpy.empty_like(x)
    entrywise(1, _clip, x, y)
    return y, y


def _clip(x: Array, y: Array) -> None:
    x.clip(0.0, math.inf, out=y)


def relu_grad(layer: ReLU, y: Array, output_grad: Array) -> Array:
    """As an integer the bits of y are 0 where y is 0 and positive where y is. Clipped to 0 or 1 they multiply the bits
    of the gradient, and so keep or clear them: NumPy multiplies by that faster than by a mask of booleans.
    """
    if y.dtype.itemsize != 4:
        return output_grad * (y > 0)
    dx = numpy.empty_like(y)
    entrywise(2, _select, *(a.view(numpy.int32) for a in (y, output_grad, dx)))
    return dx


def _select(y: Array, output_grad: Array, dx: Array) -> None:
    numpy.clip(y, 0, 1, out=dx)
    numpy.multiply(dx, output_grad, out=dx)


replace(ReLU, numpy, forward=relu, backward=relu_grad, least=4097)
