"""The rectifier without a mask of booleans."""

import math

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array, constant
from mtorch.kernels.memory import empty_like
from mtorch.kernels.passes import entrywise
from mtorch.layers.relu import ReLU

SMALL = 4096  # entries


def relu(layer: ReLU, x: Array) -> tuple[Array, Array]:
    """NumPy clips large arrays up to three times faster than it takes a maximum."""
    if x.size <= SMALL:
        y = numpy.maximum(x, constant(numpy, 0.0, x.dtype))
    else:
        y = empty_like(numpy, x)
        entrywise(1, _clip, x, y)
    return y, y


def _clip(x: Array, y: Array) -> None:
    x.clip(0.0, math.inf, out=y)


def relu_grad(layer: ReLU, y: Array, output_grad: Array) -> Array:
    """NumPy casts a mask of booleans slowly. In small arrays the sign of y serves instead.

    In large arrays of float32 the bits of y serve, which as an integer are 0 where y is 0 and positive where y is:
    clipped to 0 or 1 they multiply the bits of the gradient, and so keep or clear them.
    """
    if y.size <= SMALL:
        return numpy.sign(y) * output_grad
    if y.dtype.itemsize != 4:
        return output_grad * (y > 0)
    dx = empty_like(numpy, y)
    entrywise(2, _select, *(a.view(numpy.int32) for a in (y, output_grad, dx)))
    return dx


def _select(y: Array, output_grad: Array, dx: Array) -> None:
    numpy.clip(y, 0, 1, out=dx)
    numpy.multiply(dx, output_grad, out=dx)


replace(ReLU, numpy, forward=relu, backward=relu_grad)
