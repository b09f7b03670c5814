"""The state of an optimizer, to and from the optimizers of PyTorch, so that a run goes on in the other library."""

from collections.abc import Mapping
from typing import Any

import numpy

from mtorch import arrays, optim
from mtorch.interop.torch.weights import as_array, as_torch_has_it, pytorch
from mtorch.optim.base import Optimizer

# The options of each optimizer; both libraries have them, and the arrays that are kept, under the same names.
SHARED = ("maximize",)
OPTIONS = {
    optim.SGD: ("momentum", "dampening", "nesterov", *SHARED),
    optim.Adam: ("betas", "eps", "amsgrad", *SHARED),
    optim.AdamW: ("betas", "eps", "amsgrad", *SHARED),
    optim.RMSprop: ("alpha", "eps", "momentum", "centered", *SHARED),
    optim.Adagrad: ("lr_decay", "initial_accumulator_value", "eps", *SHARED),
    optim.Adadelta: ("rho", "eps", *SHARED),
}


def to_torch_optimizer_state(optimizer: Optimizer, trainable_only: bool = False) -> dict[str, Any]:
    """The state and the options of an optimizer, for `load_state_dict` of torch's optimizer of the same name.

    The numbers under "params" are those of the net's parameters in their order, `list(net.parameters())`; with
    `trainable_only` those of its trainable ones. There is one group of parameters, or, where `weight_decay` or `scale`
    have patterns, one for each rate and decay:

        state = interop.to_torch_optimizer_state(optimizer)
        parameters = list(net.parameters())
        groups = [{"params": [parameters[i] for i in group["params"]]} for group in state["param_groups"]]
        resumed = torch.optim.Adam(groups)
        resumed.load_state_dict(state)

    lr is the rate of the coming step. A scheduler of torch's goes on with `scheduler.last_epoch = optimizer.steps`.
    `clip_norm` and `clip_value` are functions in torch, and no part of its optimizers.
    """
    torch = pytorch("to_torch_optimizer_state")
    names = _options_of("to_torch_optimizer_state", optimizer)
    kind = getattr(torch.optim, type(optimizer).__name__)
    options = {name: getattr(optimizer, name) for name in names}
    paths = _paths(optimizer, trainable_only)
    numbers = {path: i for i, path in enumerate(paths)}
    groups = []
    for (factor, decay), group in _groups(optimizer, paths).items():
        given = options | {"lr": factor * optimizer.rate, "weight_decay": decay}
        made = kind([torch.zeros(1)], **given).state_dict()["param_groups"][0]
        groups.append(made | {"params": [numbers[path] for path in group]})
    state = {}
    for path, i in numbers.items():
        parameter = optimizer.named[path]
        _, steps, kept = optimizer._state_of(path, parameter)
        if steps or isinstance(optimizer, optim.Adagrad):  # torch's Adagrad makes its sums before the first step
            entry = {slot: _tensor(torch, getattr(kept, slot)) for slot in optimizer.slots}
            count = {} if isinstance(optimizer, optim.SGD) else {"step": torch.tensor(float(steps))}
            state[i] = count | entry
    return {"state": {i: entry for i, entry in state.items() if entry}, "param_groups": groups}


def from_torch_optimizer_state(optimizer: Optimizer, state: Mapping[str, Any], steps: int | None = None) -> None:
    """Takes over the `state_dict()` of torch's optimizer of the same name; the learning rate stays ours.

    steps: how many steps were made, which a schedule asks for; by default the largest count of a parameter. torch's
    SGD keeps no count.

    The parameters are those of the net in their order, or its trainable ones; where torch was given names
    (`named_parameters()`) and they are ours, these decide. Several groups must be those that ours has by its patterns.

    Errors: ValueError that lists the options and entries that differ; then nothing is changed.
    """
    names = _options_of("from_torch_optimizer_state", optimizer)
    who = type(optimizer).__name__
    if not isinstance(state, Mapping) or not {"state", "param_groups"} <= set(state):
        raise TypeError(f"{who} expected the state_dict() of torch's {who}, got {type(state).__name__}")
    groups = state["param_groups"]
    others = {name for options in OPTIONS.values() for name in options} - {*names}
    if foreign := sorted({name for group in groups for name in group} & others):
        raise TypeError(f"{who} expected the state_dict() of torch's {who}, got one with {', '.join(foreign)}")
    differing = [text for group in groups for text in _differences(optimizer, names, group)]
    if differing:
        raise ValueError(f"{who} expected the options that torch's {who} has: {'; '.join(dict.fromkeys(differing))}")
    found: dict[str, Any] = {}
    counts = [0]
    for path, number in _matched(optimizer, groups):
        entry = {name: value for name, value in state["state"].get(number, {}).items() if value is not None}
        count = entry.pop("step", None)
        if count is None:  # SGD: a parameter that has its momentum made a step
            made = int(bool(entry))
        else:
            made = int(as_array(count, f"{path}.steps"))
        counts.append(made)
        if optimizer.slots:
            found[f"{path}.steps"] = made
            found |= {f"{path}.{name}": as_array(value, f"{path}.{name}") for name, value in entry.items() if made}
    for path in optimizer.named if optimizer.slots else ():
        found.setdefault(f"{path}.steps", 0)
    optimizer.load_state_dict({"steps": max(counts) if steps is None else steps} | found)


