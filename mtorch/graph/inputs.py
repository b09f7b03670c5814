"""How a Graph casts its inputs: each to the kind that the first layer takes that computes with it."""

from typing import Any

from mtorch import arrays, guards
from mtorch.arrays import Array, Value
from mtorch.graph.table import NodeTable, paths
from mtorch.layer import Layer
from mtorch.layers.get_item import GetItem

Reader = tuple[Layer, tuple, bool]  # a layer, where in its operand it reads a value, whether that is all it reads


class Readers:
    """For each input, and each part of an input that is a tuple, the first layer that computes with it.

    For layers that only move data, the layers behind them decide.
    """

    def __init__(self, table: NodeTable):
        self.by_path: dict[tuple, Reader] = {}  # the path of a part within the inputs -> its reader
        self.by_slot: dict[int, Reader] = {}
        origins: list[tuple | None] = [(i,) for i in range(len(table.inputs))] + [None] * len(table.sources)
        exact = set(range(len(table.inputs)))  # the slots that hold exactly what their origin names
        for layer, operand in zip(table.layers, table.operands, strict=True):
            origin: tuple | None = None
            for slot, place in paths(operand):
                self.by_slot.setdefault(slot, (layer, place, place == ()))
                path = origins[slot]
                if path is None:
                    continue
                if not layer.moves_data:
                    self.by_path.setdefault(path, (layer, place, place == () and slot in exact))
                elif origin is None:
                    origin = path
                    if isinstance(layer, GetItem) and slot in exact:
                        origin = (*path, layer.position)
                        exact.add(len(origins))
            origins.append(origin)

    def takes(self, count: int) -> Any:
        """What a graph of that many inputs takes, as `Layer.takes` says it."""
        readers = [self.by_path.get((i,)) for i in range(count)]
        kinds = tuple("floats" if reader is None else _kind(reader) for reader in readers)
        return kinds if count > 1 else kinds[0]

    def cast(self, graph: Layer, inputs: tuple[Value, ...]) -> tuple[Value, ...]:
        """The inputs on the graph's array module, in the kinds and dtypes that its layers take."""
        return tuple(self._cast(graph, (i,), value) for i, value in enumerate(inputs))

    def _cast(self, graph: Layer, path: tuple, value: Any) -> Value:
        if value is None or (value.__class__ is graph.xp.ndarray and value.dtype is graph.dtype):
            return value
        reader = self.by_path.get(path)
        if reader is not None:
            return _cast_for(graph, reader, value)
        if isinstance(value, tuple):
            count = len(value)
            inner = [(*path, k - count if (*path, k - count) in self.by_path else k) for k in range(count)]
            return tuple(self._cast(graph, each, part) for each, part in zip(inner, value, strict=True))
        return arrays.as_float(graph.xp, graph.dtype, value, graph)

    def constant(self, graph: Layer, slot: int, value: Any) -> Array:
        """A constant as the first layer that reads it would cast it."""
        if arrays.array_module(value) is not graph.xp:
            value = graph.xp.asarray(arrays.as_numpy(value))
        return _cast_for(graph, self.by_slot[slot], value)


def _cast_for(graph: Layer, reader: Reader, value: Any) -> Value:
    layer, _, complete = reader
    return layer.cast_input(value) if complete else guards.cast(graph, value, _kind(reader))


def _kind(reader: Reader) -> Any:
    """What the layer takes there."""
    layer, place, _ = reader
    takes = layer.takes
    for position in place:
        if isinstance(takes, tuple):
            takes = takes[position] if position < len(takes) else "floats"
    return takes
