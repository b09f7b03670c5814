"""Ruled lines, taken out of the ink of a picture without a gap in the strokes that cross them."""

import numpy

SLOPES = numpy.linspace(-0.1, 0.1, 21)


def without_lines(ink: numpy.ndarray, least: float) -> numpy.ndarray:
    """The ink (H, W) without level and without upright lines; what is fainter than `least` is none."""
    return without_level_lines(without_level_lines(ink, least).T, least).T


def without_level_lines(ink: numpy.ndarray, least: float) -> numpy.ndarray:
    """Lines that go from edge to edge, a little aslant at most.

    1. The picture is sheared so that lines become rows: by the slope at which the sums of rows differ most.
    2. A row is a line's where there is ink in each fifth of it; the line is as dark as the fifth with least.
    3. Lines are ruled if they are thinner than half a stroke, or three at least that go on beyond all else there is.
       The bar of a seven that fills the picture is neither.
    4. Under a line of darkness d, ink i had been (i - d) / (1 - d). Under a line as dark as ink it had been what the
       ink above and below the line both have.
    """
    height, width = ink.shape
    shear = level_rows(ink, least)
    level = numpy.take_along_axis(ink, shear, axis=0)
    fifths = numpy.array([numpy.median(part, axis=1) for part in numpy.array_split(level, 5, axis=1)])
    line, usual = fifths.min(axis=0), numpy.median(fifths, axis=0)
    runs = runs_of(line > least)
    if not runs:
        return ink
    most, rest, thick = level.max(), level.copy(), 0.0
    for start, end in runs:
        around = usual[max(start - 9, 0) : end + 9].clip(0)
        thick = max(thick, float(around.sum() / around.max()))
        first, last = max(start - 2, 0), min(end + 2, height)
        beside = [level[row] for row in (first - 1, last) if 0 <= row < height] or [numpy.zeros(width)]
        dark = numpy.median(level[first:last], axis=1, keepdims=True).clip(0, most) / most
        under = (level[first:last] - most * dark) / (1 - dark).clip(0.3)
        rest[first:last] = numpy.maximum(numpy.minimum.reduce(beside), numpy.where(dark < 0.7, under, 0))
    if not (thick < stroke(rest) / 2 or (len(runs) > 2 and spread(rest) < width / 2)):
        return ink
    result = ink.copy()
    numpy.put_along_axis(result, shear, rest, axis=0)
    return result


def level_rows(ink: numpy.ndarray, least: float) -> numpy.ndarray:
    """For each pixel of the sheared picture (H, W), the row of the picture that it is taken from."""
    height, width = ink.shape
    column, row, few = numpy.arange(width), numpy.arange(height)[:, None], ink[:, ::4].clip(-least, 4 * least)

    def rows(slope: float, every: int = 1) -> numpy.ndarray:
        shift = numpy.rint(slope * (column[::every] - width / 2)).astype(int)
        return (row + shift).clip(0, height - 1)

    def difference(slope: float) -> float:
        sums = numpy.take_along_axis(few, rows(slope, 4), axis=0).sum(axis=1)
        return float((numpy.diff(sums) ** 2).sum())

    return rows(max(SLOPES, key=difference))


def runs_of(on: numpy.ndarray) -> list[tuple[int, int]]:
    """Start and end of each run of True."""
    edges = numpy.flatnonzero(numpy.diff(numpy.pad(on, 1).astype(numpy.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def stroke(ink: numpy.ndarray) -> float:
    """About the width of a stroke: the mean length of runs of ink, level or upright, whichever is less."""
    on = numpy.pad(ink > ink.max() / 2, 1)
    ends = [(numpy.diff(on.astype(numpy.int8), axis=axis) == 1).sum() for axis in (0, 1)]
    return float(on.sum() / max(ends)) if on.any() else 0.0


def spread(ink: numpy.ndarray) -> int:
    """The width of the columns that hold the middle four fifths of the ink."""
    share = numpy.cumsum(ink.clip(0).sum(axis=0))
    first, last = numpy.searchsorted(share, [0.1 * share[-1], 0.9 * share[-1]])
    return int(last - first)
