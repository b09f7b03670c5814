"""The rectifier, and its derivative without a mask of booleans."""

import math
from types import ModuleType

import numpy

from mtorch.arrays import Array, constant, is_numpy
from mtorch.kernels.memory import empty_like, spare_or_new
from mtorch.kernels.passes import entrywise

SMALL = 4096


def relu(xp: ModuleType, x: Array, spare: Array | None = None) -> Array:
    """max(x, 0), as a new array or in spare memory, which may be that of x.

    For large arrays NumPy clips up to three times faster than it takes a maximum.
    """
    if x.size <= SMALL or not is_numpy(xp):
        return xp.maximum(x, constant(xp, 0.0, x.dtype), out=spare)
    y = spare_or_new(xp, x, spare)
    entrywise(1, _clip, x, y)
    return y


def _clip(x: Array, y: Array) -> None:
    x.clip(0.0, math.inf, out=y)


def relu_grad(xp: ModuleType, y: Array, output_grad: Array, spare: Array | None = None) -> Array:
    """output_grad where y > 0, else 0, as a new array or in spare memory, which may be its own; y = max(x, 0).

    NumPy casts a mask of booleans slowly. In small arrays the sign of y serves instead. In large ones of float32 it is
    the bits of y, which as an integer are 0 where y is 0 and positive where y is: clipped to 0 or 1 they multiply the
    bits of the gradient, and so keep or clear them.
    """
    if y.size <= SMALL:
        return xp.sign(y) * output_grad
    if not is_numpy(xp) or y.dtype.itemsize != 4:
        return relu_grad_generic(xp, y, output_grad, spare)
    dx = spare_or_new(numpy, y, spare)
    entrywise(2, _select if dx is spare else _select_new, *(a.view(numpy.int32) for a in (y, output_grad, dx)))
    return dx


def _select_new(y: Array, output_grad: Array, dx: Array) -> None:
    numpy.clip(y, 0, 1, out=dx)
    numpy.multiply(dx, output_grad, out=dx)


def _select(y: Array, output_grad: Array, dx: Array) -> None:
    """The same where dx is output_grad itself, so that the mask needs memory of its own."""
    numpy.multiply(numpy.clip(y, 0, 1, out=empty_like(numpy, y)), output_grad, out=dx)


def relu_grad_generic(xp: ModuleType, y: Array, output_grad: Array, spare: Array | None = None) -> Array:
    """The definition; tests compare the body above with it."""
    return xp.multiply(output_grad, y > 0, out=spare)
