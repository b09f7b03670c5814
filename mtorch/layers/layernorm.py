"""Layer normalisation."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, widened
from mtorch.checks import check_flag, check_number
from mtorch.layer import Layer
from mtorch.layers.row_norm import RowNorm
from mtorch.layers.standardise import random_affine, standardise, standardise_grad
from mtorch.parameter import Parameter


class LayerNorm(RowNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), over the last axis.

    normalized_shape: the size of the last axis, or of several last axes that are normalised together.

    Shapes: (..., D) -> (..., D), parameters (D,).  Remembers z and 1/std with std = sqrt(var + eps), not x.

    Backward: with g = output_grad, dweight and dbias are the sums of g * z and of g over all leading axes. The gradient
    of z is h = g * weight. Every x changes mean and std as well, which takes out of h its mean and its component along
    z:  dx = (h - mean(h) - z * mean(h * z)) / std.

    Ba, Kiros & Hinton, "Layer Normalization", 2016, arXiv:1607.06450.
    """

    def __init__(
        self,
        normalized_shape: int | tuple[int, ...],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(normalized_shape, elementwise_affine, xp, dtype)
        self.eps = check_number("LayerNorm", "eps", eps, least=0)
        bias = check_flag("LayerNorm", "bias", bias)
        self.bias = Parameter(xp.zeros(self.shape, dtype=self.dtype)) if elementwise_affine and bias else None

    @accelerated
    def forward(self, x: Array) -> Array:
        self.check_shape(x)
        z, _, _, inv = standardise(self.xp, x, self.axes, self.eps)
        self.remember(z, inv)
        y = z if self.weight is None else z * self.weight.value
        y = y if self.bias is None else y + self.bias.value
        return y.astype(self.dtype, copy=False)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        z, inv = self.recall()
        leading = tuple(range(g.ndim - len(self.shape)))
        if self.weight is not None:
            self.weight.accumulate(lambda: (g * z).sum(axis=leading))
        if self.bias is not None:
            self.bias.accumulate(lambda: g.sum(axis=leading))
        h = g if self.weight is None else g * self.weight.value
        return standardise_grad(h, z, inv, self.axes).astype(self.dtype, copy=False)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield random_affine(cls(5, xp=xp, dtype=dtype), rng), (4, 5)
        yield random_affine(cls((2, 3), eps=0.1, xp=xp, dtype=dtype), rng), (3, 4, 2, 3)
        yield random_affine(cls(5, bias=False, xp=xp, dtype=dtype), rng), (5,)
        yield cls(4, elementwise_affine=False, xp=xp, dtype=dtype), (3, 4)
