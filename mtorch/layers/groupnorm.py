"""Group normalisation."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, widened
from mtorch.checks import check_flag, check_memory, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.standardise import per_channel, random_affine, standardise, standardise_grad
from mtorch.parameter import Parameter


class GroupNorm(Layer):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each sample and each group of C / G channels.

    One group normalises a sample as a whole, one channel a group normalises each image by itself (instance norm).

    Shapes: (N, C, ...) -> (N, C, ...), parameters (C,).  Remembers z and 1/std with std = sqrt(var + eps).

    Backward: with g = output_grad, dweight and dbias are the sums of g * z and of g over all axes but the channels'.
    The gradient of z is h = g * weight, and with means over the group  dx = (h - mean(h) - z * mean(h * z)) / std.

    Wu & He, "Group Normalization", 2018, arXiv:1803.08494.
    """

    array_only = True

    def __init__(
        self,
        num_groups: int,
        num_channels: int,
        eps: float = 1e-5,
        affine: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.num_groups = num_groups = check_size("GroupNorm", "num_groups", num_groups)
        self.num_channels = num_channels = check_size("GroupNorm", "num_channels", num_channels)
        check_memory("GroupNorm", num_channels, num_channels=num_channels)
        if num_channels % num_groups:
            raise ValueError(f"GroupNorm expected num_groups to divide num_channels, got {num_groups}, {num_channels}")
        self.eps = check_number("GroupNorm", "eps", eps, least=0)
        affine = check_flag("GroupNorm", "affine", affine)
        self.weight = Parameter(xp.ones(num_channels, dtype=self.dtype)) if affine else None
        self.bias = Parameter(xp.zeros(num_channels, dtype=self.dtype)) if affine else None

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.num_channels)
        return known | {1: self.num_channels}

    def forward(self, x: Array) -> Array:
        if x.ndim < 2 or x.shape[1] != self.num_channels or 0 in x.shape[2:]:
            raise ShapeMismatchError(self, f"expected input of shape (N, {self.num_channels}, ...), got {x.shape}")
        groups = x.reshape(len(x), self.num_groups, math.prod(x.shape[1:]) // self.num_groups)
        z, _, _, inv = standardise(self.xp, groups, (2,), self.eps)
        self.remember(z, inv)
        z = z.reshape(x.shape)
        if self.weight is not None and self.bias is not None:
            z = z * per_channel(self.weight.value, x.ndim) + per_channel(self.bias.value, x.ndim)
        return z.astype(self.dtype, copy=False)

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        z, inv = self.recall()
        h = g
        if self.weight is not None and self.bias is not None:
            axes = (0, *range(2, g.ndim))
            self.weight.accumulate(lambda: (g * z.reshape(g.shape)).sum(axis=axes))
            self.bias.accumulate(lambda: g.sum(axis=axes))
            h = g * per_channel(self.weight.value, g.ndim)
        return standardise_grad(h.reshape(z.shape), z, inv, (2,)).reshape(g.shape).astype(self.dtype, copy=False)

    def details(self) -> str:
        return f"{self.num_groups}, {self.num_channels}" + ("" if self.weight is not None else ", affine=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield random_affine(cls(2, 4, xp=xp, dtype=dtype), rng), (3, 4, 3, 2)
        yield random_affine(cls(1, 3, eps=0.1, xp=xp, dtype=dtype), rng), (2, 3, 4)
        yield random_affine(cls(3, 3, xp=xp, dtype=dtype), rng), (2, 3, 5)
        yield cls(2, 6, affine=False, xp=xp, dtype=dtype), (2, 6)
