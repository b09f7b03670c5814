"""The Gaussian error linear unit."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.kernels.activations import gelu, gelu_tanh
from mtorch.layer import Layer
from mtorch.layers.activation import Activation


class GELU(Activation):
    """y = x Phi(x), Phi the distribution function of the standard normal and phi its density.

    approximate="tanh": Phi(x) is replaced by (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3).

    Shapes: any -> the same.  Remembers dy/dx, which forward gets almost free beside y.

    Backward: dy/dx = Phi(x) + x phi(x). For "tanh" with s = (1 + tanh(u)) / 2 = 1 / (1 + exp(-2u)), whose
    derivative is 2 s (1 - s) u', dy/dx = s + x 2 s (1 - s) u'.

    Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
    """

    def __init__(
        self,
        dim: int | None = None,
        *,
        approximate: str = "none",
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(dim, xp=xp, dtype=dtype)
        if approximate not in ("none", "tanh"):
            raise ValueError(f"GELU expected approximate to be 'none' or 'tanh', got {approximate!r}")
        self.approximate = approximate

    def forward(self, x: Array) -> Array:
        y, slope = (gelu if self.approximate == "none" else gelu_tanh)(self.xp, x)
        self.remember(slope)
        return y

    def backward(self, output_grad: Array) -> Array:
        return output_grad * self.recall()

    def details(self) -> str:
        option = "" if self.approximate == "none" else f"approximate={self.approximate!r}"
        return ", ".join(filter(None, [super().details(), option]))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        yield cls(3, approximate="tanh", xp=xp, dtype=dtype), (2, 5, 3)
