"""Standardisation over some axes with its derivative: the formula that batch, layer and group norm share."""

from types import ModuleType
from typing import Any

from mtorch.arrays import Array, quiet, widened
from mtorch.layer import Layer


@quiet
def standardise(xp: ModuleType, x: Array, axes: tuple[int, ...], eps: float) -> tuple[Array, Array, Array, Array]:
    """z = (x - mean) inv with inv = 1 / sqrt(var + eps); mean and var (biased) are those over the axes.

    Returns z, mean, var and inv; the last three keep the axes with size 1. The variance is the mean of squared
    differences, which loses nothing when the mean is large. Where squares overflow, var is inf, and inv and z are 0.
    All four of a float16 x are float32.
    """
    x = widened(x)
    mean = x.mean(axis=axes, keepdims=True)
    d = x - mean
    var = (d * d).mean(axis=axes, keepdims=True)
    inv = 1 / xp.sqrt(var + eps)
    return d * inv, mean, var, inv


def standardise_grad(h: Array, z: Array, inv: Array, axes: tuple[int, ...]) -> Array:
    """dx = (h - mean(h) - z mean(h z)) inv for h, the gradient of z.

    In forward this was z = (x - mean) inv. Every x changes mean and var as well: the first takes the mean out of h, the
    second the component along z.
    """
    h = widened(h)
    mean_h = h.mean(axis=axes, keepdims=True)
    mean_hz = (h * z).mean(axis=axes, keepdims=True)
    return (h - mean_h - z * mean_hz) * inv


def per_channel(v: Array, rank: int) -> Array:
    """v (C,) as (C, 1, ...), which broadcasts over (N, C, ...), an array of that rank."""
    return v.reshape(v.shape + (1,) * (rank - 2))


def random_affine(layer: Layer, rng: Any) -> Layer:
    """The layer with random weight and bias: ones and zeros would hide mistakes from the gradient checks."""
    for parameter in layer.parameters().values():
        parameter.value[...] = layer.xp.asarray(rng.normal(1.0, 0.5, parameter.value.shape))
    return layer
