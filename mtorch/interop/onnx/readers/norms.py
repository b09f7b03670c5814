"""Linear maps and normalisation."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.reader import Known, Live, Reader, Shape, Unsupported, names
from mtorch.interop.onnx.readers.elementwise import of_two, scaled
from mtorch.layer import Layer

# ---------------------------------------------------------------------- Linear


def matrix(r: Reader, value: Any, transposed: bool) -> Known | None:
    """The weight (H, D) of a Linear that multiplies by `value`, or by its transpose; None where it is none.

    It is an initializer, or a matrix that no other node reads: a parameter is laid out in one way only.
    """
    if not isinstance(value, Known) or value.rank != 2 or not value.origins or 0 in value.shape:
        return None
    if value.node is not None and value.node.operator == "Transpose" and value.depth == 1:
        source = r.values[value.node.inputs[0]]
        return source if not transposed else None
    if value.node is not None:
        return None
    if transposed:
        return value
    return Known(value.array.T, "", value.origins) if r.uses[value.name] == 1 else None


def linear(r: Reader, weight: Known, bias: Known | None) -> Layer:
    key = ("Linear", *names(weight, bias))
    h, d = weight.shape

    def make() -> Layer:
        made = layers.Linear(d, h, bias=bias is not None, dtype=r.dtype, rng=0)
        return r.hold(made, weight=weight, bias=bias)

    return r.cached(key, make)


def _shape(x: Any, out: int) -> Shape:
    return None if x.shape is None else (*x.shape[:-1], out)


def matmul(r: Reader, node: Operation) -> Live:
    """A product of two values; with a matrix of the file a Linear, which has the bias if that is added at once."""
    x, w = r.needs(node, 0), r.needs(node, 1)
    weight = matrix(r, w, transposed=False) if isinstance(x, Live) else None
    if weight is None:
        return of_two_matrices(r, x, w)
    return r.add(linear(r, weight, _bias_behind(r, node, len(weight.array))), x, shape=_shape(x, len(weight.array)))


def _bias_behind(r: Reader, node: Operation, size: int) -> Known | None:
    """The vector of the file that the only reader of the node's output adds to it."""
    (name,) = node.outputs[:1]
    reader = r.last_reader.get(name)
    if r.uses[name] != 1 or reader is None or (reader.operator, len(reader.inputs)) != ("Add", 2) or reader.attributes:
        return None
    other = r.values.get(reader.inputs[1 - reader.inputs.index(name)])
    if not isinstance(other, Known) or not other.name or not other.origins or other.shape != (size,):
        return None
    r.biased.add(id(reader))
    return other


def of_two_matrices(r: Reader, a: Any, b: Any) -> Live:
    shape: Shape = None
    if a.shape is not None and b.shape is not None and min(len(a.shape), len(b.shape)) > 1:
        lead = of_shapes(a.shape[:-2], b.shape[:-2])
        shape = None if lead is None else (*lead, a.shape[-2], b.shape[-1])
    return r.add(layers.MatMul(dtype=r.dtype), a, b, shape=shape)


def of_shapes(*shapes: Shape) -> Shape:
    from mtorch.interop.onnx.readers.elementwise import broadcast

    return broadcast(*shapes)


def gemm(r: Reader, node: Operation) -> Live:
    """alpha A B + beta C; with a matrix of the file it is a Linear."""
    a, b, c = r.needs(node, 0), r.needs(node, 1), r.value(node, 2)
    alpha, beta = node.option("alpha", float, 1.0), node.option("beta", float, 1.0)
    flips = [bool(node.option(name, int, 0)) for name in ("transA", "transB")]
    weight = matrix(r, b, flips[1]) if isinstance(a, Live) and not flips[0] and alpha == beta == 1 else None
    if weight is not None:
        if c is None:
            return r.add(linear(r, weight, None), a, shape=_shape(a, len(weight.array)))
        if isinstance(c, Known) and c.array.size == len(weight.array) == c.shape[-1] and c.rank <= 2:
            bias = c if c.rank == 1 else Known(c.array.reshape(-1), "", c.origins)
            return r.add(linear(r, weight, bias), a, shape=_shape(a, len(weight.array)))
    sides = [
        r.add(layers.Transpose((1, 0), dtype=r.dtype), side, shape=side.shape and side.shape[::-1]) if flip else side
        for side, flip in zip((a, b), flips, strict=True)
    ]
    y = of_two_matrices(r, *sides)
    y = y if alpha == 1 else scaled(r, y, alpha)
    if c is None or beta == 0:
        return y
    return of_two(r, layers.Add, y, c if beta == 1 else scaled(r, c, beta))


# ---------------------------------------------------------------------- normalisation


def affine_of(r: Reader, node: Operation, first: int = 1) -> tuple[Known, Known | None, bool]:
    """(weight, bias, whether they do anything)."""
    weight, bias = r.needs(node, first), r.value(node, first + 1)
    if not isinstance(weight, Known) or not isinstance(bias, Known | None):
        raise Unsupported("its weight or bias is known at run time only")
    trains = bool(weight.origins or (bias is not None and bias.origins))
    ones = (weight.array == 1).all() and (bias is None or not bias.array.any())
    return weight, bias, trains or not ones


