"""Ink on paper: how much of it each pixel of a photograph holds, whatever the light, the colours and the noise.

1. A narrow blur averages noise away.
2. A first guess at the paper is the median of a wide neighbourhood, since most of a page is paper. What differs from it
   most is ink. Colours have three axes, and ink lies along one line through them: the direction of largest variation,
   the first principal component. It points to the side with the larger third moment, since ink is rarer than paper.
   So it is known for each channel whether ink darkens it or lightens it.
3. The paper of a channel that ink darkens is its closing: the least, over all windows that hold the pixel, of the
   window's largest value. A window wider than a stroke always holds some paper, so strokes vanish, and light that fades
   and the edges of shadows stay where they are. A channel that ink lightens is treated upside down.
4. Where less light falls, ink and paper differ less, in proportion. The difference is divided by the light.
5. Of the pixels that are less than half as dark as the darkest, most are paper: their median is the zero. No ink lies
   below it, so that side tells the noise: a normal variable is within 0.6745 of its standard deviation half the time.

Closing: Serra, "Image Analysis and Mathematical Morphology", 1982.
"""

from functools import lru_cache

import numpy

SIDE = 200  # the working copy has as many pixels as a square of this side
BLUR = 1.2  # standard deviation, in pixels of the working copy
WINDOW = 0.45  # of the side: wider than any stroke
DARK = 0.05  # added to the light, so that black paper divides by something


def ink_of(colours: numpy.ndarray) -> tuple[numpy.ndarray, float]:
    """(C, H, W), 0 … 1 -> the ink (H, W), and its standard deviation where there is none."""
    colours = blurred(colours, BLUR)
    darkens = direction_of(colours - wide_median(colours)) < 0
    upright = numpy.where(darkens[:, None, None], colours, 1 - colours)
    paper = closed(upright)
    light = numpy.where(darkens[:, None, None], paper, 1 - paper).mean(axis=0) + DARK
    difference = (upright - paper) * numpy.clip(numpy.median(light) / light, 0.25, 4)
    amount = numpy.tensordot(direction_of(difference), difference, 1)
    amount -= numpy.median(amount[amount <= amount.max() / 2])
    return amount, float(-numpy.median(amount[amount <= 0])) / 0.6745


def direction_of(difference: numpy.ndarray) -> numpy.ndarray:
    """The direction (C,) in which ink differs from paper, from differences (C, H, W)."""
    flat = difference.reshape(len(difference), -1)
    size = (flat**2).sum(axis=0)
    strong = flat[:, size >= size.max() / 4]
    direction = numpy.linalg.eigh(strong @ strong.T)[1][:, -1]
    return direction if ((direction @ flat) ** 3).sum() >= 0 else -direction


def wide_median(planes: numpy.ndarray) -> numpy.ndarray:
    """The median over windows more than half as wide as the picture, made on a coarse copy."""
    reach, step = 12, 5
    coarse = resized(planes, *(max(1, length // step) for length in planes.shape[1:]))
    padded = numpy.pad(coarse, ((0, 0), (reach, reach), (reach, reach)), mode="median", stat_length=reach)
    windows = numpy.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1,) * 2, axis=(1, 2))
    return resized(numpy.median(windows[..., ::4, ::4], axis=(-2, -1)), *planes.shape[1:])


def closed(planes: numpy.ndarray) -> numpy.ndarray:
    """The closing of each plane, made on a copy of half the size."""
    half = resized(planes, *(max(1, length // 2) for length in planes.shape[1:]))
    reach = round(WINDOW * SIDE / 4)
    padded = numpy.pad(half, ((0, 0), (2 * reach, 2 * reach), (2 * reach, 2 * reach)), mode="edge")
    for extreme in (numpy.maximum, numpy.minimum):
        for axis in (1, 2):
            padded = over_windows(extreme, padded, 2 * reach + 1, axis)
    return resized(padded, *planes.shape[1:])


def over_windows(extreme: numpy.ufunc, planes: numpy.ndarray, width: int, axis: int) -> numpy.ndarray:
    """The extreme over each whole window along an axis, in a logarithmic number of steps: windows are made of two."""
    reached = 1
    while reached < width:
        step = min(reached, width - reached)
        length = planes.shape[axis] - step
        planes = extreme(planes.take(range(length), axis), planes.take(range(step, step + length), axis))
        reached += step
    return planes


def blurred(planes: numpy.ndarray, deviation: float) -> numpy.ndarray:
    """(..., H, W): averages with the weights of a normal distribution."""
    down, across = (normal(length, deviation) for length in planes.shape[-2:])
    return down @ planes @ across.T


def resized(planes: numpy.ndarray, height: int, width: int) -> numpy.ndarray:
    """(..., H, W) by straight lines between pixels; averaged where there are more than are wanted."""
    return tent(planes.shape[-2], height) @ planes @ tent(planes.shape[-1], width).T


@lru_cache(maxsize=16)
def normal(length: int, deviation: float) -> numpy.ndarray:
    places = numpy.arange(length)
    return rows_of_one(numpy.exp(-0.5 * ((places - places[:, None]) / deviation) ** 2))


@lru_cache(maxsize=16)
def tent(length: int, wanted: int) -> numpy.ndarray:
    step = length / wanted
    centres = (numpy.arange(wanted) + 0.5) * step
    distance = abs(numpy.arange(length) + 0.5 - centres[:, None]) / max(1.0, step)
    return rows_of_one(numpy.maximum(1 - distance, 0))


def rows_of_one(weights: numpy.ndarray) -> numpy.ndarray:
    """Each row of the weights divided by its sum."""
    return (weights / weights.sum(axis=1, keepdims=True)).astype(numpy.float32)
