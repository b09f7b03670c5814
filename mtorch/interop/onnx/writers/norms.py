"""Linear maps and normalisation."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.builder import Builder, Symbol


def linear(b: Builder, layer: layers.Linear, x: Symbol) -> str:
    weight, bias = b.parameter(layer.weight), layer.bias
    if x.rank == 2:
        return b.node("Gemm", x.name, weight, None if bias is None else b.parameter(bias), transB=1)
    y = b.node("MatMul", x.name, b.node("Transpose", weight, perm=(1, 0)))
    return y if bias is None else b.node("Add", y, b.parameter(bias))


def affine(b: Builder, layer: Any, size: int) -> tuple[str, str]:
    """The names of weight and bias; constants of 1 and 0 where the layer has none."""
    if layer.weight is None:
        return b.constant(numpy.ones(size)), b.constant(numpy.zeros(size))
    return b.parameter(layer.weight), b.parameter(layer.bias)


def batch_norm(b: Builder, layer: Any, x: Symbol) -> str:
    weight, bias = affine(b, layer, layer.num_features)
    statistics = b.parameter(layer.running_mean), b.parameter(layer.running_var)
    options = {} if layer.momentum is None else {"momentum": 1 - layer.momentum}
    return b.node("BatchNormalization", x.name, weight, bias, *statistics, epsilon=layer.eps, **options)


def instance_norm(b: Builder, layer: Any, x: Symbol) -> str:
    if layer.track_running_stats:
        return batch_norm(b, layer, x)
    return b.node("InstanceNormalization", x.name, *affine(b, layer, layer.num_features), epsilon=layer.eps)


def layer_norm(b: Builder, layer: layers.LayerNorm, x: Symbol) -> str:
    weight = b.constant(numpy.ones(layer.shape)) if layer.weight is None else b.parameter(layer.weight)
    bias = None if layer.bias is None else b.parameter(layer.bias)
    return b.node("LayerNormalization", x.name, weight, bias, axis=-len(layer.shape), epsilon=layer.eps)


def group_norm(b: Builder, layer: layers.GroupNorm, x: Symbol) -> str:
    """Opset 21: weight and bias are those of the channels."""
    weight, bias = affine(b, layer, layer.num_channels)
    return b.node("GroupNormalization", x.name, weight, bias, num_groups=layer.num_groups, epsilon=layer.eps)


def rms_norm(b: Builder, layer: layers.RMSNorm, x: Symbol) -> str:
    eps = float(numpy.finfo(layer.dtype).eps) if layer.eps is None else layer.eps
    axes = b.ints(*range(-len(layer.shape), 0))
    mean = b.node("ReduceMean", b.node("Mul", x.name, x.name), axes, keepdims=1)
    z = b.node("Div", x.name, b.node("Sqrt", b.node("Add", mean, b.constant(float(eps)))))
    return z if layer.weight is None else b.node("Mul", z, b.parameter(layer.weight))


WRITERS = {
    layers.Linear: linear,
    layers.BatchNorm1d: batch_norm,
    layers.BatchNorm2d: batch_norm,
    layers.InstanceNorm1d: instance_norm,
    layers.InstanceNorm2d: instance_norm,
    layers.LayerNorm: layer_norm,
    layers.GroupNorm: group_norm,
    layers.RMSNorm: rms_norm,
}
