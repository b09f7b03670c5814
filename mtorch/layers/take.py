"""Entries of each row by integer ids."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, shape_value
from mtorch.deferred import defer_error
from mtorch.errors import ShapeMismatchError
from mtorch.guards import NO_ARRAY
from mtorch.layer import Layer


class Take(Layer):
    """y_n = x[n, i_n] of a tuple (x, ids): from each row of x the entry that its id names, as in q[n, action[n]].

    Shapes: x (..., K) and ids (...,) of integers in [0, K) -> y (...,); ids (..., M) give M entries of each row,
    y (..., M).  Remembers the ids.

    Backward: dx is 0 but for the entries that were read, each of which gets the g of its copy, an entry that was read
    several times their sum; ids have none (None).

    Errors: TypeError for ids that are no integers, ValueError for an id outside [0, K). Ids that are on a device
    already are not waited for: their entries become NaN, and the next read on the host (`loss.value`) raises.
    """

    takes = ("floats", "ids")

    def __init__(self, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)

    def cast_input(self, x: Any) -> Any:
        if (
            isinstance(x, tuple)
            and len(x) == 2
            and arrays.array_module(x[1], self) in (None, numpy)
            and x[1] is not None
        ):
            ids = arrays.as_ids(numpy, x[1], self)  # on the host still: checked before they move
            if getattr(x[0], "ndim", 0):
                self._check_host(ids, x[0].shape[-1])
            x = x[0], ids
        return super().cast_input(x)

    def _check_host(self, ids: Array, size: int) -> None:
        if ids.size and not (0 <= ids.min() and ids.max() < size):
            wrong = ids[(ids < 0) | (ids >= size)].ravel()[0]
            raise ValueError(f"{self!r} expected ids in [0, {size}), got {wrong}")

    def forward(self, x: tuple[Array, Array]) -> Array:
        if x.__class__ is not tuple or len(x) != 2 or any(part.__class__ in NO_ARRAY for part in x):
            raise ShapeMismatchError(self, f"expected a tuple (x, ids) of arrays, got {shape_value(x)}")
        xp, (values, ids) = self.xp, x
        if ids.dtype.kind not in "iu":
            raise TypeError(f"{self!r} expected integer ids, got dtype {ids.dtype}")
        if not values.ndim or values.shape[:-1] != ids.shape[: values.ndim - 1] or ids.ndim > values.ndim:
            lead = ", ".join(map(str, values.shape[:-1]))
            wanted = f"ids of shape {values.shape[:-1]} or ({lead}, M) for x of shape {values.shape}"
            raise ShapeMismatchError(self, f"expected {wanted}, got {ids.shape}")
        size, outside = values.shape[-1], None
        if arrays.is_numpy(xp):
            self._check_host(ids, size)
        else:
            outside = (ids < 0) | (ids >= size)
            defer_error(self, f"{self!r} expected ids in [0, {size}), got one outside", outside.any())
            ids = xp.where(outside, 0, ids)
        several = ids.ndim == values.ndim
        each = ids.shape[-1] if several else 1
        rows = values.size // size if size else 0
        at = (xp.arange(rows)[:, None] * size + ids.reshape(rows, each)).reshape(-1)  # in x as one vector
        y = values.reshape(-1).take(at).reshape(ids.shape)
        self.remember(values.shape, at, several)
        return arrays.as_array(xp, y if outside is None else xp.where(outside, float("nan"), y))

    def backward(self, output_grad: Array) -> tuple[Array, None]:
        g = self.cast_grad(output_grad).reshape(-1)
        shape, at, several = self.recall()
        dx = self.xp.zeros(shape, g.dtype)
        if several:
            arrays.scatter_add(self.xp, dx.reshape(-1), at, g)  # in forward this was y_n = x[at_n]
        else:
            dx.reshape(-1)[at] = g
        return dx, None

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        def value(shape, ids):
            return lambda xp, rng: (xp.asarray(rng.standard_normal(shape)), xp.asarray(ids))

        yield cls(xp=xp, dtype=dtype), value((4, 3), [2, 0, 1, 2])
        yield cls(xp=xp, dtype=dtype), value((2, 2, 3), [[0, 2], [1, 1]])
        yield cls(xp=xp, dtype=dtype), value((2, 4), [[0, 3, 3], [2, 1, 2]])
        yield cls(xp=xp, dtype=dtype), value((5,), 3)
