"""What CuPy asked of the CUDA on the host since the process began: `counts()` before and after a step, and subtract."""

import ctypes

NAMES = ("kernels", "to_device", "to_host", "on_device", "memsets", "products", "waits", "allocations", "compiled")

_library = ctypes.CDLL("libhostcuda.so")
_library.hostcuda_counts.restype = ctypes.POINTER(ctypes.c_long)


def counts() -> dict[str, int]:
    """Launches, copies by direction, products, waits of the host and allocations so far."""
    return dict(zip(NAMES, _library.hostcuda_counts(), strict=False))


def trace(path: str = "") -> None:
    """Writes the name of every launch, copy and wait to that file from now on; "" ends it."""
    _library.hostcuda_trace(path.encode())
