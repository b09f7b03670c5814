"""The BLAS that NumPy has loaded: its name, the processor that it has chosen its kernels for, its threads."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy

ENDS = ("64_", "")  # of the names in libraries with integers of 64 bits, and of others


def openblas(name: str) -> Any:
    """That function of the OpenBLAS that NumPy has loaded, in whichever way its build spells it; None if there is none.

    It is called through ctypes and not through threadpoolctl: that would cost a dependency for three functions.
    """
    return _function("PyDLL", (f"{prefix}_{name}{end}" for prefix in ("scipy_openblas", "openblas") for end in ENDS))


def cblas(name: str) -> Any:
    """The same for a function that computes; other threads of Python go on meanwhile."""
    return _function("CDLL", (f"{prefix}_{name}{end}" for prefix in ("scipy_cblas", "cblas") for end in ENDS))


def _function(library: str, names: Iterable[str]) -> Any:
    with suppress(ImportError, AttributeError, OSError):  # a browser loads no library
        import ctypes

        loaded = getattr(ctypes, library)(sys.modules["numpy._core._multiarray_umath"].__file__)
        return next(filter(None, (getattr(loaded, name, None) for name in names)), None)
    return None


def _text_of(name: str) -> str:
    """What a function of OpenBLAS that returns a text says; "" where there is none."""
    function = openblas(name)
    if function is None:
        return ""
    import ctypes

    function.restype = ctypes.c_char_p
    return function().decode()


@cache
def kernel() -> str:
    """The kind of processor that OpenBLAS has chosen its kernels for, such as "Zen"; "" for another BLAS."""
    return _text_of("get_corename")


@cache
def version() -> str:
    """Name and version of the BLAS, such as "OpenBLAS 0.3.30"; "" where NumPy does not tell."""
    words = _text_of("get_config").split()[:2]
    if words:
        return " ".join(words)
    with suppress(AttributeError, KeyError, TypeError):
        built: Any = numpy.show_config(mode="dicts")
        found = built["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}".removesuffix(" unknown")
    return ""
