"""What an optimizer keeps, and how it is read from a state dict, also from one of format 1."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from types import ModuleType, SimpleNamespace
from typing import Any, NamedTuple

import numpy

from mtorch import arrays
from mtorch.parameter import Parameter


class State(NamedTuple):
    """What an optimizer keeps for one parameter: how many directions it has made of it, and the arrays of the rule."""

    parameter: Parameter
    steps: int
    arrays: SimpleNamespace


def read_state(
    who: str, given: Mapping[str, Any], named: dict[str, Parameter], slots: tuple[str, ...], xp: ModuleType
) -> tuple[int, dict[str, State]]:
    """(the step count, the state of each parameter) of a state dict; a ValueError lists all that does not fit."""
    left = dict(given)
    missing: list[str] = []
    wrong: list[str] = []

    def take(name: str) -> Any:
        missing.extend(() if name in left else [name])
        return left.pop(name, None)

    def count(name: str) -> int:
        number = take(name)
        number = number.item() if getattr(number, "ndim", None) == 0 else number
        if number is not None and (not isinstance(number, Integral) or isinstance(number, bool) or number < 0):
            wrong.append(f"{name} is {number!r}, expected a count")
            number = None
        return int(number or 0)

    steps, found = count("steps"), {}
    for path, parameter in named.items() if slots else ():
        taken = count(f"{path}.steps")
        kept = {}
        for slot in slots if taken else ():
            array = take(f"{path}.{slot}")
            if array is not None:
                array = arrays.host_array(array, f"{path}.{slot}")
                if array.shape != parameter.value.shape:
                    wrong.append(f"{path}.{slot} has shape {array.shape}, expected {parameter.value.shape}")
                kept[slot] = xp.asarray(numpy.array(array, parameter.value.dtype, order="C"))
        if taken:
            found[path] = State(parameter, taken, SimpleNamespace(**kept))
    if missing or left or wrong:
        parts = (("missing", missing), ("unexpected", [str(name) for name in left]), ("wrong", wrong))
        text = "; ".join(f"{label}: {', '.join(names)}" for label, names in parts if names)
        raise ValueError(f"{who} cannot load this state: {text}")
    return steps, found


# Checkpoints of format 1 keep an average a := beta a + (1 - beta) g as the sum a / (1 - beta), without that factor. For
# each class: the old slot, the new slot, and the factor from the old to the new values.
OF_FORMAT_1: dict[str, Callable[[Any], dict[str, tuple[str, float]]]] = {
    "SGD": lambda sgd: {"velocity": ("momentum_buffer", 1.0)},
    "Adagrad": lambda adagrad: {"square_sum": ("sum", 1.0)},
    "RMSprop": lambda rmsprop: {
        "square_sum": ("square_avg", 1 - rmsprop.alpha),
        "gradient_sum": ("grad_avg", 1 - rmsprop.alpha),
        "velocity": ("momentum_buffer", 1 / math.sqrt(1 - rmsprop.alpha)),
    },
    "Adadelta": lambda adadelta: {
        "square_sum": ("square_avg", 1 - adadelta.rho),
        "move_sum": ("acc_delta", 1 - adadelta.rho),
    },
    "Adam": lambda adam: {
        "gradient_sum": ("exp_avg", 1 - adam.betas[0]),
        "square_sum": ("exp_avg_sq", 1 - adam.betas[1]),
    },
}
OF_FORMAT_1["AdamW"] = OF_FORMAT_1["Adam"]


def of_this_format(optimizer: Any, state: Mapping[str, Any]) -> dict[str, Any]:
    """The state dict with the names and the numbers of format 2."""
    ours = [cls.__name__ for cls in type(optimizer).__mro__ if cls.__module__.startswith("mtorch.optim.")]
    kind = next((name for name in ours if name in OF_FORMAT_1), None)
    found = dict(state)
    for old, (new, factor) in OF_FORMAT_1[kind](optimizer).items() if kind else ():
        for path in optimizer.named:
            if f"{path}.{old}" in found and new in optimizer.slots and old not in optimizer.slots:
                array = arrays.host_array(found.pop(f"{path}.{old}"), f"{path}.{old}")
                array = array if array.dtype.kind == "f" else array.astype(float)
                found[f"{path}.{new}"] = array * numpy.asarray(factor, array.dtype)
    return found
