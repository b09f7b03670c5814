"""HTML pages from files of the package."""

from functools import cache
from pathlib import Path


def filled(template: Path, **parts: str) -> str:
    """The text of the file with each part in the place of the comment that has its name: <!--TITLE-->."""
    text = _text(template)
    for name, part in parts.items():
        text = text.replace(f"<!--{name}-->", part, 1)
    return text


@cache
def _text(template: Path) -> str:
    return template.read_text(encoding="utf-8")
