"""An inspection as text of at most 80 columns."""

from math import isfinite, log10
from typing import TYPE_CHECKING, Any

from mtorch.insight.columns import cut, in_columns, readable, widest

if TYPE_CHECKING:
    from mtorch.insight.inspection import Inspection

WIDTH, BAR = 80, 12
NAME, LAYER, SHAPE = 16, 10, 16  # at most, at least, at most


def table(found: "Inspection") -> str:
    """What every layer returned, in the order of the forward; then the gradients, in the order of the backward."""
    size = found.ends.batch
    batch = f", {size} sample{'s' * (size != 1)}" if size else ""
    title = f"{found.title}: {found.loss_name} {found.loss:.4g}{batch}"
    records = list(found)
    forward = [
        [r.name or "-", repr(r.layer), shape_text(r.shape), number(r.mean), number(r.std), share(r.dead),
         share(r.saturated), milliseconds(r.forward_seconds)]
        for r in records
    ]  # fmt: skip
    norms = [r.grad_norm for r in records]
    backward = [
        [r.name or "-", repr(r.layer), number(r.grad_norm), bar(r.grad_norm, norms), number(r.weight_norm),
         number(r.weight_grad_norm), milliseconds(r.backward_seconds)]
        for r in reversed(records)
    ]  # fmt: skip
    heads = ["name", "layer", "output", "mean", "std", "dead", "satur.", "ms"]
    back_heads = ["name", "layer", "|grad|", "(log scale)", "|weight|", "|w grad|", "ms"]
    parts = [title[:WIDTH], "", "forward", *_lines(heads, forward, "lllrrrrr"), ""]
    return readable("\n".join([*parts, "backward", *_lines(back_heads, backward, "llrlrrr")]))


def number(value: float | None) -> str:
    """Three digits; a power of ten where zeros would hide them."""
    if value is None:
        return "-"
    if value == 0 or not isfinite(value):
        return f"{value:g}"
    if 0.001 <= abs(value) < 1000:
        return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    return f"{mantissa}e{int(exponent)}"


def share(value: float | None) -> str:
    return "-" if value is None or not isfinite(value) else f"{value:.0%}"


def milliseconds(seconds: float) -> str:
    return f"{1000 * seconds:.3f}" if seconds < 0.1 else f"{1000 * seconds:.0f}"


def shape_text(shape: Any) -> str:
    return str(shape).replace("'", "")


def bar(value: float | None, all_values: list[float | None]) -> str:
    """How large a norm is among the others, on a logarithmic scale."""
    logs = [log10(v) for v in all_values if v and isfinite(v)]
    if not value or not isfinite(value):
        return ""
    low, high = min(logs) - 0.5, max(logs) + 0.1
    low = min(low, high - 2)
    return "█" * max(1, round(BAR * (log10(value) - low) / (high - low)))


def _lines(heads: list[str], rows: list[list[str]], sides: str) -> list[str]:
    """Columns; the layers' shrinks until all fit."""
    cells = [heads, *rows]
    for row in cells:
        row[0] = row[0] if len(row[0]) <= NAME else f"…{row[0][1 - NAME :]}"  # the end of a path tells layers apart
        if heads[2] == "output":
            row[2] = cut(row[2], SHAPE)
    widths = widest(cells)
    widths[1] = min(widths[1], max(LAYER, WIDTH - (sum(widths) - widths[1]) - 2 * (len(widths) - 1)))
    gap = "  " if sum(widths) + 2 * (len(widths) - 1) <= WIDTH else " "
    if gap == " ":
        widths[1] = min(max(len(row[1]) for row in cells), WIDTH - (sum(widths) - widths[1]) - (len(widths) - 1))
    for row in cells:
        row[1] = cut(row[1], widths[1])
    head, *lines = (line[:WIDTH] for line in in_columns(cells, widths, sides, gap))
    return [head, "-" * (sum(widths) + len(gap) * (len(widths) - 1)), *lines]
