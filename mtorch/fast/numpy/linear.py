"""The linear map of large batches: products shared between threads, and batches whose memory runs along columns."""

import numpy

from mtorch.accelerate import replace
from mtorch.arrays import Array, ones
from mtorch.fast.product import product
from mtorch.layers.linear import Linear

LARGE = 1 << 14  # entries of the input


def linear(layer: Linear, x: Array) -> tuple[Array, Array]:
    rows, w, bias = layer.rows(x), layer.weight.value, None if layer.bias is None else layer.bias.value
    if rows.flags.fnc:  # as pooled images lie: BLAS is faster with columns
        y = numpy.ascontiguousarray(product(w, rows.T).T)
        if bias is not None:
            y += bias
    else:
        y = product(rows, w.T, bias=bias)
    return y.reshape(*x.shape[:-1], layer.out_dim), rows


def linear_grad(layer: Linear, x: Array, output_grad: Array) -> Array:
    """dx lies in memory as x does."""
    g = output_grad.reshape(-1, layer.out_dim)
    _accumulate(layer, x, g)
    w = layer.weight.value
    dx = product(w.T, g.T).T if x.flags.fnc else product(g, w)
    return dx.reshape(*output_grad.shape[:-1], layer.in_dim)


def linear_parameter_grads(layer: Linear, x: Array, output_grad: Array) -> None:
    _accumulate(layer, x, output_grad.reshape(-1, layer.out_dim))


def _accumulate(layer: Linear, x: Array, g: Array) -> None:
    layer.weight.accumulate_result(product, g.T, x)
    if layer.bias is not None:
        layer.bias.accumulate_product(ones(numpy, len(g), g.dtype), g)


replace(
    Linear,
    numpy,
    forward=linear,
    backward=linear_grad,
    backward_parameters=linear_parameter_grads,
    multithreaded=lambda layer: layer.weight.value.size > LARGE,
    least=LARGE,
)
