"""Digits as a hand draws them: strokes in a unit square, for tests and for the picture of the page to draw on.

`drawn(digit, variant)` gives the strokes of one way to write a digit, `scribble` one that is larger or smaller,
elsewhere, aslant and shaky; `inked` rasters strokes as a round pen does. `python tools/strokes.py` says how many of
1,000 such digits each model of `serve` reads.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy

Strokes = list[numpy.ndarray]  # each (points, 2): x to the right and y down, 0 … 1

# For each digit, ways to write it: strokes of points, "~" before those that a curve goes through.
WAYS: dict[int, list[list[tuple[str, list[tuple[float, float]]]]]] = {
    0: [
        [("~", [(0.52, 0.02), (0.25, 0.15), (0.15, 0.5), (0.26, 0.86), (0.5, 0.98), (0.75, 0.85), (0.85, 0.5),
                (0.75, 0.14), (0.52, 0.02)])],
        [("~", [(0.6, 0.05), (0.35, 0.1), (0.2, 0.55), (0.3, 0.92), (0.5, 0.97), (0.7, 0.8), (0.77, 0.4), (0.66, 0.08),
                (0.5, 0.04)])],
    ],
    1: [
        [("-", [(0.52, 0.0), (0.48, 1.0)])],
        [("-", [(0.3, 0.25), (0.55, 0.0), (0.55, 1.0)])],
    ],
    2: [
        [("~", [(0.18, 0.24), (0.32, 0.04), (0.6, 0.02), (0.78, 0.2), (0.7, 0.45), (0.42, 0.75), (0.15, 0.98)]),
         ("-", [(0.15, 0.98), (0.85, 0.96)])],
        [("~", [(0.2, 0.2), (0.45, 0.0), (0.75, 0.15), (0.65, 0.5), (0.35, 0.9), (0.2, 0.9), (0.3, 0.78), (0.55, 0.9),
                (0.85, 0.95)])],
    ],
    3: [
        [("~", [(0.2, 0.1), (0.5, 0.0), (0.75, 0.15), (0.68, 0.38), (0.42, 0.48)]),
         ("~", [(0.42, 0.48), (0.75, 0.56), (0.82, 0.78), (0.6, 0.98), (0.3, 0.98), (0.15, 0.86)])],
        [("~", [(0.22, 0.15), (0.4, 0.02), (0.7, 0.08), (0.7, 0.35), (0.45, 0.46), (0.72, 0.56), (0.78, 0.82),
                (0.5, 1.0), (0.2, 0.9)])],
    ],
    4: [
        [("-", [(0.35, 0.02), (0.15, 0.58), (0.85, 0.56)]), ("-", [(0.66, 0.28), (0.62, 1.0)])],
        [("-", [(0.62, 1.0), (0.66, 0.02), (0.12, 0.66), (0.88, 0.66)])],
    ],
    5: [
        [("-", [(0.28, 0.03), (0.24, 0.44)]),
         ("~", [(0.24, 0.44), (0.5, 0.38), (0.76, 0.54), (0.74, 0.84), (0.48, 0.99), (0.18, 0.9)]),
         ("-", [(0.28, 0.03), (0.78, 0.02)])],
        [("-", [(0.8, 0.02), (0.3, 0.04), (0.22, 0.46)]),
         ("~", [(0.22, 0.46), (0.55, 0.42), (0.78, 0.66), (0.6, 0.94), (0.2, 0.96)])],
    ],
    6: [
        [("~", [(0.66, 0.02), (0.38, 0.2), (0.2, 0.58), (0.25, 0.88), (0.5, 1.0), (0.76, 0.86), (0.74, 0.6),
                (0.5, 0.5), (0.24, 0.68)])],
        [("~", [(0.55, 0.0), (0.3, 0.4), (0.22, 0.75), (0.38, 0.98), (0.64, 0.94), (0.72, 0.72), (0.52, 0.58),
                (0.26, 0.72)])],
    ],
    7: [
        [("-", [(0.14, 0.04), (0.84, 0.02), (0.42, 1.0)])],
        [("-", [(0.14, 0.06), (0.82, 0.02), (0.44, 1.0)]), ("-", [(0.34, 0.5), (0.78, 0.48)])],
    ],
    8: [
        [("~", [(0.72, 0.14), (0.5, 0.02), (0.28, 0.14), (0.32, 0.36), (0.66, 0.6), (0.74, 0.84), (0.5, 0.99),
                (0.25, 0.84), (0.34, 0.6), (0.66, 0.38), (0.72, 0.14)])],
        [("~", [(0.5, 0.02), (0.3, 0.1), (0.28, 0.34), (0.5, 0.46), (0.7, 0.34), (0.7, 0.1), (0.5, 0.02)]),
         ("~", [(0.5, 0.46), (0.24, 0.6), (0.24, 0.86), (0.5, 0.99), (0.76, 0.86), (0.76, 0.6), (0.5, 0.46)])],
    ],
    9: [
        [("~", [(0.74, 0.2), (0.5, 0.02), (0.26, 0.2), (0.32, 0.46), (0.58, 0.48), (0.74, 0.22)]),
         ("-", [(0.74, 0.22), (0.66, 1.0)])],
        [("~", [(0.74, 0.18), (0.52, 0.02), (0.25, 0.18), (0.3, 0.44), (0.55, 0.5), (0.73, 0.3), (0.74, 0.18),
                (0.74, 0.6), (0.62, 0.92), (0.35, 0.96)])],
    ],
}  # fmt: skip


def drawn(digit: int, variant: int = 0) -> Strokes:
    """The strokes of one way to write a digit, as many points as a hand at ease leaves."""
    return [curve(points) if kind == "~" else line(points) for kind, points in WAYS[digit][variant]]


def line(corners: Sequence[tuple[float, float]], step: float = 0.04) -> numpy.ndarray:
    """Points along straight lines from corner to corner."""
    parts = []
    for a, b in zip(numpy.array(corners[:-1]), numpy.array(corners[1:]), strict=True):
        count = max(2, round(float(numpy.hypot(*(b - a))) / step))
        parts.append(a + (b - a) * numpy.linspace(0, 1, count, endpoint=False)[:, None])
    return numpy.concatenate([*parts, numpy.array(corners[-1:])])


def curve(through: Sequence[tuple[float, float]], each: int = 6) -> numpy.ndarray:
    """Points along a smooth curve through the given ones: a Catmull-Rom spline."""
    p = numpy.array(through)
    p = numpy.concatenate([2 * p[:1] - p[1:2], p, 2 * p[-1:] - p[-2:-1]])
    t = numpy.linspace(0, 1, each, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        parts.append(((-a + 3 * b - 3 * c + d) * t**3 + (2 * a - 5 * b + 4 * c - d) * t**2 + (c - a) * t + 2 * b) / 2)
    return numpy.concatenate([*parts, p[-2:-1]])


def scribble(digit: int, variant: int, rng: numpy.random.Generator) -> Strokes:
    """The same, 40 to 90 % of the square high, somewhere in it, wider or narrower, aslant, and with a shaky hand."""
    size, wide = rng.uniform(0.4, 0.9), rng.uniform(0.7, 1.1)
    turn, slant = rng.normal(0, 0.1), rng.normal(0, 0.12)
    left, top = rng.uniform(0.04, 0.96 - size, 2)
    matrix = numpy.array([[wide, slant], [0, 1]]).T @ numpy.array(
        [[numpy.cos(turn), numpy.sin(turn)], [-numpy.sin(turn), numpy.cos(turn)]]
    )
    result = []
    for stroke in drawn(digit, variant):
        shake = numpy.cumsum(rng.normal(0, 0.006, stroke.shape), axis=0)
        points = (stroke - 0.5 + shake + rng.normal(0, 0.008, 2)) @ matrix + 0.5
        result.append((points * size + (left, top)).clip(0.02, 0.98))
    return result


def inked(strokes: Strokes, side: int = 140, pen: float = 0.075) -> numpy.ndarray:
    """(side, side) uint8: the strokes of a round pen, as wide as that share of the side; edges are smooth."""
    rows, columns = numpy.mgrid[:side, :side] + 0.5
    nearest = numpy.full((side, side), numpy.inf)
    for stroke in strokes:
        points = stroke * side
        for (ax, ay), (bx, by) in zip(points, points[1:] if len(points) > 1 else points, strict=False):
            dx, dy = bx - ax, by - ay
            along = ((columns - ax) * dx + (rows - ay) * dy) / max(dx * dx + dy * dy, 1e-12)
            along = along.clip(0, 1)
            numpy.minimum(nearest, numpy.hypot(columns - ax - along * dx, rows - ay - along * dy), out=nearest)
    return numpy.rint(255 * (pen * side / 2 + 0.5 - nearest).clip(0, 1)).astype(numpy.uint8)


def sample(
    count: int, seed: int = 0, side: int = 140, pens: tuple[float, float] = (0.05, 0.09)
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """That many scribbled digits and their labels; every digit and every way to write it as often."""
    rng = numpy.random.default_rng(seed)
    labels = numpy.arange(count) % 10
    images = [
        inked(scribble(int(d), number // 10 % len(WAYS[int(d)]), rng), side, rng.uniform(*pens))
        for number, d in enumerate(labels)
    ]
    return numpy.stack(images), labels


def main() -> None:
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from apps.mnist.ink import SIDE
    from apps.mnist.serve.models import Models
    from apps.mnist.serve.pad import image_of

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", default="runs/mnist", help="the folder that serve was given (%(default)s)")
    parser.add_argument("--data", default="auto", help="what nets are trained on where that was not done yet")
    parser.add_argument("--count", type=int, default=1000, help="so many scribbled digits (%(default)s)")
    args = parser.parse_args()
    models = Models(Path(args.out), data=args.data)
    models.start()
    models.thread.join()
    images, labels = sample(args.count, seed=1, side=SIDE)
    seen = numpy.stack([image_of(image) for image in images])
    print("model   right    0    1    2    3    4    5    6    7    8    9")
    for name, model in models.loaded.items():
        guesses = numpy.array([model.answer(image).argmax() for image in seen])
        each = "".join(f"{(guesses[labels == digit] == digit).mean():5.0%}" for digit in range(10))
        print(f"{name:6} {(guesses == labels).mean():6.1%} {each}")


if __name__ == "__main__":
    main()
