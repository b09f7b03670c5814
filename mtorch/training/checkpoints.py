"""When a Trainer saves, and how: one file holds everything, and what lies beside it is derived from that file."""

import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtorch.training.environment import differences, environment
from mtorch.training.every import Every
from mtorch.training.folder import RunFolder, check_history

if TYPE_CHECKING:
    from mtorch.training.trainer import Trainer

SHARE = 20  # an epoch ends with a checkpoint if that takes less than this part of the time since the last one


class Checkpoints:
    """The checkpoint of a run: `model.npz` in its folder. Without a folder nothing is saved.

    `history.csv` and `best.npz` are written after it, and again whenever a run goes on, so that it does not matter
    when a run is killed.
    """

    def __init__(self, out: Any, every: Every, writes: bool = True):
        self.folder = out if isinstance(out, RunFolder | None) else RunFolder(out)
        if self.folder is not None:
            self.folder.writes = writes
        self.every = every
        self._saved: tuple[Any, ...] | None = None  # the place of the last checkpoint: steps, epochs, rows, over
        self._derived = (-1, -1)  # the rows of history.csv, and the row of best.npz
        self._at, self._steps, self._epochs, self._seconds = time.monotonic(), 0, 0, 0.0

    @property
    def model(self) -> Path | None:
        return None if self.folder is None else self.folder.model

    def begin(self) -> None:
        """Raises an OSError before any work is done if the folder cannot be written to."""
        if self.folder is not None:
            self.folder.prepare()

    def due(self, trainer: "Trainer") -> bool:
        if self.folder is None:
            return False
        seconds, epochs = time.monotonic() - self._at, trainer.epoch - self._epochs
        cheap = self.every.seconds is not None and epochs > 0 and seconds > SHARE * self._seconds
        return cheap or self.every.due(seconds, trainer.steps - self._steps, epochs)

    def save(self, trainer: "Trainer") -> None:
        place = trainer.steps, trainer.epoch, len(trainer.history), trainer.batches.over
        if self.folder is not None and place == self._saved:
            self._derive(trainer)  # if writing it was interrupted, or failed
        if self.folder is None or place == self._saved or (state := trainer.state_dict()) is None:
            return
        begin = time.monotonic()
        self.folder.save(
            trainer.module, trainer.optimizer, settings=trainer.settings, trainer=state, history=trainer.history,
            environment=environment(trainer.module.xp),
        )  # fmt: skip
        self._note(trainer)
        self._derive(trainer)
        self._seconds = time.monotonic() - begin

    def load(self, trainer: "Trainer", columns: Sequence[str] | None = None) -> bool:
        """Whether there was a checkpoint."""
        if self.folder is None or not self.folder.model.exists():
            return False
        self.folder.prepare()
        notes = self.folder.notes()
        if "trainer" not in notes and {"settings", "history"} <= notes.keys():
            raise ValueError(f"{self.model} was made by an earlier version of mtorch: go on with that one, or anew")
        kinds = {"trainer": dict, "history": columns or list, "environment": dict}
        notes = self.folder.check(trainer.settings, **kinds)
        before, history = trainer.state_dict(), trainer.history
        try:
            check_history(notes["history"], trainer.log.key)
            trainer.load_state_dict(notes["trainer"], notes["history"])
        except ValueError as error:
            raise ValueError(f"{self.model} is not a checkpoint of this app: {error}") from error
        try:
            self.folder.load(trainer.module, trainer.optimizer)
        except BaseException:
            if before is not None:
                trainer.load_state_dict(before, history)
            raise
        self._note(trainer)
        self._derived = (-1, -1)
        self._derive(trainer)
        if changed := differences(notes["environment"], environment(trainer.module.xp)):
            trainer.say(f"the last bits may differ from here on: {changed}")
        return True

    def go_back(self, trainer: "Trainer") -> None:
        """To the last checkpoint, if this run has one."""
        if self._saved is not None:
            with suppress(OSError, ValueError):
                self.load(trainer)

    def _note(self, trainer: "Trainer") -> None:
        assert self.folder is not None
        self._saved = trainer.steps, trainer.epoch, len(trainer.history), trainer.batches.over
        self._at, self._steps, self._epochs = time.monotonic(), trainer.steps, trainer.epoch
        place = f"epoch {trainer.epoch}" if trainer.epoch and trainer.log.key == "epoch" else trainer.place
        self.folder.kept = f"{place} is kept in {self.model}"

    def _derive(self, trainer: "Trainer") -> None:
        """Writes what follows from the checkpoint, where it has changed."""
        assert self.folder is not None
        rows, best = self._derived
        if rows != len(trainer.history):
            self.folder.write_history(trainer.history)
        if best != trainer.best.rows and trainer.best.state is not None:
            self.folder.save_best(trainer.best.state)
        self._derived = len(trainer.history), trainer.best.rows
