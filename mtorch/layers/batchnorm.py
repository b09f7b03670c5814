"""Batch normalisation."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_flag, check_number, check_size
from mtorch.errors import ShapeMismatchError
from mtorch.kernels import batch_norm as kernel
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter


class _BatchNorm(Layer):
    """What both share: parameters, statistics and the two verbs. See `BatchNorm2d` for the equations."""

    array_only = new_result = new_grad = True
    ranks: tuple[int, ...]
    form: str

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.num_features = c = check_size(name, "num_features", num_features)
        self.eps = check_number(name, "eps", eps, least=0)
        self.momentum = check_number(name, "momentum", momentum, least=0, most=1)
        affine = check_flag(name, "affine", affine)
        self.weight = Parameter(xp.ones(c, dtype=self.dtype)) if affine else None
        self.bias = Parameter(xp.zeros(c, dtype=self.dtype)) if affine else None
        self.running_mean = Buffer(xp.zeros(c, dtype=self.dtype))
        self.running_var = Buffer(xp.ones(c, dtype=self.dtype))
        self.num_batches_tracked = Buffer(xp.zeros((), dtype="int64"))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.num_features)
        return known | {1: self.num_features}

    def forward(self, x: Array) -> Array:
        if x.ndim not in self.ranks or x.shape[1] != self.num_features:
            form = self.form.replace("C", str(self.num_features))
            raise ShapeMismatchError(self, f"expected input of shape {form}, got {x.shape}")
        order = kernel.memory_order(x)
        channels = kernel.as_channels(x, order)
        y = self._train(channels, order) if self.training else self._eval(channels, order)
        return kernel.from_channels(y, x.shape, order)

    def _train(self, x: Array, order: tuple[int, ...]) -> Array:
        n = x.shape[0] * x.shape[2]
        if n < 2:
            raise ValueError(f"{self!r} in training needs more than one value per channel, got {n}")
        weight, bias = self._affine()
        y, d, mean, var, inv = kernel.normalise(self.xp, x, self.eps, weight, bias)
        m = self.momentum
        self.running_mean.value = (1 - m) * self.running_mean.value + m * mean
        self.running_var.value = (1 - m) * self.running_var.value + m * n / (n - 1) * var
        self.num_batches_tracked.value = self.xp.asarray(self.num_batches_tracked.value + 1)
        self.remember(d, inv, order, True)
        return y

    def _eval(self, x: Array, order: tuple[int, ...]) -> Array:
        mean, inv = self.running_mean.value, 1 / self.xp.sqrt(self.running_var.value + self.eps)
        weight, bias = self._affine()
        self.remember((x, mean), inv, order, False)
        return kernel.apply_statistics(self.xp, x, mean, inv if weight is None else inv * weight, bias)

    def backward(self, output_grad: Array) -> Array:
        d, inv, order, batch_statistics = self.recall()
        weight, _ = self._affine()
        g = kernel.as_channels(output_grad, order)
        if batch_statistics:
            dx, dweight, dbias = kernel.normalise_grad(self.xp, g, d, inv, weight)
        else:
            z = kernel.apply_statistics(self.xp, *d, inv, None)
            dweight, dbias = kernel.channel_sums(self.xp, g * z), kernel.channel_sums(self.xp, g)
            dx = g * (inv if weight is None else inv * weight)[:, None]
        if weight is not None:
            self.weight.accumulate(dweight)
            self.bias.accumulate(dbias)
        return kernel.from_channels(dx, output_grad.shape, order)

    def _affine(self) -> tuple[Array | None, Array | None]:
        return (None, None) if self.weight is None else (self.weight.value, self.bias.value)

    def details(self) -> str:
        return str(self.num_features) + ("" if self.weight is not None else ", affine=False")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        if cls is _BatchNorm:
            return
        for rank in cls.ranks:
            shape = (5, 3, 4, 2)[:rank]
            yield random_affine(cls(3, xp=xp, dtype=dtype), rng), shape
            yield cls(3, eps=0.1, momentum=0.5, affine=False, xp=xp, dtype=dtype), shape


class BatchNorm1d(_BatchNorm):
    """`BatchNorm2d` for rows (N, C), where each column is normalised, and for sequences (N, C, T)."""

    ranks, form = (2, 3), "(N, C) or (N, C, T)"


class BatchNorm2d(_BatchNorm):
    """y = weight * z + bias with z = (x - mean) / sqrt(var + eps), for each channel.

    In training mean and var (biased) are those of the batch, over N, H and W, and the running statistics move to them:
    running = (1 - momentum) * running + momentum * new, the variance as the unbiased one. In eval mode mean and var
    are the running ones.

    Shapes: (N, C, H, W) -> (N, C, H, W), parameters and running statistics (C,).  Remembers x - mean and
    1 / sqrt(var + eps).

    Backward: with g = output_grad, dbias = sum(g) and dweight = sum(g z) over N, H and W. In training moving one x
    moves mean and var as well, which takes out of g its mean and its component along z:
        dx = (g - mean(g) - z * mean(g z)) * weight / sqrt(var + eps).
    In eval mode the statistics rest: dx = g * weight / sqrt(var + eps).

    Errors: ValueError in training with one value per channel.

    Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training ...", 2015, arXiv:1502.03167.
    """

    ranks, form = (4,), "(N, C, H, W)"


def random_affine(layer: Layer, rng: Any) -> Layer:
    """The layer with random weight and bias: ones and zeros would hide mistakes from the proofs."""
    for parameter in layer.parameters().values():
        parameter.value[...] = layer.xp.asarray(rng.normal(1.0, 0.5, parameter.value.shape))
    return layer
