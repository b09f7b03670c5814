"""The BLAS that NumPy has loaded: its name, the processor that it has chosen its kernels for, and its functions."""

import sys
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import Any

import numpy

with suppress(ImportError):  # a browser has none
    import ctypes
    from ctypes import addressof, c_char

ENDS = ("64_", "")  # of the names in libraries with integers of 64 bits, and of others


def openblas(name: str) -> Any:
    """That function of the OpenBLAS that NumPy has loaded, in whichever way its build spells it; None if there is none.

    It is called through ctypes and not through threadpoolctl: that would cost a dependency for four functions.
    """
    return _function("PyDLL", (f"{prefix}_{name}{end}" for prefix in ("scipy_openblas", "openblas") for end in ENDS))


def address(x: Any) -> int:
    """Where the memory of an array begins: x.ctypes.data, in a third of its time where nothing hinders."""
    try:
        return addressof(c_char.from_buffer(x if x.flags.c_contiguous else x.T))
    except (TypeError, ValueError):  # it has gaps, or may not be written
        return x.ctypes.data


@cache
def cblas(name: str, dtype: str, arguments: str) -> Any:
    """That function of CBLAS for numbers of that type, "f" or "d"; None where there is none with integers of 64 bits.

    name: with "?" for the letter of the type. arguments: a letter for each, "e" for a choice, "i" for an integer, "n"
    for a number, "p" for an address. Other threads of Python go on while it computes.
    """
    letter = {"f": "s", "d": "d"}.get(dtype)
    if letter is None:
        return None
    function, gemm = (_of_cblas(each.replace("?", letter)) for each in (name, "?gemm"))
    if function is None or gemm is None or not gemm.__name__.endswith("64_"):  # only of gemm the name surely tells
        return None
    number = {"f": ctypes.c_float, "d": ctypes.c_double}[dtype]
    kinds = {"e": ctypes.c_int, "i": ctypes.c_int64, "n": number, "p": ctypes.c_void_p}
    function.restype, function.argtypes = None, [kinds[argument] for argument in arguments]
    return function


def _of_cblas(name: str) -> Any:
    return _function("CDLL", (f"{prefix}_{name}{end}" for prefix in ("scipy_cblas", "cblas") for end in ENDS))


def _function(loader: str, names: Iterable[str]) -> Any:
    """The first of these functions. A "PyDLL" keeps the interpreter's lock during a call, a "CDLL" lets go of it."""
    with suppress(NameError, AttributeError, OSError):  # a browser loads no library
        loaded = getattr(ctypes, loader)(sys.modules["numpy._core._multiarray_umath"].__file__)
        return next(filter(None, (getattr(loaded, name, None) for name in names)), None)
    return None


def _text_of(name: str) -> str:
    """What a function of OpenBLAS that returns a text says; "" where there is none."""
    function = openblas(name)
    if function is None:
        return ""
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
