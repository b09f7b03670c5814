"""What nodes make of constants alone: shapes put together by hand, weights laid out anew."""

import math
from typing import Any

import numpy

from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import KINDS, Operation

Arrays = list[numpy.ndarray]


def fold(r: Any, node: Operation, inputs: list[Any]) -> Arrays | None:
    """The node's outputs as arrays; None where it is not computed here."""
    function = FOLDS.get(node.operator)
    if function is None:
        return None
    found = function(r, node, [None if value is None else value.array for value in inputs])
    return found if isinstance(found, list) or found is None else [found]


def need(node: Operation, arrays: list[Any], count: int = 1) -> list[Any]:
    if len(arrays) < count or any(array is None for array in arrays[:count]):
        raise OnnxError(f"{node} expected {count} inputs")
    return arrays


def constant(r: Any, node: Operation, arrays: list[Any]) -> Any:
    for name, kind in (("value_float", "float32"), ("value_int", "int64")):
        if name in node.attributes:
            return numpy.asarray(node.option(name, float if "float" in name else int), kind)
    for name, kind in (("value_floats", "float32"), ("value_ints", "int64")):
        if name in node.attributes:
            return numpy.asarray(node.option(name, tuple), kind)
    return node.option("value", numpy.ndarray)


def constant_of_shape(r: Any, node: Operation, arrays: list[Any]) -> Any:
    (shape,) = need(node, arrays)[:1]
    value = node.option("value", numpy.ndarray, numpy.zeros(1, "float32"))
    return filled(r, node, shape, value.reshape(-1)[:1] if value.size else numpy.zeros(1, "float32"))


def filled(r: Any, node: Operation, shape: numpy.ndarray, value: numpy.ndarray) -> numpy.ndarray:
    """The value broadcast to a shape, if the budget allows it."""
    if shape.dtype.kind not in "iu" or shape.ndim != 1 or shape.size > 32 or (shape < 0).any():
        raise OnnxError(f"{node} expected a shape, got {shape.dtype} of shape {shape.shape}")
    target = numpy.broadcast_shapes(value.shape, tuple(shape.tolist()))
    r.budget(math.prod(target), value.dtype.itemsize)
    return numpy.broadcast_to(value, target).copy()


def expand(r: Any, node: Operation, arrays: list[Any]) -> Any:
    x, shape = need(node, arrays, 2)[:2]
    return filled(r, node, shape, x)


def cast(r: Any, node: Operation, arrays: list[Any]) -> Any:
    kind = KINDS.get(node.option("to", int, 0))
    if kind is None:
        return None
    (x,) = need(node, arrays)[:1]
    r.budget(x.size, 8)
    return x.astype(kind)


def transpose(r: Any, node: Operation, arrays: list[Any]) -> Any:
    return need(node, arrays)[0].transpose(node.ints("perm"))


def reshape(r: Any, node: Operation, arrays: list[Any]) -> Any:
    x, shape = (*need(node, arrays), None)[:2]
    given = node.ints("shape") if shape is None else tuple(shape.reshape(-1).tolist()[:64])
    if given is None:
        raise OnnxError(f"{node} expected a shape")
    if not node.option("allowzero", int, 0):
        given = tuple(x.shape[i] if n == 0 and i < x.ndim else n for i, n in enumerate(given))
    return _in_order(r, x).reshape(given)


def _in_order(r: Any, x: numpy.ndarray) -> numpy.ndarray:
    """The array in C order, which may be a copy."""
    if x.flags.c_contiguous:
        return x
    r.budget(x.size, x.itemsize)
    return numpy.ascontiguousarray(x)


def flatten(r: Any, node: Operation, arrays: list[Any]) -> Any:
    (x,) = need(node, arrays)[:1]
    axis = node.option("axis", int, 1)
    return _in_order(r, x).reshape(math.prod(x.shape[: axis if axis >= 0 else axis + x.ndim]), -1)


def _axes(node: Operation, arrays: list[Any], place: int) -> Any:
    if len(arrays) > place and arrays[place] is not None:
        return tuple(arrays[place].reshape(-1).tolist()[:64])
    return node.ints("axes")


def squeeze(r: Any, node: Operation, arrays: list[Any]) -> Any:
    return need(node, arrays)[0].squeeze(_axes(node, arrays, 1))


def unsqueeze(r: Any, node: Operation, arrays: list[Any]) -> Any:
    axes = _axes(node, need(node, arrays), 1)
    return numpy.expand_dims(arrays[0], () if axes is None else axes)


def concat(r: Any, node: Operation, arrays: list[Any]) -> Any:
    need(node, arrays, len(arrays))
    r.budget(sum(array.size for array in arrays), arrays[0].itemsize)
    return numpy.concatenate(arrays, axis=node.option("axis", int, 1 if r.opset < 4 else 0))


