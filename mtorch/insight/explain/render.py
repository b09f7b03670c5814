"""Writes a page of sections as text of 80 columns, as Markdown, and as one HTML file."""

import io
import keyword
import re
import textwrap
import tokenize
from html import escape
from typing import Any

import numpy

from mtorch.insight.explain.blocks import Code, Formula, Heading, Numbers, Page, Prose, Step, Table, shape_of, written

WIDTH = 80


def wrapped(text: str, first: str = "", later: str = "", width: int = WIDTH) -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=True
    ) or [first]


# ---------------------------------------------------------------------- text


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


# ---------------------------------------------------------------------- code


def wrapped_code(source: str, width: int) -> list[str]:
    """Source in lines of that width: a comment moves above its line, a line breaks within brackets where it can."""
    lines = source.rstrip().split("\n")
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source + "\n").readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        tokens = []
    long = [t for t in tokens if t.type == tokenize.STRING and t.string.lstrip("rRfFbB")[:3] in ('"""', "'''")]
    inside = {row for t in long for row in range(t.start[0], t.end[0] + 1)}
    depths = depths_of(tokens)
    comments = {t.start[0]: t.start[1] for t in tokens if t.type == tokenize.COMMENT}
    found: list[str] = []
    for number, line in enumerate(lines, 1):
        if len(line) <= width:
            found.append(line)
            continue
        indent = line[: len(line) - len(line.lstrip())]
        if number in inside:  # a docstring
            found += wrapped(line.strip(), indent, indent, width)
            continue
        if number in comments:
            at = comments[number]
            found += wrapped(line[at:].lstrip("# "), f"{indent}# ", f"{indent}# ", width)
            line = line[:at].rstrip()
        depth = depths.get(number, 0)
        while len(line) > width and (broken := broken_line(line, width, depth)):
            first, rest, depth = broken
            found.append(first)
            line = f"{indent}        {rest}"
        if line.strip():
            found.append(line)
    return found


def depths_of(tokens: list[tokenize.TokenInfo]) -> dict[int, int]:
    """How many brackets are open where each line begins."""
    found: dict[int, int] = {}
    depth = 0
    for token in tokens:
        found.setdefault(token.start[0], depth)
        if token.type == tokenize.OP:
            depth += (token.string in "([{") - (token.string in ")]}")
    return found


def broken_line(line: str, width: int, depth: int = 0) -> tuple[str, str, int] | None:
    """A line of code in two, and the open brackets between them.

    It is broken best after a comma within brackets, else before an operator, else at a space within brackets, within a
    string, which then is two strings, after an opening bracket, or outside of all brackets.
    """
    start = len(line) - len(line.lstrip())
    braces, opened = 0, ""
    best: tuple[tuple[int, int], str, str, int] | None = None
    i = start
    while i < min(len(line), width):
        sign, found = line[i], None
        if opened:
            braces += (sign == "{") - (sign == "}")
            if sign == "\\":
                i += 1
            elif sign == opened[-1]:
                opened = ""
            elif sign == " " and not braces and i + 4 < width:
                end = opened[-1] if depth else f"{opened[-1]} \\"
                found = (2, i), line[: i + 1] + end, opened + line[i + 1 :], depth
        elif (match := re.match(r"[fFrRbB]{0,2}['\"]", line[i:])) and not (len(match[0]) > 1 and line[i - 1].isalnum()):
            opened, braces = match[0], 0
            i += len(match[0]) - 1
        elif sign in "([{":
            depth += 1
            if i > start + 8:
                found = (1, i), line[: i + 1], line[i + 1 :], depth
        elif sign in ")]}":
            depth -= 1
        elif sign == " " and i > start + 8:
            late = i > start + 0.4 * (width - start)
            word = re.match(r" (and|or|if|else|for|[-+*/]) ", line[i:])
            if depth:
                rank = 6 if late and line[i - 1] == "," else 5 if late and word else 3
                found = (rank, i), line[:i], line[i + 1 :].lstrip(), depth
            elif i + 2 < width:
                found = (4 if word and late else 0, i), f"{line[:i]} \\", line[i + 1 :].lstrip(), depth
        if found and (best is None or found[0] > best[0]):
            best = found
        i += 1
    return best[1:] if best else None


# ---------------------------------------------------------------------- Markdown


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


# ---------------------------------------------------------------------- HTML


