"""What recurrent layers take: x, (state, x) or (state, x, lengths); checked, and brought into one form."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value
from mtorch.deferred import defer_error
from mtorch.errors import ShapeMismatchError

if TYPE_CHECKING:
    from mtorch.layers.recurrent import RecurrentLayer

Parts = tuple[Array, ...]


def split(layer: "RecurrentLayer", value: Value) -> tuple[Value, Array, Array | None]:
    """(state or None, x, lengths or None)."""
    if not isinstance(value, tuple):
        return None, value, None
    if len(value) not in (2, 3) or value[1] is None or isinstance(value[1], tuple):
        got = f"a tuple of {len(value)}: {arrays.shape_value(value)}"
        raise ShapeMismatchError(layer, f"expected x, (state, x) or (state, x, lengths), got {got}")
    return value if len(value) == 3 else (*value, None)


def time_major(layer: "RecurrentLayer", x: Array) -> Array:
    """x as (T, N, D)."""
    steps = 1 if layer.batch_first else 0
    if x.ndim != 3 or x.shape[2] != layer.in_dim or not x.shape[steps]:
        axes = "N, T" if layer.batch_first else "T, N"
        raise ShapeMismatchError(layer, f"expected input of shape ({axes}, {layer.in_dim}) with T >= 1, got {x.shape}")
    return x.transpose(1, 0, 2) if layer.batch_first else x


def check_lengths(layer: "RecurrentLayer", lengths: Array, steps: int, batch: int) -> None:
    """One integer in [1, T] for each sequence. On a device a wrong one is noted, and raised at the next host read."""
    if lengths.dtype.kind not in "iu":
        raise TypeError(f"{layer!r} expected integer lengths, got dtype {lengths.dtype}")
    if lengths.shape != (batch,):
        raise ShapeMismatchError(layer, f"expected lengths of shape {(batch,)}, got {lengths.shape}")
    wrong = ((lengths < 1) | (lengths > steps)).any()
    text = f"{layer!r} expected lengths from 1 to {steps}"
    if arrays.array_module(lengths) is not numpy:
        defer_error(layer, text, wrong)
    elif wrong:
        raise ValueError(f"{text}, got {lengths.tolist()}")


def as_lengths(layer: "RecurrentLayer", lengths: object, x: Array) -> Array:
    """Integer lengths on the layer's array module; those on the host are checked before they move."""
    if arrays.array_module(lengths, layer) in (None, numpy):
        lengths = arrays.host_array(lengths, layer)
        check_lengths(layer, lengths, *time_major(layer, x).shape[:2])
    return arrays.as_ids(layer.xp, lengths, layer, "integer lengths")


def stacked(layer: "RecurrentLayer", state: Value, batch: int) -> tuple[Parts, bool]:
    """The arrays of a state as (layers directions, N, H), zeros for None; and whether they came as (N, H)."""
    count, cells = layer.state_arrays, len(layer.suffixes)
    full, flat = (cells, batch, layer.out_dim), (batch, layer.out_dim)
    if state is None:
        return (layer.xp.zeros(full, layer.dtype),) * count, False
    parts = state if isinstance(state, tuple) else (state,)
    if isinstance(state, tuple) == (count > 1) and len(parts) == count:
        shapes = arrays.shape_value(parts)
        if all(shape == full for shape in shapes):
            return parts, False
        if cells == 1 and all(shape == flat for shape in shapes):
            return tuple(part[None] for part in parts), True
    wanted = f"{full}" + (f" or {flat}" if cells == 1 else "")
    wanted = f"a state of shape {wanted}" if count == 1 else f"a state (h, c) of two arrays of shape {wanted}"
    raise ShapeMismatchError(layer, f"expected {wanted}, got {arrays.shape_value(state)}")


def formed(parts: Iterable[Array], flat: bool = False) -> Value:
    """The inverse of `stacked`: one array or a tuple of them, (layers directions, N, H) or (N, H)."""
    parts = tuple(part[0] if flat else part for part in parts)
    return parts[0] if len(parts) == 1 else parts