def split(r: Any, node: Operation, arrays: list[Any]) -> Any:
    (x,) = need(node, arrays)[:1]
    axis, sizes = node.option("axis", int, 0), node.ints("split")
    if len(arrays) > 1 and arrays[1] is not None:
        sizes = tuple(arrays[1].reshape(-1).tolist())
    if sizes is None:
        step = -(-x.shape[axis] // len(node.outputs))
        sizes = (step,) * (len(node.outputs) - 1)
    return numpy.split(x, numpy.cumsum(sizes)[: len(node.outputs) - 1], axis=axis)


def sliced(r: Any, node: Operation, arrays: list[Any]) -> Any:
    x = need(node, arrays)[0]
    starts, ends, axes, steps = ([None if a is None else a.reshape(-1).tolist() for a in arrays[1:5]] + [None] * 4)[:4]
    starts, ends = starts or node.ints("starts"), ends or node.ints("ends")
    axes = axes or node.ints("axes") or range(len(starts))
    index = [slice(None)] * x.ndim
    for i, axis in enumerate(axes):
        index[axis] = slice(starts[i], ends[i], None if steps is None else steps[i])
    return x[tuple(index)]


def gather(r: Any, node: Operation, arrays: list[Any]) -> Any:
    x, ids = need(node, arrays, 2)[:2]
    if ids.dtype.kind not in "iu":
        raise OnnxError(f"{node} expected integers as input 1, got {ids.dtype}")
    axis = node.option("axis", int, 0)
    r.budget(ids.size * (x.size // max(x.shape[axis], 1)), x.itemsize)
    return x.take(ids, axis=axis)


def shape(r: Any, node: Operation, arrays: list[Any]) -> Any:
    sizes = need(node, arrays)[0].shape
    return numpy.asarray(sizes[node.option("start", int, 0) : node.option("end", int, len(sizes))], "int64")


def arange(r: Any, node: Operation, arrays: list[Any]) -> Any:
    start, stop, step = (array.item() for array in need(node, arrays, 3)[:3])
    count = max(math.ceil((stop - start) / step), 0) if step else 0
    r.budget(count, 8)
    return numpy.arange(start, stop, step, dtype=arrays[0].dtype)


def two(function: Any) -> Any:
    def apply(r: Any, node: Operation, arrays: list[Any]) -> Any:
        if len(arrays) != 2:
            return None
        a, b = need(node, arrays, 2)
        r.budget(math.prod(numpy.broadcast_shapes(a.shape, b.shape)), a.itemsize)
        y = function(a, b)
        return y if y.dtype.kind == "b" else numpy.asarray(y, a.dtype)

    return apply


def one(function: Any) -> Any:
    def apply(r: Any, node: Operation, arrays: list[Any]) -> Any:
        (x,) = need(node, arrays)[:1]
        r.budget(x.size, x.itemsize)
        return numpy.asarray(function(x), x.dtype)

    return apply


def divide(a: numpy.ndarray, b: numpy.ndarray) -> Any:
    """The quotient; that of integers is cut off towards 0."""
    if a.dtype.kind == "f":
        return a / b
    return numpy.trunc(a / numpy.where(b == 0, 1, b))


def where(r: Any, node: Operation, arrays: list[Any]) -> Any:
    condition, a, b = need(node, arrays, 3)[:3]
    r.budget(math.prod(numpy.broadcast_shapes(condition.shape, a.shape, b.shape)), a.itemsize)
    return numpy.where(condition != 0, a, b).astype(a.dtype)


def triangle(r: Any, node: Operation, arrays: list[Any]) -> Any:
    x, k = (*need(node, arrays), None)[:2]
    r.budget(x.size, x.itemsize)
    return (numpy.triu if node.option("upper", int, 1) else numpy.tril)(x, 0 if k is None else k.item())


def modulo(a: numpy.ndarray, b: numpy.ndarray) -> Any:
    return numpy.fmod(a, b) if a.dtype.kind == "f" else numpy.mod(a, b)


def same(r: Any, node: Operation, arrays: list[Any]) -> Any:
    return need(node, arrays)[0]


FOLDS = {
    "Add": two(numpy.add), "And": two(numpy.logical_and), "Cast": cast, "Ceil": one(numpy.ceil), "Concat": concat,
    "Constant": constant, "ConstantOfShape": constant_of_shape, "Div": two(divide), "Equal": two(numpy.equal),
    "Expand": expand, "Flatten": flatten, "Floor": one(numpy.floor), "Gather": gather, "Greater": two(numpy.greater),
    "GreaterOrEqual": two(numpy.greater_equal), "Identity": same, "Less": two(numpy.less),
    "LessOrEqual": two(numpy.less_equal), "Max": two(numpy.maximum), "Min": two(numpy.minimum), "Mod": two(modulo),
    "Mul": two(numpy.multiply), "Neg": one(numpy.negative), "Not": one(numpy.logical_not), "Or": two(numpy.logical_or),
    "Pow": two(numpy.power), "Range": arange, "Reshape": reshape, "Shape": shape, "Slice": sliced, "Split": split,
    "Sqrt": one(numpy.sqrt), "Squeeze": squeeze, "Sub": two(numpy.subtract), "Transpose": transpose, "Trilu": triangle,
    "Unsqueeze": unsqueeze, "Where": where,
}  # fmt: skip
