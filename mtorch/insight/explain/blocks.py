"""What an explanation is made of: sections of blocks, which text, Markdown and HTML show each in its own way."""

import re
from dataclasses import dataclass, field
from typing import Any

import numpy


@dataclass
class Prose:
    """A paragraph; with an `option`, what that argument means."""

    text: str
    option: str = ""


@dataclass
class Formula:
    """Lines that keep their breaks."""

    lines: list[str]


@dataclass
class Code:
    """Python source, and where it stands."""

    source: str
    title: str = ""


@dataclass
class Numbers:
    """A value under its name: an array, a number, or what a text says of it."""

    name: str
    value: Any
    note: str = ""


@dataclass
class Step:
    """A statement that ran, the values that it gave to its names, and the function in which it stands."""

    source: str
    values: list[Numbers]
    place: str = ""


@dataclass
class Heading:
    text: str


@dataclass
class Table:
    head: list[str]
    rows: list[list[str]]


@dataclass
class Section:
    title: str
    blocks: list[Any] = field(default_factory=list)


@dataclass
class Page:
    name: str
    signature: str
    file: str
    sections: list[Section]
    proof: str = ""
    proved: bool = False


SMALL: Any = {"float_kind": lambda entry: f"{entry:.2e}"}


def decimals(array: numpy.ndarray) -> int | None:
    """How many places show the entries: two where that is exact, else four, more where all are small; None for tiny."""
    finite = numpy.abs(array[numpy.isfinite(array)].astype(float))
    if numpy.array_equal(finite, finite.round(2)):
        return 2
    most = finite.max()
    return 4 if most >= 0.01 else 6 if most >= 1e-4 else None


def written(value: Any) -> str:
    """An array or a number with all its entries, floats with their decimals."""
    if value is None:
        return "none"
    if isinstance(value, str):
        return value
    array = numpy.asarray(value)
    if array.dtype.kind != "f":
        text = numpy.array2string(array, separator=", ", threshold=10**9, max_line_width=10**9)
        return aligned(text) if array.ndim else text
    places = decimals(array)
    if places is None:
        text = numpy.array2string(array, separator=", ", formatter=SMALL, threshold=10**9, max_line_width=10**9)
        return aligned(text) if array.ndim else text
    # + 0.0 makes 0.00 of -0.00
    form: Any = {"float_kind": lambda entry: f"{numpy.round(float(entry), places) + 0.0:.{places}f}"}
    text = numpy.array2string(array, separator=", ", threshold=10**9, max_line_width=10**9, formatter=form)
    return aligned(text) if array.ndim else text


def aligned(text: str) -> str:
    """The rows of an array with their columns one below the other."""
    entries = re.findall(r"[^\s\[\],]+", text)
    width = max(map(len, entries), default=0)
    text = "\n".join(line for line in text.split("\n") if line.strip())
    return re.sub(r"[^\s\[\],]+", lambda match: f"{match[0]:>{width}}", re.sub(r",[ ]+", ", ", text))


def shape_of(value: Any) -> str:
    """(2, 3) of an array; nothing for numbers and texts."""
    shape = getattr(value, "shape", ())
    return str(tuple(shape)) if shape else ""
