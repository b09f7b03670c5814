"""Modules for what torch.nn has no class for, or one that is called otherwise: layers of ours as torch runs them.

They are classes of torch, made when first asked for, so that this file is imported without it. `kind` is the class of
ours and `options` are its arguments, from which `from_torch` builds it anew.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy

from mtorch.graph import Graph
from mtorch.interop.torch import graphs
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
def forwards() -> dict[str, Callable[..., Any]]:
    """What each of these computes: a function of (module, x)."""
    torch = pytorch("to_torch")
    unary = {"Negative": "neg"} | {name: name.lower() for name in "Abs Exp Log Sqrt Square Sin Cos".split()}
    binary = {"Subtract": "sub", "Multiply": "mul", "Divide": "div"}
    binary |= {name: name.lower() for name in "Add Maximum Minimum MatMul Pow".split()}

    def reduced(function: Callable[..., Any]) -> Callable[..., Any]:
        def forward(module: Any, x: Any) -> Any:
            axis, keep = module.options["axis"], module.options["keepdims"]
            axis = tuple(range(x.ndim)) if axis is None else axis
            return x if axis == () or not x.ndim else function(x, dim=axis, keepdim=keep)

        return forward

    def unstacked(state: Any) -> Any:
        """A state (N, H) from one that may have an axis of 1 in front."""
        if isinstance(state, tuple):
            return tuple(map(unstacked, state))
        return state[0] if state.ndim == 3 else state

    def residual(module: Any, x: Any) -> Any:
        body, *shortcut = module.children_in_order()
        return body(x) + (shortcut[0](x) if shortcut else x)

    def bidirectional(module: Any, x: Any) -> Any:
        ahead, back = module.children_in_order()
        return torch.cat((ahead(x), back(x.flip(0)).flip(0)), dim=-1)

    def recurrent(module: Any, x: Any) -> Any:
        (cell,) = module.children_in_order()
        state, x = x if isinstance(x, tuple) else (None, x)
        if state is not None and hasattr(cell, "hidden_size"):
            state = unstacked(state)
        outputs = []
        for step in x:
            state, y = cell((state, step))
            outputs.append(y)
        return torch.stack(outputs)

    def sliced(module: Any, x: Any) -> Any:
        entries = module.options["index"]
        if all(
            isinstance(e, int) or e is None or e is ... or (isinstance(e, slice) and (e.step or 1) > 0) for e in entries
        ):
            return x[entries]
        places = numpy.array(numpy.arange(x.numel()).reshape(x.shape)[entries], order="C")  # as NumPy reads an index
        return x.reshape(-1)[torch.as_tensor(places, device=x.device)]

    def operand(module: Any, x: Any) -> Any:
        (operator,) = module.children_in_order()
        (side, value), *_ = module.options.items()
        c = torch.as_tensor(numpy.asarray(value), dtype=x.dtype, device=x.device)
        return operator((c, x) if side == "left" else (x, c))

    def take(module: Any, x: Any) -> Any:
        values, ids = x
        if ids.ndim == values.ndim:
            return values.gather(-1, ids.long())
        return values.gather(-1, ids.long()[..., None])[..., 0]

    def called(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda module, x: function(x)

    def called_with_two(function: Callable[..., Any]) -> Callable[..., Any]:
        return lambda module, x: function(*x)

    found: dict[str, Callable[..., Any]] = {
        "Residual": residual,
        "Fork": lambda module, x: tuple(branch(x) for branch in module.children_in_order()),
        "Parallel": lambda module, x: tuple(
            branch(part) for branch, part in zip(module.children_in_order(), x, strict=True)
        ),
        "Bidirectional": bidirectional,
        "Recurrent": recurrent,
        "Reshape": lambda module, x: x.reshape(len(x), *module.options["shape"]),
        "Transpose": lambda module, x: x.permute(module.options["axes"] or tuple(range(x.ndim))[::-1]),
        "Slice": sliced,
        "GetItem": lambda module, x: x[module.options["position"]],
        "Graph": lambda module, x: graphs.run(torch, module, x),
        "Probe": lambda module, x: x,
        "Concat": lambda module, x: torch.cat(x, dim=module.options["axis"]),
        "Split": lambda module, x: torch.tensor_split(x, module.options["sections"], dim=module.options["axis"]),
        "Power": lambda module, x: x ** module.options["exponent"],
        "Clip": lambda module, x: torch.clamp(x, **module.options),
        "Max": reduced(torch.amax),
        "Min": reduced(torch.amin),
        "Mean": reduced(torch.mean),
        "Sum": reduced(torch.sum),
        "Where": lambda module, x: torch.where(x[0] != 0, *x[1:]),
        "Take": take,
        "ConstantOperand": operand,
        "PositionalEmbedding": lambda module, x: x + module.weight[: len(x), None],
    }
    found |= {kind: called(getattr(torch, name)) for kind, name in unary.items()}
    return found | {kind: called_with_two(getattr(torch, name)) for kind, name in binary.items()}


@cache
def function_class(kind: str) -> Any:
    """A class of torch modules that compute what layers of that class do."""
    nn = pytorch("to_torch").nn

    def __init__(self: Any, **given: Any) -> None:
        nn.Module.__init__(self)
        self.options = given

    def children_in_order(self: Any) -> list[Any]:
        return list(self._modules.values())

    def extra_repr(self: Any) -> str:
        return ", ".join(f"{name}={value!r}" for name, value in self.options.items())

    members = {
        "__init__": __init__,
        "forward": forwards()[kind],
        "kind": kind,
        "children_in_order": children_in_order,
        "extra_repr": extra_repr,
    }
    return type(kind, (nn.Module,), members)


@cache
def called_as_ours(kind: str) -> Any:
    """torch's class of recurrent layers, cells or attention, called as ours is: x or (state, x), and y comes back."""
    torch = pytorch("to_torch")
    theirs = {"MultiHeadAttention": "MultiheadAttention"}.get(kind, kind)
    base = getattr(torch.nn, theirs)

    def over_time(self: Any, x: Any) -> Any:
        state, x, *lengths = x if isinstance(x, tuple) else (None, x)
        steps = x.shape[1 if self.batch_first else 0]
        if lengths:
            rnn, options = torch.nn.utils.rnn, {"batch_first": self.batch_first}
            x = rnn.pack_padded_sequence(x, lengths[0].cpu(), enforce_sorted=False, **options)
        one = state[0] if isinstance(state, tuple) else state
        if one is not None and one.ndim == 2:
            state = tuple(part[None] for part in state) if isinstance(state, tuple) else state[None]
        y, state = base.forward(self, x, state)
        if lengths:
            y, _ = rnn.pad_packed_sequence(y, total_length=steps, **options)
        if one is not None and one.ndim == 2:
            state = tuple(part[0] for part in state) if isinstance(state, tuple) else state[0]
        return (state, y) if self.options["return_state"] else y

    def one_step(self: Any, x: Any) -> Any:
        state, x = x
        new = base.forward(self, x, state)
        return new, new[0] if isinstance(new, tuple) else new

    def attention(self: Any, x: Any) -> Any:
        query, key, value, *more = x if isinstance(x, tuple) else (x, x, x)
        mask: Any = more[0] if more else None
        if mask is not None and mask.ndim == 3 and len(mask) == query.shape[1] and self.num_heads > 1:
            each = mask.expand(len(mask), len(query), mask.shape[2])
            mask = each.repeat_interleave(self.num_heads, dim=0)  # one for each head, as torch wants it
        if self.options["causal"]:
            ahead = torch.ones((len(query), len(key)), dtype=torch.bool, device=query.device).triu(1)
            if mask is None:
                mask = ahead
            else:
                mask = mask | ahead if mask.dtype == torch.bool else mask.masked_fill(ahead, -torch.inf)
        return base.forward(self, query, key, value, attn_mask=mask, need_weights=False)[0]

    def __init__(self: Any, *arguments: Any, given: dict[str, Any], **options: Any) -> None:
        base.__init__(self, *arguments, **options)
        self.options = given

    forward = attention if kind == "MultiHeadAttention" else one_step if kind.endswith("Cell") else over_time
    return type(kind, (base,), {"__init__": __init__, "forward": forward, "kind": kind})


OWN_OPTIONS = {
    **dict.fromkeys(("RNN", "GRU", "LSTM"), ("return_state",)),
    **dict.fromkeys(("RNNCell", "GRUCell", "LSTMCell"), ()),
    "MultiHeadAttention": ("causal", "keep_weights"),
}


def __getattr__(name: str) -> Any:
    """The classes by name, so that pickles and copies in other processes find them."""
    if name in OPTIONS:
        return function_class(name)
    if name in OWN_OPTIONS:
        return called_as_ours(name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
