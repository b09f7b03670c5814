"""How many multiplications with an addition a layer's products take, from the shapes of its input and output."""

from math import prod
from typing import Any

from mtorch import layers
from mtorch.layer import Layer
from mtorch.layers.conv_transpose import ConvTranspose
from mtorch.layers.convolution import Convolution
from mtorch.layers.recurrent import Cell, RecurrentLayer
from mtorch.parameter import Parameter


def multiply_adds(layer: Layer, x: Any, y: Any) -> int:
    """The multiply-adds of one call without those of the layers below it; x and y are shapes.

    Every entry of a product A B counts the length of its inner axis. Sums, elementwise functions, norms and pooling,
    which have no product, count 0, and so does a class that is not known here.
    """
    if isinstance(layer, layers.Linear):
        return prod(y) * layer.in_dim
    if isinstance(layer, ConvTranspose):  # every entry of x goes through the kernels of its input channel
        return prod(x) * layer.weight.value[0].size
    if isinstance(layer, Convolution):  # every entry of y reads one window
        return prod(y) * layer.weight.value[0].size
    if isinstance(layer, RecurrentLayer):  # x and h go through their weights at every step of every layer
        steps = prod(_last(y)[:-1])
        return steps * sum(p.value.size for _, p in layer.own(Parameter) if p.value.ndim == 2)
    if isinstance(layer, Cell):
        return _last(y)[0] * sum(p.value.size for _, p in layer.own(Parameter) if p.value.ndim == 2)
    if isinstance(layer, layers.MultiHeadAttention):  # q, k and v, then the scores and the weighted sum of v
        query, key = (x[0], x[1]) if isinstance(x[0], tuple) else (x, x)
        (length, n, e), size = query, key[0]
        return n * e * (e * (length + 2 * size) + 2 * length * size)
    if isinstance(layer, layers.MatMul):
        return prod(y) * x[0][-1]
    return 0


def _last(shape: Any) -> tuple[int, ...]:
    """The shape of y where (state, y) was returned."""
    return _last(shape[-1]) if shape and isinstance(shape[-1], tuple) else shape
