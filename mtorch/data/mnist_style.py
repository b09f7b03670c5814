"""Any picture of one digit brought to 28 x 28 the way MNIST was made.

The ink is cut out, scaled into a box of 20 x 20 with its proportions kept and its edges anti-aliased, and put into a
field of 28 x 28 so that its centre of mass lies in pixel (14, 14), counted from 0, as it does in MNIST.

LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998, section III.A.
"""

from functools import lru_cache
from typing import Any

import numpy

from mtorch.arrays import as_data

FIELD, BOX = 28, 20
INK = 0.02  # of full scale: what is fainter is paper


def as_mnist(image: Any) -> numpy.ndarray:
    """(H, W) light ink on dark ground, 0 … 255 -> (28, 28) uint8. Without any ink the field stays empty."""
    image = as_data(image, "as_mnist")
    if image.ndim != 2 or not image.size or image.dtype.kind not in "fiu" or not numpy.isfinite(image).all():
        raise ValueError(f"as_mnist expected a picture (H, W) of grey values, got {image.dtype} of shape {image.shape}")
    return centred(fitted(numpy.clip(image / 255.0, 0.0, 1.0)))


def fitted(image: numpy.ndarray) -> numpy.ndarray:
    """The ink of a picture (H, W), 0 … 1, scaled into the box: its longer side becomes 20 pixels."""
    rows, columns = (numpy.flatnonzero((image > INK).any(axis=axis)) for axis in (1, 0))
    if not rows.size:
        return numpy.zeros((1, 1))
    ink = image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    longer = max(ink.shape)
    height, width = (max(1, round(side * BOX / longer)) for side in ink.shape)
    return _resampling(ink.shape[0], height) @ ink @ _resampling(ink.shape[1], width).T


def centred(ink: numpy.ndarray) -> numpy.ndarray:
    """Ink 0 … 1 of at most 28 x 28 in a field (28, 28) uint8, its centre of mass at pixel (14, 14), or near it."""
    field = numpy.zeros((FIELD, FIELD), numpy.uint8)
    mass = ink.sum()
    if mass > 0:
        top, left = (_offset(ink.sum(axis=1 - axis), mass) for axis in (0, 1))
        field[top : top + ink.shape[0], left : left + ink.shape[1]] = numpy.rint(ink * 255)
    return field


def _offset(profile: numpy.ndarray, mass: float) -> int:
    centre = float(profile @ numpy.arange(len(profile))) / float(mass)
    return min(max(round(FIELD / 2 - centre), 0), FIELD - len(profile))


@lru_cache(maxsize=256)
def _resampling(size: int, wanted: int) -> numpy.ndarray:
    """(wanted, size): each new pixel is an average of old ones under a triangle, as wide as the wider of both pixels.

    The picture is taken to go on as paper beyond its edges.
    """
    step = size / wanted
    reach = max(1.0, step)
    centres = (numpy.arange(wanted) + 0.5) * step
    pixels = numpy.arange(size) + 0.5
    edge = int(reach) + 1
    around = numpy.arange(-edge, size + edge) + 0.5
    total = _triangle((around - centres[:, None]) / reach).sum(axis=1, keepdims=True)
    return _triangle((pixels - centres[:, None]) / reach) / total


def _triangle(t: numpy.ndarray) -> numpy.ndarray:
    return numpy.maximum(1.0 - abs(t), 0.0)
