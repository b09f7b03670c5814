"""What a net is made of, as a table."""

from collections.abc import Iterator
from math import prod
from typing import Any, NamedTuple

from mtorch.checks import shown
from mtorch.insight.columns import cut, in_columns, readable, widest
from mtorch.layer import Layer
from mtorch.parameter import Parameter

WIDTH, NARROWEST = 80, 24  # of a table, and of the column of its layers


def count_parameters(layer: Layer, trainable_only: bool = False) -> int:
    """The number of parameter entries; a shared parameter counts once."""
    return sum(p.value.size for p in layer.parameters().values() if p.trainable or not trainable_only)


class Row(NamedTuple):
    """A line of a summary. What depends on the input's shape is None where that was not given."""

    name: str  # dotted, as in `parameters()`
    depth: int
    layer: str
    parameters: int
    output: str | None = None  # (N, 4, 8, 8)
    memory: int | None = None  # bytes of the output of one sample
    multiply_adds: int | None = None  # of one sample


class Summary(str):
    """The table as text, at a prompt too. `rows` has its lines; in a notebook it is shown as a table."""

    rows: tuple[Row, ...]
    total: str

    def __new__(cls, rows: tuple[Row, ...], total: str) -> "Summary":
        new = super().__new__(cls, readable(_as_text(rows, total)))
        new.rows, new.total = rows, total
        return new

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        from html import escape

        head, *lines = _cells(self.rows)
        styles = [f"text-align:{'left' if side == 'l' else 'right'};white-space:pre" for side in _sides(head)]
        rows = "".join(f"<tr>{_html_cells('td', line, styles)}</tr>" for line in lines)
        caption = f'<caption style="caption-side:bottom;text-align:left">{escape(self.total)}</caption>'
        return f"<table>{caption}<thead><tr>{_html_cells('th', head, styles)}</tr></thead><tbody>{rows}</tbody></table>"

    def __reduce__(self) -> Any:
        return type(self), (self.rows, self.total)


def summary(layer: Layer, input_shape: Any = None) -> Summary:
    """One line for each layer, indented as layers nest, with its own parameters; then the total.

    input_shape: the shape of one sample without the batch axis, (1, 28, 28), or (T, D) for a net of sequences
        (T, N, D); a tuple of shapes for a net of several inputs; or an example with the batch axis. Then each line also
        has the shape of the output, (N, 4, 8, 8), and what one sample takes: the memory of the output, and the
        multiply-adds of the layer's products (see `multiply_adds`). A layer that is called several times counts every
        call. The shapes come from two predictions of a copy.

    `print(summary(net))` shows the table, a notebook too, and `summary(net).rows` are its numbers.
    """
    if not isinstance(layer, Layer):
        raise TypeError(f"summary expected a module or layer, got {shown(layer)}")
    seen = {} if input_shape is None else _seen(layer, input_shape)
    counted: set[int] = set()
    rows = []
    for name, depth, below in _below(layer):
        own = {id(p): p.value.size for _, p in below.own(Parameter) if id(p) not in counted}
        row = Row(name, depth, below._headline(), sum(own.values()))
        if input_shape is not None:
            output, memory, products = seen.get(id(below), ("not called", 0, 0))
            again = id(below) in counted
            row = row._replace(output=output, memory=0 if again else memory, multiply_adds=0 if again else products)
        counted |= {*own, id(below)}
        rows.append(row)
    frozen = count_parameters(layer) - count_parameters(layer, trainable_only=True)
    total = f"{count_parameters(layer):,} parameters" + (f", {frozen:,} of them frozen" if frozen else "")
    if input_shape is not None:
        memory, products = (sum(getattr(row, name) for row in rows) for name in ("memory", "multiply_adds"))
        total = f"one sample: {_bytes(memory)} of activations, {products:,} multiply-adds\n{total}"
    return Summary(tuple(rows), total)


def _below(layer: Layer) -> Iterator[tuple[str, int, Layer]]:
    """(dotted name, depth, layer) for all layers below this one, and for itself if it has no layer or parameters."""
    top = layer.core()
    alone = next(iter(top.children()), None) is None or next(iter(top.own(Parameter)), None) is not None
    stack: list[tuple[str, int, Layer]] = [("", 0 if alone else -1, top)]
    while stack:
        name, depth, each = stack.pop()
        if depth >= 0:
            yield name, depth, each
        prefix = f"{name}." if name else ""
        below = [(f"{prefix}{n}" if n else name, depth + 1, child.core()) for n, child in each.children()]
        stack.extend(reversed(below))


def _seen(layer: Layer, input_shape: Any) -> dict[int, tuple[str, int, int]]:
    """The shape of the output, and bytes and multiply-adds of one sample, by the id of the layer."""
    from mtorch.insight.multiply_adds import multiply_adds
    from mtorch.insight.observation import is_container
    from mtorch.insight.shapes import shapes_of

    found = {}
    for each in shapes_of(layer, input_shape):
        costs = []
        for pairs in ([call[:2] for call in each.calls], [call[2:] for call in each.calls]):
            entries = 0 if is_container(each.layer) else sum(_size(y) for _, y in pairs)
            costs.append((entries, sum(multiply_adds(each.layer, x, y) for x, y in pairs)))
        entries, products = (large - small for small, large in zip(*costs, strict=True))
        found[id(each.layer)] = each.output, entries * each.layer.dtype.itemsize, products
    return found


def _size(shape: Any) -> int:
    """The number of entries of an array of that shape, or of a tuple of arrays."""
    if shape is None:
        return 0
    return sum(map(_size, shape)) if any(not isinstance(part, int) for part in shape) else prod(shape)


def _bytes(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}" if count < 1000 or unit == "B" else f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def _cells(rows: tuple[Row, ...]) -> list[list[str]]:
    """The table's cells, the head first."""
    with_shapes = bool(rows) and rows[0].output is not None
    head = ["name", "layer", "parameters"]
    lines = [head if not with_shapes else ["name", "layer", "output", "params", "memory", "mult-adds"]]
    for row in rows:
        line = ["  " * row.depth + (row.name.rpartition(".")[2] or "-"), row.layer]
        line += [str(row.output)] * with_shapes + [f"{row.parameters:,}"]
        if with_shapes:
            line += [_bytes(row.memory or 0), f"{row.multiply_adds:,}"]
        lines.append(line)
    return lines


def _as_text(rows: tuple[Row, ...], total: str) -> str:
    cells = _cells(rows)
    widths = widest(cells)
    if len(widths) > 3:
        widths[1] = min(widths[1], max(NARROWEST, WIDTH - sum(widths) + widths[1] - 2 * (len(widths) - 1)))
    for row in cells:
        row[1] = cut(row[1], widths[1])
    head, *lines = in_columns(cells, widths, _sides(widths))
    rule = "-" * (sum(widths) + 2 * (len(widths) - 1))
    return "\n".join([head, rule, *lines, rule, total])


def _sides(columns: list[Any]) -> str:
    """Texts stand at the left edge of their columns, numbers at the right one."""
    return "llr" if len(columns) == 3 else "lllrrr"


def _html_cells(tag: str, line: list[str], styles: list[str]) -> str:
    from html import escape

    return "".join(f'<{tag} style="{style}">{escape(text)}</{tag}>' for text, style in zip(line, styles, strict=True))
