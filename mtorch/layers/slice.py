"""Parts of an array by a NumPy index."""

import operator
from collections.abc import Iterator
from types import EllipsisType, ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import check_integer, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer

Entry = slice | int | None | EllipsisType | numpy.ndarray


def read_index(index: Any) -> tuple[Entry, ...]:
    """The entries of an index, each a slice, an int, None, Ellipsis or a host array of integers or booleans."""
    entries = tuple(_read_entry(entry) for entry in (index if isinstance(index, tuple) else (index,)))
    if sum(entry is Ellipsis for entry in entries) > 1:
        raise ValueError(f"Slice expected at most one Ellipsis, got {shown(index)}")
    if len(entries) > arrays.DEEPEST:
        raise ValueError(f"Slice expected an index of at most {arrays.DEEPEST} entries, got {len(entries)}")
    return entries


def _read_entry(entry: Any) -> Entry:
    if entry is None or entry is Ellipsis:
        return entry
    if isinstance(entry, slice):
        try:
            return slice(*(None if n is None else operator.index(n) for n in (entry.start, entry.stop, entry.step)))
        except TypeError:
            raise TypeError(f"Slice expected integers in a slice of its index, got {shown(entry)}") from None
    if isinstance(entry, int | numpy.integer) and not isinstance(entry, bool):
        return check_integer("Slice", "index", entry)
    if isinstance(entry, list) or arrays.array_module(entry, "Slice index:"):
        found = arrays.host_array(entry, "Slice index:").copy()
        if found.size == 0:
            found = found.astype("int64")
        if found.dtype.kind in "iub" and (found.ndim or found.dtype.kind != "b"):
            return found
    raise TypeError(
        f"Slice expected as index slices, integers, lists or arrays of integers, ... or None, got {shown(entry)}"
    )


def _axes_taken(entry: Entry) -> int:
    if isinstance(entry, numpy.ndarray) and entry.dtype.kind == "b":
        return entry.ndim
    return 0 if entry is None or entry is Ellipsis else 1


def _is_within(entry: Entry, sizes: tuple[int, ...]) -> bool:
    if isinstance(entry, int):
        return -sizes[0] <= entry < sizes[0]
    if not isinstance(entry, numpy.ndarray):
        return True
    if entry.dtype.kind == "b":
        return entry.shape == sizes
    return entry.size == 0 or (-sizes[0] <= entry.min() and entry.max() < sizes[0])


def _may_repeat(entry: numpy.ndarray) -> bool:
    """False when the entries are known to be different places, whatever the size of the axis."""
    if entry.dtype.kind == "b" or entry.size == 0:
        return False
    one_sign = entry.min() >= 0 or entry.max() < 0
    return not one_sign or len(set(entry.reshape(-1).tolist())) < entry.size


def _text(entry: Entry) -> str:
    if isinstance(entry, slice):
        ends = ["" if n is None else str(n) for n in (entry.start, entry.stop, entry.step)]
        return ":".join(ends if entry.step is not None else ends[:2])
    if isinstance(entry, numpy.ndarray):
        return str(entry.tolist()) if entry.size <= 8 else f"an array of shape {entry.shape}"
    return "..." if entry is Ellipsis else str(entry)


class Slice(Layer):
    """y = x[index] with NumPy's meaning of an index, over all axes, the batch included.

    index: a slice, an int, a list or an array of integers (or of booleans, one for each entry), `...`, None, or a
    tuple of these. Negative integers count from the end.

    Shapes: any -> that of x[index].

    Backward: dx is 0 but for the entries that were read, which get the g of their copy; an entry that was read
    several times gets the sum.
    """

    moves_data = True
    array_only = True

    def __init__(self, index: Any, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.index = read_index(index)
        gathers = [entry for entry in self.index if isinstance(entry, numpy.ndarray)]
        self.repeats = len(gathers) > 1 or any(map(_may_repeat, gathers))
        self._adopt(self.xp, self.dtype)

    def _adopt(self, xp: ModuleType, dtype: numpy.dtype) -> None:
        super()._adopt(xp, dtype)
        entries: list = []
        for entry in self.index:
            if isinstance(entry, numpy.ndarray) and entry.dtype.kind == "b":
                entries.extend(entry.nonzero())
            else:
                entries.append(entry)
        self._native = tuple(xp.asarray(entry) if isinstance(entry, numpy.ndarray) else entry for entry in entries)

    def check(self, shape: tuple[int, ...]) -> None:
        """Every entry within its axis: an array module would wrap it silently, or refuse it in its own words."""
        taken = [_axes_taken(entry) for entry in self.index]
        left, axis = len(shape) - sum(taken), 0
        fits = left >= 0
        for entry, count in zip(self.index, taken, strict=True):
            fits = fits and (count == 0 or _is_within(entry, shape[axis : axis + count]))
            axis += left if entry is Ellipsis else count
        if not fits:
            raise ShapeMismatchError(self, f"expected input with entries at [{self.details()}], got shape {shape}")

    def forward(self, x: Array) -> Array:
        self.check(x.shape)
        self.remember(x.shape)
        return arrays.as_array(self.xp, x[self._native])

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        dx = self.xp.zeros(self.recall(), g.dtype)
        if self.repeats:
            arrays.scatter_add(self.xp, dx, self._native, g)
        else:
            dx[self._native] = g
        return dx

    def details(self) -> str:
        return ", ".join(map(_text, self.index))

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        indices: list[Any] = [slice(1, None), (slice(None), -1), (..., slice(None, None, -2)), (0, None, [2, 0, 2])]
        indices += [([1, 0, -1], slice(None), 3), (slice(None), [[0, 1], [2, -1]]), ([0, 0], [1, 1]), (1, 2, 0)]
        indices += [(slice(None), [True, False, True]), (slice(None), [0, 2]), (), []]
        for index in indices:
            yield cls(index, xp=xp, dtype=dtype), (2, 3, 4)
