"""An inspection as a page: one HTML file, with its numbers in it and nothing from outside."""

import json
import re
from base64 import urlsafe_b64encode
from html import escape
from math import ceil, isfinite, isqrt, prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy

from mtorch.insight.inspection.arithmetic import worked
from mtorch.insight.inspection.equations import equations
from mtorch.insight.inspection.table import milliseconds, number, shape_text, share, table
from mtorch.insight.template import filled

if TYPE_CHECKING:
    from mtorch.insight.inspection import Inspection, Record

MOST = 2_900_000  # bytes of a page
CELLS = 12_800  # entries of an array that are drawn, at first; fewer where the page would be too large
NUMBERS, SIDE = 64, 8  # an array of so few entries, in so short rows, is written in numbers
TILES, TILE = 16, 64  # pictures of an array, and entries along a side
MAP = "the attention map of each head: a row for each query, a column for each key"
STEPS = 400  # bars of a chart over time
SQUARE = 64  # rows of so many entries or more that are a square are drawn as one: weights of an image's pixels


def page(found: "Inspection") -> str:
    """The text of the page: as much of every array as fits in 2.9 MB."""
    count = sum(4 + 2 * len(record.sample.parameters) for record in found)  # of arrays; four letters for three entries
    cells = min(CELLS, 2 * MOST // (3 * count))
    while True:
        text = _page(found, cells)
        if len(text.encode()) <= MOST:
            return text
        if not cells:
            raise ValueError(f"a page of {len(found)} layers would be larger than {MOST:,} bytes")
        cells = cells // 3 if cells > 16 else 0


def _page(found: "Inspection", cells: int) -> str:
    ends = found.ends
    data = {
        "title": found.title,
        "loss": f"{found.loss_name} {found.loss:.4g}",
        "batch": ends.batch,
        "layers": [_layer(record, cells) for record in found],
        "ends": {
            "y": _arrays("y", ends.y, cells, "what the net returned"),
            "target": _arrays("target", ends.target, cells, "what it should have been"),
            "grad": _arrays("g", ends.grad, cells, "the gradient that goes back into the net"),
        },
    }
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    template = Path(__file__).with_name("page.html")
    return filled(template, TITLE=escape(found.title), TABLE=escape(table(found)), DATA=text)


def _layer(record: "Record", cells: int) -> dict[str, Any]:
    s, says = record.sample, equations(record.layer)
    return {
        "name": record.name,
        "kind": type(record.layer).__name__,
        "repr": repr(record.layer),
        "shape": shape_text(record.shape),
        "equation": [says.forward, says.backward],
        "worked": worked(record) if cells else ([], []),
        "stats": _stats(record),
        "norm": _plain(record.grad_norm),
        "x": _arrays("x", s.x, cells, "what comes in"),
        "y": _arrays("y", s.y, cells, "what goes out"),
        "g": _arrays("g", s.grad, cells, "the gradient that comes"),
        "dx": _arrays("dx", s.input_grad, cells, "the gradient that goes"),
        "parameters": [
            [_array(name, value, cells, ""), _array(f"d {name}", grad, cells, "its gradient, of the whole batch")]
            for name, value, grad in s.parameters
        ],
        "memory": _memory(record, says.remembers),
        "kept": sorted(
            {name for name, _, _ in s.memory if name in ("x", "y")}
            | {*re.findall(r"\b[xy]\b", says.remembers.split(", not ")[0])}
        ),
        "time": _time(record),
        "attention": [] if s.attention is None else _arrays("P", (s.attention,), cells, MAP),
    }


def _stats(record: "Record") -> list[list[list[str]]]:
    """What is said of the forward, and of the backward."""
    forward = [["output", shape_text(record.shape)], ["mean", number(record.mean)], ["std", number(record.std)]]
    forward.append(["dead", share(record.dead)])
    if record.saturated is not None:
        forward.append(["saturated", share(record.saturated)])
    backward = [["‖gradient that comes‖", number(record.grad_norm)]]
    backward.append(["‖gradient that goes‖", number(record.input_grad_norm)])
    if record.weight_norm is not None:
        backward.append(["‖weights‖", number(record.weight_norm)])
        backward.append(["‖their gradient‖", number(record.weight_grad_norm)])
    calls = f" in {record.calls} calls" if record.calls > 1 else ""
    forward.append(["time", f"{milliseconds(record.forward_seconds)} ms{calls}"])
    backward.append(["time", f"{milliseconds(record.backward_seconds)} ms{calls}"])
    return [forward, backward]


def _memory(record: "Record", says: str) -> str:
    """What is remembered, in words and bytes."""
    memory = record.sample.memory
    if not memory:
        return f"{says or 'No array'}."
    named = [f"{name or 'an array'} {shape_text(shape)}" for name, shape, _ in memory[:4]]
    more = f" and {len(memory) - 4} more array{'s' * (len(memory) > 5)}" if len(memory) > 4 else ""
    size = sum(count for *_, count in memory)
    text = f"{', '.join(named)}{more}: {size:,} bytes" + (" in the last call" if record.calls > 1 else "")
    here = "The faster body that ran keeps" if record.sample.fast else "Here:"
    if says:
        return f"{says}. {here} {text}."
    return f"{text}." if memory[0][0] else f"A{text[1:]}."


def _time(record: "Record") -> dict[str, Any] | None:
    """The norms over time of the gradients that come and go."""
    if not record.over_time or len(record.over_time) < 2:
        return None
    every = ceil(len(record.over_time) / STEPS)
    return {
        "every": every,
        "comes": [_plain(v) for v in record.over_time[::every]],
        "goes": [_plain(v) for v in (record.input_over_time or ())[::every]],
    }


def _plain(value: float | None) -> float | None:
    """A number as JSON has it."""
    return float(f"{value:.4g}") if value is not None and isfinite(value) else None


# ---------------------------------------------------------------------- arrays


def _arrays(name: str, values: tuple[numpy.ndarray, ...], cells: int, note: str) -> list[dict[str, Any]]:
    several = len(values) > 1
    return [_array(f"{name}{i + 1 if several else ''}", a, cells, note) for i, a in enumerate(values)]


def _array(name: str, a: numpy.ndarray, cells: int, note: str) -> dict[str, Any]:
    """What the page draws of an array: numbers where it is small, else pictures of at most `cells` entries."""
    shown: dict[str, Any] = {"name": name, "shape": shape_text(a.shape), "note": note}
    a = a.astype(float)
    finite = a[numpy.isfinite(a)]
    if not a.size or not cells:
        return shown
    most = float(abs(finite).max()) if finite.size else 0.0
    shown |= {"low": number(float(finite.min())), "high": number(float(finite.max()))} if finite.size else {}
    if a.size <= NUMBERS and a.ndim <= 2 and (a.ndim == 0 or a.shape[-1] <= SIDE or a.ndim == 1):
        rows = a.reshape(-1, a.shape[-1]) if a.ndim == 2 else a.reshape(1, -1)
        if a.ndim == 1 and a.size > SIDE:
            return shown | {"most": _plain(most), "wrap": True, "numbers": [[_cell(v) for v in a]]}
        return shown | {"most": _plain(most), "numbers": [[_cell(v) for v in row] for row in rows]}
    tiles, total = _tiles(a)
    count = max(1, min(len(tiles), TILES, cells // 16))
    side = max(4, min(TILE, isqrt(cells // count)))
    pictures = []
    for tile in tiles[:count]:
        rows, columns = (ceil(n / max(side, cells // count // 4 if min(tile.shape) == 1 else side)) for n in tile.shape)
        picked = numpy.nan_to_num(tile[::rows, ::columns], nan=numpy.nan, posinf=most, neginf=-most)
        scaled = numpy.where(numpy.isfinite(picked), numpy.rint(127 * picked / (most or 1)), -128)
        bits = numpy.clip(scaled, -128, 127).astype(numpy.int8)
        pictures.append([*bits.shape, urlsafe_b64encode(bits.tobytes()).decode()])
        if (rows, columns) != (1, 1):
            shown["sampled"] = f"one entry in {rows * columns} drawn"
    if count < total:
        shown["part"] = f"{count} of {total}"
    first = [number(float(v)) for v in a.reshape(-1)[:4]]
    return shown | {"most": _plain(most), "first": ", ".join(first), "pictures": pictures}


def _cell(value: float) -> Any:
    return float(f"{value:.3g}") if isfinite(value) else str(value)


def _tiles(a: numpy.ndarray) -> tuple[list[numpy.ndarray], int]:
    """An array as matrices, and how many there are."""
    side = isqrt(a.shape[-1])
    if a.ndim <= 2 and side * side == a.shape[-1] >= SQUARE and (a.ndim == 1 or a.shape[-1] >= 3 * len(a)):
        tiles = a.reshape(-1, side, side)
    elif a.ndim == 1:
        tiles = a.reshape(1, 1, -1)
    else:
        tiles = a.reshape(prod(a.shape[:-2]), *a.shape[-2:])
    return list(tiles[:TILES]), len(tiles)
