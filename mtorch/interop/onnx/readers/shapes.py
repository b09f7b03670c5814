"""Operators that move data."""

import math
from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import PAD_MODES, OnnxPad, OnnxReshape, OnnxTile, OnnxTriangle
from mtorch.interop.onnx.reader import Known, Live, Reader, Shape, Sizes, Unsupported, names


def concat(r: Reader, node: Operation) -> Live:
    parts = [r.needs(node, i) for i in range(len(node.inputs))]
    axis, shape = node.option("axis", int, 1 if r.opset < 4 else 0), None
    if all(part.shape is not None for part in parts):
        place = r.axis(node, axis, parts[0].rank)
        sizes = [part.shape[place] for part in parts]
        total = None if None in sizes else sum(sizes)
        shape = (*parts[0].shape[:place], total, *parts[0].shape[place + 1 :])
    if len(parts) == 1:
        return parts[0]
    return r.add(layers.Concat(axis, dtype=r.dtype), *parts, shape=shape)


def transpose(r: Reader, node: Operation) -> Live:
    x, perm = r.needs(node, 0), node.ints("perm")
    shape: Shape = None
    if x.shape is not None:
        order = tuple(range(len(x.shape)))[::-1] if perm is None else perm
        shape = tuple(x.shape[i] for i in order)
    y = r.add(layers.Transpose(perm, dtype=r.dtype), x, shape=shape)
    y.rows = x.steps if isinstance(x, Live) and perm == (0, 2, 1, 3) else None
    return y


def _new_sizes(shape: Shape, given: tuple[int, ...]) -> Shape:
    """What is known of the sizes after a Reshape to `given`."""
    sizes: list[int | None] = [n if n > 0 else None for n in given]
    if shape is None:
        return tuple(sizes)
    for i, n in enumerate(given):
        if n == 0 and i < len(shape):
            sizes[i] = shape[i]
    rest = math.prod(n for n in sizes if n is not None)
    if None not in shape and sizes.count(None) == 1 and -1 in given and rest:
        sizes[given.index(-1)] = math.prod(n for n in shape if n is not None) // rest
    return tuple(sizes)


def reshaped(r: Reader, x: Any, given: tuple[int, ...]) -> Live:
    """All axes in a new shape, by the layer that leaves the batch axis alone where that is the same."""
    shape = _new_sizes(x.shape, given)
    if isinstance(x, Live) and x.rows is not None and len(given) == 3 and given[:2] == (0, 0):
        return x.rows
    if len(given) > 1 and given[0] == 0 and 0 not in given[1:]:
        return r.add(layers.Reshape(given[1:], dtype=r.dtype), x, shape=shape)
    return r.add(OnnxReshape(given, dtype=r.dtype), x, shape=shape)


def reshape(r: Reader, node: Operation) -> Live:
    x, given = r.needs(node, 0), r.numbers(node, 1, "shape")
    if given is None:
        raise OnnxError(f"{node} expected a shape")
    if 0 in given and node.option("allowzero", int, 0):
        raise Unsupported("a shape with a size of 0")
    return reshaped(r, x, given)


def flatten(r: Reader, node: Operation) -> Live:
    x, axis = r.needs(node, 0), node.option("axis", int, 1)
    rows: int | None = None
    columns: int | None = None
    if x.shape is not None:
        axis = axis + len(x.shape) if axis < 0 else axis
        rows, columns = _product(x.shape[:axis]), _product(x.shape[axis:])
    if axis == 1:
        return r.add(layers.Flatten(dtype=r.dtype), x, shape=(rows, columns))
    if rows is None and columns is None:
        raise Unsupported("the sizes of its input are not known")
    sizes = (-1, columns) if columns is not None else (rows or 0, -1)
    return r.add(OnnxReshape(sizes, dtype=r.dtype), x, shape=(rows, columns))


def _product(sizes: tuple[int | None, ...]) -> int | None:
    return None if None in sizes else math.prod(n for n in sizes if n is not None)


def squeeze(r: Reader, node: Operation) -> Live:
    x, axes = r.needs(node, 0), r.numbers(node, 1, "axes")
    if axes is None:
        if x.shape is None or None in x.shape:
            raise Unsupported("which axes have one entry is not known")
        axes = tuple(i for i, n in enumerate(x.shape) if n == 1)
    if isinstance(x, Live) and x.steps is not None and axes == (1,) and x.shape is not None and x.shape[1] == 1:
        return x.steps
    return indexed(r, node, x, dict.fromkeys(axes, 0))


def unsqueeze(r: Reader, node: Operation) -> Live:
    x, axes = r.needs(node, 0), r.numbers(node, 1, "axes")
    if axes is None:
        raise OnnxError(f"{node} expected axes")
    if x.rank is None and any(axis < 0 for axis in axes):
        if axes == (-1,):
            return r.add(layers.Slice((..., None), dtype=r.dtype), x)
        raise Unsupported("the number of axes of its input is not known")
    rank = None if x.rank is None else x.rank + len(axes)
    places = sorted({r.axis(node, axis, rank) for axis in axes})
    index: list[Any] = [slice(None)] * (places[-1] + 1 if places else 0)
    for place in places:
        index[place] = None
    shape: Shape = None
    if x.shape is not None:
        sizes = list(x.shape)
        for place in places:
            sizes.insert(place, 1)
        shape = tuple(sizes)
    return r.add(layers.Slice(tuple(index), dtype=r.dtype), x, shape=shape, kind=getattr(x, "kind", "f"))


