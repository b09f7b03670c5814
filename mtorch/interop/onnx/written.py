"""A net written as ONNX nodes for one example, and what its inputs and outputs are there."""

from collections.abc import Iterator
from typing import Any

from mtorch import guards
from mtorch.arrays import leaves, map_value
from mtorch.interop.onnx.builder import Builder, Node, Symbol
from mtorch.layer import Layer


class Written:
    """The nodes that a net is written as for one example."""

    def __init__(self, net: Layer, x: Any):
        from mtorch.interop.onnx.writers import writer_of

        self.x, self.builder = x, Builder(net, writer_of)
        self.inputs = list(_input_names(net, x, self.builder))
        symbols = iter(self.inputs)
        expected = guards.predicted(net, x, guards.Pass())
        y = self.builder.write(net, refilled(x, symbols))
        self.outputs: list[Symbol] = []
        for leaf, example in zip(leaves(y), leaves(expected), strict=True):
            name = self.builder.name("output" if isinstance(y, Symbol) else f"output{len(self.outputs)}")
            self.builder.nodes.append(Node("Identity", (leaf.name,), (name,), {}))
            self.outputs.append(Symbol(name, example))

    def same_graph(self, other: "Written") -> bool:
        """Whether both are the same nodes on the same constants."""
        mine, its = self.builder.constants, other.builder.constants
        return self.builder.nodes == other.builder.nodes and all(
            a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(mine.values(), its.values(), strict=True)
        )


def _input_names(net: Layer, x: Any, builder: Builder) -> Iterator[Symbol]:
    """A symbol for each array of x: a Graph's own names, else x, or x0, x1, ..."""
    own = getattr(net, "inputs", ())
    single = len(list(leaves(x))) == 1
    for i, part in enumerate(x if len(own) > 1 else (x,)):
        arrays, wish = list(leaves(part)), own[i] if own else "x"
        for j, array in enumerate(arrays):
            yield Symbol(builder.name(wish if single or (own and len(arrays) == 1) else f"{wish}{j}"), array)


def refilled(value: Any, parts: Iterator[Any]) -> Any:
    """The structure of the value with these parts as its leaves, in order."""
    return map_value(lambda leaf: next(parts), value)
