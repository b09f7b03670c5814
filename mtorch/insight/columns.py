"""Tables as text."""

import sys
from collections.abc import Sequence


def in_columns(rows: list[list[str]], widths: list[int], sides: str, gap: str = "  ") -> list[str]:
    """The rows as lines of columns that wide, each against its left or its right edge: "l" or "r"."""
    return [gap.join(_padded(*cell) for cell in zip(row, widths, sides, strict=True)).rstrip() for row in rows]


def widest(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def cut(text: str, most: int) -> str:
    """The text in at most so many characters."""
    return text if len(text) <= most else text[: most - 1] + "…"


def readable(text: str) -> str:
    """The text, with # for its bars and ~ for what was cut off where standard output has no such letters: a file that
    Windows writes, for one."""
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return text.replace("█", "#").replace("…", "~")
    return text


def _padded(text: str, width: int, side: str) -> str:
    return text.ljust(width) if side == "l" else text.rjust(width)
