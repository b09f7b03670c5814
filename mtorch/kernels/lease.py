"""NumPy arrays whose memory is taken up again once nobody refers to them.

The C library gives large blocks back to the system, and their fresh pages cost more at the next step than the work
done in them. A leased array behaves as any other; only its memory is reused, when the last view of it is gone.
"""

import math
import sys
import threading

import numpy

SMALLEST = 1 << 15  # bytes; the C library keeps smaller blocks itself
MOST = 32  # blocks that a thread keeps

_local = threading.local()


def empty(shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
    """As numpy.empty."""
    size = math.prod(shape) * dtype.itemsize
    if size < SMALLEST:
        return numpy.empty(shape, dtype)
    blocks = _local.__dict__.setdefault("blocks", [])
    spare = None
    for position, references in enumerate(_references(blocks)):
        if references == _UNUSED:
            if size <= blocks[position].size <= 2 * size:
                return blocks[position][:size].view(dtype).reshape(shape)
            spare = position
    block = numpy.empty(size, numpy.uint8)
    if len(blocks) < MOST:
        blocks.append(block)
    elif spare is not None:
        blocks[spare] = block
    return block.view(dtype).reshape(shape)


def _references(blocks: list[numpy.ndarray]) -> list[int]:
    return [sys.getrefcount(block) for block in blocks]


_UNUSED = _references([numpy.empty(0)])[0]
