"""Instance normalisation."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array, quiet, widened
from mtorch.checks import check_flag, check_memory, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.standardise import per_channel, random_affine, standardise, standardise_grad
from mtorch.parameter import Buffer, Parameter


class InstanceNorm(Layer):
    """The base of both: parameters, statistics, forward and backward. See `InstanceNorm2d` for the equations."""

    array_only = True
    rank: int
    form: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
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
        self.momentum = check_number(name, "momentum", momentum, least=0, most=1)
        affine = check_flag(name, "affine", affine)
        self.weight = Parameter(xp.ones(c, dtype=self.dtype)) if affine else None
        self.bias = Parameter(xp.zeros(c, dtype=self.dtype)) if affine else None
        self.track_running_stats = check_flag(name, "track_running_stats", track_running_stats)
        if track_running_stats:
            self.running_mean = Buffer(xp.zeros(c, dtype=self.dtype))
            self.running_var = Buffer(xp.ones(c, dtype=self.dtype))
            self.num_batches_tracked = Buffer(xp.zeros((), dtype="int64"))  # torch has it too, and does not count

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.num_features)
        return known | {1: self.num_features}

    @quiet
    def forward(self, x: Array) -> Array:
        if x.ndim != self.rank + 2 or x.shape[1] != self.num_features:
            form = self.form.replace("C", str(self.num_features))
            raise ShapeMismatchError(self, f"expected input of shape {form}, got {x.shape}")
        own_statistics = self.training or not self.track_running_stats
        if own_statistics:
            n = math.prod(x.shape[2:])
            if n < 2:
                raise ValueError(f"{self!r} needs more than one value per channel of an instance, got {n}")
            z, mean, var, inv = standardise(self.xp, x, tuple(range(2, x.ndim)), self.eps)
            if self.training and self.track_running_stats and len(x):
                self.track(mean.mean(axis=0).reshape(-1), var.mean(axis=0).reshape(-1), n)
        else:
            mean, var = (per_channel(widened(b.value), x.ndim) for b in (self.running_mean, self.running_var))
            inv = 1 / self.xp.sqrt(var + self.eps)
            z = (x - mean) * inv
        self.remember(z, inv, own_statistics)
        if self.weight is not None and self.bias is not None:
            z = z * per_channel(self.weight.value, x.ndim) + per_channel(self.bias.value, x.ndim)
        return z.astype(self.dtype, copy=False)

    def backward(self, output_grad: Array) -> Array:
        g = widened(self.cast_grad(output_grad))
        z, inv, own_statistics = self.recall()
        axes, h = tuple(range(2, g.ndim)), g
        if self.weight is not None and self.bias is not None:
            self.weight.accumulate(lambda: (g * z).sum(axis=(0, *axes)))
            self.bias.accumulate(lambda: g.sum(axis=(0, *axes)))
            h = g * per_channel(self.weight.value, g.ndim)
        dx = standardise_grad(h, z, inv, axes) if own_statistics else h * inv
        return dx.astype(self.dtype, copy=False)

    def track(self, mean: Array, var: Array, n: int) -> None:
        """running = (1 - momentum) * running + momentum * new, the variance as the unbiased one of n values."""
        for buffer, new in ((self.running_mean, mean), (self.running_var, var * (n / (n - 1)))):
            value = (1 - self.momentum) * buffer.value + self.momentum * new
            buffer.value = value.astype(self.dtype, copy=False)

    def details(self) -> str:
        text = str(self.num_features) + (", affine=True" if self.weight is not None else "")
        return text + (", track_running_stats=True" if self.track_running_stats else "")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is InstanceNorm:
            return
        bound, shape = {"xp": xp, "dtype": dtype}, (3, 2, 4, 2)[: cls.rank + 2]
        yield cls(2, **bound), shape
        yield random_affine(cls(2, eps=0.1, affine=True, **bound), rng), shape
        yield random_affine(cls(2, momentum=0.3, affine=True, track_running_stats=True, **bound), rng), shape


class InstanceNorm1d(InstanceNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each sequence: `InstanceNorm2d` along one axis.

    Shapes: (N, C, T) -> (N, C, T), parameters (C,).

    Backward: every x changes mean and var of its own sequence as well, which takes out of h = g * weight, g =
    output_grad, its mean and its component along z, with means over T:
        dx = (h - mean(h) - z * mean(h z)) / sqrt(var + eps),   dweight = sum(g z),   dbias = sum(g).
    """

    rank, form = 1, "(N, C, T)"


class InstanceNorm2d(InstanceNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each channel of each image by itself.

    mean and var (biased) are those over H and W. weight and bias are there with `affine=True`. With
    `track_running_stats=True` running statistics follow the means over the batch of both,
    running = (1 - momentum) * running + momentum * new, the variance as the unbiased one, and eval mode takes them.

    Shapes: (N, C, H, W) -> (N, C, H, W), parameters and running statistics (C,).  Remembers z and
    1 / sqrt(var + eps).

    Backward: with g = output_grad, dweight = sum(g z) and dbias = sum(g) over N, H and W. The gradient of z is
    h = g * weight, and with means over H and W
        dx = (h - mean(h) - z * mean(h z)) / sqrt(var + eps).
    With running statistics mean and var are constants: dx = h / sqrt(var + eps).

    Errors: ValueError where an image of one value gives the statistics.

    Ulyanov, Vedaldi & Lempitsky, "Instance Normalization: The Missing Ingredient for Fast Stylization", 2016,
    arXiv:1607.08022.
    """

    rank, form = 2, "(N, C, H, W)"
