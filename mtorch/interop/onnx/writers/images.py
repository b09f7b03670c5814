"""Convolution, pooling and resizing."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.math.windows import spans

PAD_MODES = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def geometry(layer: Any) -> dict[str, Any]:
    """Kernel, stride, padding and dilation as ONNX names them."""
    window, rank = layer.window, layer.rank
    padding = window.padding[-rank:]
    return {
        "kernel_shape": window.kernel[-rank:],
        "strides": window.stride[-rank:],
        "dilations": window.dilation[-rank:],
        "pads": (*padding, *padding),
    }


def convolution(b: Builder, layer: Any, x: Symbol) -> str:
    name, options = x.name, geometry(layer)
    if layer.sides is not None:
        sides = layer.sides[-layer.rank :]
        pads = tuple(before for before, _ in sides) + tuple(behind for _, behind in sides)
        if layer.padding_mode == "zeros":
            options["pads"] = pads
        else:
            widths = (0, 0, *pads[: layer.rank], 0, 0, *pads[layer.rank :])
            name = b.node("Pad", name, b.ints(*widths), mode=PAD_MODES[layer.padding_mode])
    return _convolved(b, "Conv", layer, name, options)


def transposed(b: Builder, layer: Any, x: Symbol) -> str:
    options = geometry(layer) | {"output_padding": layer.output_padding[-layer.rank :]}
    return _convolved(b, "ConvTranspose", layer, x.name, options)


def _convolved(b: Builder, operator: str, layer: Any, name: str, options: dict[str, Any]) -> str:
    bias = None if layer.bias is None else b.parameter(layer.bias)
    return b.node(operator, name, b.parameter(layer.weight), bias, group=layer.groups, **options)


def max_pool(b: Builder, layer: Any, x: Symbol) -> str:
    return b.node("MaxPool", x.name, ceil_mode=int(layer.window.ceil), **geometry(layer))


def avg_pool(b: Builder, layer: Any, x: Symbol) -> str:
    """An AveragePool; with ceil_mode, where runtimes count differently, products with matrices that take the means."""
    if not layer.window.ceil:
        options = geometry(layer)
        del options["dilations"]
        return b.node("AveragePool", x.name, count_include_pad=int(layer.count_include_pad), **options)
    sizes = x.shape[2:]
    matrices = []
    for axis, n in zip(range(2 - layer.rank, 2), sizes, strict=True):
        matrix = numpy.zeros((layer.window.out_size((n, n))[axis], n))
        for out, seen in spans(layer.window, n, axis):
            rows, columns = numpy.arange(len(matrix))[out], numpy.arange(n)[seen]
            matrix[rows, columns] += 1
        matrices.append(matrix / numpy.asarray(layer._counts(axis, n))[:, None])
    return _resized(b, x.name, matrices)


def adaptive_pool(b: Builder, layer: layers.AdaptiveAvgPool2d, x: Symbol) -> str:
    if layer.output_size == (1, 1):
        return b.node("GlobalAveragePool", x.name)
    matrices = []
    for n, out in zip(x.shape[2:], layer.output_size, strict=True):
        matrix = numpy.zeros((out, n))
        for i in range(out):
            bin = slice(i * n // out, -(-(i + 1) * n // out))
            matrix[i, bin] = 1 / (bin.stop - bin.start)
        matrices.append(matrix)
    return _resized(b, x.name, matrices)


def upsample(b: Builder, layer: layers.Upsample, x: Symbol) -> str:
    axes = layer.axes(x.shape[2:])
    if layer.mode == "nearest" and layer.by_factor and all(ratio == 1 / round(1 / ratio) for _, _, ratio in axes):
        scales = b.constant(numpy.array([1, 1, *(out / n for n, out, _ in axes)]), "float32")
        options: dict[str, Any] = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return b.node("Resize", x.name, None, scales, mode="nearest", **options)
    return _resized(b, x.name, [layer.matrix(*axis) for axis in axes])


def _resized(b: Builder, name: str, matrices: list) -> str:
    """A_h x A_w^T, or x A^T for sequences: the sizes of the image are fixed."""
    *height, width = matrices
    y = b.node("MatMul", name, b.constant(numpy.ascontiguousarray(width.T, "float64")))
    for matrix in height:
        y = b.node("MatMul", b.constant(numpy.asarray(matrix, "float64")), y)
    return y


WRITERS = {
    layers.Conv1d: convolution,
    layers.Conv2d: convolution,
    layers.ConvTranspose1d: transposed,
    layers.ConvTranspose2d: transposed,
    layers.MaxPool1d: max_pool,
    layers.MaxPool2d: max_pool,
    layers.AvgPool1d: avg_pool,
    layers.AvgPool2d: avg_pool,
    layers.AdaptiveAvgPool2d: adaptive_pool,
    layers.Upsample: upsample,
}
