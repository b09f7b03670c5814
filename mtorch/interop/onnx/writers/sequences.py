"""Recurrent layers and cells, as ONNX's RNN, GRU and LSTM."""

from typing import Any

from mtorch import layers
from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.interop.onnx.writers.shapes import LARGEST

ORDERS = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 3, 1, 2)}  # ONNX's gates of ours: GRU r z n, LSTM i f g o


def kind_of(layer: Any) -> str:
    return type(layer).__name__.removesuffix("Cell")


def reordered(b: Builder, kind: str, name: str) -> str:
    """The rows of a parameter with its gates in ONNX's order."""
    if kind == "RNN":
        return name
    parts = b.node("Split", name, outputs=len(ORDERS[kind]), axis=0, num_outputs=len(ORDERS[kind]))
    return b.node("Concat", *(parts[i] for i in ORDERS[kind]), axis=0)


def weights(b: Builder, layer: Any, suffixes: list[str]) -> tuple[str, str, str | None]:
    """W, R and B of ONNX: (directions, gates H, D), (directions, gates H, H), (directions, 2 gates H)."""
    kind, rows = kind_of(layer), []
    for suffix in suffixes:
        own = [getattr(layer, name + suffix) for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")]
        named = [None if item is None else reordered(b, kind, b.parameter(item)) for item in own]
        bias = [] if named[2] is None else [b.node("Concat", named[2], named[3], axis=0)]
        rows.append([b.node("Unsqueeze", each, b.ints(0)) for each in (*named[:2], *bias)])
    stacks = [each[0] if len(each) == 1 else b.node("Concat", *each, axis=0) for each in zip(*rows, strict=True)]
    return stacks[0], stacks[1], stacks[2] if len(stacks) > 2 else None


def run(b: Builder, layer: Any, suffixes: list[str], x: str, lengths: str | None, state: tuple) -> tuple:
    """(Y (T, directions, N, H), the last states (directions, N, H))."""
    kind, options = kind_of(layer), {"hidden_size": layer.out_dim}
    if kind == "GRU":
        options["linear_before_reset"] = 1
    if kind == "RNN" and layer.nonlinearity == "relu":
        options["activations"] = ("Relu",) * len(suffixes)
    if len(suffixes) == 2:
        options["direction"] = "bidirectional"
    inputs = (x, *weights(b, layer, suffixes), lengths, *state)
    y, *last = b.node(kind, *inputs, outputs=1 + layer.state_arrays, **options)
    return y, tuple(last)


def recurrent_layer(b: Builder, layer: Any, value: Any) -> Any:
    state, x, lengths = (*value, None, None)[:3] if isinstance(value, tuple) else (None, value, None)
    name, dirs, depth = x.name, layer.directions, layer.num_layers
    if layer.batch_first:
        name = b.node("Transpose", name, perm=(1, 0, 2))
    steps = None if lengths is None else b.node("Cast", lengths.name, to=6)  # TensorProto.INT32
    given = () if state is None else state if isinstance(state, tuple) else (state,)
    flat = bool(given) and given[0].rank == 2
    starts: list[Any] = []
    for part in given:
        start = b.node("Unsqueeze", part.name, b.ints(0)) if flat else part.name
        cut = b.node("Split", start, outputs=depth, axis=0, num_outputs=depth) if depth > 1 else (start,)
        starts.append(cut)
    ends: list[tuple] = []
    for number in range(depth):
        suffixes = layer.suffixes[number * dirs : (number + 1) * dirs]
        y, last = run(b, layer, suffixes, name, steps, tuple(start[number] for start in starts))
        ends.append(last)
        if dirs == 1:
            name = b.node("Squeeze", y, b.ints(1))
        else:
            name = b.node("Reshape", b.node("Transpose", y, perm=(0, 2, 1, 3)), b.ints(0, 0, dirs * layer.out_dim))
    if layer.batch_first:
        name = b.node("Transpose", name, perm=(1, 0, 2))
    if not layer.return_state:
        return name
    finals = []
    for parts in zip(*ends, strict=True):
        final = parts[0] if depth == 1 else b.node("Concat", *parts, axis=0)
        finals.append(b.node("Squeeze", final, b.ints(0)) if flat else final)
    return finals[0] if len(finals) == 1 else tuple(finals), name


def cell_over_time(b: Builder, layer: Any, x: Symbol, state: Any, stacked: bool) -> tuple[Any, str]:
    """(the last state, y (T, N, H)) of a cell on every step of x (T, N, D)."""
    given = () if state is None else state if isinstance(state, tuple) else (state,)
    starts = tuple(part.name if stacked else b.node("Unsqueeze", part.name, b.ints(0)) for part in given)
    y, last = run(b, layer, [""], x.name, None, starts)
    return last, b.node("Squeeze", y, b.ints(1))


def cell(b: Builder, layer: Any, value: Any) -> Any:
    """One step: a sequence of length 1."""
    state, x = value
    row = Symbol(b.node("Unsqueeze", x.name, b.ints(0)), x.example[None])
    last, y = cell_over_time(b, layer, row, state, stacked=False)
    new = tuple(b.node("Squeeze", part, b.ints(0)) for part in last)
    return new if len(new) > 1 else new[0], b.node("Squeeze", y, b.ints(0))


def flipped(b: Builder, name: str) -> str:
    """The steps from the last to the first."""
    return b.node("Slice", name, b.ints(-1), b.ints(-LARGEST), b.ints(0), b.ints(-1))


WRITERS = {
    layers.RNN: recurrent_layer,
    layers.GRU: recurrent_layer,
    layers.LSTM: recurrent_layer,
    layers.RNNCell: cell,
    layers.GRUCell: cell,
    layers.LSTMCell: cell,
}
