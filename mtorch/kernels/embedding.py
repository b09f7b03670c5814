"""Rows of a table by id, and the way back, where ids repeat."""

from types import ModuleType

import numpy

from mtorch.arrays import Array, is_numpy, scatter_add


def add_rows(xp: ModuleType, table: Array, ids: Array, rows: Array) -> None:
    """table[ids[m]] += rows[m] for all m, repeated ids accumulating: ids (M,), rows (M, E), table (V, E)."""
    if not is_numpy(xp):
        scatter_add(xp, table, ids, rows)
    elif len(ids):
        order = numpy.argsort(ids, kind="stable")
        ranked = ids[order]
        starts = numpy.flatnonzero(numpy.r_[True, ranked[1:] != ranked[:-1]])
        table[ranked[starts]] += numpy.add.reduceat(rows[order], starts, axis=0)
