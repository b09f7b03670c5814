"""Containers: each is written as the layers that it calls."""

from typing import Any

from mtorch.arrays import map_value
from mtorch.bidirectional import Bidirectional
from mtorch.fork import Fork, Parallel
from mtorch.graph.graph import Graph
from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.interop.onnx.writers.sequences import cell_over_time, flipped
from mtorch.layers import GRUCell, LSTMCell, RNNCell
from mtorch.layers.recurrent import Cell
from mtorch.residual import Residual
from mtorch.sequential import Sequential
from mtorch.unroll import Recurrent


def sequential(b: Builder, layer: Sequential, x: Any) -> Any:
    for each in layer.layers:
        x = b.write(each, x)
    return x


def graph(b: Builder, layer: Graph, x: Any) -> Any:
    values = dict(zip(layer.inputs, x if len(layer.inputs) > 1 else (x,), strict=True))
    for name, node in layer.nodes.items():
        if isinstance(node, tuple):
            each, operand = node
            values[name] = b.write(each, map_value(values.__getitem__, operand))
        else:
            values[name] = Symbol(b.parameter(node), node.value)
    return map_value(values.__getitem__, layer.outputs)


def fork(b: Builder, layer: Fork, x: Any) -> Any:
    return tuple(b.write(branch, x) for branch in layer.branches)


def parallel(b: Builder, layer: Parallel, x: Any) -> Any:
    return tuple(b.write(branch, part) for branch, part in zip(layer.branches, x, strict=True))


def added(b: Builder, left: Any, right: Any) -> Any:
    """The sums of two values of one structure."""
    if isinstance(left, Symbol):
        return Symbol(b.node("Add", left.name, right.name), left.example + right.example)
    return tuple(added(b, *pair) for pair in zip(left, right, strict=True))


def residual(b: Builder, layer: Residual, x: Any) -> Any:
    around = x if layer.shortcut is None else b.write(layer.shortcut, x)
    return added(b, b.write(layer.body, x), around)


def bidirectional(b: Builder, layer: Bidirectional, x: Symbol) -> Any:
    forwards = b.write(layer.a, x)
    reverse = b.write(layer.b, Symbol(flipped(b, x.name), x.example[::-1]))
    return b.node("Concat", forwards.name, flipped(b, reverse.name), axis=-1)


def recurrent(b: Builder, layer: Recurrent, value: Any) -> Any:
    """A cell of `mtorch.layers` is ONNX's recurrent operator, any other is unrolled: its number of steps is fixed."""
    state, x = value if isinstance(value, tuple) else (None, value)
    if type(layer.cell) in CELLS:
        stacked = state is not None and _leading(state).rank == 3
        return cell_over_time(b, layer.cell, x, state, stacked)[1]
    if state is None and isinstance(layer.cell, Cell):
        zeros = layer.cell.initial_state(x.shape[1])
        state = map_value(lambda part: Symbol(b.constant(part), part), zeros)
    steps = []
    for t in range(len(x.example)):
        x_t = Symbol(b.node("Gather", x.name, b.constant(t, "int64"), axis=0), x.example[t])
        state, y = b.write(layer.cell, (state, x_t))
        steps.append(b.node("Unsqueeze", y.name, b.ints(0)))
    return b.node("Concat", *steps, axis=0)


def _leading(state: Any) -> Symbol:
    return state[0] if isinstance(state, tuple) else state


CELLS = (GRUCell, LSTMCell, RNNCell)
WRITERS = {
    Sequential: sequential,
    Graph: graph,
    Fork: fork,
    Parallel: parallel,
    Residual: residual,
    Bidirectional: bidirectional,
    Recurrent: recurrent,
}