def batch_norm(r: Reader, node: Operation) -> Any:
    x = r.needs(node, 0)
    weight, bias, is_affine = affine_of(r, node)
    mean, var = (r.needs(node, i) for i in (3, 4))
    if not (isinstance(mean, Known) and isinstance(var, Known) and bias is not None and weight.rank == 1):
        raise Unsupported("its statistics are known at run time only")
    if node.option("training_mode", int, 0) or any(r.uses[name] for name in node.outputs[1:]):
        raise Unsupported("statistics of the batch, which training takes here")
    rank = 4 if x.rank is None else x.rank
    if not 2 <= rank <= 4:
        raise Unsupported(f"{rank} axes: BatchNorm has two to four")
    cls = layers.BatchNorm2d if rank == 4 else layers.BatchNorm1d
    eps, keep = node.option("epsilon", float, 1e-5), node.option("momentum", float, 0.9)

    def make() -> Any:
        made = cls(weight.array.size, eps, round(1 - keep, 7), is_affine, dtype=r.dtype)
        own = {"weight": weight, "bias": bias} if is_affine else {}
        return r.hold(made, **own, running_mean=mean, running_var=var)

    layer = r.cached(("BatchNorm", cls, *names(weight, bias, mean, var), eps), make)
    return (r.add(layer, x, shape=x.shape), *[None] * (len(node.outputs) - 1))


def layer_norm(cls: Any) -> Any:
    """The reader of LayerNormalization or RMSNormalization."""

    def read(r: Reader, node: Operation) -> Any:
        x, axis = r.needs(node, 0), node.option("axis", int, -1)
        weight, bias, is_affine = affine_of(r, node)
        if any(r.uses[name] for name in node.outputs[1:]):
            raise Unsupported("its mean and its deviation are read")
        count = -axis if axis < 0 else weight.rank if x.rank is None else x.rank - axis
        if count != weight.rank:
            raise Unsupported("a weight that is broadcast")
        eps = node.option("epsilon", float, 1e-5)

        def make() -> Any:
            if cls is layers.RMSNorm:
                made = cls(weight.shape, eps, is_affine, dtype=r.dtype)
                return r.hold(made, weight=weight) if is_affine else made
            made = cls(weight.shape, eps, is_affine, is_affine and bias is not None, dtype=r.dtype)
            return r.hold(made, weight=weight, bias=bias) if is_affine else made

        layer = r.cached((cls, *names(weight, bias), eps), make)
        return (r.add(layer, x, shape=x.shape), *[None] * (len(node.outputs) - 1))

    return read


def instance_norm(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    weight, bias, is_affine = affine_of(r, node)
    if bias is None or weight.rank != 1:
        raise OnnxError(f"{node} expected a weight and a bias for each channel")
    eps, c = node.option("epsilon", float, 1e-5), weight.array.size
    cls: Any = {3: layers.InstanceNorm1d, 4: layers.InstanceNorm2d}.get(x.rank or 0)

    def make() -> Any:
        if cls is None:
            made: Any = layers.GroupNorm(c, c, eps, is_affine, dtype=r.dtype)
        else:
            made = cls(c, eps, affine=is_affine, dtype=r.dtype)
        return r.hold(made, weight=weight, bias=bias) if is_affine else made

    return r.add(r.cached(("InstanceNorm", cls, *names(weight, bias), eps), make), x, shape=x.shape)


def group_norm(r: Reader, node: Operation) -> Live:
    x, groups = r.needs(node, 0), node.option("num_groups", int, 0)
    weight, bias, is_affine = affine_of(r, node)
    if bias is None or weight.rank != 1 or groups < 1:
        raise OnnxError(f"{node} expected groups, a weight and a bias")
    eps = node.option("epsilon", float, 1e-5)
    if r.opset < 21:  # a weight for each group
        if x.shape is None or x.rank < 2 or x.shape[1] is None or x.shape[1] % groups:
            raise Unsupported("the number of channels is not known")
        each = x.shape[1] // groups
        r.budget(x.shape[1], 16)
        weight, bias = (Known(numpy.repeat(v.array, each), "", v.origins) for v in (weight, bias))

    def make() -> Any:
        made = layers.GroupNorm(groups, weight.array.size, eps, is_affine, dtype=r.dtype)
        return r.hold(made, weight=weight, bias=bias) if is_affine else made

    return r.add(r.cached(("GroupNorm", groups, *names(weight, bias), eps), make), x, shape=x.shape)


READERS: dict[str, Any] = {
    "MatMul": matmul,
    "Gemm": gemm,
    "BatchNormalization": batch_norm,
    "LayerNormalization": layer_norm(layers.LayerNorm),
    "RMSNormalization": layer_norm(layers.RMSNorm),
    "InstanceNormalization": instance_norm,
    "GroupNormalization": group_norm,
}
