"""Root-mean-square normalisation."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, quiet, widened
from mtorch.checks import check_number
from mtorch.layer import Layer
from mtorch.layers.row_norm import RowNorm
from mtorch.layers.standardise import random_affine


class RMSNorm(RowNorm):
    """y = weight * z with z = x / sqrt(mean(x^2) + eps), over the last axis.

    normalized_shape: the size of the last axis, or of several last axes that are normalised together.
    eps: None is the rounding unit of the dtype.

    Shapes: (..., D) -> (..., D), weight (D,).  Remembers z and 1/rms with rms = sqrt(mean(x^2) + eps), not x.

    Backward: with g = output_grad, dweight is the sum of g * z over all leading axes. The gradient of z is
    h = g * weight. Every x changes rms as well, which takes out of h its component along z:
        dx = (h - z * mean(h * z)) / rms.

    Zhang & Sennrich, "Root Mean Square Layer Normalization", 2019, arXiv:1910.07467.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float | None = None,
        elementwise_affine: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(normalized_shape, elementwise_affine, xp, dtype)
        self.eps = None if eps is None else check_number("RMSNorm", "eps", eps, least=0)

    @quiet
    def forward(self, x: Array) -> Array:
        self.check_shape(x)
        eps = float(self.xp.finfo(x.dtype).eps) if self.eps is None else self.eps
        x = widened(x)
        inv = 1 / self.xp.sqrt((x * x).mean(axis=self.axes, keepdims=True) + eps)
        z = x * inv
        self.remember(z, inv)
        y = z if self.weight is None else z * self.weight.value
        return y.astype(self.dtype, copy=False)

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        z, inv = self.recall()
        h = g
        if self.weight is not None:
            self.weight.accumulate(lambda: (g * z).sum(axis=tuple(range(g.ndim - len(self.shape)))))
            h = g * self.weight.value
        mean_hz = (h * z).mean(axis=self.axes, keepdims=True)
        return ((h - z * mean_hz) * inv).astype(self.dtype, copy=False)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield random_affine(cls(5, xp=xp, dtype=dtype), rng), (4, 5)
        yield random_affine(cls((2, 3), eps=0.1, xp=xp, dtype=dtype), rng), (3, 4, 2, 3)
        yield cls(4, elementwise_affine=False, xp=xp, dtype=dtype), (4,)
