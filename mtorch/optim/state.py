"""What an optimizer keeps, and how it is read from a state dict, also from one of format 1."""

import math
from collections.abc import Callable, Mapping
from numbers import Integral
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy

from mtorch import arrays
from mtorch.checks import plain, shown
from mtorch.parameter import Parameter

MOST_STEPS = 2**53  # that nobody makes, and that a float can still count


class State(NamedTuple):
    """What an optimizer keeps for one parameter: how many directions it has made of it, and the arrays of the rule."""

    parameter: Parameter
    steps: int
    arrays: SimpleNamespace


def read_state(optimizer: Any, given: Mapping[str, Any]) -> tuple[int, dict[str, State]]:
    """(the step count, the state of each parameter) of a state dict; a ValueError lists all that does not fit."""
    left, slots = dict(given), optimizer.slots
    missing: list[str] = []
    wrong: list[str] = []

    def count(name: str) -> int:
        if name not in left:
            missing.append(name)
            return 0
        number = left.pop(name)
        number = number.item() if getattr(number, "ndim", None) == 0 else number
        if not isinstance(number, Integral) or isinstance(number, bool) or not 0 <= int(number) < MOST_STEPS:
            wrong.append(f"{name} is {shown(number)}, expected a count")
            return 0
        return int(number)

    def array(name: str, slot: str, value: Any) -> Any:
        if name not in left:
            missing.append(name)
            return None
        found = arrays.host_array(left.pop(name), name)
        if found.shape != value.shape:
            wrong.append(f"{name} has shape {found.shape}, expected {value.shape}")
            return None
        with numpy.errstate(over="ignore", invalid="ignore"):
            found = numpy.array(found, value.dtype, order="C")
        if slot in ranges and not _within(found, ranges[slot]):
            wrong.append(f"{name} holds {found.min()} to {found.max()}")
        return optimizer.module.xp.asarray(found)

    ranges = RANGES.get(_kind(optimizer) or "", {})
    steps, found = count("steps"), {}
    for path, parameter in optimizer.named.items() if slots else ():
        taken = count(f"{path}.steps")
        if taken:
            kept = {slot: array(f"{path}.{slot}", slot, parameter.value) for slot in slots}
            found[path] = State(parameter, taken, SimpleNamespace(**kept))
    if missing or left or wrong:
        parts = (("missing", missing), ("unexpected", [str(name) for name in left]), ("wrong", wrong))
        text = "; ".join(f"{label}: {plain(', '.join(map(plain, names)), 2000)}" for label, names in parts if names)
        raise ValueError(f"{type(optimizer).__name__} cannot load this state: {text}")
    return steps, found


# What the slots of our classes may hold, in units of the largest number that has a finite square. Averages and sums of
# squares that are divided by may overflow, as they do in float16, and training goes on: d = g / infinity.
INF = math.inf
RANGES: dict[str, dict[str, tuple[float, float]]] = {
    "SGD": {"momentum_buffer": (-1, 1)},
    "Adagrad": {"sum": (0, INF)},
    "RMSprop": {"square_avg": (0, INF), "grad_avg": (-1, 1), "momentum_buffer": (-1, 1)},
    "Adadelta": {"square_avg": (0, INF), "acc_delta": (0, 1)},
    "Adam": {"exp_avg": (-1, 1), "exp_avg_sq": (0, INF), "max_exp_avg_sq": (0, INF)},
}
RANGES["AdamW"] = RANGES["Adam"]


def _within(array: numpy.ndarray, bounds: tuple[float, float]) -> bool:
    """Whether the array holds what training can have put there; NaN is not in any range."""
    largest = numpy.finfo(array.dtype).max
    unit = largest if array.dtype.itemsize == 2 else numpy.sqrt(largest)
    return not array.size or bool(bounds[0] * unit <= array.min() and array.max() <= bounds[1] * unit)


def _kind(optimizer: Any) -> str | None:
    """The name of our class that the optimizer is one of."""
    names = [cls.__name__ for cls in type(optimizer).__mro__ if cls.__module__.startswith("mtorch.optim.")]
    return next((name for name in names if name in OF_FORMAT_1), None)


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
    kind, found = _kind(optimizer), dict(state)
    for old, (new, factor) in OF_FORMAT_1[kind](optimizer).items() if kind else ():
        for path in optimizer.named:
            if f"{path}.{old}" in found and new in optimizer.slots and old not in optimizer.slots:
                array = arrays.host_array(found.pop(f"{path}.{old}"), f"{path}.{old}")
                array = array if array.dtype.kind == "f" else array.astype(float)
                with numpy.errstate(over="ignore", invalid="ignore"):
                    found[f"{path}.{new}"] = array * numpy.asarray(factor, array.dtype)
    return found
