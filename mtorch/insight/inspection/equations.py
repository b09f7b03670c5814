"""What a layer's docstring says about its forward and its backward."""

import inspect
import re
from typing import Any, NamedTuple

from mtorch import layers
from mtorch.layer import Layer
from mtorch.layers.recurrent import Cell


class Equations(NamedTuple):
    forward: str
    backward: str
    remembers: str


def equations(layer: Layer) -> Equations:
    """The first paragraph of the docstring, what follows "Backward", and the sentence on what is remembered."""
    kind: Any = type(layer)
    if isinstance(layer, Cell):
        kind = getattr(layers, kind.__name__.removesuffix("Cell"), kind)  # the equations of a cell are its layer's
    text = next((c.__doc__ for c in kind.__mro__ if c.__doc__ and issubclass(c, Layer) and c is not Layer), "") or ""
    text = re.sub(r"\w+://\S+", "", inspect.cleandoc(text)).replace("`", "")
    forward = re.split(r"\n\n|(?:^|\s)(?:Backward\b|Remembers |Shapes:)", text, maxsplit=1)[0]
    backward = re.search(r"Backward\b:?\s*(.*?)(?:\n\n|$)", text, re.DOTALL)
    remembers = re.search(r"Remembers ([^.]*(?:\.\d[^.]*)*)\.", text)
    return Equations(
        _flowing(forward),
        _flowing(re.split(r"\s{2,}Errors:", backward[1])[0]) if backward else "",
        " ".join(remembers[1].split()) if remembers else "",
    )


def _flowing(text: str) -> str:
    """The text with each of its sentences in one line; indented lines, which are equations, stay."""
    lines: list[str] = []
    for line in text.strip(" ,\n").split("\n"):
        if lines and not line.startswith(" ") and not lines[-1].startswith(" "):
            lines[-1] += f" {line}"
        else:
            lines.append(line)
    return "\n".join([lines[0][:1].upper() + lines[0][1:], *lines[1:]] if text.startswith(",") else lines)
