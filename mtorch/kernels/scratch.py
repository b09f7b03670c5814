"""Room for the length of one kernel call."""

import math
import threading

import numpy

_buffers = threading.local()


def scratch(name: str, shape: tuple[int, ...], dtype: numpy.dtype) -> numpy.ndarray:
    """An uninitialised NumPy array out of a private buffer of this thread, kept under `name` and grown when needed.

    Fresh pages cost as much as a copy, so a kernel that needs large room for the length of one call takes it here.
    The array is valid until the next request for the same name and never leaves the kernel that asked.
    """
    size = math.prod(shape) * dtype.itemsize
    buffers = _buffers.__dict__
    if name not in buffers or buffers[name].nbytes < size:
        buffers[name] = numpy.empty(size, dtype=numpy.uint8)
    return buffers[name][:size].view(dtype).reshape(shape)
