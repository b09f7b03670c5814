"""Batch normalisation."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, quiet, widened
from mtorch.checks import check_flag, check_memory, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.standardise import per_channel, random_affine, standardise, standardise_grad
from mtorch.parameter import Buffer, Parameter


class BatchNorm(Layer):
    """The base of both: parameters, statistics, forward and backward. See `BatchNorm2d` for the equations."""

    array_only = True
    ranks: tuple[int, ...]
    form: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.num_features = c = check_size(name, "num_features", num_features)
        check_memory(name, c, num_features=c)
        self.eps = check_number(name, "eps", eps, least=0)
        self.momentum = None if momentum is None else check_number(name, "momentum", momentum, least=0, most=1)
        affine = check_flag(name, "affine", affine)
        self.weight = Parameter(xp.ones(c, dtype=self.dtype)) if affine else None
        self.bias = Parameter(xp.zeros(c, dtype=self.dtype)) if affine else None
        self.running_mean = Buffer(xp.zeros(c, dtype=self.dtype))
        self.running_var = Buffer(xp.ones(c, dtype=self.dtype))
        self.num_batches_tracked = Buffer(xp.zeros((), dtype="int64"))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.num_features)
        return known | {1: self.num_features}

    @accelerated
    @quiet
    def forward(self, x: Array) -> Array:
        self.check_shape(x)
        x = widened(x)
        if self.training:
            n, axes = self.values_per_channel(x), (0, *range(2, x.ndim))
            rough = x.mean(axis=axes, keepdims=True)  # a long sum loses digits: the mean of x - rough has them
            z, correction, var, inv = standardise(self.xp, x - rough, axes, self.eps)
            self.track((rough + correction).reshape(-1), var.reshape(-1), n)
        else:
            mean, var = (per_channel(widened(v.value), x.ndim) for v in (self.running_mean, self.running_var))
            inv = 1 / self.xp.sqrt(var + self.eps)
            z = (x - mean) * inv
        self.remember(z, inv, self.training)
        if self.weight is not None and self.bias is not None:
            z = z * per_channel(self.weight.value, x.ndim) + per_channel(self.bias.value, x.ndim)
        return z.astype(self.dtype, copy=False)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        z, inv, batch_statistics = self.recall()
        axes, h = (0, *range(2, g.ndim)), g
        if self.weight is not None and self.bias is not None:
            self.weight.accumulate(lambda: (g * z).sum(axis=axes))
            self.bias.accumulate(lambda: g.sum(axis=axes))
            h = g * per_channel(self.weight.value, g.ndim)
        dx = standardise_grad(h, z, inv, axes) if batch_statistics else h * inv
        return dx.astype(self.dtype, copy=False)

    def check_shape(self, x: Array) -> None:
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            form = self.form.replace("C", str(self.num_features))
            raise ShapeMismatchError(self, f"expected input of shape {form}, got {x.shape}")

    def values_per_channel(self, x: Array) -> int:
        n = len(x) * math.prod(x.shape[2:])
        if n < 2:
            raise ValueError(f"{self!r} in training needs more than one value per channel, got {n}")
        return n

    def track(self, mean: Array, var: Array, n: int) -> None:
        """running = (1 - momentum) * running + momentum * new, the variance as the unbiased one of n values."""
        count = self.num_batches_tracked.value = self.xp.asarray(self.num_batches_tracked.value + 1)
        m = (1 / count).astype(mean.dtype) if self.momentum is None else self.momentum
        running_mean, running_var = widened(self.running_mean.value), widened(self.running_var.value)
        self.running_mean.value = ((1 - m) * running_mean + m * mean).astype(self.dtype, copy=False)
        self.running_var.value = ((1 - m) * running_var + m * n / (n - 1) * var).astype(self.dtype, copy=False)

    def details(self) -> str:
        return str(self.num_features) + ("" if self.weight is not None else ", affine=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is BatchNorm:
            return
        for rank in cls.ranks:
            shape = (5, 3, 4, 2)[:rank]
            yield random_affine(cls(3, xp=xp, dtype=dtype), rng), shape
            yield cls(3, eps=0.1, momentum=0.5, affine=False, xp=xp, dtype=dtype), shape
        yield cls(3, momentum=None, xp=xp, dtype=dtype), shape


class BatchNorm1d(BatchNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each channel, as in `BatchNorm2d`.

    Shapes: (N, C) -> (N, C), where each column is normalised, or (N, C, T) -> (N, C, T); parameters (C,).

    Backward: every x changes mean and var as well, which takes out of h = g * weight, g = output_grad, its mean and its
    component along z, with means over N (and T):
        dweight = sum(g z),   dbias = sum(g),   dx = (h - mean(h) - z * mean(h z)) / sqrt(var + eps).
    In eval mode mean and var are constants: dx = h / sqrt(var + eps).
    """

    ranks, form = (2, 3), "(N, C) or (N, C, T)"


class BatchNorm2d(BatchNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each channel.

    In training mean and var (biased) are those of the batch, over N, H and W, and the running statistics follow them:
    running = (1 - momentum) * running + momentum * new, the variance as the unbiased one; with `momentum=None` they are
    the means over all batches so far. In eval mode mean and var are the running ones.

    Shapes: (N, C, H, W) -> (N, C, H, W), parameters and running statistics (C,).  Remembers z and
    1 / sqrt(var + eps).

    Backward: with g = output_grad, dweight = sum(g z) and dbias = sum(g) over N, H and W. The gradient of z is
    h = g * weight. In training every x changes mean and var as well, which takes out of h its mean and its component
    along z:
        dx = (h - mean(h) - z * mean(h z)) / sqrt(var + eps).
    In eval mode mean and var are constants: dx = h / sqrt(var + eps).

    Errors: ValueError in training with one value per channel.

    Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training ...", 2015, arXiv:1502.03167.
    """

    ranks, form = (4,), "(N, C, H, W)"
