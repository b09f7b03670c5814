"""The floor of a step: its matrix products alone, into arrays that exist already.

A product is (kind, m, k, n, count), as BLAS sees it: "nn" (m, k) (k, n), "nt" with the second factor transposed as
x W^T has it, "tn" with the first as g^T x has it. Sizes are those of one product over all rows (unrolled columns for a
convolution); Winograd's trick would need fewer.
"""

import numpy as np

from .common import normal

Product = tuple[str, int, int, int, int]


def alone(products: list[Product]):
    work = []
    for kind, m, k, n, count in products:
        a = normal(k, m).T if kind == "tn" else normal(m, k)
        b = normal(n, k).T if kind == "nt" else normal(k, n)
        work.append((a, b, np.empty((m, n), np.float32), count))

    def step():
        for a, b, out, count in work:
            for _ in range(count):
                a.dot(b, out)
        return 0.0

    return step


def linear(rows: int, d: int, h: int, input_grad: bool = True, count: int = 1) -> list[Product]:
    """y = x W^T, dW = g^T x and, where it is wanted, dx = g W, `count` times."""
    found = [("nt", rows, d, h, count), ("tn", h, rows, d, count)]
    return [*found, ("nn", rows, h, d, count)] if input_grad else found


def chain(rows: int, widths: tuple[int, ...], input_grad: bool = False) -> list[Product]:
    """All layers of a dense net."""
    pairs = zip(widths, widths[1:], strict=False)
    return [p for i, (d, h) in enumerate(pairs) for p in linear(rows, d, h, input_grad or i > 0)]


def conv(n: int, c: int, o: int, k: int, side: int, input_grad: bool = True) -> list[Product]:
    """A convolution with outputs of side x side."""
    return linear(n * side * side, c * k * k, o, input_grad)


def recurrent(gates: int, t: int, n: int, d: int, h: int) -> list[Product]:
    """All steps of the input and of the weight gradients together, the state step by step; a Linear on every step."""
    return [*linear(t * n, d, gates * h, False), ("nt", n, h, gates * h, t), ("nn", n, gates * h, h, t),
            ("tn", gates * h, t * n, h, 1), *linear(t * n, h, d)]


def attention(t: int, n: int, e: int, heads: int) -> list[Product]:
    """Projections, scores, weighted values, and the gradients of each."""
    w = e // heads
    scores, values = linear(t, w, t, count=n * heads), linear(t, t, w, count=n * heads)
    return [*linear(t * n, e, 3 * e), *scores, *values, *linear(t * n, e, e)]
