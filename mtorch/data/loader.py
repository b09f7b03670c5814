"""Batches of a data set, in order or shuffled, in an order that a resumed run can repeat."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy

from mtorch.arrays import refuse_masked
from mtorch.checks import check_flag, check_integer, check_size, shown
from mtorch.data.dataset import ArrayDataset, Dataset
from mtorch.initializers import as_generator

KEYS = {"rng", "samples", "epoch_seed", "position"}
BETWEEN = -1  # the position of a loader that is not in the middle of an epoch


class _Epoch:
    """One pass over the data: the seed of its permutation, and how many samples it has handed out."""

    __slots__ = ("seed", "position")

    def __init__(self, seed: int, position: int = 0):
        self.seed, self.position = seed, position


class DataLoader:
    """Iterates over `dataset` in batches: `for images, labels in DataLoader(data, batch_size=20, shuffle=True, rng=0)`.

    drop_last: leaves out a last batch that is smaller than the others.
    rng: a Generator or an int, read once for each shuffled epoch; without it `mtorch.seed` rules.

    Each `iter(loader)` is an epoch of its own, so that two can run at once. A batch is `dataset[indices]` with one
    index array: new arrays, never views of the data. The permutation is drawn on the host, and moved
    once an epoch where an `ArrayDataset` lives on a device.

    `state_dict()` describes the epoch that began last and the generator. A loader made of the same data set that
    loads it goes on with exactly the batches that would have come; its first epoch holds what was left of the one in
    the middle of which the state was taken. A generator that the dataset draws from is not part of it, unless it is
    the loader's own.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int = 1, shuffle: bool = False, drop_last: bool = False, rng: Any = None
    ):
        refuse_masked(dataset, "DataLoader dataset:")
        if isinstance(dataset, list | tuple | dict | str | bytes | range) or not isinstance(dataset, Dataset):
            kind = type(dataset).__name__
            raise TypeError(f"DataLoader dataset: expected a Dataset such as ArrayDataset(images, labels), got {kind}")
        if getattr(dataset, "ndim", 1) == 0:
            raise TypeError(f"DataLoader dataset: expected samples, got an array without axes: {shown(dataset)}")
        if len(dataset) == 0:
            raise ValueError(f"DataLoader dataset: expected at least one sample, got the empty {dataset!r}")
        self.dataset = dataset
        self.batch_size = check_size("DataLoader", "batch_size", batch_size)
        self.shuffle = check_flag("DataLoader", "shuffle", shuffle)
        self.drop_last = check_flag("DataLoader", "drop_last", drop_last)
        self._rng = rng if rng is None else as_generator(rng, "DataLoader")
        self._epoch: _Epoch | None = None  # the one that began last, until it is over
        self._resumed: _Epoch | None = None  # a loaded one that waits for its iterator

    def __len__(self) -> int:
        """The batches in one epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[Any]:
        epoch, self._resumed = self._resumed, None
        if epoch is None:
            epoch = _Epoch(int(self.rng.integers(2**63)) if self.shuffle else 0)
        self._epoch = epoch
        return self._batches(epoch)

    def _batches(self, epoch: _Epoch) -> Iterator[Any]:
        dataset, size, samples = self.dataset, self.batch_size, len(self.dataset)
        order: Any = numpy.arange(samples)
        if self.shuffle:
            order = numpy.random.default_rng(epoch.seed).permutation(samples)
        if isinstance(dataset, ArrayDataset) and type(dataset).__getitem__ is ArrayDataset.__getitem__:
            order = dataset.placed(order)
        for start in range(epoch.position, samples - size + 1 if self.drop_last else samples, size):
            batch = dataset[order[start : start + size]]
            epoch.position = start + size
            yield batch
        if self._epoch is epoch:
            self._epoch = None

    @property
    def rng(self) -> numpy.random.Generator:
        """The generator that seeds the shuffled epochs."""
        return as_generator(self._rng)

    def state_dict(self, unused: int = 0) -> dict[str, str | int]:
        """The position in the data, as numbers and one string (JSON): enough to go on with the same batches.

        unused: how many of the batches that this epoch has handed out are to come again.
        """
        epoch, samples = self._epoch, len(self.dataset)
        position = epoch.position - unused * self.batch_size if epoch else BETWEEN
        return {
            "rng": generator_state(self.rng),
            "samples": samples,
            "epoch_seed": epoch.seed if epoch else 0,
            "position": min(position, samples),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict()` was taken. A state that does not fit is a ValueError and changes nothing."""
        if not isinstance(state, Mapping):
            raise TypeError(f"DataLoader state: expected what state_dict() returned, got {shown(state)}")
        if set(state) != KEYS:
            raise ValueError(f"DataLoader state: expected the keys {sorted(KEYS)}, got {sorted(map(str, state))}")
        samples, seed, position = (_integer(key, state[key]) for key in ("samples", "epoch_seed", "position"))
        if samples != len(self.dataset):
            raise ValueError(f"DataLoader state: expected one for {len(self.dataset)} samples, got one for {samples}")
        if not 0 <= seed < 2**63 or not BETWEEN <= position <= samples:
            raise ValueError(f"DataLoader state: epoch_seed {seed} or position {position} is out of range")
        text = state["rng"]
        set_generator_state(self.rng, text.item() if getattr(text, "shape", None) == () else text, "DataLoader")
        self._epoch = self._resumed = None if position == BETWEEN else _Epoch(seed, position)

    def __repr__(self) -> str:
        return (
            f"DataLoader({self.dataset!r}, batch_size={self.batch_size}, shuffle={self.shuffle}, "
            f"drop_last={self.drop_last})"
        )


def _integer(key: str, value: Any) -> int:
    try:
        return check_integer("DataLoader state:", key, value)
    except TypeError as error:
        raise ValueError(str(error)) from None


def generator_state(rng: numpy.random.Generator) -> str:
    """Where a generator is in its stream, as JSON."""
    return json.dumps(rng.bit_generator.state, default=lambda array: array.tolist())


def set_generator_state(rng: numpy.random.Generator, text: Any, who: str) -> None:
    """Takes over `generator_state`; a ValueError in the name of `who` if it is none of that kind."""
    before = rng.bit_generator.state
    try:
        rng.bit_generator.state = json.loads(text)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        rng.bit_generator.state = before
        kind = type(rng.bit_generator).__name__
        raise ValueError(f"{who} state: expected the state of a {kind} generator as rng: {error}") from error
