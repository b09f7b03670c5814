"""Picture files as the digits in them, each as MNIST would hold it."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy

from apps.mnist.digits import Digit, digits_of
from apps.mnist.ink import SIDE, ink_of
from mtorch.data import as_mnist

CLOSE = 0.3  # of the working copy's side: a digit that is smaller is looked at from nearer
LOOKS = 3
Box = tuple[float, float, float, float]  # left, top, right, bottom, in pixels of the picture


@dataclass(frozen=True)
class Seen:
    """A digit in a picture: where it is, and what a net sees of it, (28, 28) uint8."""

    image: numpy.ndarray
    box: Box


def read_picture(path: Path) -> numpy.ndarray:
    """A picture of one digit, dark on light or light on dark, as MNIST would hold it: (28, 28) uint8."""
    return digits_in(open_picture(path), path)[0].image


def open_picture(path: Path) -> Any:
    """The picture in a file, upright; a Pillow image. Raises one line about a file that holds none."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise RuntimeError("reading pictures needs Pillow: pip install -e '.[plot]'") from None
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd transparency or EXIF
            with Image.open(path) as picture:
                picture.load()
                return ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that can be read (PNG and the like)") from None
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is damaged or too large: {error}") from None


def digits_in(picture: Any, name: Any = "the picture", several: bool = False) -> list[Seen]:
    """The digits in a Pillow image: the one with most ink, or with `several` all of a row, from left to right.

    All steps work on a copy of about 200 x 200 pixels. If the digits are small in it, the part of the picture that
    holds them is copied anew, and so on. Raises ValueError if there is none.
    """
    for paper in ("white", "black"):  # what shows through where the picture is transparent
        plain = without_transparency(picture, paper)
        found = looked_for(partial(working_copy, plain), plain.size, several)
        if found:
            return found
    raise ValueError(f"{name} shows no digit: the picture is blank")


def looked_for(copy: Callable[[Box], numpy.ndarray], size: tuple[int, int], several: bool = False) -> list[Seen]:
    """The digits in a picture of that size (width, height), of which `copy(box)` is a working copy (C, H, W), 0 … 1."""
    box: Box = (0, 0, *size)
    found: list[Digit] = []
    boxes: list[Box] = []
    for _ in range(LOOKS):
        colours = copy(box)
        found = digits_of(*ink_of(colours), several)
        if not found:
            break
        pixel = (box[2] - box[0]) / colours.shape[2], (box[3] - box[1]) / colours.shape[1]
        boxes = [
            (box[0] + d.left * pixel[0], box[1] + d.top * pixel[1],
             box[0] + d.right * pixel[0], box[1] + d.bottom * pixel[1]) for d in found
        ]  # fmt: skip
        if max(digit.size for digit in found) > CLOSE * SIDE:
            break
        box = nearer(boxes, size)
    return [Seen(as_mnist(255 * digit.ink), box) for digit, box in zip(found, boxes, strict=False)]


def nearer(boxes: list[Box], size: tuple[int, int]) -> Box:
    """The part of a picture that holds all the boxes, and some paper around them."""
    edges = numpy.array(boxes)
    around = 0.6 * float((edges[:, 2:] - edges[:, :2]).max())
    left, top = numpy.maximum(edges[:, :2].min(axis=0) - around, 0)
    right, bottom = numpy.minimum(edges[:, 2:].max(axis=0) + around, size)
    return float(left), float(top), float(right), float(bottom)


def working_copy(picture: Any, box: Box) -> numpy.ndarray:
    """A part of a picture at the size that the steps are made for: (C, H, W), 0 … 1."""
    from PIL import Image

    width, height = box[2] - box[0], box[3] - box[1]
    scale = min(SIDE / (width * height) ** 0.5, 5 * SIDE / max(width, height))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    copy = picture.resize(size, Image.Resampling.BICUBIC, box=box, reducing_gap=2.0)
    values = numpy.asarray(copy, dtype=numpy.float32)
    return values[None] if values.ndim == 2 else numpy.moveaxis(values, 2, 0) / numpy.float32(255)


def without_transparency(picture: Any, paper: str) -> Any:
    """The picture in three channels of 8 bits, or in one of floats from 0 to 1 if its values are no bytes."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":
        return Image.fromarray(full_scale(numpy.asarray(picture)))
    if picture.mode not in ("L", "LA", "PA", "P", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture.convert("RGB")
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, paper), picture).convert("RGB")


def full_scale(values: numpy.ndarray) -> numpy.ndarray:
    """Numbers of any range, such as 12 bits in a file for 16, as float32 from 0 to 1.

    A pixel in five thousand may be darker than 0 or brighter than 1: it may be broken. What is not a number is taken
    for the median, which is paper.
    """
    values = numpy.array(values, dtype=numpy.float64)
    finite = numpy.isfinite(values)
    if not finite.any():
        return numpy.zeros(values.shape, numpy.float32)
    values[~finite] = numpy.median(values[finite])
    least, most = (float(each) for each in numpy.quantile(values, [0.0002, 0.9998]))
    return numpy.clip((values - least) / ((most - least) or 1.0), 0, 1).astype(numpy.float32)
