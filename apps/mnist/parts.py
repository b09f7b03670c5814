"""Connected parts of a picture."""

from dataclasses import dataclass

import numpy


@dataclass(frozen=True)
class Parts:
    """labels (H, W): the number of the part that a pixel belongs to, -1 for none. The others: one value for each part;
    a part lies in rows top … bottom - 1 and columns left … right - 1."""

    labels: numpy.ndarray
    mass: numpy.ndarray
    top: numpy.ndarray
    bottom: numpy.ndarray
    left: numpy.ndarray
    right: numpy.ndarray


def parts_of(mask: numpy.ndarray, ink: numpy.ndarray) -> Parts:
    """The parts of a mask (H, W), and the ink in each. Pixels that touch belong together, at a corner too.

    Each row is a list of runs. A run is joined with those that it touches in the row above, and every run takes the
    least number of those it is joined with, until nothing changes.
    """
    stride = mask.shape[1] + 2
    steps = numpy.diff(numpy.pad(mask, ((0, 0), (1, 1))).astype(numpy.int8), axis=1)
    row, start = numpy.nonzero(steps == 1)
    end = numpy.nonzero(steps == -1)[1]
    first = numpy.searchsorted(row * stride + end, (row - 1) * stride + start, "left")
    touched = numpy.searchsorted(row * stride + start, (row - 1) * stride + end, "right") - first
    run = numpy.repeat(numpy.arange(len(row)), touched)
    above = numpy.arange(len(run)) - numpy.repeat(numpy.cumsum(touched) - touched, touched) + first[run]
    number = numpy.arange(len(row))
    while (number[run] != number[above]).any():
        a, b = number[run], number[above]
        for each in (a, b):
            numpy.minimum.at(number, each, numpy.minimum(a, b))
        while (number[number] != number).any():
            number = number[number]
    number = numpy.unique(number, return_inverse=True)[1]
    count = int(number.max(initial=-1)) + 1
    labels = numpy.full(mask.shape, -1)
    labels[mask] = numpy.repeat(number, end - start)
    mass = numpy.bincount(labels[mask], weights=ink[mask], minlength=count).astype(float)
    top, left = (numpy.full(count, max(mask.shape)) for _ in range(2))
    bottom, right = (numpy.zeros(count, int) for _ in range(2))
    numpy.minimum.at(top, number, row)
    numpy.maximum.at(bottom, number, row + 1)
    numpy.minimum.at(left, number, start)
    numpy.maximum.at(right, number, end)
    return Parts(labels, mass, top, bottom, left, right)
