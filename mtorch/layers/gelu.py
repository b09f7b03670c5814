"""The Gaussian error linear unit."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, as_array
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.layers.activation import Activation
from mtorch.math.erf import normal_cdf, normal_density
from mtorch.math.logistic import sigmoid

FAR = 30.0  # beyond it Phi(x) is 0 or 1 and y is 0 or x, to within 1e-190
SQRT_8_PI = math.sqrt(8 / math.pi)


class GELU(Activation):
    """y = x Phi(x), Phi the distribution function of the standard normal and phi its density.

    approximate="tanh": Phi(x) is replaced by (1 + tanh(u)) / 2 with u = sqrt(2/pi) (x + 0.044715 x^3).

    Shapes: any -> the same.  Remembers x, where it is not far out, and Phi(x).

    Backward: dy/dx = Phi(x) + x phi(x) with phi(x) = exp(-x^2 / 2) / sqrt(2 pi). For "tanh" Phi(x) is the logistic
    function s of 2u, whose derivative stands for phi(x): s (1 - s) 2u', 2u' = sqrt(8/pi) (1 + 3 * 0.044715 x^2).

    Hendrycks & Gimpel, "Gaussian Error Linear Units", 2016, arXiv:1606.08415.
    """

    def __init__(self, approximate: str = "none", *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        if not isinstance(approximate, str) or approximate not in ("none", "tanh"):
            raise ValueError(f"GELU expected approximate to be 'none' or 'tanh', got {shown(approximate)}")
        self.approximate = approximate

    def forward(self, x: Array) -> Array:
        xp = self.xp
        near = xp.clip(x, -FAR, FAR)  # so that no power overflows, and no product is 0 * inf
        if self.approximate == "none":
            Phi = normal_cdf(xp, near)
        else:
            Phi = sigmoid(xp, SQRT_8_PI * (near + 0.044715 * near * near * near))
        self.remember(near, Phi)
        return xp.maximum(x, near) * Phi

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x, Phi = self.recall()
        if self.approximate == "none":
            phi = normal_density(self.xp, x)
        else:
            phi = Phi * (1 - Phi) * SQRT_8_PI * (1 + 3 * 0.044715 * x * x)
        return as_array(self.xp, g * (Phi + x * phi))

    def details(self) -> str:
        return "" if self.approximate == "none" else f"approximate={self.approximate!r}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(xp=xp, dtype=dtype), (4, 3)
        yield cls("tanh", xp=xp, dtype=dtype), (2, 5, 3)
