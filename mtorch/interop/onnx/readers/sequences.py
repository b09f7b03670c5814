"""RNN, GRU and LSTM."""

from typing import Any, NamedTuple

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import OnnxReshape
from mtorch.interop.onnx.reader import Known, Live, Reader, Unsupported, names

GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}  # ours of ONNX's: GRU z r h, LSTM i o f c
USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
OURS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


class Weights(NamedTuple):
    """W, R and B of a node, with one matrix for each direction."""

    kind: str
    input: Known  # (directions, gates size, in_dim)
    hidden: Known  # (directions, gates size, size)
    bias: Known | None  # (directions, 2 gates size)

    @property
    def directions(self) -> int:
        return self.hidden.shape[0]

    @property
    def size(self) -> int:
        return self.hidden.shape[2]


def recurrent(r: Reader, node: Operation) -> Any:
    """(Y (T, directions, N, H), the last states), of one layer with return_state."""
    kind, x, lengths = node.operator, r.needs(node, 0), r.value(node, 4)
    states = [r.value(node, i) for i in ((5, 6) if kind == "LSTM" else (5,))]
    direction = node.option("direction", str, "forward")
    weights = _weights(r, node, x, direction)
    nonlinearity = _nonlinearity(node, kind, weights.directions)
    if direction == "reverse" and lengths is not None:
        raise Unsupported("lengths in a reverse direction alone")
    key = (kind, *names(*weights[1:]), direction, nonlinearity)
    layer = r.cached(key, lambda: _layer(r, weights, nonlinearity))
    batch_first = bool(node.option("layout", int, 0))
    if batch_first:
        x = _axes_swapped(r, x)
        states = [state and _axes_swapped(r, state) for state in states]
    if direction == "reverse":
        x = _backwards(r, x)
    out = r.add(layer, *_operands(r, x, states, lengths))
    rows = None if x.shape is None else (*x.shape[:2], weights.directions * weights.size)
    last, y = r.part(out, 0), r.part(out, 1, rows)
    if direction == "reverse":
        y = _backwards(r, y)
    ends = [r.part(last, i) for i in range(2)] if kind == "LSTM" else [last]
    if batch_first:
        ends = [_axes_swapped(r, end) for end in ends]
    for end in ends:
        end.shape = (None, None, weights.size) if batch_first else (weights.directions, None, weights.size)
    return (_by_direction(r, y, x, weights, batch_first), *ends)


def _weights(r: Reader, node: Operation, x: Any, direction: str) -> Weights:
    """The weights, once their shapes are checked, and that ours has all that the node asks for."""
    kind, (weight, hidden, bias) = node.operator, (r.value(node, i) for i in (1, 2, 3))
    if not (isinstance(weight, Known) and isinstance(hidden, Known) and isinstance(bias, Known | None)):
        raise Unsupported("its weights are known at run time only")
    if kind == "LSTM" and r.value(node, 7) is not None:
        raise Unsupported("peepholes: ours has none")
    if node.option("clip", float, 0.0) or node.option("input_forget", int, 0):
        raise Unsupported("clipping or coupled gates")
    if kind == "GRU" and not node.option("linear_before_reset", int, 0) and _steps(node, x) != 1:
        raise Unsupported("the reset gate before the product: ours resets after it, as torch does")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise OnnxError(f"{node} expected a known direction")
    directions, count = 2 if direction == "bidirectional" else 1, len(GATES[kind])
    size = hidden.shape[2] if hidden.rank == 3 else 0
    wanted = (directions, count * size, size)
    fits = weight.rank == 3 and weight.shape[:2] == wanted[:2] and hidden.shape == wanted and 0 not in weight.shape
    if not fits or (bias is not None and bias.shape != (directions, 2 * count * size)):
        raise OnnxError(f"{node} expected W, R and B that fit each other, got {weight.shape} and {hidden.shape}")
    return Weights(kind, weight, hidden, bias)


def _layer(r: Reader, weights: Weights, nonlinearity: str) -> Any:
    """Our layer with these weights."""
    kind, weight, hidden, bias = weights
    layer = getattr(layers, kind)(
        weight.shape[2], weights.size, bias=bias is not None, bidirectional=weights.directions == 2, return_state=True,
        **({"nonlinearity": nonlinearity} if kind == "RNN" else {}), dtype=r.dtype, rng=0,
    )  # fmt: skip
    for i, suffix in enumerate(layer.suffixes):
        halves = [] if bias is None else numpy.split(bias.array[i], 2)
        for name, array in zip(OURS, (weight.array[i], hidden.array[i], *halves), strict=False):
            getattr(layer, name + suffix).value[...] = _ours(array, kind, weights.size)
    origins = weight.origins | hidden.origins | (bias.origins if bias is not None else frozenset())
    prefixes = {name.rpartition(".")[0] for name in origins}
    if len(prefixes) == 1:
        r.call(layer, prefixes.pop())
    layer.trainable = bool(origins)
    return layer


def _operands(r: Reader, x: Any, states: list[Any], lengths: Any) -> tuple[Any, ...]:
    """What our layer is called with: x, (state, x) or (state, x, lengths)."""
    first: Any = None
    if any(state is not None for state in states):
        if any(state is None for state in states):
            raise Unsupported("only one of the two states is given")
        first = tuple(r.operand(state) for state in states) if len(states) > 1 else states[0]
    if lengths is not None:
        return first, x, lengths
    return (x,) if first is None else (first, x)


def _by_direction(r: Reader, y: Live, x: Any, weights: Weights, batch_first: bool) -> Live:
    """Our output (T, N, directions H) as ONNX's Y, (T, directions, N, H) or (N, T, directions, H)."""
    directions, size = weights.directions, weights.size
    parts = r.add(OnnxReshape((0, 0, directions, size), dtype=r.dtype), y)
    if batch_first:
        turned = layers.Transpose((1, 0, 2, 3), dtype=r.dtype)
        return r.add(turned, parts, shape=(None, None, directions, size))
    shape = (None, directions, None, size) if x.shape is None else (x.shape[0], directions, x.shape[1], size)
    found = r.add(layers.Transpose((0, 2, 1, 3), dtype=r.dtype), parts, shape=shape)
    found.steps = y
    return found


def _axes_swapped(r: Reader, x: Any) -> Live:
    """(N, T, ...) as (T, N, ...), and back."""
    return r.add(layers.Transpose((1, 0, 2), dtype=r.dtype), x)


def _ours(array: numpy.ndarray, kind: str, size: int) -> numpy.ndarray:
    """The rows with the gates in our order."""
    return array.reshape(len(GATES[kind]), size, *array.shape[1:])[list(GATES[kind])].reshape(array.shape)


def _steps(node: Operation, x: Any) -> int | None:
    return None if x.shape is None else x.shape[1 if node.option("layout", int, 0) else 0]


def _nonlinearity(node: Operation, kind: str, dirs: int) -> str:
    given = node.option("activations", tuple, USUAL[kind] * dirs)
    if tuple(name.lower() for name in given) == tuple(name.lower() for name in USUAL[kind] * dirs):
        return "tanh"
    if kind == "RNN" and tuple(name.lower() for name in given) == ("relu",) * dirs:
        return "relu"
    raise Unsupported("other activations")


def _backwards(r: Reader, x: Any) -> Live:
    return r.add(layers.Slice(slice(None, None, -1), dtype=r.dtype), x, shape=x.shape)


READERS: dict[str, Any] = {"RNN": recurrent, "GRU": recurrent, "LSTM": recurrent}
