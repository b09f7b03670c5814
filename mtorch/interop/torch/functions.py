"""What torch computes for layers that torch.nn has no class for: a function of (module, x) for each.

`module` is one of `function_class`: it has the layer's arguments as `options`, the layers below it as
`children_in_order()`, and the package as `torch`, so that this file is imported without it.
"""

from collections.abc import Callable
from typing import Any

import numpy

from mtorch.interop.torch import graphs

Forward = Callable[[Any, Any], Any]


def method(name: str) -> Forward:
    """A method of tensors: of x, or of the first of a tuple."""
    return lambda module, x: getattr(x[0], name)(*x[1:]) if isinstance(x, tuple) else getattr(x, name)()


def reduction(name: str) -> Forward:
    def forward(module: Any, x: Any) -> Any:
        axis, keep = module.options["axis"], module.options["keepdims"]
        axis = tuple(range(x.ndim)) if axis is None else axis
        return x if axis == () or not x.ndim else getattr(x, name)(dim=axis, keepdim=keep)

    return forward


# ---------------------------------------------------------------------- containers


def residual(module: Any, x: Any) -> Any:
    body, *shortcut = module.children_in_order()
    return body(x) + (shortcut[0](x) if shortcut else x)


def fork(module: Any, x: Any) -> Any:
    return tuple(branch(x) for branch in module.children_in_order())


def parallel(module: Any, x: Any) -> Any:
    return tuple(branch(part) for branch, part in zip(module.children_in_order(), x, strict=True))


def bidirectional(module: Any, x: Any) -> Any:
    ahead, back = module.children_in_order()
    return module.torch.cat((ahead(x), back(x.flip(0)).flip(0)), dim=-1)


def recurrent(module: Any, x: Any) -> Any:
    (cell,) = module.children_in_order()
    state, x = x if isinstance(x, tuple) else (None, x)
    if state is not None and hasattr(cell, "hidden_size"):
        state = unstacked(state)
    outputs = []
    for step in x:
        state, y = cell((state, step))
        outputs.append(y)
    return module.torch.stack(outputs)


def unstacked(state: Any) -> Any:
    """A state (N, H) from one that may have an axis of 1 in front."""
    if isinstance(state, tuple):
        return tuple(map(unstacked, state))
    return state[0] if state.ndim == 3 else state


def constant_operand(module: Any, x: Any) -> Any:
    (operator,) = module.children_in_order()
    (side, value), *_ = module.options.items()
    c = module.torch.as_tensor(numpy.asarray(value), dtype=x.dtype, device=x.device)
    return operator((c, x) if side == "left" else (x, c))


# ---------------------------------------------------------------------- entries and shapes


def sliced(module: Any, x: Any) -> Any:
    entries = module.options["index"]
    if all(isinstance(e, int) or e is None or e is ... or is_ascending(e) for e in entries):
        return x[entries]
    places = numpy.array(numpy.arange(x.numel()).reshape(x.shape)[entries], order="C")  # as NumPy reads an index
    return x.reshape(-1)[module.torch.as_tensor(places, device=x.device)]


def is_ascending(entry: Any) -> bool:
    return isinstance(entry, slice) and (entry.step or 1) > 0


def take(module: Any, x: Any) -> Any:
    values, ids = x
    if ids.ndim == values.ndim:
        return values.gather(-1, ids.long())
    return values.gather(-1, ids.long()[..., None])[..., 0]


FORWARDS: dict[str, Forward] = {
    "Graph": graphs.run,
    "Residual": residual,
    "Fork": fork,
    "Parallel": parallel,
    "Bidirectional": bidirectional,
    "Recurrent": recurrent,
    "ConstantOperand": constant_operand,
    "PositionalEmbedding": lambda module, x: x + module.weight[: len(x), None],
    "Reshape": lambda module, x: x.reshape(len(x), *module.options["shape"]),
    "Transpose": lambda module, x: x.permute(module.options["axes"] or tuple(range(x.ndim))[::-1]),
    "Slice": sliced,
    "GetItem": lambda module, x: x[module.options["position"]],
    "Take": take,
    "Concat": lambda module, x: module.torch.cat(x, dim=module.options["axis"]),
    "Split": lambda module, x: x.tensor_split(module.options["sections"], dim=module.options["axis"]),
    "Probe": lambda module, x: x,
    "Power": lambda module, x: x ** module.options["exponent"],
    "Clip": lambda module, x: x.clamp(**module.options),
    "Where": lambda module, x: module.torch.where(x[0] != 0, *x[1:]),
    "Max": reduction("amax"),
    "Min": reduction("amin"),
    "Mean": reduction("mean"),
    "Sum": reduction("sum"),
    **{name: method(name.lower()) for name in "Abs Exp Log Sqrt Square Sin Cos Add Maximum Minimum MatMul Pow".split()},
    "Negative": method("neg"),
    "Subtract": method("sub"),
    "Multiply": method("mul"),
    "Divide": method("div"),
}