def indexed(r: Reader, node: Operation, x: Any, entries: dict[int, Any]) -> Live:
    """x with an entry of an index at some axes."""
    rank = x.rank
    if rank is None and any(axis < 0 for axis in entries):
        if any(axis >= 0 for axis in entries):
            raise Unsupported("the number of axes of its input is not known")
        least = min(r.axis(node, axis, None) for axis in entries)
        index = (..., *(entries.get(axis, slice(None)) for axis in range(least, 0)))
        return r.add(layers.Slice(index, dtype=r.dtype), x, kind=getattr(x, "kind", "f"))
    placed = {r.axis(node, axis, rank): entry for axis, entry in entries.items()}
    index = tuple(placed.get(axis, slice(None)) for axis in range(max(placed, default=-1) + 1))
    shape: Shape = None
    if x.shape is not None:
        sizes: list[int | None] = []
        for axis, n in enumerate(x.shape):
            entry = placed.get(axis, slice(None))
            if isinstance(entry, slice):
                sizes.append(n if entry == slice(None) else None if n is None else len(range(n)[entry]))
            elif isinstance(entry, numpy.ndarray):
                sizes.extend(entry.shape)
        shape = tuple(sizes)
    return r.add(layers.Slice(index, dtype=r.dtype), x, shape=shape, kind=getattr(x, "kind", "f"))


def cut(r: Reader, node: Operation) -> Live:
    x = r.needs(node, 0)
    starts, ends = r.numbers(node, 1, "starts"), r.numbers(node, 2, "ends")
    axes, steps = r.numbers(node, 3, "axes"), r.numbers(node, 4)
    if starts is None or ends is None or len(starts) != len(ends):
        raise OnnxError(f"{node} expected as many starts as ends")
    axes = tuple(range(len(starts))) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    if not len(axes) == len(steps) == len(starts) or 0 in steps:
        raise OnnxError(f"{node} expected a start, an end and a step other than 0 for each axis")
    entries = {}
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        if step == 1:
            entries[axis] = slice(start or None, None if end >= 2**31 - 1 else end)
        else:
            entries[axis] = slice(
                None if start >= 2**31 - 1 or (start == -1 and step < 0) else start,
                None if abs(end) >= 2**31 - 1 else end,
                step,
            )
    return indexed(r, node, x, entries)


