"""The floor of a step in NumPy: its matrix products alone, into arrays that exist already, and the passes beside them.

A product is (m, k, n, count): (m, k) @ (k, n), so many times. Each is made in the memory order of its factors and its
result in which BLAS is fastest here, whether a net could have them in that order or not. Winograd's trick would need
fewer multiplications.

The passes are what no way of writing the step in NumPy can leave out: every ufunc reads its arguments and writes its
result. They are counted in copies, a copy of an entry being one read and one write, and made as copies, each between
arrays of its own.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import product

import numpy as np

from .common import normal

Product = tuple[int, int, int, int]


def alone(products: list[Product]):
    work = [(fastest(m, k, n), count) for m, k, n, count in products]

    def step():
        for multiply, count in work:
            for _ in range(count):
                multiply()
        return 0.0

    return step


def fastest(m: int, k: int, n: int) -> Callable[[], np.ndarray]:
    """The product in the order of memory that is quickest, by the best of three calls after a first one."""
    forms = []
    for a, b in product((normal(m, k), normal(k, m).T), (normal(k, n), normal(n, k).T)):
        forms.append(partial(a.dot, b, np.empty((m, n), np.float32)))
        forms.append(partial(b.T.dot, a.T, np.empty((n, m), np.float32)))
    return min(forms, key=seconds)


def seconds(function: Callable[[], object]) -> float:
    function()
    found = []
    for _ in range(3):
        start = time.perf_counter()
        function()
        found.append(time.perf_counter() - start)
    return min(found)


def copies(entries: list[float]):
    """For each pass a copy of that many entries."""
    work = [(normal(round(n)), np.empty(round(n), np.float32)) for n in entries]

    def step():
        for source, target in work:
            np.copyto(target, source)
        return 0.0

    return step


RELU = 1 + 1.5  # forward reads x and writes y; backward reads y and g and writes dx
ADD = 1.5 + 1.5
POOL = 0.625 + 0.625  # of 2 x 2: four are read for one that is written, and the other way round
NORM = 0.5 + 1 + 0.5 + 1 + 1 + 1.5  # mean, x - mean, variance, y; two sums over g, dx
SGD, ADAM = 1.5, 3.5  # g, value -> value; g, m, v, value -> m, v, value


def conv_passes(n: int, c: int, k: int, side: int, input_grad: bool = True) -> list[float]:
    """An image is unrolled along one axis, k copies of it written, forward and backward, and added up from k for dx."""
    return [(1 + k) / 2 * n * c * side * side] * (3 if input_grad else 2)


def linear(rows: int, d: int, h: int, input_grad: bool = True, count: int = 1) -> list[Product]:
    """y = x W^T, dW = g^T x and, where it is wanted, dx = g W, `count` times."""
    found = [(rows, d, h, count), (h, rows, d, count)]
    return [*found, (rows, h, d, count)] if input_grad else found


def chain(rows: int, widths: tuple[int, ...], input_grad: bool = False) -> list[Product]:
    """All layers of a dense net."""
    pairs = zip(widths, widths[1:], strict=False)
    return [p for i, (d, h) in enumerate(pairs) for p in linear(rows, d, h, input_grad or i > 0)]


def conv(n: int, c: int, o: int, k: int, side: int, input_grad: bool = True) -> list[Product]:
    """A convolution with outputs of side x side, one row of the whole batch at a time, which is what is fastest."""
    columns, depth = n * side, c * k * k
    found = [(o, depth, columns, side), (depth, columns, o, side)]
    return [*found, (depth, o, columns, side)] if input_grad else found


def recurrent(gates: int, t: int, n: int, d: int, h: int) -> list[Product]:
    """All steps of the input and of the weight gradients together, the state step by step; a Linear on every step."""
    return [
        *linear(t * n, d, gates * h, False),
        (n, h, gates * h, t),
        (n, gates * h, h, t),
        (gates * h, t * n, h, 1),
        *linear(t * n, h, d),
    ]


def recurrent_passes(gates: int, t: int, n: int, d: int, h: int) -> list[float]:
    """Gates are computed from sums and kept, states move on, gradients of the sums come from what was kept; update."""
    return [2.5 * gates * t * n * h, 2.0 * t * n * h, SGD * gates * h * (d + h)]


def attention(t: int, n: int, e: int, heads: int) -> list[Product]:
    """Projections, scores, weighted values, and the gradients of each."""
    w = e // heads
    scores, values = linear(t, w, t, count=n * heads), linear(t, t, w, count=n * heads)
    return [*linear(t * n, e, 3 * e), *scores, *values, *linear(t * n, e, e)]
