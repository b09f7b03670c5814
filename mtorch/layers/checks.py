"""Checks of constructor arguments that several layers share."""

import math
from numbers import Real
from typing import Any

import numpy


def check_flag(layer: str, name: str, flag: Any) -> bool:
    """The truth value; TypeError for anything else, because "no" and "false" are true."""
    if not isinstance(flag, bool | numpy.bool_):
        raise TypeError(f"{layer} expected {name} to be True or False, got {flag!r}")
    return bool(flag)


def check_number(layer: str, name: str, number: Any, least: float = -math.inf, most: float = math.inf) -> float:
    """The number as a float; TypeError when it is none, ValueError unless it is finite and within the bounds."""
    if isinstance(number, bool) or not isinstance(number, Real):
        raise TypeError(f"{layer} expected a number as {name}, got {number!r}")
    if not (math.isfinite(number) and least <= number <= most):
        parts = [f"{name} >= {least:g}" if least > -math.inf else "", f"{name} <= {most:g}" if most < math.inf else ""]
        wanted = " and ".join(filter(None, parts)) or f"a finite {name}"
        raise ValueError(f"{layer} expected {wanted}, got {number!r}")
    return float(number)