def split(r: Reader, node: Operation) -> Any:
    x, sizes = r.needs(node, 0), r.numbers(node, 1, "split", most=10_000)
    axis, count = node.option("axis", int, 0), len(node.outputs)
    whole = None if x.shape is None else x.shape[r.axis(node, axis, len(x.shape))]
    if sizes is None and whole is not None and whole % count:
        step = -(-whole // count)
        sizes = (step,) * (count - 1) + (whole - step * (count - 1),)
    if sizes is not None and (len(sizes) != count or any(n < 0 for n in sizes)):
        raise OnnxError(f"{node} expected {count} sizes, got {len(sizes)}")
    if sizes is None or (len(set(sizes)) == 1 and sizes[0]):
        parts = r.add(layers.Split(count, axis, dtype=r.dtype), x)
        each = sizes[0] if sizes else None if whole is None else whole // count
        shape = None
        if x.shape is not None:
            place = r.axis(node, axis, len(x.shape))
            shape = (*x.shape[:place], each, *x.shape[place + 1 :])
        return tuple(r.part(parts, i, shape) for i in range(count))
    ends = numpy.cumsum(sizes).tolist()
    return tuple(indexed(r, node, x, {axis: slice(e - n, e)}) for n, e in zip(sizes, ends, strict=True))


def gather(r: Reader, node: Operation) -> Live:
    """Rows of a table by ids: an Embedding, where the table is in the file and the ids are not."""
    x, ids = r.needs(node, 0), r.needs(node, 1)
    axis = node.option("axis", int, 0)
    if isinstance(ids, Known):
        if ids.array.dtype.kind not in "iu":
            raise OnnxError(f"{node} expected integers as input 1, got {ids.array.dtype}")
        r.budget(ids.array.size, 24)
        entry = ids.array.item() if ids.rank == 0 else ids.array
        return indexed(r, node, x, {axis: entry})
    if not isinstance(x, Known) or x.rank != 2 or axis not in (0, -2) or ids.kind == "f":
        raise Unsupported("ids that are known at run time only, for something else than the rows of a table")
    key = ("Embedding", *names(x))
    table = r.cached(key, lambda: r.hold(layers.Embedding(*x.shape, dtype=r.dtype, rng=0), weight=x))
    return r.add(table, ids, shape=None if ids.shape is None else (*ids.shape, x.shape[1]))


def gather_elements(r: Reader, node: Operation) -> Live:
    x, ids = r.needs(node, 0), r.needs(node, 1)
    axis = node.option("axis", int, 0)
    if isinstance(ids, Known):
        r.budget(ids.array.size * max(ids.rank, 1), 24)
        index = list(numpy.indices(ids.shape))
        index[r.axis(node, axis, ids.rank)] = ids.array
        return r.add(layers.Slice(tuple(index), dtype=r.dtype), x, shape=ids.shape)
    if axis != -1 and axis + 1 != ids.rank:
        raise Unsupported("ids that are known at run time only, along another axis than the last")
    return r.add(layers.Take(dtype=r.dtype), x, ids, shape=ids.shape)


def gather_nd(r: Reader, node: Operation) -> Live:
    x, ids = r.needs(node, 0), r.known(node, 1)
    batch = node.option("batch_dims", int, 0)
    if ids is None or not ids.ndim or ids.dtype.kind not in "iu" or batch > 1:
        raise Unsupported("ids of this kind")
    r.budget(ids.size, 24)
    index = tuple(numpy.moveaxis(ids, -1, 0))
    if batch:
        rows = numpy.arange(len(ids)).reshape(-1, *[1] * (ids.ndim - 2))
        index = (rows, *index)
    rest = None if x.shape is None else (*ids.shape[:-1], *x.shape[len(index) :])
    return r.add(layers.Slice(index, dtype=r.dtype), x, shape=rest)


def pad(r: Reader, node: Operation) -> Live:
    x, widths = r.needs(node, 0), r.numbers(node, 1, "pads" if "pads" in node.attributes else "paddings")
    mode, value, axes = node.option("mode", str, "constant"), r.known(node, 2), r.numbers(node, 3)
    if widths is None or len(widths) % 2:
        raise OnnxError(f"{node} expected a number before and behind each axis")
    if mode not in PAD_MODES or max(map(abs, widths), default=0) > 2**20:
        raise Unsupported(f"the mode {mode[:20]!a}, or widths of over a million")
    number = node.option("value", float, 0.0) if value is None or not value.size else float(value.reshape(-1)[0])
    half = len(widths) // 2
    pairs = list(zip(widths[:half], widths[half:], strict=True))
    if axes is not None:
        full = [(0, 0)] * r.rank(node)
        for axis, pair in zip(axes, pairs, strict=True):
            full[r.axis(node, axis, len(full))] = pair
        pairs = full
    return padded(r, x, tuple(pairs), mode, number)


def padded(r: Reader, x: Any, pairs: tuple[tuple[int, int], ...], mode: str = "constant", value: float = 0.0) -> Live:
    shape: Shape = None
    if x.shape is not None and len(pairs) == len(x.shape):
        shape = tuple(None if n is None else n + a + b for n, (a, b) in zip(x.shape, pairs, strict=True))
    return r.add(OnnxPad(pairs, mode, value, dtype=r.dtype), x, shape=shape)


def tile(r: Reader, node: Operation) -> Live:
    x, repeats = r.needs(node, 0), r.numbers(node, 1)
    if repeats is None or any(n < 1 for n in repeats):
        raise Unsupported("no repeats, or fewer than one")
    if math.prod(repeats) > 2**20:
        raise Unsupported("more than a million copies")
    return r.add(OnnxTile(repeats, dtype=r.dtype), x)


def expand(r: Reader, node: Operation) -> Live:
    """x plus zeros of that shape."""
    x, shape = r.needs(node, 0), r.numbers(node, 1)
    if shape is None or any(n < 1 for n in shape):
        raise Unsupported("a shape with a size below 1")
    r.budget(math.prod(shape), r.dtype.itemsize)
    return r.add(layers.Add(dtype=r.dtype), x, numpy.zeros(shape, r.dtype))


def shape_of(r: Reader, node: Operation) -> Any:
    """The sizes as a constant, where the file tells those that are asked for."""
    x = r.needs(node, 0)
    if x.shape is None:
        raise Unsupported("the sizes of its input are not known")
    axes = range(len(x.shape))[node.option("start", int, 0) : node.option("end", int, len(x.shape))]
    sizes = [x.shape[axis] for axis in axes]
    if None in sizes:
        return Sizes(tuple((x, axis) if x.shape[axis] is None else x.shape[axis] for axis in axes))
    return Known(numpy.asarray(sizes, "int64"))


def triangle(r: Reader, node: Operation) -> Any:
    x, k = r.needs(node, 0), r.known(node, 1)
    layer = OnnxTriangle(0 if k is None else k.item(), bool(node.option("upper", int, 1)), dtype=r.dtype)
    return r.add(layer, x, shape=x.shape)


READERS: dict[str, Any] = {
    "Concat": concat, "Transpose": transpose, "Reshape": reshape, "Flatten": flatten, "Squeeze": squeeze,
    "Unsqueeze": unsqueeze, "Slice": cut, "Split": split, "Gather": gather, "GatherElements": gather_elements,
    "GatherND": gather_nd, "Pad": pad, "Tile": tile, "Expand": expand, "Shape": shape_of, "Trilu": triangle,
}  # fmt: skip
