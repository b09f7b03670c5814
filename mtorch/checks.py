"""Checks of the arguments that constructors share."""

import math
from numbers import Real
from typing import Any

import numpy


def check_flag(who: object, name: str, flag: Any) -> bool:
    """The truth value; TypeError for anything else, because "no" and "false" are true."""
    if not isinstance(flag, bool | numpy.bool_):
        raise TypeError(f"{who} expected {name} to be True or False, got {flag!r}")
    return bool(flag)


def check_size(who: object, name: str, size: Any, least: int = 1) -> int:
    """The size as an int; TypeError when it is none, ValueError when it is below `least`."""
    if isinstance(size, bool) or not isinstance(size, int | numpy.integer):
        raise TypeError(f"{who} expected an integer {name}, got {size!r}")
    if size < least:
        raise ValueError(f"{who} expected {name} >= {least}, got {size}")
    return int(size)


def check_number(who: object, name: str, number: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """The number as a float; TypeError when it is none, ValueError unless it is finite and within the bounds."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{who} expected a number as {name}, got {number!r}")
    if not (math.isfinite(number) and least <= number <= most):
        parts = [f"{name} >= {least:g}" if least > -math.inf else "", f"{name} <= {most:g}" if most < math.inf else ""]
        wanted = " and ".join(filter(None, parts)) or f"a finite {name}"
        raise ValueError(f"{who} expected {wanted}, got {number!r}")
    return float(number)
