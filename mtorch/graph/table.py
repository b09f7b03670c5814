"""The nodes of a Graph, and which slots every node reads and fills.

A slot holds one value while the graph runs: the inputs come first, then parameters and constants, then one slot for
each node. A *template* has the structure of an operand with slots as leaves (None stays None). Names are looked up
here, once; running the graph meets only integers.
"""

from collections.abc import Callable, Iterator
from functools import partial
from operator import itemgetter
from typing import Any

from mtorch import arrays
from mtorch.arrays import Value, leaves
from mtorch.checks import shown
from mtorch.layer import Layer
from mtorch.layers.arithmetic import Operator
from mtorch.layers.constant_operand import ConstantOperand
from mtorch.parameter import Buffer, Parameter

Template = Any  # int | None | tuple[Template, ...]


class Constant:
    """A number or an array among the operands of a node."""

    def __init__(self, value: Any):
        self.value = value if arrays.array_module(value, self) else arrays.host_array(value, self)

    def __repr__(self) -> str:
        return "A constant of Graph"


def mapped(function: Callable[[Any], Any], template: Template) -> Any:
    """The structure of the template with `function` applied to every leaf."""
    if template.__class__ is tuple:
        return tuple([mapped(function, part) for part in template])
    return None if template is None else function(template)


def paths(template: Template, path: tuple = ()) -> Iterator[tuple[int, tuple]]:
    """(slot, path) of every leaf."""
    if template.__class__ is tuple:
        for i, part in enumerate(template):
            yield from paths(part, (*path, i))
    elif template is not None:
        yield template, path


def _picked(template: Template, values: list) -> Value:
    return mapped(values.__getitem__, template)


def gather(template: Template) -> Callable[[list], Value]:
    """The function that picks the operand out of the list of slots; flat templates are picked in C."""
    if template.__class__ is int:
        return itemgetter(template)
    if len(template or ()) > 1 and all(part.__class__ is int for part in template):
        return itemgetter(*template)
    return partial(_picked, template)


class NodeTable:
    """The nodes as lists of integers."""

    def __init__(self, inputs: tuple[str, ...], nodes: dict[str, Any], outputs: Any):
        self.inputs = inputs
        self.sources: dict[str, Parameter | Buffer | Constant] = {}
        self.names: list[str] = []
        self.layers: list[Layer] = []
        self._taken: set[str] = {*inputs, *nodes}
        self._source_names: dict[int, str] = {}
        operands: list[Template] = []
        above = set(inputs)
        for name, entry in nodes.items():
            if isinstance(entry, Parameter | Buffer) or is_data(entry):
                self.sources[name] = entry if isinstance(entry, Parameter | Buffer) else Constant(entry)
                self._source_names.setdefault(id(entry), name)
            else:
                layer, operand = self._read(name, entry, above)
                self.names.append(name)
                self.layers.append(layer)
                operands.append(operand)
            above.add(name)
        if not self.layers:
            raise ValueError("Graph needs at least one node")
        for name in leaves(outputs):
            if not isinstance(name, str) or name not in above:
                raise ValueError(f"Graph has the output {shown(name)}, which is neither an input nor a node")
        slots = {name: slot for slot, name in enumerate([*inputs, *self.sources, *self.names])}
        self.first = len(slots) - len(self.layers)  # the slot of the first node
        self.operands = [mapped(slots.__getitem__, operand) for operand in operands]
        self.output: Template = mapped(slots.__getitem__, outputs)
        self._refuse_unused(slots)

    def _read(self, name: str, entry: Any, above: set[str]) -> tuple[Layer, Template]:
        """(layer, operand with names as leaves) of one node; parameters and constants among the operands get names."""
        if not (isinstance(entry, tuple) and len(entry) == 2 and isinstance(entry[0], Layer)):
            raise TypeError(f"node {name!r} of Graph must be (layer, operand), got {shown(entry)}")
        layer, operand = entry[0].core(), entry[1]
        parts = operand if isinstance(operand, tuple) and len(operand) == 2 else (None, None)
        data = [is_data(part) for part in parts]
        if isinstance(layer, Operator) and data.count(True) == 1:
            given = parts[data.index(True)]
            value = given.value if isinstance(given, Constant) else Constant(given).value
            layer = ConstantOperand(layer, left=value) if data[0] else ConstantOperand(layer, right=value)
            operand = parts[data.index(False)]

        def named(leaf: Any) -> str:
            if isinstance(leaf, str):
                if leaf not in above:
                    raise ValueError(f"node {name!r} of Graph takes {leaf!r}, which is not defined above it")
                return leaf
            if isinstance(leaf, Parameter | Buffer):
                return self._source(leaf, "parameter" if isinstance(leaf, Parameter) else "buffer")
            if is_data(leaf):
                return self._source(leaf if isinstance(leaf, Constant) else Constant(leaf), "constant")
            raise TypeError(f"node {name!r} of Graph takes names, parameters, numbers and arrays, got {shown(leaf)}")

        return layer, mapped(named, operand)

    def _source(self, item: Parameter | Buffer | Constant, kind: str) -> str:
        if id(item) not in self._source_names:
            number = len(self.sources)
            while f"{kind}{number}" in self._taken:
                number += 1
            self._taken.add(f"{kind}{number}")
            self._source_names[id(item)] = f"{kind}{number}"
        name = self._source_names[id(item)]
        self.sources[name] = item
        return name

    def _refuse_unused(self, slots: dict[str, int]) -> None:
        used = {slot for operand in [*self.operands, self.output] for slot in leaves(operand)}
        for name, slot in slots.items():
            if slot not in used:
                raise ValueError(f"Graph never uses the {'input' if name in self.inputs else 'node'} {name!r}")


def is_data(x: Any) -> bool:
    return isinstance(x, Constant | int | float) or arrays.array_module(x, "Graph") is not None
