"""The sections of a docstring: equation, shapes, derivation, errors, notes, literature."""

import inspect
import re
import textwrap
from typing import Any

from mtorch.insight.explain.blocks import Formula, Prose

MARK = re.compile(r"(?:^|(?<=[.:;)] )|(?<=[.:;)]  ))(Shapes:|Remembers |Backward\b|Errors:|Takes )", re.MULTILINE)
SECTION = {"Shapes:": "shapes", "Takes ": "shapes", "Remembers ": "derivation", "Backward": "derivation"}
OPTION = re.compile(r"^([A-Za-z_]\w*(?:, [A-Za-z_]\w*)*): (?=\S)")
CITATION = re.compile(r"\b(1[89]|20)\d\d\b")


def docstring(cls: type) -> str:
    """The docstring of the class itself."""
    return inspect.cleandoc(vars(cls).get("__doc__") or "")


def sections(cls: type) -> dict[str, list[Any]]:
    """Blocks of prose and formulas by the name of their section."""
    found: dict[str, list[Any]] = {}
    paragraphs = docstring(cls).split("\n\n")
    begun = False
    for number, paragraph in enumerate(paragraphs):
        last = number == len(paragraphs) - 1
        if last and number and not MARK.match(paragraph) and CITATION.search(paragraph):
            found.setdefault("literature", []).extend(blocks(paragraph))
            continue
        place = "notes" if begun else "equation"
        for part, name in split(paragraph):
            begun = begun or name in ("Shapes:", "Backward")
            found.setdefault(SECTION.get(name, "errors") if name else place, []).extend(blocks(part))
    return found


def split(paragraph: str) -> list[tuple[str, str]]:
    """(text, the word that it begins with or nothing) for each part of a paragraph."""
    cuts = [0, *(match.start() for match in MARK.finditer(paragraph)), len(paragraph)]
    parts = []
    for begin, end in zip(cuts, cuts[1:], strict=False):
        text = paragraph[begin:end].rstrip()
        mark = MARK.match(text)
        if text.strip():
            parts.append((capital(re.sub(r"^(Shapes|Backward|Errors): ", "", text)), mark[1] if mark else ""))
    return parts


def capital(text: str) -> str:
    """A sentence begins with a capital letter, a formula does not."""
    return text[0].upper() + text[1:] if re.match(r"(a|an|as|at|by|in|of|[a-z]{3,}) (?!=)", text) else text


def blocks(text: str) -> list[Any]:
    """Prose where lines go on, a formula where they are indented, an option where they begin with its name."""
    lines = text.split("\n")
    if all(line.startswith("    ") or not line for line in lines):
        return [Formula(textwrap.dedent(text).split("\n"))]
    found: list[Any] = []
    for line in lines:
        before = found[-1] if found else None
        option = OPTION.match(line)
        if line.startswith("    "):
            if isinstance(before, Prose) and before.option:
                before.text += " " + line.strip()
            elif isinstance(before, Formula):
                if len(line) - len(line.lstrip()) > 8:  # the formula above goes on
                    before.lines[-1] += " " + line.strip()
                else:
                    before.lines.append(line.strip())
            else:
                found.append(Formula([line.strip()]))
        elif option and option[1] not in ("Shapes", "Backward", "Errors"):
            found.append(Prose(line[option.end() :], option[1]))
        elif isinstance(before, Prose):
            before.text += " " + line.strip()
        else:
            found.append(Prose(line.strip()))
    return found
