"""A sheet of pictures, each beside what the net saw in it."""

from pathlib import Path
from typing import Any

import numpy

from apps.mnist.pictures import Seen, full_scale
from mtorch.checkpoint import write_atomically

HIGH, GAP = 140, 12  # pixels of the sheet
FOUND = "#c1121f"


def save_sheet(path: Path, pictures: list[Any], found: list[list[Seen]], guesses: list[list[int]]) -> None:
    """One row a picture: the picture with a box around each digit, then each digit as the net saw it, and its guess."""
    from PIL import Image, ImageDraw

    rows = [drawn(picture, seen) for picture, seen in zip(pictures, found, strict=True)]
    wide = max(row.width + len(seen) * (HIGH + GAP) for row, seen in zip(rows, found, strict=True)) + 2 * GAP
    sheet = Image.new("RGB", (wide, len(rows) * (HIGH + 2 * GAP) + GAP), "white")
    pen = ImageDraw.Draw(sheet)
    for number, (row, seen, guess) in enumerate(zip(rows, found, guesses, strict=True)):
        top, left = GAP + number * (HIGH + 2 * GAP), GAP
        sheet.paste(row, (left, top))
        left += row.width + GAP
        for digit, answer in zip(seen, guess, strict=True):
            small = Image.fromarray(255 - digit.image)
            sheet.paste(small.resize((HIGH, HIGH), Image.Resampling.NEAREST), (left, top))
            pen.rectangle((left, top, left + HIGH - 1, top + HIGH - 1), outline="silver")
            pen.text((left + 4, top + HIGH), str(answer), fill="black")
            left += HIGH + GAP
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: sheet.save(file, "PNG"))


def drawn(picture: Any, seen: list[Seen]) -> Any:
    """The picture at the height of a row, a box around each digit."""
    from PIL import Image, ImageDraw

    if picture.mode.startswith("I") or picture.mode == "F":
        picture = Image.fromarray(numpy.rint(255 * full_scale(numpy.asarray(picture))).astype(numpy.uint8))
    scale = HIGH / picture.height
    small = picture.convert("RGBA").resize((max(1, round(picture.width * scale)), HIGH), reducing_gap=2.0)
    result = Image.new("RGB", small.size, "white")
    result.paste(small, mask=small)
    pen = ImageDraw.Draw(result)
    for digit in seen:
        pen.rectangle([round(edge * scale) for edge in digit.box], outline=FOUND)
    return result
