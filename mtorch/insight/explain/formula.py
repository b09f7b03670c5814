"""Evaluates the equations of docstrings, so that a docstring can be held against the code under it.

    m := beta1 m + (1 - beta1) g        a state: it begins as 0, and keeps its value from step to step
    d = m / (1 - beta1^t)               a name for what follows

Factors stand side by side, ^ is a power, [t > 1] is 1 where the condition holds and else 0. An equation ends at the
first word that is neither a name it may use nor a function.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy

WIDE = numpy.longdouble
FUNCTIONS: dict[str, Any] = {
    "sqrt": numpy.sqrt,
    "exp": numpy.exp,
    "log": numpy.log,
    "cos": numpy.cos,
    "sin": numpy.sin,
    "sign": numpy.sign,
    "floor": numpy.floor,
    "abs": numpy.abs,
    "max": numpy.maximum,
    "min": numpy.minimum,
    "count": numpy.sum,
}
CONSTANTS = {"pi": 4 * numpy.arctan(WIDE(1))}
TOKEN = re.compile(r"\s*(?:(\d+(?:\.\d+)?(?:e-?\d+)?)|([A-Za-z_]\w*)|(<=|>=|[-+*/^()\[\],<>]))")


class Equation(NamedTuple):
    """A name, whether it is a state, and a Python expression."""

    name: str
    state: bool
    expression: str


def expression(text: str, names: Iterable[str]) -> tuple[str, int]:
    """The Python expression that `text` begins with, and where it ends. ValueError where it begins with none."""
    known, at, depth = set(names) | set(CONSTANTS), 0, 0
    written: list[str] = []
    good, end = "", 0  # the longest part that is complete
    operand = False  # whether a factor was just read
    while match := TOKEN.match(text, at):
        number, word, sign = match.groups()
        if number or (word and word in known):
            written.append("*" * operand + (f"WIDE('{number}')" if number else word))
            operand = True
        elif word and word in FUNCTIONS and text[match.end() :].lstrip()[:1] == "(":
            written.append("*" * operand + word)
            operand = False
        elif sign in ("(", "["):
            called = bool(written) and written[-1].lstrip("*") in FUNCTIONS and not operand
            written.append("*" * (operand and not called) + ("(" if sign == "(" else "number("))
            depth, operand = depth + 1, False
        elif sign in (")", "]") and depth and operand:
            written.append(")")
            depth -= 1
        elif sign in ("+", "-") or (sign in ("*", "/", "^") and operand):
            written.append("**" if sign == "^" else sign)
            operand = False
        elif sign and sign in (",", "<", ">", "<=", ">=") and depth and operand:
            written.append(sign)
            operand = False
        else:
            break
        at = match.end()
        if operand and not depth:
            good, end = "".join(written), at
    if not good:
        raise ValueError(f"no equation begins {text[:40]!r}")
    return good, end


def equations(text: str, names: Iterable[str]) -> list[Equation]:
    """Every `name := ...` and `name = ...` of a text, in order."""
    heads = list(re.finditer(r"\b([A-Za-z_]\w*) (:?=) ", text))
    known = {*names, *(head[1] for head in heads)}
    return [Equation(h[1], h[2] == ":=", expression(text[h.end() :], known)[0]) for h in heads]


def evaluate(formula: str, values: Mapping[str, Any]) -> Any:
    """The value of an expression, in longdouble."""
    own = {"__builtins__": {}, "WIDE": WIDE, "number": lambda holds: numpy.asarray(holds) * WIDE(1)}
    return eval(formula, own | FUNCTIONS | CONSTANTS | dict(values))  # the text of our own docstrings
