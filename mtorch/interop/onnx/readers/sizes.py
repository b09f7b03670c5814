"""Operators on sizes that are known at run time only, as the batch's is: `Shape`, and what nodes make of it."""

import math
from typing import Any

import numpy

from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import OnnxSized
from mtorch.interop.onnx.reader import Known, Live, Reader, Shape, Sizes, Unsupported

MOST = 64  # sizes of one value


def entries(value: Any) -> tuple[Any, ...]:
    """The integers of a value, one by one."""
    if isinstance(value, Sizes):
        return value.entries
    if isinstance(value, Known) and value.array.dtype.kind in "iu" and value.rank <= 1 and value.array.size <= MOST:
        return tuple(value.array.reshape(-1).tolist())
    raise Unsupported("sizes beside numbers that are none")


def same(r: Reader, node: Operation) -> Any:
    return r.needs(node, 0)


def concat(r: Reader, node: Operation) -> Sizes:
    parts = [entries(r.needs(node, i)) for i in range(len(node.inputs))]
    found = tuple(entry for part in parts for entry in part)
    if len(found) > MOST:
        raise Unsupported(f"more than {MOST} sizes")
    return Sizes(found)


def unsqueeze(r: Reader, node: Operation) -> Sizes:
    value = r.needs(node, 0)
    if not isinstance(value, Sizes) or value.rank:
        raise Unsupported("a matrix of sizes")
    return Sizes(value.entries)


def squeeze(r: Reader, node: Operation) -> Sizes:
    value = r.needs(node, 0)
    if not isinstance(value, Sizes) or len(value.entries) != 1:
        raise Unsupported("several sizes as one")
    return Sizes(value.entries, 0)


def gather(r: Reader, node: Operation) -> Any:
    value, ids = r.needs(node, 0), r.known(node, 1)
    if not isinstance(value, Sizes) or ids is None or ids.ndim > 1 or ids.dtype.kind not in "iu" or ids.size > MOST:
        raise Unsupported("ids that are sizes")
    return plain(Sizes(tuple(value.entries[i] for i in ids.reshape(-1).tolist()), ids.ndim))


def plain(sizes: Sizes) -> Any:
    """A constant, where all are numbers."""
    if any(isinstance(entry, tuple) for entry in sizes.entries):
        return sizes
    return Known(numpy.asarray(sizes.entries, "int64").reshape(sizes.shape if sizes.rank else ()))


def multiply(r: Reader, node: Operation) -> Any:
    a, b = r.needs(node, 0), r.needs(node, 1)
    left, right = entries(a), entries(b)
    if len(left) != len(right):
        raise Unsupported("products of different numbers of sizes")
    pairs = zip(left, right, strict=True)
    return plain(Sizes(tuple(product(*pair) for pair in pairs), max(a.rank, b.rank)))


def product(a: Any, b: Any) -> Any:
    """The product of two entries: a number, one entry, or ("*", ...) with both."""
    if isinstance(a, int) and isinstance(b, int):
        return a * b
    factors = [*(a[1:] if isinstance(a, tuple) and a[0] == "*" else [a])]
    factors += b[1:] if isinstance(b, tuple) and b[0] == "*" else [b]
    numbers = [n for n in factors if isinstance(n, int)]
    others = [each for each in factors if not isinstance(each, int)]
    number = math.prod(numbers)
    found = ([number] if number != 1 else []) + others
    if len(found) > 8 or not 0 <= number < 2**31:
        raise Unsupported("products of more than eight sizes, or of large numbers")
    return found[0] if len(found) == 1 else ("*", *found)


def cut(r: Reader, node: Operation) -> Any:
    """Some of the sizes; or of a value as many entries as another has."""
    x = r.needs(node, 0)
    if isinstance(x, Sizes):
        starts, ends, steps = (r.numbers(node, i) for i in (1, 2, 4))
        if starts is None or ends is None or len(starts) != 1 or len(ends) != 1:
            raise OnnxError(f"{node} expected one start and one end")
        return plain(Sizes(x.entries[starts[0] : ends[0] : steps[0] if steps else None]))
    starts, axes, steps = (r.numbers(node, i) for i in (1, 3, 4))
    ends = entries(r.needs(node, 2))
    if starts is None or any(starts) or (steps and set(steps) != {1}) or not all(isinstance(e, tuple) for e in ends):
        raise Unsupported("a slice by sizes that does not begin at 0")
    axes = tuple(range(len(ends))) if axes is None else axes
    if len(axes) != len(ends) or any(not 0 <= axis < 32 for axis in axes):
        raise Unsupported("a slice by sizes along other axes")
    sizes: list[Any] = [-1] * (max(axes) + 1)
    for axis, end in zip(axes, ends, strict=True):
        sizes[axis] = end
    shape: Shape = None if x.shape is None else tuple(None if i in axes else n for i, n in enumerate(x.shape))
    return sized(r, "head", x, tuple(sizes), shape)


def reshape(r: Reader, node: Operation) -> Live:
    x, wanted = r.needs(node, 0), entries(r.needs(node, 1))
    if any(isinstance(n, int) and n < -1 for n in wanted):
        raise OnnxError(f"{node} expected sizes")
    own = [x.shape is not None and isinstance(n, tuple) and n[0] is x and n[1] == i for i, n in enumerate(wanted)]
    given = tuple(0 if mine else n for mine, n in zip(own, wanted, strict=True))
    if not any(isinstance(n, tuple) for n in given):  # as 0 says it
        from mtorch.interop.onnx.readers.shapes import reshaped

        return reshaped(r, x, given)
    return sized(r, "reshape", x, wanted, tuple(n if isinstance(n, int) and n > 0 else None for n in wanted))


def expand(r: Reader, node: Operation) -> Live:
    wanted = entries(r.needs(node, 1))
    return sized(r, "expand", r.needs(node, 0), wanted, (None,) * len(wanted))


def constant_of_shape(r: Reader, node: Operation) -> Live:
    wanted = entries(r.needs(node, 0))
    value = node.option("value", numpy.ndarray, numpy.zeros(1, "float32"))
    if value.dtype.kind != "f" or value.size != 1:
        raise Unsupported("integers in sizes that are known at run time only")
    return sized(r, "expand", Known(value.reshape(())), wanted, (None,) * len(wanted))


def sized(r: Reader, operation: str, x: Any, wanted: tuple[Any, ...], shape: Shape) -> Live:
    """The layer that reads the sizes of other values at run time."""
    likes: list[Live] = []

    def placed(entry: Any) -> Any:
        if isinstance(entry, int):
            return entry
        if entry[0] == "*":
            return ("*", *map(placed, entry[1:]))
        value, axis = entry
        if not any(value is like for like in likes):
            likes.append(value)
        return next(k for k, like in enumerate(likes) if like is value), axis

    sizes = [placed(entry) for entry in wanted]
    if len(likes) > 8:
        raise Unsupported("sizes of more than eight values")
    if any(isinstance(n, int) and n > 2**31 for n in sizes):
        raise OnnxError(f"sizes of {sizes}")
    return r.add(OnnxSized(operation, tuple(sizes), dtype=r.dtype), x, *likes, shape=shape)


SIZED: dict[str, Any] = {
    "Identity": same, "Cast": same, "Concat": concat, "Unsqueeze": unsqueeze, "Squeeze": squeeze, "Gather": gather,
    "Slice": cut, "Mul": multiply, "Reshape": reshape, "Expand": expand, "ConstantOfShape": constant_of_shape,
}  # fmt: skip
