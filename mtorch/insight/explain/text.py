"""A page as text of 80 columns."""

from typing import Any

from mtorch.insight.explain.blocks import Code, Formula, Heading, Numbers, Page, Prose, Step, Table, shape_of, written
from mtorch.insight.explain.lines import WIDTH, wrapped, wrapped_code


def text(page: Page) -> str:
    """The page for a terminal, 80 columns wide."""
    lines = [*wrapped(page.signature, "", "    "), page.file]
    for section in page.sections:
        lines += ["", section.title, "=" * len(section.title)]
        for before, block in zip([None, *section.blocks], section.blocks, strict=False):
            together = isinstance(block, Numbers | Step) and isinstance(before, Numbers | Step)
            lines += ([] if together else [""]) + block_lines(block)
    return "\n".join(line.rstrip() for line in [*lines, "", page.proof])


def block_lines(block: Any, width: int = WIDTH) -> list[str]:
    if isinstance(block, Prose):
        name = f"{block.option}: " if block.option else ""
        return wrapped(name + block.text, "", "    " if block.option else "", width)
    if isinstance(block, Formula):
        return [line for each in block.lines for line in formula_lines(each, width)]
    if isinstance(block, Code):
        title = [f"# {block.title}"] if block.title else []
        return [f"    {line}".rstrip() for line in [*title, *wrapped_code(block.source, width - 4)]]
    if isinstance(block, Heading):
        return [block.text, "-" * len(block.text)]
    if isinstance(block, Numbers):
        return number_lines(block, "  ", width)
    if isinstance(block, Step):
        lines = [f"  # {block.place}"] if block.place else []
        lines += [f"  > {line}" for line in wrapped_code(block.source, width - 4)] if block.source else []
        return lines + [line for each in block.values for line in number_lines(each, "    ", width)]
    return table_lines(block, width)


def formula_lines(line: str, width: int) -> list[str]:
    indent = "    " + " " * (len(line) - len(line.lstrip()))
    if len(line) + 4 <= width:
        return [f"    {line}".rstrip()]
    return wrapped(line.strip(), indent, indent + "    ", width)


def number_lines(block: Numbers, indent: str, width: int) -> list[str]:
    """`name (shape) = entries`, the rows of an array one below the other."""
    shape = shape_of(block.value)
    head = f"{indent}{block.name} {shape} = " if shape else f"{indent}{block.name} = "
    note = f"    {block.note}" if block.note else ""
    value = written(block.value)
    rows = value.split("\n")
    if len(head) + max(map(len, rows)) + len(note) > width:
        if isinstance(block.value, str):
            return wrapped(head + value + note, "", indent + "    ", width)
        head, note, rows = f"{indent}{block.name} {shape} ={note}", "", ["", *rows]
        lines = [head, *(f"{indent}    {row}" for row in rows[1:])]
        return [piece for line in lines for piece in split_row(line, width)]
    pad = " " * len(head)
    return [head + rows[0] + note, *(pad + row if row else "" for row in rows[1:])]


def split_row(line: str, width: int) -> list[str]:
    indent = " " * (len(line) - len(line.lstrip()))
    return [line] if len(line) <= width else wrapped(line.strip(), indent, indent + "  ", width)


def table_lines(table: Table, width: int) -> list[str]:
    """Columns one beside the other; what is too wide goes on in the next line."""
    rows = [table.head, *table.rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(table.head))]
    spare = width - 2 - 2 * (len(widths) - 1)
    while sum(widths) > spare:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in rows:
        cells = [wrapped(cell, width=max(1, size)) for cell, size in zip(row, widths, strict=True)]
        for i in range(max(map(len, cells))):
            parts = [(cell[i] if i < len(cell) else "").ljust(size) for cell, size in zip(cells, widths, strict=True)]
            lines.append("  " + "  ".join(parts).rstrip())
    return lines
