"""The batches of a loader, one epoch after the other, from any place within an epoch."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mtorch.data import DataLoader
from mtorch.data.loader import BETWEEN
from mtorch.training.loop import is_count

END = object()  # in place of a batch: the epoch is over


class Batches:
    """Hands out the batches of `loader` and knows how many of this epoch were used: `used` is called for each.

    A loader is iterated anew for each epoch. One with `state_dict` and `load_state_dict`, such as `DataLoader`, is
    asked where it is. Any other iterable is read again from its beginning and as many batches are left out as were
    used; it must then give the same batches again.

    The place follows from the batches that were used, so that an interrupt between any two instructions loses none.
    """

    def __init__(self, loader: Iterable[Any]):
        if not hasattr(loader, "__iter__"):
            raise TypeError(f"Trainer expected a loader of batches, got {loader!r}")
        self.loader: Any = loader
        self.stateful = hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")
        self.used_batches, self.over = 0, False  # of this epoch; whether it has no more
        self.waiting = 0  # batches that were handed out and not used: 0 or 1
        self._iterator: Iterator[Any] | None = None
        self._before: Any = None  # the state of the loader before the iterator was made
        self._began = 0  # the batches that were used when it was made
        self._seed: Any = 0  # that of a DataLoader's order

    def begin(self) -> Iterator[Any]:
        """The iterator of this epoch; a loader that shuffles draws its order now."""
        if self._iterator is None:
            self._before, self._began = self.loader.state_dict() if self.stateful else None, self.used_batches
            iterator = iter(self.loader)
            for _ in range(0 if self.stateful else self.used_batches):
                if next(iterator, END) is END:
                    break
            if isinstance(self.loader, DataLoader):
                self._seed = self.loader.state_dict()["epoch_seed"]
            self._iterator = iterator
        return self._iterator

    def next(self) -> Any:
        """The next batch, or END: then `over` is True until `begin_epoch`."""
        iterator = self.begin()
        self.waiting = 1
        batch = next(iterator, END)
        self.over = batch is END
        if self.over and not self.used_batches:
            raise ValueError("an epoch expected at least one batch, got none: is the loader used up?")
        self.waiting = int(not self.over)
        return batch

    def used(self) -> None:
        self.used_batches, self.waiting = self.used_batches + 1, 0

    def begin_epoch(self) -> None:
        self._iterator, self.used_batches, self.over, self.waiting, self._before = None, 0, False, 0, None

    def rewind(self) -> None:
        """Goes back to where the first batch that was not used comes next."""
        state = self.state_dict()
        if state is not None:
            self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any] | None:
        """Where it is; None for a loader that cannot take back the batch that waits."""
        place: Any = None
        if self.stateful and self._iterator is None and self._before is not None:
            place = self._before
        elif isinstance(self.loader, DataLoader) and self._iterator is not None:
            begin, used = max(self._before["position"], 0), self.used_batches - self._began
            position = min(begin + used * self.loader.batch_size, len(self.loader.dataset))
            order = (0, BETWEEN) if self.over else (self._seed, position)
            place = self.loader.state_dict() | dict(zip(("epoch_seed", "position"), order, strict=True))
        elif self.stateful and self.waiting:
            return None
        elif self.stateful:
            place = self.loader.state_dict()
        return {"used": self.used_batches, "over": self.over, "loader": place}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Goes on where `state_dict()` was taken; a ValueError if it does not fit the loader, which then stays."""
        place: Any = state.get("loader")
        used: Any = state.get("used")
        over: Any = state.get("over")
        if not is_count(used) or type(over) is not bool or isinstance(place, dict) is not self.stateful:
            raise ValueError(f"this is no position in the batches of {self.loader!r}")
        if self.stateful:
            self.loader.load_state_dict(place)
        self.begin_epoch()
        self.used_batches, self.over = used, over
