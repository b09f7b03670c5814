"""A page as one HTML file that needs no other, and no network."""

import io
import keyword
import re
import tokenize
from html import escape
from pathlib import Path
from typing import Any

import numpy

from mtorch.insight.explain.blocks import Code, Formula, Heading, Numbers, Page, Prose, Step, written
from mtorch.insight.template import filled


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
    return filled(Path(__file__).with_name("page.html"), TITLE=escape(page.name), BODY="\n".join(body))


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
