"""Layers that move data: shapes, indices, tuples and tables."""

from itertools import pairwise
from typing import Any

import numpy

from mtorch import arrays, layers
from mtorch.interop.onnx.builder import Builder, Symbol

LARGEST = 2**63 - 1


def reshape(b: Builder, layer: layers.Reshape, x: Symbol) -> str:
    return b.node("Reshape", x.name, b.ints(0, *layer.shape))


def flatten(b: Builder, layer: layers.Flatten, x: Symbol) -> str:
    start, end = (dim + x.rank if dim < 0 else dim for dim in (layer.start_dim, layer.end_dim))
    if start == x.rank:  # a sample is a number
        return b.node("Unsqueeze", x.name, b.ints(start))
    if (start, end) == (1, x.rank - 1):
        return b.node("Flatten", x.name, axis=1)
    return b.node("Reshape", x.name, b.ints(*[0] * start, -1, *x.shape[end + 1 :]))


def transpose(b: Builder, layer: layers.Transpose, x: Symbol) -> str:
    return b.node("Transpose", x.name, perm=layer.axes or tuple(range(x.rank))[::-1])


def index(b: Builder, layer: layers.Slice, x: Symbol) -> Any:
    """NumPy's index as Slice, Squeeze, Gather and Unsqueeze.

    Several arrays, and integers beside them, pick points: their axes come first and are read by one GatherND.
    """
    entries: list[Any] = []
    for entry in layer._native:
        entries.append(arrays.as_numpy(entry) if arrays.is_array(entry) else entry)
    taken = sum(entry is not None and entry is not ... for entry in entries)
    at = next((i for i, entry in enumerate(entries) if entry is ...), len(entries))
    entries[at : at + 1] = [slice(None)] * (x.rank - taken)
    gathers = any(isinstance(entry, numpy.ndarray) for entry in entries)
    name, picks = x.name, {}
    cuts: list[Any] = []
    kept: list[Any] = []
    places: list[int] = []
    axis = 0
    for position, entry in enumerate(entries):
        if entry is None:
            kept.append(None)
            continue
        if isinstance(entry, slice):
            if entry != slice(None):
                cuts.append((axis, entry))
            kept.append(axis)
        elif isinstance(entry, numpy.ndarray) or gathers:
            picks[axis] = entry
            places.append(position)
            kept.append("pick")
        else:
            kept.append((axis, entry))
        axis += 1
    if cuts:
        bounds = [_bounds(cut) for _, cut in cuts]
        starts, ends, steps = (b.ints(*each) for each in zip(*bounds, strict=True))
        name = b.node("Slice", name, starts, ends, b.ints(*(axis for axis, _ in cuts)), steps)
    for axis, entry in [entry for entry in kept if isinstance(entry, tuple)][::-1]:
        name = b.node("Gather", name, b.constant(entry, "int64"), axis=axis)
    result = [entry for entry in kept if not isinstance(entry, tuple)]
    if picks:
        name, result = _picked(b, name, x.rank, picks, places, result)
    fresh = [i for i, entry in enumerate(result) if entry is None]
    if fresh:
        name = b.node("Unsqueeze", name, b.ints(*fresh))
    return x if name == x.name else name


def _bounds(cut: slice) -> tuple[int, int, int]:
    step = 1 if cut.step is None else cut.step
    start = (0 if step > 0 else LARGEST) if cut.start is None else cut.start
    stop = (LARGEST if step > 0 else -LARGEST) if cut.stop is None else cut.stop
    return start, stop, step


def _picked(b: Builder, name: str, rank: int, picks: dict, places: list[int], result: list) -> tuple[str, list]:
    """Gathers along the picked axes; the name, and what each axis of the result is, None for a new one."""
    ids = numpy.broadcast_arrays(*[numpy.asarray(each, "int64") for each in picks.values()])
    axes, shape = list(picks), ids[0].ndim
    first = result.index("pick")
    if len(picks) == 1:
        name = b.node("Gather", name, b.constant(ids[0]), axis=axes[0])
        return name, [*result[:first], *["id"] * shape, *result[first + 1 :]]
    others = [axis for axis in range(rank) if axis not in picks]
    if axes != list(range(len(axes))):
        name = b.node("Transpose", name, perm=(*axes, *others))
    name = b.node("GatherND", name, b.constant(numpy.stack(ids, axis=-1)))
    left = [entry for entry in result if entry != "pick"]
    if any(after - before > 1 for before, after in pairwise(places)):
        return name, ["id"] * shape + left  # not side by side: NumPy puts what they picked in front
    before = sum(isinstance(entry, int) for entry in result[:first])
    if before:
        perm = [*range(shape, shape + before), *range(shape), *range(shape + before, shape + len(others))]
        name = b.node("Transpose", name, perm=tuple(perm))
    return name, [*result[:first], *["id"] * shape, *(entry for entry in result[first:] if entry != "pick")]


def get_item(b: Builder, layer: layers.GetItem, x: Any) -> Any:
    return x[layer.position]


def take(b: Builder, layer: layers.Take, x: Any) -> str:
    values, ids = x
    if ids.rank == values.rank:
        return b.node("GatherElements", values.name, ids.name, axis=-1)
    column = b.node("Unsqueeze", ids.name, b.ints(-1))
    return b.node("Squeeze", b.node("GatherElements", values.name, column, axis=-1), b.ints(-1))


def concat(b: Builder, layer: layers.Concat, x: Any) -> str:
    return b.node("Concat", *(part.name for part in x), axis=layer.axis)


def split(b: Builder, layer: layers.Split, x: Symbol) -> Any:
    names = b.node("Split", x.name, outputs=layer.sections, axis=layer.axis, num_outputs=layer.sections)
    return names if isinstance(names, tuple) else (names,)


def embedding(b: Builder, layer: layers.Embedding, x: Symbol) -> str:
    return b.node("Gather", b.parameter(layer.weight), x.name, axis=0)


WRITERS = {
    layers.Reshape: reshape,
    layers.Flatten: flatten,
    layers.Transpose: transpose,
    layers.Slice: index,
    layers.GetItem: get_item,
    layers.Take: take,
    layers.Concat: concat,
    layers.Split: split,
    layers.Embedding: embedding,
}
