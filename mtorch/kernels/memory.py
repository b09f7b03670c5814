"""Where large NumPy arrays get their memory.

The system hands out fresh memory page by page and clears each: for an array that is written once and read twice that
costs as much as a pass over it.  Training asks for the same shapes in every step, so memory is used again here: for
results as soon as nobody holds them (`empty`, `empty_like`), for the room that a kernel needs within one call at once
(`scratch`).

Blocks are cut one after the other from slabs, which NumPy asks the system to put into pages of 2 MiB (Linux obliges):
a pass over many megabytes then spends little time on finding its pages.
"""

import math
import sys
import threading
from types import ModuleType

import numpy

from mtorch.arrays import Array, is_numpy

LARGE = 1 << 16  # bytes from which on asking the system costs more than looking here
LIMIT = 1 << 28  # bytes beyond which idle blocks are given back to the system
SLAB, PAGE, LINE = 1 << 25, 1 << 21, 1 << 6  # bytes


class _Memory(threading.local):
    """What one thread has: results by size and dtype, as vectors; scratch by name; the rest of a slab."""

    def __init__(self):
        self.results: dict[tuple, list[numpy.ndarray]] = {}
        self.scratch: dict[str, numpy.ndarray] = {}
        self.rest = memoryview(b"")

    def cut(self, size: int, dtype: numpy.dtype) -> numpy.ndarray:
        """A vector of that many entries from the slab. As its owner is no array, views of it keep it alive itself."""
        count = size * dtype.itemsize
        if len(self.rest) < count:
            slab = numpy.empty(max(SLAB, count) + PAGE, numpy.uint8)
            self.rest = memoryview(slab)[-slab.ctypes.data % PAGE :]
        block, self.rest = self.rest[:count], self.rest[-(-count // LINE) * LINE :]
        return numpy.frombuffer(block, dtype)


_memory = _Memory()


def _references(blocks: list[numpy.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


# What `_references` says of a block that only its list holds. A view of a block keeps it alive, and a view of that view
# keeps the same block: as long as anything can reach the memory the count is higher.
_IDLE = _references([numpy.empty(1)])[0]


def empty(shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
    """An uninitialised C-ordered array, as numpy.empty; a large one in memory that an earlier one has left."""
    size = math.prod(shape)
    if size * dtype.itemsize < LARGE:
        return numpy.empty(shape, dtype)
    results = _memory.results
    blocks = results.setdefault((size, dtype), [])
    counts = _references(blocks)
    if _IDLE in counts:
        return blocks[counts.index(_IDLE)].reshape(shape)
    if sum(block.nbytes for each in results.values() for block in each) > LIMIT:
        for each in results.values():
            each[:] = [block for block, count in zip(each, _references(each), strict=True) if count > _IDLE]
    blocks.append(_memory.cut(size, dtype))
    return blocks[-1].reshape(shape)


def empty_on(xp: ModuleType, shape: tuple[int, ...], dtype: numpy.dtype) -> Array:
    """An uninitialised C-ordered array of any array module."""
    return empty(shape, dtype) if is_numpy(xp) else xp.empty(shape, dtype)


def empty_like(
    xp: ModuleType, x: Array, dtype: numpy.dtype | None = None, shape: tuple[int, ...] | None = None
) -> Array:
    """An uninitialised array in the memory order of x, on any array module; shape and dtype too are those of x unless
    given. A shape has as many axes as x.
    """
    shape, dtype = x.shape if shape is None else shape, dtype or x.dtype
    if not is_numpy(xp) or math.prod(shape) * dtype.itemsize < LARGE:
        return xp.empty_like(x, dtype=dtype, shape=shape)
    order = sorted(range(x.ndim), key=lambda axis: -x.strides[axis])
    block = empty(tuple(shape[axis] for axis in order), dtype)
    return block.transpose(sorted(range(x.ndim), key=order.__getitem__))


def spare_or_new(xp: ModuleType, x: Array, spare: Array | None) -> Array:
    """`spare` where it lies in memory as x does, else `empty_like(xp, x)`."""
    fits = spare is not None and spare.shape == x.shape and spare.strides == x.strides and spare.dtype == x.dtype
    return spare if fits else empty_like(xp, x)


def scratch(name: str, shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
    """An uninitialised array for the length of one kernel call, out of a buffer that is kept under `name`.

    It is valid until the next request for the same name and never leaves the kernel that asked.
    """
    size = math.prod(shape) * dtype.itemsize
    buffers = _memory.scratch
    if name not in buffers or buffers[name].nbytes < size:
        buffers[name] = numpy.empty(size, dtype=numpy.uint8)
    return buffers[name][:size].view(dtype).reshape(shape)