STYLE = """
:root { color-scheme: light dark; --ink: #1c2230; --soft: #5c6577; --paper: #fbfaf7; --card: #fff; --line: #e3e0d8;
  --blue: #1f5fbf; --green: #2c7a4b; --red: #b3392f; --violet: #7a4bb0; --gold: #8a6100; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7e9ee; --soft: #9aa4b5; --paper: #14171d; --card: #1b1f27;
  --line: #2c323d; --blue: #7db2ff; --green: #76cf9b; --red: #ff8d80; --violet: #c9a4ff; --gold: #e2bd6b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.6 Georgia, "Times New Roman", serif; }
main { max-width: 56rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 2.2rem; line-height: 1.15; margin: 0 0 .4rem; }
h2 { font-size: 1.25rem; margin: 2.4rem 0 .8rem; padding-top: .9rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .6rem; color: var(--blue); }
p { margin: .7rem 0; }
code, pre, .num, td.n { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .85em; }
.signature { color: var(--soft); overflow-wrap: anywhere; }
.formula { margin: .8rem 0; padding: .7rem 1rem; border-left: 3px solid var(--blue); background: var(--card);
  overflow-x: auto; font-style: italic; white-space: pre-wrap; }
.lead { font-size: 1.15rem; }
dl { margin: .6rem 0; } dt { font-weight: bold; } dd { margin: 0 0 .5rem 1.2rem; }
pre { background: var(--card); border: 1px solid var(--line); border-radius: .4rem; padding: .8rem 1rem;
  overflow-x: auto;
  line-height: 1.45; margin: .5rem 0; }
figure { margin: 1rem 0; } figcaption { color: var(--soft); font-size: .85rem; }
.k { color: var(--violet); } .s { color: var(--green); } .c { color: var(--soft); font-style: italic; }
.d { color: var(--blue); }
.values { display: flex; flex-wrap: wrap; gap: .7rem 1.8rem; margin: .5rem 0; }
.num { display: flex; align-items: center; gap: .45rem; max-width: 100%; overflow-x: auto; }
.num > b { font-family: Georgia, serif; font-style: italic; font-size: 1.15em; white-space: nowrap; }
.num > small { color: var(--soft); font-family: Georgia, serif; white-space: nowrap; }
.matrix { border-left: 2px solid var(--soft); border-right: 2px solid var(--soft); border-radius: 6px;
  padding: 0 .3rem; }
.matrix td { text-align: right; padding: .05rem .4rem; white-space: nowrap; }
.stack { display: flex; flex-wrap: wrap; gap: .5rem; }
.step { margin: .9rem 0; } .step > i { color: var(--soft); font-size: .9rem; } .step > code { color: var(--soft);
  display: block; overflow-wrap: anywhere; }
table.list { border-collapse: collapse; display: block; overflow-x: auto; margin: .8rem 0; font-size: .9rem; }
table.list th { text-align: left; color: var(--soft); font-weight: normal; }
table.list td, table.list th { border-bottom: 1px solid var(--line); padding: .3rem 1rem .3rem 0;
  vertical-align: top; }
table.list td { font-family: ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; font-size: .82rem; }
table.list td + td { white-space: nowrap; }
.proof { margin-top: 1.4rem; padding: .8rem 1rem; border-radius: .4rem; border: 1px solid; background: var(--card); }
.holds { color: var(--green); } .fails { color: var(--red); }
.bar { display: inline-block; height: .75rem; background: var(--blue); border-radius: 2px; vertical-align: middle; }
"""


def html(page: Page) -> str:
    """One file that needs no other, and no network."""
    body = [f"<h1>{escape(page.name)}</h1>", f'<p class="signature"><code>{escape(page.signature)}</code><br>']
    body.append(f"<code>{escape(page.file)}</code></p>")
    for section in page.sections:
        body.append(f"<h2>{escape(section.title)}</h2>")
        for group in grouped(section.blocks):
            if isinstance(group, list):
                body.append(f'<div class="values">{"".join(map(number_html, group))}</div>')
            else:
                body.append(block_html(group, section.title))
    mood = "holds" if page.proved else "fails"
    body.append(f'<p class="proof {mood}"><b>{escape(page.proof)}</b></p>')
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(page.name)} · mtorch</title>\n<link rel="icon" href="data:,">\n'
        f"<style>{STYLE}</style>\n</head>\n"
        f"<body>\n<main>\n{chr(10).join(body)}\n</main>\n</body>\n</html>"
    )


def grouped(blocks: list[Any]) -> list[Any]:
    """The blocks, with neighbouring Numbers as one list."""
    found: list[Any] = []
    for block in blocks:
        if isinstance(block, Numbers):
            if not (found and isinstance(found[-1], list)):
                found.append([])
            found[-1].append(block)
        else:
            found.append(block)
    return found


