"""Activations, operators of several values, and reductions."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import KINDS, Operation
from mtorch.interop.onnx.layers import COMPARISONS, OnnxChoose, OnnxErf
from mtorch.interop.onnx.reader import Known, Live, Reader, Shape, Unsupported
from mtorch.layers.arithmetic import Operator


def plain(cls: Any, *arguments: Any, **options: Any) -> Any:
    """The reader of an operator that is one layer of one array."""

    def read(r: Reader, node: Operation) -> Live:
        x = r.needs(node, 0)
        return r.add(cls(*arguments, dtype=r.dtype, **options), x, shape=x.shape)

    return read


def same(r: Reader, node: Operation) -> Any:
    return r.needs(node, 0)


def with_number(cls: Any, name: str, ours: str, default: float) -> Any:
    """The reader of an operator with one number."""

    def read(r: Reader, node: Operation) -> Live:
        x = r.needs(node, 0)
        return r.add(cls(**{ours: node.option(name, float, default)}, dtype=r.dtype), x, shape=x.shape)

    return read


def gelu(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    return r.add(layers.GELU(node.option("approximate", str, "none"), dtype=r.dtype), x, shape=x.shape)


def swish(r: Reader, node: Operation) -> Live:
    x, alpha = r.needs(node, 0), node.option("alpha", float, 1.0)
    if alpha == 1:
        return r.add(layers.SiLU(dtype=r.dtype), x, shape=x.shape)
    s = r.add(layers.Sigmoid(dtype=r.dtype), scaled(r, x, alpha), shape=x.shape)
    return r.add(layers.Multiply(dtype=r.dtype), x, s, shape=x.shape)


def scaled(r: Reader, x: Any, factor: float) -> Live:
    return r.add(layers.Multiply(dtype=r.dtype), x, factor, shape=x.shape)


def selu(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    alpha, gamma = node.option("alpha", float, 1.6732632423543772), node.option("gamma", float, 1.0507009873554805)
    return scaled(r, r.add(layers.ELU(alpha, dtype=r.dtype), x, shape=x.shape), gamma)


def hard_sigmoid(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    line = r.add(
        layers.Add(dtype=r.dtype), scaled(r, x, node.option("alpha", float, 0.2)), node.option("beta", float, 0.5)
    )
    return r.add(layers.Clip(0, 1, dtype=r.dtype), line, shape=x.shape)


def softsign(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    size = r.add(layers.Add(dtype=r.dtype), r.add(layers.Abs(dtype=r.dtype), x), 1.0)
    return r.add(layers.Divide(dtype=r.dtype), x, size, shape=x.shape)


def softmax(cls: Any) -> Any:
    """The reader of a softmax. From opset 13 on it runs along one axis, before along that one and all behind it."""

    def read(r: Reader, node: Operation) -> Live:
        x = r.needs(node, 0)
        if r.opset >= 13:
            return r.add(cls(axis=node.option("axis", int, -1), dtype=r.dtype), x, shape=x.shape)
        rank, axis = r.rank(node), node.option("axis", int, 1)
        axis = r.axis(node, axis, rank)
        if axis == rank - 1 or rank < 2:
            return r.add(cls(axis=-1, dtype=r.dtype), x, shape=x.shape)
        if x.shape is None or None in x.shape[axis:]:
            raise Unsupported("a softmax over several axes whose sizes are not known")
        from mtorch.interop.onnx.layers import OnnxReshape

        head = (0,) * axis
        flat = r.add(OnnxReshape((*head, -1), dtype=r.dtype), x)
        y = r.add(cls(axis=-1, dtype=r.dtype), flat)
        return r.add(OnnxReshape((*head, *x.shape[axis:]), dtype=r.dtype), y, shape=x.shape)

    return read


def clip(r: Reader, node: Operation) -> Any:
    x = r.needs(node, 0)
    bounds = [node.option(name, float) for name in ("min", "max")]
    for i in (0, 1):
        array = r.known(node, 1 + i)
        if array is not None:
            bounds[i] = float(array.reshape(-1)[0]) if array.size == 1 else None
            if bounds[i] is None:
                raise OnnxError(f"{node} expected a number as bound")
    low, high = (None if b is None or not numpy.isfinite(b) or abs(b) > 3.4e38 else b for b in bounds)
    if low is None and high is None:
        return x
    return r.add(layers.Clip(low, high, dtype=r.dtype), x, shape=x.shape)


def prelu(r: Reader, node: Operation) -> Live:
    x, slope = r.needs(node, 0), r.needs(node, 1)
    if not isinstance(slope, Known):
        raise Unsupported("its slopes are known at run time only")
    if slope.array.size == 1 or _is_by_channel(r, x.rank, slope.shape):
        weight = _vector(r, slope)
        return r.add(r.hold(layers.PReLU(weight.array.size, dtype=r.dtype), weight=weight), x, shape=x.shape)
    positive = r.add(layers.ReLU(dtype=r.dtype), x)
    negative = r.add(layers.Subtract(dtype=r.dtype), x, positive)
    leaked = r.add(layers.Multiply(dtype=r.dtype), negative, slope)
    return r.add(layers.Add(dtype=r.dtype), positive, leaked, shape=x.shape)


def _is_by_channel(r: Reader, rank: int | None, shape: tuple[int, ...]) -> bool:
    """Whether slopes of that shape are one for each channel of an array of that rank."""
    if rank is None or r.opset < 7:
        return r.opset < 7 and len(shape) == 1
    full = (1,) * (rank - len(shape)) + shape
    return rank >= 2 and full == (1, full[1], *[1] * (rank - 2))


def _vector(r: Reader, value: Known) -> Known:
    """The value as a vector: the initializer itself, if it is one and has only got axes more."""
    source = value
    while source.node is not None and source.node.operator in ("Unsqueeze", "Squeeze", "Reshape") and source.origins:
        source = r.values[source.node.inputs[0]]
    return source if source.rank == 1 else Known(value.array.reshape(-1), "", value.origins)


def dropout(r: Reader, node: Operation) -> Any:
    """A Dropout, which does nothing in eval mode and drops when the net is trained further."""
    x, ratio = r.needs(node, 0), r.known(node, 1)
    training = r.known(node, 2)
    p = node.option("ratio", float, 0.5) if ratio is None else float(ratio.reshape(-1)[0])
    if training is not None and training.any() and p:
        raise Unsupported("a random mask drawn by another generator")
    if len(node.outputs) > 1 and r.uses[node.outputs[1]]:
        raise Unsupported("its mask is read")
    return r.add(layers.Dropout(p, dtype=r.dtype), x, shape=x.shape), None


# ---------------------------------------------------------------------- several values


def broadcast(*shapes: Shape) -> Shape:
    """What they broadcast to, as far as it is known."""
    if any(shape is None for shape in shapes):
        return None
    rank = max((len(shape or ()) for shape in shapes), default=0)
    padded = [(1,) * (rank - len(shape or ())) + tuple(shape or ()) for shape in shapes]
    result: list[int | None] = []
    for column in zip(*padded, strict=True):
        large = {n for n in column if n not in (1, None)}
        result.append(large.pop() if len(large) == 1 else None if None in column else 1)
    return tuple(result)


def of_two(r: Reader, kind: type[Operator], a: Any, b: Any) -> Live:
    """An operator of two values."""
    return r.add(kind(dtype=r.dtype), a, b, shape=broadcast(a.shape, b.shape))


def binary(kind: type[Operator]) -> Any:
    def read(r: Reader, node: Operation) -> Live:
        a, b = r.needs(node, 0), r.needs(node, 1)
        if r.opset < 7 and node.option("broadcast", int, 0):
            b = aligned(r, node, a, b)
        return of_two(r, kind, a, b)

    return read


def aligned(r: Reader, node: Operation, a: Any, b: Any) -> Any:
    """b with axes of 1 behind it: in opsets below 7 `axis` says at which axis of a those of b begin."""
    axis = node.option("axis", int)
    if axis is None or a.rank is None or b.rank is None:
        return b
    behind = a.rank - r.axis(node, axis, a.rank) - b.rank
    return r.add(layers.Slice((..., *[None] * behind), dtype=r.dtype), b) if behind > 0 else b


def add(r: Reader, node: Operation) -> Live:
    """A sum; nothing where the Linear before it has the bias."""
    if id(node) in r.biased:
        return next(value for value in r.inputs(node) if isinstance(value, Live))
    return binary(layers.Add)(r, node)


def divide(r: Reader, node: Operation) -> Live:
    a, b = r.needs(node, 0), r.needs(node, 1)
    kinds = {value.array.dtype.kind if isinstance(value, Known) else value.kind for value in (a, b)}
    if not kinds <= {"f"}:
        raise Unsupported("a division of integers that drops the remainder: ours is exact")
    return binary(layers.Divide)(r, node)


def power(r: Reader, node: Operation) -> Live:
    base, exponent = r.needs(node, 0), r.needs(node, 1)
    if isinstance(exponent, Known) and exponent.rank == 0 and not exponent.origins:
        return r.add(layers.Power(exponent.array.item(), dtype=r.dtype), base, shape=base.shape)
    return of_two(r, layers.Pow, base, exponent)


def multiply(r: Reader, node: Operation) -> Live:
    a, b = r.needs(node, 0), r.needs(node, 1)
    if a is b and isinstance(a, Live):
        return r.add(layers.Square(dtype=r.dtype), a, shape=a.shape)
    for x, s in ((a, b), (b, a)):
        entry = r.nodes.get(s.name) if isinstance(x, Live) and isinstance(s, Live) else None
        if isinstance(entry, tuple) and isinstance(entry[0], layers.Sigmoid) and entry[1] == x.name:
            return r.add(layers.SiLU(dtype=r.dtype), x, shape=x.shape)
    return binary(layers.Multiply)(r, node)


def variadic(kind: type[Operator], mean: bool = False) -> Any:
    """The reader of an operator of any number of values."""

    def read(r: Reader, node: Operation) -> Any:
        y = r.needs(node, 0)
        for i in range(1, len(node.inputs)):
            y = of_two(r, kind, y, r.needs(node, i))
        if mean and len(node.inputs) > 1:
            return r.add(layers.Divide(dtype=r.dtype), y, float(len(node.inputs)), shape=y.shape)
        return y

    return read


def compare(r: Reader, node: Operation) -> Live:
    """A comparison waits for the Where that reads it: booleans have no gradient."""
    a, b = r.needs(node, 0), r.needs(node, 1)
    return Live(node.operator, broadcast(a.shape, b.shape), "b", (a, b))


def where(r: Reader, node: Operation) -> Live:
    condition, a, b = (r.needs(node, i) for i in range(3))
    shape = broadcast(condition.shape, a.shape, b.shape)
    if isinstance(condition, Live) and condition.parts:
        return r.add(OnnxChoose(condition.name, dtype=r.dtype), *condition.parts, a, b, shape=shape)
    return r.add(layers.Where(dtype=r.dtype), condition, a, b, shape=shape)


def cast(r: Reader, node: Operation) -> Any:
    """A cast between floats does nothing, as the net has one dtype; integers stay integers."""
    x, to = r.needs(node, 0), KINDS.get(node.option("to", int, 0), "")
    kind = "f" if to.startswith("float") else "b" if to == "bool" else "i"
    if not to or not isinstance(x, Live) or x.parts:
        raise Unsupported("a cast to a kind that is not known")
    if kind != "f" and x.kind == "f":
        raise Unsupported("numbers that depend on the input as integers")
    return x if x.kind == kind or (x.kind in "ib" and kind in "ib") else Live(x.name, x.shape, kind)


# ---------------------------------------------------------------------- reductions


def reduction(before: Any, cls: Any, after: Any) -> Any:
    def read(r: Reader, node: Operation) -> Any:
        x, axes = r.needs(node, 0), r.numbers(node, 1, "axes")
        if not axes:
            if node.option("noop_with_empty_axes", int, 0):
                y = x if before is None else r.add(before(dtype=r.dtype), x, shape=x.shape)
                return y if after is None else r.add(after(dtype=r.dtype), y, shape=x.shape)
            axes = None
        keepdims = bool(node.option("keepdims", int, 1))
        y = x if before is None else r.add(before(dtype=r.dtype), x)
        y = r.add(cls(axes, keepdims, dtype=r.dtype), y, shape=_reduced(r, node, x.shape, axes, keepdims))
        return y if after is None else r.add(after(dtype=r.dtype), y, shape=y.shape)

    return read


def _reduced(r: Reader, node: Operation, shape: Shape, axes: Any, keepdims: bool) -> Shape:
    if shape is None:
        return None
    reduced = {r.axis(node, axis, len(shape)) for axis in (range(len(shape)) if axes is None else axes)}
    return tuple(1 if i in reduced else n for i, n in enumerate(shape) if keepdims or i not in reduced)


READERS: dict[str, Any] = {
    "Abs": plain(layers.Abs), "Cos": plain(layers.Cos), "Erf": plain(OnnxErf), "Exp": plain(layers.Exp),
    "Identity": same, "Log": plain(layers.Log), "Neg": plain(layers.Negative), "Reciprocal": plain(layers.Power, -1),
    "Relu": plain(layers.ReLU), "Sigmoid": plain(layers.Sigmoid), "Sin": plain(layers.Sin),
    "Softplus": plain(layers.Softplus), "Sqrt": plain(layers.Sqrt), "Tanh": plain(layers.Tanh),
    "Elu": with_number(layers.ELU, "alpha", "alpha", 1.0),
    "LeakyRelu": with_number(layers.LeakyReLU, "alpha", "negative_slope", 0.01),
    "Gelu": gelu, "Swish": swish, "Selu": selu, "HardSigmoid": hard_sigmoid, "Softsign": softsign,
    "Softmax": softmax(layers.Softmax), "LogSoftmax": softmax(layers.LogSoftmax), "Clip": clip, "PRelu": prelu,
    "Dropout": dropout, "Add": add, "Sub": binary(layers.Subtract), "Mul": multiply, "Div": divide, "Pow": power,
    "Max": variadic(layers.Maximum), "Min": variadic(layers.Minimum), "Sum": variadic(layers.Add),
    "Mean": variadic(layers.Add, mean=True), "Where": where, "Cast": cast,
    **dict.fromkeys(COMPARISONS, compare),
    "ReduceSum": reduction(None, layers.Sum, None), "ReduceMean": reduction(None, layers.Mean, None),
    "ReduceMax": reduction(None, layers.Max, None), "ReduceMin": reduction(None, layers.Min, None),
    "ReduceL1": reduction(layers.Abs, layers.Sum, None), "ReduceL2": reduction(layers.Square, layers.Sum, layers.Sqrt),
    "ReduceSumSquare": reduction(layers.Square, layers.Sum, None),
    "ReduceLogSum": reduction(None, layers.Sum, layers.Log),
    "ReduceLogSumExp": reduction(layers.Exp, layers.Sum, layers.Log),
}  # fmt: skip
