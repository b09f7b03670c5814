"""Data sets that live in memory: what `DataLoader` reads, and the one made of arrays."""

from typing import Any, Protocol, runtime_checkable

import numpy

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.checks import shown


@runtime_checkable
class Dataset(Protocol):
    """N samples under the indices 0 … N − 1; your own may derive from this class or just look like it.

    `dataset[index]` takes an integer (one sample), a slice or an integer array (several, stacked along axis 0): the
    `DataLoader` asks for each batch with one integer array. A sample is an array or a tuple of arrays.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any) -> Any: ...


class ArrayDataset(Dataset):
    """Arrays of equal length, sample i being row i of each: `ArrayDataset(images, labels)`.

    One array gives bare rows, several give tuples. NumPy arrays and lists are kept C-contiguous in native byte order
    (a copy only where they are not), arrays of another array module as they are. An integer or a slice gives views,
    an integer array gives new arrays.
    """

    def __init__(self, *data: Any):
        if not data:
            raise TypeError("ArrayDataset expected at least one array, got none")
        self.arrays = tuple(_as_samples(x, i) for i, x in enumerate(data))
        lengths = [len(x) for x in self.arrays]
        if len(set(lengths)) > 1:
            raise ValueError(f"ArrayDataset expected arrays of equal length, got lengths {lengths}")
        self._length = lengths[0]

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: Any) -> Any:
        index = self.placed(index) if index.__class__ is numpy.ndarray else index
        rows = [_rows(x, index) for x in self.arrays]
        return rows[0] if len(rows) == 1 else tuple(rows)

    def placed(self, index: numpy.ndarray) -> Any:
        """An integer array of samples, on the device of the data: a `DataLoader` moves its order there once an epoch.

        It stays on the host if some of the data are there. IndexError if there is no such sample.
        """
        host = index.dtype.kind not in "iu" or any(x.__class__ is numpy.ndarray for x in self.arrays)
        return index if host else _moved(index, self.arrays[0])

    def __repr__(self) -> str:
        return f"ArrayDataset({self._length} samples of {describe_samples(self.arrays)})"


def describe_samples(data: tuple[Array, ...]) -> str:
    """Shape and dtype of one sample, for reprs."""
    return ", ".join(f"{tuple(x.shape[1:])} {x.dtype}" for x in data)


def _rows(array: Array, index: Any) -> Array:
    if index.__class__ is numpy.ndarray and index.dtype.kind in "iu":
        return array.take(index, 0) if array.__class__ is numpy.ndarray else array[_moved(index, array)]
    if isinstance(index, tuple):
        raise TypeError(f"ArrayDataset expected an integer, a slice or an integer array as index, got {shown(index)}")
    return array[index]


def _moved(index: numpy.ndarray, array: Array) -> Array:
    """The index on the device of that array, after its bounds are checked."""
    if index.size and not -len(array) <= index.min() <= index.max() < len(array):
        raise IndexError(f"ArrayDataset of {len(array)} samples has no index {index.min()} … {index.max()}")
    xp: Any = arrays.array_module(array)
    return xp.asarray(index)


def _as_samples(x: Any, position: int) -> Array:
    arrays.refuse_masked(x, f"ArrayDataset argument {position}")
    if arrays.array_module(x) in (None, numpy):
        try:
            x = numpy.asarray(x)
        except ValueError as error:
            raise ValueError(f"ArrayDataset expected arrays, argument {position} is a ragged list: {error}") from error
        except (MemoryError, OverflowError) as error:
            raise MemoryError(f"ArrayDataset argument {position} does not fit into memory: {error}") from error
        x = x.astype(x.dtype.newbyteorder("="), copy=False)
        x = x if x.flags.c_contiguous else numpy.ascontiguousarray(x)
    if x.dtype.kind not in "fiub":
        raise TypeError(f"ArrayDataset expected arrays of real numbers, argument {position} has dtype {x.dtype}")
    if x.ndim == 0:
        raise ValueError(f"ArrayDataset expected arrays of samples, argument {position} has no axes (shape ())")
    return x
