"""What stands around an image before a window slides over it: zeros, or entries of the image itself; and the transpose.

Along an axis of n entries, place i outside of 0, ..., n - 1 shows

    zeros       0,
    reflect     x[-i] before the image, x[2 (n - 1) - i] behind it: the edge is a mirror and is not repeated,
    replicate   the nearest edge,
    circular    x[i mod n].

Every shown entry is a copy, so the transpose adds what came to a copy to the entry it shows.
"""

from collections.abc import Iterator
from types import ModuleType

from mtorch.arrays import Array
from mtorch.math.windows import Pair

MODES = ("zeros", "reflect", "replicate", "circular")
Sides = tuple[Pair, ...]  # how many entries before and behind, for each axis from axis 2 on


def pad(xp: ModuleType, image: Array, sides: Sides, mode: str) -> Array:
    """(N, C, H, W) -> (N, C, top + H + bottom, left + W + right)."""
    for axis, (before, behind) in enumerate(sides, start=2):
        n = image.shape[axis]
        shape = (*image.shape[:axis], before + n + behind, *image.shape[axis + 1 :])
        padded = xp.zeros(shape, image.dtype)
        padded[_at(axis, slice(before, before + n))] = image
        for place, i in _copies(n, before, behind, mode):
            padded[_at(axis, place)] = image[_at(axis, i)]
        image = padded
    return image


def pad_grad(g: Array, sides: Sides, mode: str) -> Array:
    """(N, C, top + H + bottom, left + W + right) -> (N, C, H, W)."""
    for axis in range(len(sides) + 1, 1, -1):
        before, behind = sides[axis - 2]
        n = g.shape[axis] - before - behind
        dx = g[_at(axis, slice(before, before + n))].copy()
        for place, i in _copies(n, before, behind, mode):
            dx[_at(axis, i)] += g[_at(axis, place)]  # in pad this was padded[place] = image[i]
        g = dx
    return g


def _copies(n: int, before: int, behind: int, mode: str) -> Iterator[tuple[int, int]]:
    """(place in the padded axis, the entry it shows) for all places that show an entry of the image once more."""
    for i in (*range(-before, 0), *range(n, n + behind)) if mode != "zeros" else ():
        if mode == "reflect":
            shown = -i if i < 0 else 2 * (n - 1) - i
        elif mode == "replicate":
            shown = 0 if i < 0 else n - 1
        else:
            shown = i % n
        yield before + i, shown


def _at(axis: int, entries: slice | int) -> tuple[slice | int, ...]:
    return (slice(None),) * axis + (entries,)
