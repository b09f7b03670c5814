"""Which ink of a picture is a digit's: the strokes that belong together, without specks and frames."""

from dataclasses import dataclass

import numpy

from apps.mnist.ink import blurred
from apps.mnist.lines import without_lines
from apps.mnist.parts import Parts, parts_of

LEAST = 0.03  # of full scale: what differs less from paper is paper
SPECK = 0.04  # of a digit's ink: a part with less is a speck
NEAR = 0.15  # of a digit's size: parts closer than that belong to it


@dataclass(frozen=True)
class Digit:
    """ink: (H, W), 0 … 1, of this digit alone, which lies in rows top … bottom - 1 and columns left … right - 1."""

    ink: numpy.ndarray
    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> int:
        return max(self.bottom - self.top, self.right - self.left)


def digits_of(ink: numpy.ndarray, noise: float, several: bool = False) -> list[Digit]:
    """The digits in the ink (H, W) of a picture, from left to right; with `several` False the one that has most ink.

    A first threshold lies above the noise; it finds the digit, and how dark its strokes are. The second lies at a share
    of that darkness, so that shadows and grain stay below it.
    """
    ink = without_lines(ink, max(4 * noise, LEAST)) if min(ink.shape) >= 20 else ink
    dark, found, weight = 0.0, None, numpy.zeros(0)
    for quantile in (0.9, 0.8):
        found = parts_of(ink > max(5 * noise, LEAST, 0.35 * dark), ink)
        weight = weights(found)
        if not weight.any():
            return []
        dark = float(numpy.quantile(ink[found.labels == weight.argmax()], quantile))
        if dark < 2 * LEAST:
            return []
    faint = max(3 * noise / dark, 0.06)
    soft = numpy.clip((ink / dark - faint) / (1 - faint), 0, 1)
    return [cut_out(soft, found, members) for members in groups(found, weight, several)]


def weights(found: Parts) -> numpy.ndarray:
    """How much each part counts as a digit: its ink; none for a speck or a frame, little for what an edge cuts off."""
    height, width = found.labels.shape
    size = numpy.maximum(found.bottom - found.top, found.right - found.left)
    at_edge = (found.top == 0) | (found.left == 0) | (found.bottom == height) | (found.right == width)
    weight = found.mass * numpy.where(at_edge, 0.2, 1)
    weight[size < 0.025 * max(height, width)] = 0
    for part in numpy.flatnonzero((size > max(height, width) / 2) & (weight > 0)):
        if is_frame(found, part, weight):
            weight[part] = 0
    return weight


def is_frame(found: Parts, part: int, weight: numpy.ndarray) -> bool:
    """A frame is empty in its middle but for other ink."""
    top, bottom, left, right = (int(edge[part]) for edge in (found.top, found.bottom, found.left, found.right))
    inside = (found.top > top) & (found.bottom < bottom) & (found.left > left) & (found.right < right)
    down, across = (bottom - top) // 4, (right - left) // 4
    middle = found.labels[top + down : bottom - down, left + across : right - across]
    return bool((weight[inside] > 0.05 * weight[part]).any() and (middle == part).mean() < 0.02)


def groups(found: Parts, weight: numpy.ndarray, several: bool) -> list[numpy.ndarray]:
    """The parts of each digit. A digit has a large part, its head; smaller parts near it belong to it."""
    main = int(weight.argmax())
    tall = found.bottom - found.top
    heads = [main]
    if several:
        wanted = (tall > 0.5 * tall[main]) & (tall < 2 * tall[main]) & (weight > 0.08 * weight[main])
        heads = sorted(numpy.flatnonzero(wanted), key=lambda part: found.left[part] + found.right[part])
    result = []
    for head in heads:
        reach = NEAR * max(tall[head], found.right[head] - found.left[head])
        near = gap(found, head) < (reach / 2 if several else reach)
        own = near & (weight > SPECK * weight[head])
        own[[other for other in heads if other != head]] = False
        own[head] = True
        result.append(numpy.flatnonzero(own))
    return result


def gap(found: Parts, part: int) -> numpy.ndarray:
    """How far each part's box is from this one's, the larger of both directions."""
    down = numpy.maximum(found.top - found.bottom[part], found.top[part] - found.bottom)
    across = numpy.maximum(found.left - found.right[part], found.left[part] - found.right)
    return numpy.maximum(down, across)


def cut_out(soft: numpy.ndarray, found: Parts, members: numpy.ndarray) -> Digit:
    """The ink of some parts and of their soft edges, which reach a little beyond them."""
    top, bottom = int(found.top[members].min()), int(found.bottom[members].max())
    left, right = int(found.left[members].min()), int(found.right[members].max())
    edge = max(bottom - top, right - left) / 50
    around = blurred(numpy.isin(found.labels, members).astype(numpy.float32), edge) > 0.03
    return Digit(soft * around, top, bottom, left, right)
