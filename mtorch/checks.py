"""Checks of the arguments that constructors share. `who` is named in the error; a bool is never a number.

No integer may be beyond 2**63 - 1, which is what arrays, files and other programs hold. A size must fit into memory,
and that is asked before anything is drawn: to fill a terabyte takes minutes.
"""

import math
import operator
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from numbers import Real
from typing import Any

import numpy

Axes = int | tuple[int, ...] | None
LARGEST = 2**63 - 1
SHOWN = 200  # characters of a repr in an error
SMALL = 1 << 24  # entries that fit everywhere


def shown(value: object) -> str:
    """The repr for an error: one line of bounded length, also where Python refuses to write an integer."""
    if isinstance(value, int) and value.bit_length() > 128:
        return f"an integer of {value.bit_length()} bits"
    if isinstance(value, list | tuple | dict | set) and len(value) > SHOWN:
        return f"a {type(value).__name__} of {len(value)} entries"
    try:
        text = repr(value[: SHOWN + 1] if isinstance(value, str | bytes) else value)
    except Exception:  # whatever a foreign repr does
        return f"a {type(value).__name__}"
    text = " ".join(text.split())
    return text if len(text) <= SHOWN else f"{text[: SHOWN // 2]} … {text[-SHOWN // 2 :]}"


def plain(text: object, most: int = SHOWN) -> str:
    """Text of a file or of another program, for a message: one line, control characters escaped, cut."""
    found = str(text)
    if len(found) > most:
        found = f"{found[:most]}... ({len(found)} characters)"
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in found)


def name_of(who: object) -> str:
    """How an error names a layer, or a class by its name. The `str` of a layer has several lines."""
    return who if isinstance(who, str) else repr(who)


def check_flag(who: object, name: str, flag: Any) -> bool:
    """The truth value; TypeError for anything else, because "no" and "false" are true."""
    if not isinstance(flag, bool | numpy.bool_):
        raise TypeError(f"{name_of(who)} expected {name} to be True or False, got {shown(flag)}")
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
        raise TypeError(f"{who} expected a number as {name}, got {shown(number)}")
    try:
        value = float(number)
    except ArithmeticError:  # too large for a float
        value = math.inf
    if not (least <= value <= most and above < value < below):
        bounds = [(">=", least), (">", above), ("<=", most), ("<", below)]
        wanted = " and ".join(f"{name} {sign} {bound:g}" for sign, bound in bounds if math.isfinite(bound))
        raise ValueError(f"{who} expected {wanted or f'a finite {name}'}, got {shown(number)}")
    return value


def check_choice(who: object, name: str, value: Any, choices: Iterable[str]) -> str:
    """The value; ValueError unless it is one of these names."""
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{who} expected {name} in {tuple(choices)}, got {shown(value)}")
    return value


def check_rate(who: object, lr: Any) -> None:
    """TypeError if lr is not a number, ValueError if it is not a learning rate."""
    try:
        fits = 0 <= lr < math.inf and not (isinstance(lr, int) and lr > sys.float_info.max)
    except (TypeError, ValueError, ArithmeticError):
        raise TypeError(f"{who!r} expected a number as learning rate, got lr={shown(lr)}") from None
    if not fits:
        raise ValueError(f"{who!r} expected a finite learning rate >= 0, got lr={shown(lr)}")


def check_integer(who: object, name: str, number: Any, least: float = -math.inf, wanted: str = "") -> int:
    """The number as an int. TypeError if it is not an integer (`wanted` says what was), ValueError if it is below
    `least` or beyond 2**63 - 1.
    """
    try:
        if isinstance(number, bool):
            raise TypeError
        value = operator.index(number)
    except TypeError:
        raise TypeError(f"{who} expected {wanted or f'an integer {name}'}, got {shown(number)}") from None
    if value < least:
        raise ValueError(f"{who} expected {name} >= {least}, got {shown(number)}")
    if abs(value) > LARGEST:
        raise ValueError(f"{who} expected {name} up to 2**63 - 1, got {shown(number)}")
    return value


def check_size(who: object, name: str, size: Any, least: int = 1) -> int:
    """The size as an int, at least `least`."""
    return check_integer(who, name, size, least)


def check_memory(who: object, count: int, /, **arguments: object) -> None:
    """MemoryError that names the arguments unless `count` numbers fit into the machine's memory in float64."""
    if count <= SMALL:
        return
    with suppress(MemoryError, ValueError):
        if 8 * count <= physical_memory():
            numpy.empty(count)  # costs nothing until it is written to
            return
    given = ", ".join(f"{name}={shown(argument)}" for name, argument in arguments.items())
    raise MemoryError(f"{who} expected sizes that fit into memory, got {given}: {count >> 27:,} GiB in float64")


@cache
def physical_memory() -> int:
    """The bytes of memory that this machine has, or this container; as many as there can be where nobody says."""
    size = LARGEST
    with suppress(AttributeError, ValueError, OSError):
        size = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    with suppress(ValueError, OSError), open("/sys/fs/cgroup/memory.max") as limit:
        size = min(size, int(limit.read()))
    return size if size > 0 else LARGEST


def check_axis(who: object, axis: Any) -> int:
    """The axis as an int."""
    return check_integer(who, "axis", axis)


def axis_or_dim(who: object, axis: Any, dim: Any) -> int:
    """The axis, which torch calls dim, as an int; the last one where neither is given."""
    if axis is not None and dim is not None:
        raise TypeError(f"{who} expected dim or axis, two names of one thing, got both: {shown(dim)} and {shown(axis)}")
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
    if len(axes) > 64:
        raise ValueError(f"{who} expected an axis of an array, which has at most 64, got {len(axes)}")
    if len(set(axes)) < len(axes):
        raise ValueError(f"{who} expected different axes, got axis={shown(axis)}")
    return axes
