"""The device of a run: CuPy where a GPU computes, NumPy elsewhere, and in words what is missing."""

import importlib
import textwrap
from functools import cache
from types import ModuleType
from typing import Any, NamedTuple

import numpy

INSTALL = "pip install -e '.[cuda12]' (or cuda13, to match the driver) installs CuPy with CUDA's own parts"
CACHE = "export CUPY_CACHE_DIR=$(mktemp -d)"


class Trouble(NamedTuple):
    """Why CuPy does not compute here, and what helps."""

    reason: str
    fix: str


def module_for(device: str) -> ModuleType:
    """The array module of a device: "cpu" is NumPy, "gpu" CuPy, "auto" CuPy where it computes and NumPy elsewhere.

    RuntimeError with one line that says what is missing when a GPU is asked for and cannot be had.
    """
    if device not in ("cpu", "gpu", "auto"):
        raise ValueError(f"device must be 'cpu', 'gpu' or 'auto', got {device!r}")
    if device == "cpu":
        return numpy
    cupy, trouble = _found()
    if trouble is None:
        return cupy
    if device == "gpu":
        raise RuntimeError(f"no GPU here: {trouble.reason}: {trouble.fix}")
    return numpy


def describe_device(xp: Any, asked: str = "cpu") -> str:
    """The device that `module_for(asked)` took, in words: "NumPy on the CPU, no CUDA driver"."""
    if xp is numpy:
        trouble = _found()[1] if asked == "auto" else None
        return "NumPy on the CPU" + (f", {trouble.reason}" if trouble else "")
    if xp.__name__ != "cupy":
        return xp.__name__
    return f"CuPy on {xp.cuda.runtime.getDeviceProperties(xp.cuda.Device().id)['name'].decode()}"


def check_usable(who: str, xp: Any) -> None:
    """RuntimeError that names the fix if `xp` is CuPy and does not compute here."""
    trouble = trouble_with(xp) if getattr(xp, "__name__", "") == "cupy" else None
    if trouble is not None:
        raise RuntimeError(f"{who} cannot live on CuPy here: {trouble.reason}: {trouble.fix}")


def _found() -> tuple[Any, Trouble | None]:
    """CuPy, and what is wrong with it."""
    try:
        cupy = importlib.import_module("cupy")
    except Exception as error:
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            return None, Trouble("CuPy is not installed", INSTALL)
        if isinstance(error, OSError) and error.filename is not None:  # it makes the folder when it is imported
            return None, Trouble(f"CuPy cannot write its cache of kernels ({_first_line(error)})", CACHE)
        return None, Trouble(f"CuPy does not import ({_first_line(error)})", INSTALL)
    return cupy, trouble_with(cupy)


@cache
def trouble_with(cupy: Any) -> Trouble | None:
    """What keeps CuPy from computing on the current device: believed to be nothing after a product, after a kernel
    that was compiled, and after their results were read.
    """
    step = "reach the driver"
    try:
        if not cupy.cuda.runtime.driverGetVersion():
            return Trouble("no CUDA driver", "install NVIDIA's driver for your GPU, or use NumPy (the device cpu)")
        step = "find a GPU"
        if not cupy.cuda.runtime.getDeviceCount():
            return Trouble("the CUDA driver finds no GPU", "see nvidia-smi and CUDA_VISIBLE_DEVICES")
        step = "multiply matrices"
        x = cupy.asarray(numpy.arange(6, dtype="float32").reshape(2, 3))
        product = x.dot(x.T)
        step = "find NVRTC, CUDA's compiler"  # asked for by itself, because a compiled kernel stays in a cache on disk
        cupy.cuda.nvrtc.getVersion()
        step = "compile a kernel"
        shifted = cupy.ElementwiseKernel("T x", "T y", "y = 2 * x + 1", "mtorch_probe")(product)
        step = "read results back"
        found = shifted.get().tolist()
    except Exception as error:
        if "NoDevice" in str(error):
            return Trouble("the CUDA driver finds no GPU", "see nvidia-smi and CUDA_VISIBLE_DEVICES")
        if "InsufficientDriver" in str(error):
            return Trouble("the CUDA driver is too old for this CuPy", f"update the driver, or {INSTALL}")
        if "OutOfMemory" in type(error).__name__ or "MemoryAllocation" in str(error):
            return Trouble(
                f"the GPU has no memory left ({_first_line(error)})", "nvidia-smi shows which program holds it"
            )
        if isinstance(error, OSError) and error.filename is not None and step == "compile a kernel":
            return Trouble(f"CuPy cannot write its cache of kernels ({_first_line(error)})", CACHE)
        return Trouble(f"CuPy cannot {step} ({_first_line(error)})", INSTALL)
    if found != [[11, 29], [29, 101]]:
        return Trouble(f"CuPy computes wrong numbers ({found})", INSTALL)
    return None


def _first_line(error: Exception) -> str:
    return textwrap.shorten(str(error).partition("\n")[0], 100, placeholder=" …") or type(error).__name__
