"""The door of a Graph: an input is admitted as the layer that computes with it would admit it."""

from typing import Any

from mtorch import arrays
from mtorch.arrays import Array, Value
from mtorch.containers.plan import Plan, mapped, places
from mtorch.layer import Layer
from mtorch.layers.select import Select


class Doors:
    """For each input, and each part of an input that is a tuple, the first layer that computes with it.

    Layers that only move data pass the question on to those behind them. The layer is asked about its whole operand,
    in which values that are not there yet are stood in for by a float.
    """

    def __init__(self, plan: Plan):
        self.layers, self.operands = plan.layers, plan.operands
        self.doors: dict[tuple, tuple[int, tuple]] = {}  # path within the inputs -> node, path within its operand
        self.origins: list[tuple | None] = [(i,) for i in range(len(plan.inputs))] + [None] * len(plan.sources)
        self.readers: dict[int, tuple[int, tuple]] = {}  # slot -> node, path within its operand
        whole = set(range(len(plan.inputs)))  # the slots that hold exactly the part that their origin names
        for node, (layer, operand) in enumerate(zip(self.layers, self.operands, strict=True)):
            read = list(places(operand))
            known = [(slot, hole) for slot, hole in read if self.origins[slot] is not None]
            for slot, hole in read:
                self.readers.setdefault(slot, (node, hole))
            origin = None
            if layer.moves_data and known:
                slot = known[0][0]
                origin = self.origins[slot]
                if layer.__class__ is Select and slot in whole:
                    origin = (*origin, layer.position)
                    whole.add(len(self.origins))
            elif not layer.moves_data:
                for slot, hole in known:
                    self.doors.setdefault(self.origins[slot], (node, hole))
            self.origins.append(origin)

    def admit(self, home: Layer, given: tuple[Value, ...], sources: list[Array]) -> tuple[Value, ...]:
        """The inputs on the graph's array module, in the kinds and dtypes that its layers take."""
        constants = dict(enumerate(sources, start=len(given)))
        return tuple(self._admit(home, (i,), value, given, constants) for i, value in enumerate(given))

    def _admit(self, home: Layer, path: tuple, value: Any, given: tuple, constants: dict[int, Array]) -> Value:
        if value is None or (value.__class__ is home.xp.ndarray and value.dtype is home.dtype):
            return value
        door = self.doors.get(path)
        if door is not None:
            return self._ask(home, door, given, constants)
        if isinstance(value, tuple):
            count = len(value)
            paths = [(*path, k - count if (*path, k - count) in self.doors else k) for k in range(count)]
            pairs = zip(paths, value, strict=True)
            return tuple(self._admit(home, inner, part, given, constants) for inner, part in pairs)
        return arrays.admit_real(home.xp, home.dtype, value, home)

    def constant(self, home: Layer, slot: int, value: Any) -> Array:
        """A constant as the first layer that reads it would admit it."""
        if arrays.array_module(value) is not home.xp:
            value = home.xp.asarray(arrays.as_numpy(value))
        return self._ask(home, self.readers[slot], (), {slot: value})

    def _ask(self, home: Layer, door: tuple[int, tuple], given: tuple, constants: dict[int, Array]) -> Value:
        node, hole = door

        def stand_in(slot: int) -> Any:
            if slot in constants:
                return constants[slot]
            value: Any = given
            for k in self.origins[slot] or (0,):
                if not isinstance(value, tuple) or not -len(value) <= k < len(value):
                    return home.xp.zeros((), home.dtype)
                value = value[k]
            return value

        admitted = self.layers[node].admit(mapped(stand_in, self.operands[node]))
        for k in hole:
            admitted = admitted[k]
        return admitted
