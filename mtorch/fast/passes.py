"""Elementwise passes over large arrays: in blocks that stay in cache, and by all threads while BLAS is held to one."""

from collections.abc import Callable

from mtorch.arrays import LARGE_BLOCK, Array
from mtorch.fast import threads

OPERATIONS = 8  # of a product, that take as long as a pass over one entry


def passes_in_threads(function: Callable[[range], None], count: int, entries: int) -> None:
    """function(range) for ranges that divide range(count); `entries` counts those of all its passes together."""
    if threads.blas_is_held():
        threads.in_threads(function, count, OPERATIONS * entries)
    else:
        function(range(count))


def in_blocks(function: Callable[[slice], None], count: int, size: int, passes: int) -> None:
    """function(slice) for slices that divide range(count), which stands for `size` entries."""
    step = max(1, LARGE_BLOCK * count // max(size, 1))
    if count <= step:
        function(slice(0, count))
        return

    def work(part: range) -> None:
        for start in range(part.start, part.stop, step):
            function(slice(start, min(start + step, part.stop)))

    passes_in_threads(work, count, passes * size)


def entrywise(passes: int, function: Callable[..., None], *arrays: Array) -> None:
    """function(*blocks), which makes so many passes, for blocks of NumPy arrays of one shape.

    The blocks are vectors. Arrays that do not share a dense memory order are one block as they are.
    """
    first = arrays[0]
    if first.size <= LARGE_BLOCK or any(a.strides != first.strides for a in arrays):
        function(*arrays)
        return
    order = sorted(range(first.ndim), key=lambda axis: -first.strides[axis])
    if not first.transpose(order).flags.c_contiguous:
        function(*arrays)
        return
    flat = [a.transpose(order).reshape(-1) for a in arrays]
    in_blocks(lambda block: function(*[a[block] for a in flat]), first.size, first.size, passes)