def block_html(block: Any, section: str) -> str:
    if isinstance(block, Prose):
        if block.option:
            return f"<dl><dt><code>{escape(block.option)}</code></dt><dd>{rich(block.text)}</dd></dl>"
        lead = ' class="lead"' if section == "equation" else ""
        return f"<p{lead}>{rich(block.text)}</p>"
    if isinstance(block, Formula):
        if any(
            re.match(r"\s*(class|def|for|net|with|import|from) |.*\bself\b|.*\(\)$|[A-Z]\w+\(", line)
            for line in block.lines
        ):
            return f"<pre>{highlighted(chr(10).join(block.lines))}</pre>"
        return f'<div class="formula">{rich(chr(10).join(block.lines))}</div>'
    if isinstance(block, Code):
        title = f"<figcaption>{escape(block.title)}</figcaption>" if block.title else ""
        return f"<figure>{title}<pre>{highlighted(block.source.rstrip())}</pre></figure>"
    if isinstance(block, Heading):
        return f"<h3>{escape(block.text)}</h3>"
    if isinstance(block, Step):
        source = f"<i>{escape(block.place)}</i>" if block.place else ""
        source += f"<code>{escape(block.source)}</code>" if block.source else ""
        values = f'<div class="values">{"".join(map(number_html, block.values))}</div>' if block.values else ""
        return f'<div class="step">{source}{values}</div>'
    head = "".join(f"<th>{rich(cell)}</th>" for cell in block.head)
    rows = ("".join(f"<td>{cell_html(cell)}</td>" for cell in row) for row in block.rows)
    return f'<table class="list"><tr>{head}</tr>{"".join(f"<tr>{row}</tr>" for row in rows)}</table>'


def cell_html(cell: str) -> str:
    if cell and not cell.strip("#"):
        return f'<span class="bar" style="width:{len(cell) * 0.3:.1f}rem" title="{len(cell)}"></span>'
    return escape(cell)


def rich(text: str) -> str:
    """Text of a docstring: code between backticks, indices below and powers above the line."""
    parts = escape(text, quote=False).split("`")
    for i, part in enumerate(parts):
        if i % 2:
            parts[i] = f"<code>{part}</code>"
            continue
        part = re.sub(r"(\))_(\w)\b", lower, part)
        part = re.sub(r"(?<![A-Za-z0-9_])(d?[A-Za-z]|sum|max|concat)_(\{[^}]*\}|[A-Za-z0-9]+)", lower, part)
        parts[i] = re.sub(r"\^(-?\w+(?:\([^()]*\))?|\([^()]*\))", raise_, part)
    return "".join(parts)


def lower(match: re.Match) -> str:
    return f"{match[1]}<sub>{match[2].strip('{}')}</sub>"


def raise_(match: re.Match) -> str:
    inner = match[1][1:-1] if match[1].startswith("(") else match[1]
    return f"<sup>{inner}</sup>"


def number_html(block: Numbers) -> str:
    note = f"<small>{escape(block.note)}</small>" if block.note else ""
    return f'<div class="num"><b>{rich(block.name)}</b> = {matrix(block.value)}{note}</div>'


def matrix(value: Any) -> str:
    """An array as rows between brackets; one of more axes as several of them."""
    array = numpy.asarray(value) if not isinstance(value, str) and value is not None else None
    if array is None or array.ndim == 0:
        return f"<span>{escape(written(value))}</span>"
    if array.ndim > 2:
        inner = "".join(matrix(part) for part in array)
        return inner if len(array) == 1 else f'<div class="stack">{inner}</div>'
    entries = re.findall(r"[^\s\[\],]+", written(array))
    columns = array.shape[-1]
    rows = [entries[i : i + columns] for i in range(0, len(entries), columns)]
    cells = "".join(f"<tr>{''.join(f'<td>{escape(entry)}</td>' for entry in row)}</tr>" for row in rows)
    return f'<table class="matrix">{cells}</table>'


def highlighted(source: str) -> str:
    """Python with its keywords, strings and comments in colour."""
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(source + "\n").readline))
    except (tokenize.TokenError, SyntaxError, IndentationError):
        return escape(source, quote=False)
    lines, found, row, column = source.split("\n"), [], 1, 0
    before = ""
    for token in tokens:
        if token.type in (tokenize.NEWLINE, tokenize.NL, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER):
            continue
        while row < token.start[0]:
            found.append(escape(lines[row - 1][column:], quote=False) + "\n")
            row, column = row + 1, 0
        found.append(escape(lines[row - 1][column : token.start[1]], quote=False))
        kind = {tokenize.STRING: "s", tokenize.COMMENT: "c"}.get(token.type, "")
        if token.type == tokenize.NAME:
            kind = "k" if keyword.iskeyword(token.string) else "d" if before in ("def", "class") else ""
        shown = escape(token.string, quote=False)
        found.append(f'<span class="{kind}">{shown}</span>' if kind else shown)
        (row, column), before = token.end, token.string
    return "".join(found)
