"""All workloads in the order of the table."""

import fnmatch
from collections.abc import Iterable

from . import digit_net, images, inference, mlp, recurrent, transformer
from .common import FLOORS, OTHERS, PARTS, SIDES, Workload

TABLE: list[Workload] = [
    workload for part in (digit_net, mlp, images, recurrent, transformer, inference) for workload in part.WORKLOADS
]
SCALING: dict[str, list[tuple[int, Workload]]] = mlp.SCALING
WORKLOADS: dict[str, Workload] = {w.name: w for w in TABLE} | {w.name: w for a in SCALING.values() for _, w in a}


def matching(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The names that one of the shell patterns matches."""
    patterns = list(patterns)
    return [name for name in names if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]


def unknown(patterns: Iterable[str], names: Iterable[str]) -> list[str]:
    """The patterns that match none of the names."""
    names = list(names)
    return [pattern for pattern in patterns if not matching([pattern], names)]


__all__ = ["FLOORS", "OTHERS", "PARTS", "SCALING", "SIDES", "TABLE", "WORKLOADS", "Workload", "matching", "unknown"]
