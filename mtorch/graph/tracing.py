"""The graph that the `forward` of a Module describes, found by running it once on expressions."""

import inspect
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mtorch.checks import shown
from mtorch.graph.expression import Expression, Input
from mtorch.graph.graph import Graph
from mtorch.layer import Layer
from mtorch.parameter import Buffer, Parameter

if TYPE_CHECKING:
    from mtorch.module import Module

PRIVATE = (
    "_graph",
    "_traced",
    "_tracing",
    "_described",
    "_memory",
    "_returned",
    "_outputs",
)  # of a Module, not of its user

Item = Layer | Parameter | Buffer
HOLDERS = Item | list | tuple | dict


def traced(module: "Module") -> Graph:
    """`module.forward`, run on an `Input` for each of its arguments that has no default, as a Graph."""
    name = type(module).__name__
    inputs = tuple(Input(argument) for argument in _arguments(name, module.forward))
    try:
        result = module.forward(*inputs)
        if not isinstance(result, Expression | tuple):
            raise TypeError(f"{name}.forward must return an expression or a tuple of them, got {shown(result)}")
        return Graph.of(result, inputs=inputs, named=dict(named_items(module)), title=name)
    except Exception as error:
        error.add_note(f"while {name}.forward was run on Inputs")
        raise


def _arguments(name: str, forward: Any) -> list[str]:
    """The names of forward's arguments that have no default."""
    needed = [each for each in inspect.signature(forward).parameters.values() if each.default is each.empty]
    if not needed or any(each.kind not in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD) for each in needed):
        raise TypeError(f"{name}.forward must take a fixed number of arguments, got {inspect.signature(forward)}")
    return [each.name for each in needed]


def named_items(module: "Module") -> Iterator[tuple[str, Item]]:
    """(path, item) of every layer, parameter and buffer among the attributes, those in lists and dicts included."""
    stack = [(name, item) for name, item in vars(module).items() if name not in PRIVATE][::-1]
    while stack:
        path, item = stack.pop()
        if isinstance(item, Layer):
            yield path, item.core()
        elif isinstance(item, Parameter | Buffer):
            yield path, item
        elif isinstance(item, list | tuple | dict):
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            stack.extend([(f"{path}.{key}", part) for key, part in pairs][::-1])
