"""Softmax and its logarithm."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.errors import ShapeMismatchError
from mtorch.kernels.rows import max_along, quiet, sum_along
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class _AlongAxis(Activation):
    """What both have in common: the axis over which they normalise."""

    def __init__(
        self, dim: int | None = None, *, axis: int = -1, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(dim, xp=xp, dtype=dtype)
        if isinstance(axis, bool) or not isinstance(axis, int | numpy.integer):
            raise TypeError(f"{type(self).__name__} expected an integer axis, got {axis!r}")
        self.axis = int(axis)

    @quiet
    def shifted(self, x: Array) -> Array:
        """x minus its maximum along the axis: the result is the same, and no exponential can overflow.

        A row whose maximum is infinite has no softmax and becomes NaN.
        """
        if not -x.ndim <= self.axis < x.ndim or x.shape[self.axis] == 0:
            text = f"expected input with entries along axis {self.axis}, got shape {x.shape}"
            raise ShapeMismatchError(self, text)
        return x - max_along(self.xp, x, self.axis)

    def details(self) -> str:
        return ", ".join(filter(None, [super().details(), f"axis={self.axis}"]))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is not _AlongAxis:
            yield cls(xp=xp, dtype=dtype), (4, 5)
            yield cls(3, xp=xp, dtype=dtype), (2, 4, 3)
            yield cls(axis=1, xp=xp, dtype=dtype), (2, 4, 3)
            yield cls(axis=0, xp=xp, dtype=dtype), (5,)


class Softmax(_AlongAxis):
    """y_k = exp(x_k) / sum_j exp(x_j) along one axis.

    Shapes: any -> the same.  Remembers y.

    Backward: dy_k/dx_j = y_k ([j = k] - y_j), so with g = output_grad  dx_j = y_j (g_j - sum_k g_k y_k).

    Bridle, "Probabilistic Interpretation of Feedforward Classification Network Outputs", 1990.
    """

    def forward(self, x: Array) -> Array:
        y = self.shifted(x)
        self.xp.exp(y, out=y)
        y /= sum_along(self.xp, y, self.axis)
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        y = self.recall()
        dx = output_grad * y
        self.xp.subtract(output_grad, sum_along(self.xp, dx, self.axis), out=dx)
        dx *= y
        return dx


class LogSoftmax(_AlongAxis):
    """y_k = x_k - log(sum_j exp(x_j)) along one axis.

    Shapes: any -> the same.  Remembers y.

    Backward: dy_k/dx_j = [j = k] - exp(y_j), so with g = output_grad  dx_j = g_j - exp(y_j) sum_k g_k.
    """

    def forward(self, x: Array) -> Array:
        y = self.shifted(x)
        y -= self.xp.log(sum_along(self.xp, self.xp.exp(y), self.axis))
        self.remember(y)
        return y

    def backward(self, output_grad: Array) -> Array:
        dx = self.xp.exp(self.recall())
        dx *= sum_along(self.xp, output_grad, self.axis)
        return self.xp.subtract(output_grad, dx, out=dx)