def _options_of(function: str, optimizer: Any) -> tuple[str, ...]:
    if type(optimizer) not in OPTIONS:
        known = ", ".join(kind.__name__ for kind in OPTIONS)
        raise TypeError(f"{function} expected an optimizer that torch has too ({known}), got {optimizer!r}")
    return OPTIONS[type(optimizer)]


def _tensor(torch: Any, array: Any) -> Any:
    return torch.from_numpy(as_torch_has_it(numpy.array(arrays.as_numpy(array))))


def _paths(optimizer: Optimizer, trainable_only: bool) -> list[str]:
    return [path for path, p in optimizer.named.items() if p.trainable or not trainable_only]


def _groups(optimizer: Optimizer, paths: list[str]) -> dict[tuple[float, float], list[str]]:
    """The parameters by their factor on the rate and their decay, in the order of first use."""
    factors, given = optimizer.factors, optimizer.weight_decay
    decays = optimizer.matched(given) if isinstance(given, dict) else dict.fromkeys(paths, given)
    found: dict[tuple[float, float], list[str]] = {}
    for path in paths:
        found.setdefault((factors.get(path, 1.0), decays.get(path, 0.0)), []).append(path)
    return found


def _differences(optimizer: Any, names: tuple[str, ...], group: Mapping[str, Any]) -> list[str]:
    found = []
    for name in names:
        ours, theirs = getattr(optimizer, name), group.get(name)
        theirs = tuple(theirs) if isinstance(theirs, list) else theirs
        same = theirs is None or ours == theirs
        if not same and name == "eps":
            same = ours == type(optimizer)(optimizer.module, eps=theirs, **_averaging(optimizer)).eps
        if not same:
            found.append(f"{name} is {theirs!r} there and {ours!r} here")
    if group.get("decoupled_weight_decay", optimizer.decoupled) != optimizer.decoupled:
        found.append(
            f"decoupled_weight_decay is {group['decoupled_weight_decay']} there, {type(optimizer).__name__} here"
        )
    if not isinstance(optimizer.weight_decay, dict) and group.get("weight_decay", 0) != optimizer.weight_decay:
        found.append(f"weight_decay is {group['weight_decay']!r} there and {optimizer.weight_decay!r} here")
    return found


def _averaging(optimizer: Any) -> dict[str, Any]:
    """The options on which our smallest eps depends."""
    return {name: getattr(optimizer, name) for name in ("betas", "alpha") if hasattr(optimizer, name)}


def _matched(optimizer: Optimizer, groups: Any) -> list[tuple[str, int]]:
    """(our dotted name, torch's number) of each parameter."""
    who, numbers = type(optimizer).__name__, [number for group in groups for number in group["params"]]
    if all("param_names" in group for group in groups):
        names = [name for group in groups for name in group["param_names"]]
        unknown = [name for name in names if name not in optimizer.named]
        if not unknown:
            return list(zip(names, numbers, strict=True))
        if len(unknown) < len(names):  # where all are unknown, torch's net names its layers otherwise
            raise ValueError(f"{who} has no parameters {', '.join(unknown)}: there are {', '.join(optimizer.named)}")
    for trainable_only in (False, True):
        parts = list(_groups(optimizer, _paths(optimizer, trainable_only)).values())
        if len(groups) == 1:
            parts = [_paths(optimizer, trainable_only)]
        if [len(part) for part in parts] == [len(group["params"]) for group in groups]:
            return list(zip((path for part in parts for path in part), numbers, strict=True))
    counts = [len(group["params"]) for group in groups]
    parts = list(_groups(optimizer, _paths(optimizer, False)).values())
    raise ValueError(f"{who} expected groups of {[len(part) for part in parts]} parameters, got {counts}")
