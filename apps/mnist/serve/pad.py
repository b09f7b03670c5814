"""What a net sees of a drawing: the same as `predict` sees of a picture of it. It needs no Pillow."""

import base64
import binascii

import numpy

from apps.mnist.ink import SIDE, resized
from apps.mnist.pictures import Box, looked_for
from mtorch.data import as_mnist

FORGOTTEN = 0.05  # of the ink: if the reader of pictures takes more than that for specks, all ink is the digit's
SCAN = 32  # the bitmaps that the built-in scans count the ink of are as large


def ink_from(text: object) -> numpy.ndarray:
    """The ink of the pad, (SIDE, SIDE) uint8, from its bytes in base64. ValueError unless it is that, with some ink."""
    if not isinstance(text, str):
        raise ValueError("expected ink to be a text in base64")
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("expected ink to be a text in base64") from None
    if len(data) != SIDE * SIDE:
        raise ValueError(f"expected ink to be {SIDE} x {SIDE} bytes, got {len(data)}")
    ink = numpy.frombuffer(data, numpy.uint8).reshape(SIDE, SIDE)
    if ink.max() < 8:
        raise ValueError("nothing is drawn")
    return ink


def image_of(ink: numpy.ndarray) -> numpy.ndarray:
    """The digit drawn, ink (H, W) uint8, as MNIST would hold it: (28, 28) uint8."""
    paper = 1 - ink / numpy.float32(255)
    seen = looked_for(lambda box: part_of(paper, box), (ink.shape[1], ink.shape[0]))
    if seen:
        left, top, right, bottom = seen[0].box
        rest = ink.astype(float)
        rest[max(int(top) - 3, 0) : int(bottom) + 4, max(int(left) - 3, 0) : int(right) + 4] = 0
        if rest.sum() <= FORGOTTEN * ink.sum(dtype=float):
            return seen[0].image
    return as_mnist(ink)


def part_of(paper: numpy.ndarray, box: Box) -> numpy.ndarray:
    """A part of a drawing at the size that the reader of pictures works with: (1, H, W)."""
    left, top, right, bottom = (round(edge) for edge in box)
    part = paper[top : max(bottom, top + 1), left : max(right, left + 1)]
    scale = SIDE / (part.shape[0] * part.shape[1]) ** 0.5
    return resized(part, *(max(1, round(length * scale)) for length in part.shape))[None]


def scan_of(image: numpy.ndarray) -> numpy.ndarray:
    """An image (28, 28) as one of the built-in scans, (8, 8), 0 … 16: the digit as high as the bitmap."""
    rows, columns = (numpy.flatnonzero((image > 40).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return numpy.zeros((8, 8), numpy.uint8)
    ink = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] / numpy.float32(255)
    scale = SCAN / max(ink.shape)
    bitmap = resized(ink, *(max(1, round(length * scale)) for length in ink.shape)) > 0.4
    top, left = ((SCAN - length) // 2 for length in bitmap.shape)
    field = numpy.zeros((SCAN, SCAN), numpy.uint8)
    field[top : top + bitmap.shape[0], left : left + bitmap.shape[1]] = bitmap
    return field.reshape(8, 4, 8, 4).sum(axis=(1, 3), dtype=numpy.uint8)
