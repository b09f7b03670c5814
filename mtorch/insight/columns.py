"""Tables as text."""

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


def _padded(text: str, width: int, side: str) -> str:
    return text.ljust(width) if side == "l" else text.rjust(width)
