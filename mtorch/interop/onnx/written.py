"""A net written as ONNX nodes for one example, and what its inputs and outputs are there."""

from collections.abc import Iterator
from typing import Any

from mtorch import guards
from mtorch.interop.onnx.builder import Builder, Node, Symbol
from mtorch.layer import Layer


class Written:
    """The nodes that a net is written as for one example."""

    def __init__(self, net: Layer, x: Any):
        from mtorch.interop.onnx.writers import writer_of

        self.x, self.builder = x, Builder(net, writer_of)
        self.inputs = list(_input_names(net, x, self.builder))
        symbols = iter(self.inputs)
        value = _named(x, symbols)
        expected = guards.predicted(net, x, guards.Pass())
        y = self.builder.write(net, value)
        self.outputs: list[Symbol] = []
        for leaf, example in zip(leaves_of(y), leaves_of(expected), strict=True):
            name = self.builder.name("output" if isinstance(y, Symbol) else f"output{len(self.outputs)}")
            self.builder.nodes.append(Node("Identity", (leaf.name,), (name,), {}))
            self.outputs.append(Symbol(name, example))

    def same_graph(self, other: "Written") -> bool:
        """Whether both are the same nodes on the same constants."""
        mine, its = self.builder.constants, other.builder.constants
        return self.builder.nodes == other.builder.nodes and all(
            a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in zip(mine.values(), its.values(), strict=True)
        )


def leaves_of(value: Any) -> list[Any]:
    if type(value) is tuple:
        return [leaf for part in value for leaf in leaves_of(part)]
    return [] if value is None else [value]


def _named(value: Any, symbols: Iterator[Symbol]) -> Any:
    if type(value) is tuple:
        return tuple(_named(part, symbols) for part in value)
    return None if value is None else next(symbols)


def _input_names(net: Layer, x: Any, builder: Builder) -> Iterator[Symbol]:
    """A symbol for each array of x: a Graph's own names, else x, or x0, x1, ..."""
    own = getattr(net, "inputs", ())
    parts = x if len(own) > 1 else (x,)
    single = len(leaves_of(x)) == 1
    for i, part in enumerate(parts):
        for j, leaf in enumerate(leaves_of(part)):
            wish = own[i] if own else "x"
            yield Symbol(builder.name(wish if single or (own and len(leaves_of(part)) == 1) else f"{wish}{j}"), leaf)


def refilled(value: Any, parts: Iterator[Any]) -> Any:
    if type(value) is tuple:
        return tuple(refilled(part, parts) for part in value)
    return None if value is None else next(parts)
