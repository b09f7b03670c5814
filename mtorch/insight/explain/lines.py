"""Paragraphs and Python source in lines of a width."""

import io
import re
import textwrap
import tokenize

WIDTH = 80


def wrapped(text: str, first: str = "", later: str = "", width: int = WIDTH) -> list[str]:
    """The lines of a paragraph."""
    return textwrap.wrap(
        text, width, initial_indent=first, subsequent_indent=later, break_on_hyphens=False, break_long_words=True
    ) or [first]


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
