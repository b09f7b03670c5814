"""All workloads in the order of the table."""

from . import digit_net, images, inference, mlp, recurrent, transformer
from .common import FLOORS, OTHERS, SIDES, Workload

TABLE: list[Workload] = [
    workload for part in (digit_net, mlp, images, recurrent, transformer, inference) for workload in part.WORKLOADS
]
SCALING: dict[str, list[tuple[int, Workload]]] = mlp.SCALING
WORKLOADS: dict[str, Workload] = {w.name: w for w in TABLE} | {w.name: w for a in SCALING.values() for _, w in a}

__all__ = ["FLOORS", "OTHERS", "SCALING", "SIDES", "TABLE", "WORKLOADS", "Workload"]
