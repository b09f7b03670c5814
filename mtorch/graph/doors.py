"""The door of a Graph: an input is admitted in the kind that the layer which computes with it takes."""

from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value
from mtorch.graph.plan import Plan, mapped, places
from mtorch.layer import Layer
from mtorch.layers.select import Select


class Doors:
    """For each input, and each part of an input that is a tuple, the first layer that computes with it.

    Layers that only move data pass the question on to those behind them. A layer that takes nothing but the input
    admits it itself. Of one that takes it beside values that are not there yet, or moved, only the kind is found out:
    whether it keeps integers (ids, masks, lengths) or computes with them as floats.
    """

    def __init__(self, plan: Plan):
        self.layers, self.operands = plan.layers, plan.operands
        self.doors: dict[tuple, tuple[int, tuple, bool]] = {}  # path within the inputs -> node, place, alone there
        self.readers: dict[int, tuple[int, tuple, bool]] = {}  # slot -> the same
        origins: list[tuple | None] = [(i,) for i in range(len(plan.inputs))] + [None] * len(plan.sources)
        whole = set(range(len(plan.inputs)))  # the slots that hold exactly what their origin names
        for node, (layer, operand) in enumerate(zip(self.layers, self.operands, strict=True)):
            origin = None
            for slot, place in places(operand):
                self.readers.setdefault(slot, (node, place, place == ()))
                if origins[slot] is None:
                    continue
                if not layer.moves_data:
                    self.doors.setdefault(origins[slot], (node, place, place == () and slot in whole))
                elif origin is None:
                    origin = origins[slot]
                    if layer.__class__ is Select and slot in whole:
                        origin = (*origin, layer.position)
                        whole.add(len(origins))
            origins.append(origin)
        self.keeps: dict[tuple[int, tuple], bool] = {}

    def cast_input(self, home: Layer, given: tuple[Value, ...]) -> tuple[Value, ...]:
        """The inputs on the graph's array module, in the kinds and dtypes that its layers take."""
        return tuple(self._admit(home, (i,), value) for i, value in enumerate(given))

    def _admit(self, home: Layer, path: tuple, value: Any) -> Value:
        if value is None or (value.__class__ is home.xp.ndarray and value.dtype is home.dtype):
            return value
        door = self.doors.get(path)
        if door is not None:
            return self._through(home, door, value)
        if isinstance(value, tuple):
            count = len(value)
            paths = [(*path, k - count if (*path, k - count) in self.doors else k) for k in range(count)]
            return tuple(self._admit(home, inner, part) for inner, part in zip(paths, value, strict=True))
        return arrays.as_float(home.xp, home.dtype, value, home)

    def constant(self, home: Layer, slot: int, value: Any) -> Array:
        """A constant as the first layer that reads it would admit it."""
        if arrays.array_module(value) is not home.xp:
            value = home.xp.asarray(arrays.as_numpy(value))
        return self._through(home, self.readers[slot], value)

    def _through(self, home: Layer, door: tuple[int, tuple, bool], value: Any) -> Value:
        node, place, alone = door
        if alone:
            return self.layers[node].cast_input(value)
        keeps = self.keeps.get((node, place))
        if keeps is None:
            keeps = self.keeps[node, place] = self._keeps_integers(home, node, place)

        def admitted(leaf: Any) -> Array:
            if keeps and arrays.array_module(leaf) in (None, numpy):
                host = arrays.host_array(leaf, home)
                leaf = home.xp.asarray(host) if host.dtype.kind in "iu" else leaf
            array = arrays.as_numeric(home.xp, leaf, home)
            kept = keeps and array.dtype.kind != "f"
            return array if kept else arrays.as_float(home.xp, home.dtype, array, home)

        return arrays.map_value(admitted, value)

    def _keeps_integers(self, home: Layer, node: int, place: tuple) -> bool:
        """Whether that layer keeps integers at that place; tried beside nothing, a float and an integer."""
        probe = home.xp.zeros((), "int64")
        for other in (None, home.xp.zeros((), home.dtype), probe):
            stand_ins = iter([probe if where == place else other for _, where in places(self.operands[node])])
            try:
                operand = mapped(lambda _, each=stand_ins: next(each), self.operands[node])
                admitted = self.layers[node].cast_input(operand)
                for k in place:
                    admitted = admitted[k]
                return admitted.dtype.kind != "f"
            except Exception:  # what the layer thinks of the others is not the question
                continue
        return True
