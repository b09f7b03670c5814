"""The notes of a checkpoint: a JSON text. An array in it is {"__mtorch__": the name of an entry of the file}."""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy

from mtorch import arrays
from mtorch.checkpoint.array_file import RESERVED

FORMAT = 2
# What each of these characters of a JSON text can cost in memory, in bytes, and what a text may cost for each of its
# own characters: numbers and rows of a history cost three to ten, and a few MB are free.
COSTS = {"{": 82, "[": 82, ":": 108, ",": 60}
DENSEST, FREE = 13, 2**20


class ArrayName:
    """Stands in the notes for an array, which is an entry of the file with that name."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


class Notes(NamedTuple):
    """What stands beside the state dict of a file; a plain file of arrays has nothing there."""

    random: dict[str, Any]
    optimizer: Any
    more: dict[str, Any]
    names: set[str]  # of the arrays in them
    memory: int  # bytes that these arrays may take, so that packed ones are not much larger than the file


def encode(notes: dict[str, Any], entries: dict[str, numpy.ndarray], file: str) -> str:
    """The text of the notes, whose arrays are added to the `entries` of that file."""
    beside: list[numpy.ndarray] = []
    text = json.dumps(_without_arrays(notes, beside, file))
    entries |= {f"{RESERVED}.{number}": array for number, array in enumerate(beside)}
    return padded(text)


def decode(text: str | None, size: int) -> Notes:
    """The notes of a file of that size, with an `ArrayName` in the place of each array."""
    if text is None:
        return Notes({}, None, {}, set(), 0)
    check_weight(text)
    names: list[str] = []

    def array_name(item: dict[str, Any]) -> Any:
        if item.keys() != {RESERVED}:
            return item
        if not isinstance(item[RESERVED], str):
            raise ValueError(f"it names an array {item[RESERVED]!r}")
        names.append(item[RESERVED])
        return ArrayName(item[RESERVED])

    found = json.loads(text, object_hook=array_name)
    if not isinstance(found, dict):
        raise ValueError("its notes are no dict")
    number = found.get("format", FORMAT)
    if not isinstance(number, int) or not 1 <= number <= FORMAT:
        raise ValueError(f"it has format {number!r}, this version of mtorch reads 1 up to {FORMAT}")
    random, more = found.get("random", {}), found.get("more", {})
    if not (isinstance(random, dict) and isinstance(more, dict)):
        raise ValueError(f"its notes have random = {random!r} and more = {more!r}, expected two dicts")
    if len(set(names)) < len(names):
        raise ValueError("its notes name one array twice")
    memory = size + DENSEST * max(len(text), FREE) - weight(text)
    return Notes(random, found.get("optimizer"), more, set(names), memory)


def array_names(item: Any) -> list[str]:
    """The names of the arrays in a part of the notes."""
    if isinstance(item, ArrayName):
        return [item.name]
    inner = item.values() if isinstance(item, dict) else item if isinstance(item, list) else ()
    return [name for value in inner if isinstance(value, ArrayName | dict | list) for name in array_names(value)]


def with_arrays(item: Any, read: Callable[[str], numpy.ndarray]) -> Any:
    """That part of the notes with its arrays; dicts and lists stay the same objects."""
    if isinstance(item, ArrayName):
        return read(item.name)
    places: Any = item.items() if isinstance(item, dict) else enumerate(item) if isinstance(item, list) else ()
    for place, value in places:
        if isinstance(value, ArrayName | dict | list):
            item[place] = with_arrays(value, read)
    return item


def weight(text: str) -> int:
    """At most so many bytes are allocated when that JSON text is parsed, besides those of its strings."""
    return sum(cost * text.count(character) for character, cost in COSTS.items())


def check_weight(text: str) -> None:
    """ValueError for a text that is made to fill the memory."""
    if weight(text) > DENSEST * max(len(text), FREE):
        raise ValueError(f"its notes of {len(text)} characters would take {weight(text)} bytes of memory")


def padded(text: str) -> str:
    """The text with so many spaces behind it that `check_weight` accepts it."""
    needed = -(-weight(text) // DENSEST)
    return text if needed <= FREE else text.ljust(needed)


def _without_arrays(item: Any, beside: list[numpy.ndarray], file: str) -> Any:
    """`item` ready for JSON; its arrays move to `beside`."""
    if isinstance(item, dict):
        if RESERVED in item or len(set(map(str, item))) < len(item):
            raise ValueError(f"{file} cannot hold a dict with the key {RESERVED!r}, or with keys of one text: {item!r}")
        return {str(key): _without_arrays(value, beside, file) for key, value in item.items()}
    if isinstance(item, list | tuple):
        return [_without_arrays(value, beside, file) for value in item]
    if isinstance(item, numpy.generic):
        item = item.item() if item.dtype.itemsize <= 8 else numpy.asarray(item)
    if item is None or isinstance(item, bool | int | float | str):
        return item
    if not arrays.is_array(item, file) or item.dtype.hasobject:
        raise TypeError(f"{file} can hold numbers, strings and arrays, got {type(item).__name__}")
    beside.append(arrays.as_numpy(item))
    return {RESERVED: f"{RESERVED}.{len(beside) - 1}"}
