"""The layers that only nets from ONNX files have, written as the operators that they were read from."""

from typing import Any

from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.interop.onnx.layers import (
    OnnxChoose,
    OnnxErf,
    OnnxLabelLoss,
    OnnxPad,
    OnnxReshape,
    OnnxSized,
    OnnxTile,
    OnnxTriangle,
)
from mtorch.losses import CrossEntropyLoss


def reshape(b: Builder, layer: OnnxReshape, x: Symbol) -> str:
    return b.node("Reshape", x.name, b.ints(*layer.shape))


def pad(b: Builder, layer: OnnxPad, x: Symbol) -> str:
    before, behind = zip(*layer.widths, strict=True)
    value = b.constant(layer.value) if layer.mode == "constant" else None
    return b.node("Pad", x.name, b.ints(*before, *behind), value, mode=layer.mode)


def _size(b: Builder, n: Any, likes: list[Symbol]) -> str:
    """The name of a vector that holds one size."""
    if isinstance(n, int):
        return b.ints(n)
    if n[0] != "*":
        return b.node("Shape", likes[n[0]].name, start=n[1], end=n[1] + 1)
    first, *others = (_size(b, factor, likes) for factor in n[1:])
    for other in others:
        first = b.node("Mul", first, other)
    return first


def sized(b: Builder, layer: OnnxSized, x: Any) -> str:
    first, *likes = x
    parts = [_size(b, n, likes) for n in layer.sizes]
    sizes = b.node("Concat", *parts, axis=0) if len(parts) > 1 else parts[0]
    if layer.operation != "head":
        return b.node(layer.operation.capitalize(), first.name, sizes)
    axes = [i for i, n in enumerate(layer.sizes) if n != -1]
    ends = b.node("Concat", *[parts[i] for i in axes], axis=0) if len(axes) > 1 else parts[axes[0]]
    return b.node("Slice", first.name, b.ints(*[0] * len(axes)), ends, b.ints(*axes))


def triangle(b: Builder, layer: OnnxTriangle, x: Symbol) -> str:
    return b.node("Trilu", x.name, b.constant(layer.k, "int64"), upper=int(layer.upper))


def tile(b: Builder, layer: OnnxTile, x: Symbol) -> str:
    return b.node("Tile", x.name, b.ints(*layer.repeats))


def choose(b: Builder, layer: OnnxChoose, x: Any) -> str:
    condition = b.node(layer.comparison, x[0].name, x[1].name)
    return b.node("Where", condition, x[2].name, x[3].name)


def erf(b: Builder, layer: OnnxErf, x: Symbol) -> str:
    return b.node("Erf", x.name)


def label_loss(b: Builder, layer: OnnxLabelLoss, x: Any) -> str:
    prediction, labels = x
    name, rank, loss_func = prediction.name, prediction.rank, layer.loss_func
    if rank > 2:
        name = b.node("Transpose", name, perm=(0, rank - 1, *range(1, rank - 1)))
    kind = "SoftmaxCrossEntropyLoss" if isinstance(loss_func, CrossEntropyLoss) else "NegativeLogLikelihoodLoss"
    options: dict[str, Any] = {"reduction": loss_func.reduction}
    if loss_func.ignore_index is not None:
        options["ignore_index"] = loss_func.ignore_index
    weight = None if loss_func.weight is None else b.constant(loss_func.weight)
    return b.node(kind, name, labels.name, weight, **options)


WRITERS = {
    OnnxReshape: reshape,
    OnnxPad: pad,
    OnnxSized: sized,
    OnnxTriangle: triangle,
    OnnxTile: tile,
    OnnxChoose: choose,
    OnnxErf: erf,
    OnnxLabelLoss: label_loss,
}
