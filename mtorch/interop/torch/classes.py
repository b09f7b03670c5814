"""Modules for what torch.nn has no class for, or one that is called otherwise: layers of ours as torch runs them.

They are classes of torch, made when first asked for, so that this file is imported without it. `kind` is the class of
ours and `options` are its arguments, from which `from_torch` builds it anew.
"""

from functools import cache
from typing import Any

from mtorch.arrays import map_value
from mtorch.graph import Graph
from mtorch.interop.torch import graphs
from mtorch.interop.torch.functions import FORWARDS
from mtorch.interop.torch.table import THEIRS
from mtorch.interop.torch.weights import pytorch

# The constructor arguments of these layers, which are their attributes.
OPTIONS = {
    **dict.fromkeys(("Residual", "Fork", "Parallel", "Bidirectional", "Recurrent"), ""),
    "Graph": "", "Reshape": "shape", "Transpose": "axes", "Slice": "index", "GetItem": "position", "Probe": "name",
    "Concat": "axis", "Split": "sections axis", "Power": "exponent", "Clip": "min max",
    **dict.fromkeys(("Max", "Min", "Mean", "Sum"), "axis keepdims"),
    **dict.fromkeys(("Abs", "Exp", "Log", "Negative", "Sqrt", "Square", "Sin", "Cos", "Where", "Take"), ""),
    **dict.fromkeys(("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "MatMul", "Pow"), ""),
    "PositionalEmbedding": "max_length embed_dim learned", "ConstantOperand": "left right",
}  # fmt: skip

# Arguments of ours that torch's classes lack.
OWN_OPTIONS = {
    **dict.fromkeys(("RNN", "GRU", "LSTM"), ("return_state",)),
    **dict.fromkeys(("RNNCell", "GRUCell", "LSTMCell"), ()),
    "MultiHeadAttention": ("causal", "keep_weights"),
}


def options(layer: Any) -> dict[str, Any]:
    """The arguments that the layer was constructed with."""
    if isinstance(layer, Graph):
        return graphs.options(layer)
    found = {name: getattr(layer, name, None) for name in OPTIONS[type(layer).__name__].split()}
    if "learned" in found:
        found["learned"] = bool(layer.parameters())
    if "left" in found:
        found = {"left" if layer.on_left else "right": layer.given}
    return found


@cache
def function_class(kind: str) -> Any:
    """A class of torch modules that compute what layers of that class do."""
    torch = pytorch("to_torch")

    def __init__(self: Any, **given: Any) -> None:
        torch.nn.Module.__init__(self)
        self.options = given

    def children_in_order(self: Any) -> list[Any]:
        return list(self._modules.values())

    def extra_repr(self: Any) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    members = {
        "__init__": __init__,
        "forward": FORWARDS[kind],
        "kind": kind,
        "torch": torch,
        "children_in_order": children_in_order,
        "extra_repr": extra_repr,
    }
    return type(kind, (torch.nn.Module,), members)


@cache
def called_as_ours(kind: str) -> Any:
    """torch's class of recurrent layers, cells or attention, called as ours is: x or (state, x), and y comes back."""
    torch = pytorch("to_torch")
    base = getattr(torch.nn, THEIRS.get(kind, kind))

    def __init__(self: Any, *arguments: Any, given: dict[str, Any], **options: Any) -> None:
        base.__init__(self, *arguments, **options)
        self.options = given

    forward = attention if kind == "MultiHeadAttention" else one_step if kind.endswith("Cell") else over_time
    members = {"__init__": __init__, "forward": forward, "kind": kind, "torch": torch, "base": base}
    return type(kind, (base,), members)


def over_time(self: Any, x: Any) -> Any:
    """The forward of RNN, GRU and LSTM; torch wants states of three axes, and lengths in a packed sequence."""
    state, x, *lengths = x if isinstance(x, tuple) else (None, x)
    steps = x.shape[1 if self.batch_first else 0]
    rnn, options = self.torch.nn.utils.rnn, {"batch_first": self.batch_first}
    if lengths:
        x = rnn.pack_padded_sequence(x, lengths[0].cpu(), enforce_sorted=False, **options)
    one = state[0] if isinstance(state, tuple) else state
    flat = one is not None and one.ndim == 2
    if flat:
        state = map_value(lambda part: part[None], state)
    y, state = self.base.forward(self, x, state)
    if lengths:
        y, _ = rnn.pad_packed_sequence(y, total_length=steps, **options)
    if flat:
        state = map_value(lambda part: part[0], state)
    return (state, y) if self.options["return_state"] else y


def one_step(self: Any, x: Any) -> Any:
    """The forward of RNNCell, GRUCell and LSTMCell."""
    state, x = x
    new = self.base.forward(self, x, state)
    return new, new[0] if isinstance(new, tuple) else new


def attention(self: Any, x: Any) -> Any:
    """The forward of MultiHeadAttention; torch takes the causal mask as part of the given one."""
    query, key, value, *more = x if isinstance(x, tuple) else (x, x, x)
    mask: Any = more[0] if more else None
    if mask is not None and mask.ndim == 3 and len(mask) == query.shape[1] and self.num_heads > 1:
        each = mask.expand(len(mask), len(query), mask.shape[2])
        mask = each.repeat_interleave(self.num_heads, dim=0)  # one for each head, as torch wants it
    if self.options["causal"]:
        torch = self.torch
        ahead = torch.ones((len(query), len(key)), dtype=torch.bool, device=query.device).triu(1)
        if mask is None:
            mask = ahead
        else:
            mask = mask | ahead if mask.dtype == torch.bool else mask.masked_fill(ahead, -torch.inf)
    return self.base.forward(self, query, key, value, attn_mask=mask, need_weights=False)[0]


def __getattr__(name: str) -> Any:
    """The classes by name, so that pickles and copies in other processes find them."""
    if name in OPTIONS:
        return function_class(name)
    if name in OWN_OPTIONS:
        return called_as_ours(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
