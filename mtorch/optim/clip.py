"""Clipping of gradients, entry by entry and by the norm of all together."""

from types import ModuleType

import numpy

from mtorch.arrays import Array, widened


def clip(
    xp: ModuleType, grads: list[Array], bound: float | None, norm: float | None
) -> tuple[list[Array], Array | None]:
    """g := min(max(g, -bound), bound), then g := g * min(1, norm / (|g| + 1e-6)) with the norm |g| over all of them.

    Returns the gradients, and |g| where it was measured.

    Pascanu, Mikolov & Bengio, "On the difficulty of training recurrent neural networks", 2013, arXiv:1211.5063.
    """
    if bound is not None:
        grads = [xp.clip(g, -bound, bound) for g in grads]
    if norm is None or not any(g.size for g in grads):
        return grads, None
    measured = global_norm(xp, grads)
    factor = xp.minimum(norm / (measured + 1e-6), 1.0)
    return [(widened(g) * factor).astype(g.dtype, copy=False) for g in grads], measured


def global_norm(xp: ModuleType, grads: list[Array]) -> Array:
    """The root of the sum of all squares, of entries divided by the largest one, so that no square overflows."""
    info = numpy.finfo(grads[0].dtype)
    largest = xp.stack([xp.maximum(g.max(), -g.min()) for g in grads if g.size]).max()
    largest = xp.clip(largest, info.tiny, info.max)
    scaled = [(widened(g) / largest).reshape(-1) for g in grads]
    return largest * xp.sqrt(sum(z.dot(z) for z in scaled))
