"""Lets the C library keep freed memory.

The system hands out fresh memory page by page and clears each page: for an array that is written once and read twice
that costs as much as a pass over it. Training asks for the same sizes in every step, but the GNU C library returns
large arrays, and the free end of its heap, to the system at once. Told to keep them, it hands them out again.
"""

import os
from contextlib import suppress

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # the names of these options in malloc.h
KEPT = 1 << 28  # bytes of free memory at the end of the heap beyond which they are returned
LARGEST = 1 << 25  # bytes up to which an array comes from the heap: the most that the library allows


def keep_freed_memory() -> bool:
    """Sets the options, unless the environment does; whether this system has them."""
    if "GLIBC_TUNABLES" in os.environ or "MALLOC_TRIM_THRESHOLD_" in os.environ:
        return False
    with suppress(ImportError, AttributeError, OSError):  # another C library, or a browser
        import ctypes

        mallopt = ctypes.CDLL(None).mallopt
        return bool(mallopt(TRIM_THRESHOLD, KEPT) and mallopt(MMAP_THRESHOLD, LARGEST))
    return False
