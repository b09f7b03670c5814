"""Softmax and its logarithm."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, quiet, widened
from mtorch.checks import axis_or_dim
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class _AlongAxis(Activation):
    """The base of Softmax and LogSoftmax: the axis along which they normalise."""

    def __init__(
        self,
        dim: int | None = None,
        *,
        axis: int | None = None,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.axis = axis_or_dim(type(self).__name__, axis, dim)

    @quiet
    def shifted(self, x: Array) -> Array:
        """x minus its maximum along the axis: neither function changes by that, and no exponential can overflow.

        A row whose maximum is infinite has no softmax and becomes NaN.
        """
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] == 0:
            text = f"expected input with entries along axis {self.axis}, got shape {x.shape}"
            raise ShapeMismatchError(self, text)
        x = widened(x)
        return x - x.max(axis=self.axis, keepdims=True)

    def sum(self, x: Array) -> Array:
        """The sum along the axis, which stays with size 1."""
        return x.sum(axis=self.axis, keepdims=True)

    def details(self) -> str:
        return f"dim={self.axis}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is not _AlongAxis:
            yield cls(xp=xp, dtype=dtype), (4, 5)
            yield cls(1, xp=xp, dtype=dtype), (2, 4, 3)
            yield cls(-3, xp=xp, dtype=dtype), (2, 4, 3)
            yield cls(axis=0, xp=xp, dtype=dtype), (5,)


class Softmax(_AlongAxis):
    """y_k = exp(x_k) / sum_j exp(x_j) along one axis.

    Shapes: any -> the same; the axis is dim (or, by another name, axis), else the last one.  Remembers y.

    Backward: dy_k/dx_j = y_k ([j = k] - y_j), so with g = output_grad  dx_j = y_j (g_j - sum_k g_k y_k).

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.
    """

    def forward(self, x: Array) -> Array:
        e = self.xp.exp(self.shifted(x))
        y = e / self.sum(e)
        self.remember(y)
        return y.astype(self.dtype, copy=False)

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        y = self.recall()
        return (y * (g - self.sum(g * y))).astype(self.dtype, copy=False)


class LogSoftmax(_AlongAxis):
    """y_k = x_k - log(sum_j exp(x_j)) along one axis.

    Shapes: any -> the same; the axis is dim (or, by another name, axis), else the last one.  Remembers y.

    Backward: dy_k/dx_j = [j = k] - exp(y_j), so with g = output_grad  dx_j = g_j - exp(y_j) sum_k g_k.
    """

    def forward(self, x: Array) -> Array:
        z = self.shifted(x)
        y = z - self.xp.log(self.sum(self.xp.exp(z)))
        self.remember(y)
        return y.astype(self.dtype, copy=False)

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        y = self.recall()
        return (g - self.xp.exp(y) * self.sum(g)).astype(self.dtype, copy=False)
