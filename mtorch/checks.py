"""Checks of the arguments that constructors share. `who` is named in the error; a bool is never a number."""

import math
import operator
from numbers import Real
from typing import Any

import numpy

Axes = int | tuple[int, ...] | None


def shown(text: object, most: int = 200) -> str:
    """A text that comes from a file, for a message: without control characters, and cut after `most` characters."""
    found = str(text)
    if len(found) > most:
        found = f"{found[:most]}... ({len(found)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def check_flag(who: object, name: str, flag: Any) -> bool:
    """The truth value; TypeError for anything else, because "no" and "false" are true."""
    if not isinstance(flag, bool | numpy.bool_):
        raise TypeError(f"{who} expected {name} to be True or False, got {flag!r}")
    return bool(flag)


def check_number(
    who: object,
    name: str,
    number: Any,
    *,
    least: float = -math.inf,
    most: float = math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> float:
    """The number as a float. TypeError if it is not a real number, ValueError unless it is finite, least <= number <=
    most and above < number < below.
    """
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{who} expected a number as {name}, got {number!r}")
    try:
        value = float(number)
    except ArithmeticError:  # too large for a float
        value = math.inf
    if not (least <= value <= most and above < value < below):
        bounds = [(">=", least), (">", above), ("<=", most), ("<", below)]
        wanted = " and ".join(f"{name} {sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
        raise ValueError(f"{who} expected {wanted or f'a finite {name}'}, got {number!r}")
    return value


def check_rate(who: object, lr: Any) -> None:
    """TypeError if lr is not a number, ValueError if it is not a learning rate."""
    try:
        fits = 0 <= lr < math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{who!r} expected a number as learning rate, got lr={lr!r}") from None
    if not fits:
        raise ValueError(f"{who!r} expected a finite learning rate >= 0, got lr={lr!r}")


def check_integer(who: object, name: str, number: Any, least: float = -math.inf, wanted: str = "") -> int:
    """The number as an int. TypeError if it is not an integer (`wanted` says what was), ValueError if it is below
    `least`.
    """
    try:
        if isinstance(number, bool):
            raise TypeError
        value = operator.index(number)
    except TypeError:
        raise TypeError(f"{who} expected {wanted or f'an integer {name}'}, got {number!r}") from None
    if value < least:
        raise ValueError(f"{who} expected {name} >= {least}, got {number}")
    return value


def check_size(who: object, name: str, size: Any, least: int = 1) -> int:
    """The size as an int, at least `least`."""
    return check_integer(who, name, size, least)


def check_axis(who: object, axis: Any) -> int:
    """The axis as an int."""
    return check_integer(who, "axis", axis)


def axis_or_dim(who: object, axis: Any, dim: Any) -> int:
    """The axis, which torch calls dim, as an int; the last one where neither is given."""
    if axis is not None and dim is not None:
        raise TypeError(f"{who} expected dim or axis, two names of one thing, got both: {dim!r} and {axis!r}")
    if dim is not None:
        return check_integer(who, "dim", dim)
    return -1 if axis is None else check_axis(who, axis)


def check_axes(who: object, axis: Any) -> Axes:
    """The axis, the tuple of different axes, or None for all of them."""
    if axis is None:
        return None
    wanted = "axis to be an int, a tuple of ints or None"
    if not isinstance(axis, tuple):
        return check_integer(who, "axis", axis, wanted=wanted)
    axes = tuple(check_integer(who, "axis", n, wanted=wanted) for n in axis)
    if len(set(axes)) < len(axes):
        raise ValueError(f"{who} expected different axes, got axis={axis!r}")
    return axes
