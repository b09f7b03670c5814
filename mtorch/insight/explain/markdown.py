"""A page as Markdown, for the documentation."""

import re

from mtorch.insight.explain.blocks import Code, Heading, Numbers, Page, Prose, Step, Table
from mtorch.insight.explain.text import block_lines


def markdown(page: Page) -> str:
    """The page for the documentation."""
    lines = [f"# {page.name}", "", f"`{page.signature}`", "", f"`{page.file}`"]
    for section in page.sections:
        lines += ["", f"## {section.title}"]
        for before, block in zip([None, *section.blocks], section.blocks, strict=False):
            together = isinstance(block, Numbers | Step) and isinstance(before, Numbers | Step)
            if together:
                lines[-1:] = [*block_lines(block), "```"]
            elif isinstance(block, Prose):
                name = f"**{block.option}**: " if block.option else ""
                lines += ["", name + marked(block.text)]
            elif isinstance(block, Heading):
                lines += ["", f"### {block.text}"]
            elif isinstance(block, Code):
                title = [f"*{block.title}*", ""] if block.title else []
                lines += ["", *title, "```python", block.source.rstrip(), "```"]
            elif isinstance(block, Table):
                bar = [escaped(head) for head in block.head]
                rows = [[escaped(cell) for cell in row] for row in block.rows]
                lines += ["", row_of(bar), row_of(["---"] * len(bar)), *map(row_of, rows)]
            else:
                lines += ["", "```text", *block_lines(block, 100), "```"]
    return "\n".join([*lines, "", f"**{page.proof}**", ""])


def row_of(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def escaped(cell: str) -> str:
    return marked(cell).replace("|", "\\|").replace("#", "\\#")


def marked(text: str) -> str:
    """Text of a docstring in Markdown: what is between backticks stays, signs that mean something there are escaped."""
    parts = text.split("`")
    return "`".join(re.sub(r"([*_<\[\]])", r"\\\1", part) if i % 2 == 0 else part for i, part in enumerate(parts))
