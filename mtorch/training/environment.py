"""What decides the bits of a run beside its seed: a checkpoint records it, and a resumed run says what differs."""

import os
import platform
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import numpy

from mtorch import blas
from mtorch.accelerate import ENABLED
from mtorch.checks import plain
from mtorch.devices import describe_device

UNKNOWN = "unknown"


def environment(xp: Any = numpy) -> dict[str, str]:
    """Versions, system, BLAS with kernel and threads, NumPy's vector instructions, mtorch's fast bodies, as text.

    With another array module than NumPy also its version and the device. What cannot be asked is "unknown".
    """
    from mtorch import __version__

    found = {
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "mtorch": __version__,
        "system": f"{platform.system()} {platform.machine()}".strip(),
        "blas": blas.version(),
        "kernel": blas.kernel(),
        "threads": _threads(),
        "simd": _simd(),
        "fast": "on" if ENABLED else "off",
    }
    if xp is not numpy:
        found |= {xp.__name__: str(getattr(xp, "__version__", "")), "device": describe_device(xp)}
    return {name: text or UNKNOWN for name, text in found.items()}


def differences(before: Mapping[str, Any], now: Mapping[str, str]) -> str:
    """What differs between two environments, in one line: "numpy 2.3.1, was 2.2.0; threads 2, was 8"; "" if nothing."""
    names = [*now, *(name for name in ("cupy", "device") if name in before and name not in now)]
    pairs = [(name, now.get(name, "none"), plain(before.get(name, UNKNOWN), 60)) for name in names]
    return "; ".join(f"{name} {here}, was {there}" for name, here, there in pairs if here != there)


def _threads() -> str:
    count = blas.openblas("get_num_threads")
    return os.environ.get("OMP_NUM_THREADS", "") if count is None else str(count())


def _simd() -> str:
    """The newest instructions that NumPy's own loops use here: they decide the last bit of tanh and exp."""
    with suppress(AttributeError, KeyError, TypeError, IndexError):
        built: Any = numpy.show_config(mode="dicts")
        return built["SIMD Extensions"]["found"][-1]
    return ""
