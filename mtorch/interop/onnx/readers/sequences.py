"""RNN, GRU and LSTM."""

from typing import Any

import numpy

from mtorch import layers
from mtorch.interop.onnx.errors import OnnxError
from mtorch.interop.onnx.files import Operation
from mtorch.interop.onnx.layers import OnnxReshape
from mtorch.interop.onnx.reader import Known, Live, Reader, Unsupported, names

GATES = {"RNN": (0,), "GRU": (1, 0, 2), "LSTM": (0, 2, 3, 1)}  # ours of ONNX's: GRU z r h, LSTM i o f c
USUAL = {"RNN": ("Tanh",), "GRU": ("Sigmoid", "Tanh"), "LSTM": ("Sigmoid", "Tanh", "Tanh")}
OURS = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")


def recurrent(r: Reader, node: Operation) -> Any:
    """(Y (T, directions, N, H), the last states), of one layer with return_state."""
    kind, x = node.operator, r.needs(node, 0)
    weight, hidden, bias = (r.value(node, i) for i in (1, 2, 3))
    if not (isinstance(weight, Known) and isinstance(hidden, Known) and isinstance(bias, Known | None)):
        raise Unsupported("its weights are known at run time only")
    lengths, states = r.value(node, 4), [r.value(node, i) for i in ((5, 6) if kind == "LSTM" else (5,))]
    if kind == "LSTM" and r.value(node, 7) is not None:
        raise Unsupported("peepholes: ours has none")
    if node.option("clip", float, 0.0) or node.option("input_forget", int, 0):
        raise Unsupported("clipping or coupled gates")
    if kind == "GRU" and not node.option("linear_before_reset", int, 0) and _steps(node, x) != 1:
        raise Unsupported("the reset gate before the product: ours resets after it, as torch does")
    count, direction = len(GATES[kind]), node.option("direction", str, "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise OnnxError(f"{node} expected a known direction")
    dirs = 2 if direction == "bidirectional" else 1
    size = hidden.shape[2] if hidden.rank == 3 else 0
    wanted = (dirs, count * size, size)
    fits = weight.rank == 3 and weight.shape[:2] == wanted[:2] and hidden.shape == wanted and 0 not in weight.shape
    if not fits or (bias is not None and bias.shape != (dirs, 2 * count * size)):
        raise OnnxError(f"{node} expected W, R and B that fit each other, got {weight.shape} and {hidden.shape}")
    nonlinearity = _nonlinearity(node, kind, dirs)
    if direction == "reverse" and lengths is not None:
        raise Unsupported("lengths in a reverse direction alone")
    batch_first = bool(node.option("layout", int, 0))

    def make() -> Any:
        more = {"nonlinearity": nonlinearity} if kind == "RNN" else {}
        cls = getattr(layers, kind)
        made = cls(
            weight.shape[2], size, bias=bias is not None, bidirectional=dirs == 2, return_state=True,
            **more, dtype=r.dtype, rng=0,
        )  # fmt: skip
        for i, suffix in enumerate(made.suffixes):
            halves = [] if bias is None else [bias.array[i][: count * size], bias.array[i][count * size :]]
            for name, array in zip(OURS, (weight.array[i], hidden.array[i], *halves), strict=False):
                getattr(made, name + suffix).value[...] = _ours(array, kind, size)
        origins = weight.origins | hidden.origins | (bias.origins if bias is not None else frozenset())
        prefixes = {name.rpartition(".")[0] for name in origins}
        if len(prefixes) == 1:
            r.call(made, prefixes.pop())
        made.trainable = bool(origins)
        return made

    layer = r.cached((kind, *names(weight, hidden, bias), direction, nonlinearity), make)
    if batch_first:
        x = r.add(layers.Transpose((1, 0, 2), dtype=r.dtype), x)
        states = [state and r.add(layers.Transpose((1, 0, 2), dtype=r.dtype), state) for state in states]
    if direction == "reverse":
        x = _backwards(r, x)
    first: Any = None
    if any(state is not None for state in states):
        if any(state is None for state in states):
            raise Unsupported("only one of the two states is given")
        first = tuple(r.operand(state) for state in states) if len(states) > 1 else states[0]
    parts = (first, x, lengths) if lengths is not None else (first, x)
    out = r.add(layer, *parts) if first is not None or lengths is not None else r.add(layer, x)
    rows = None if x.shape is None else (*x.shape[:2], dirs * size)
    last, y = r.part(out, 0), r.part(out, 1, rows)
    if direction == "reverse":
        y = _backwards(r, y)
    steps = None if batch_first else y
    y = r.add(OnnxReshape((0, 0, dirs, size), dtype=r.dtype), y)
    shape = None if x.shape is None else (*x.shape[:1], dirs, x.shape[1], size)
    if not batch_first:
        y = r.add(layers.Transpose((0, 2, 1, 3), dtype=r.dtype), y, shape=shape or (None, dirs, None, size))
        y.steps = steps
    else:
        y = r.add(layers.Transpose((1, 0, 2, 3), dtype=r.dtype), y, shape=(None, None, dirs, size))
    ends = [r.part(last, i) for i in range(2)] if kind == "LSTM" else [last]
    if batch_first:
        ends = [r.add(layers.Transpose((1, 0, 2), dtype=r.dtype), end) for end in ends]
    for end in ends:
        end.shape = (None, None, size) if batch_first else (dirs, None, size)
    return (y, *ends)


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
