"""The progress bar of a Trainer: one for each epoch, or one for all steps."""

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, Self

from mtorch.training.progress import progress

if TYPE_CHECKING:
    from mtorch.training.trainer import Trainer

LOOK = 0.2  # seconds between two looks at the running score: on a GPU each look waits for the queue


class Bar:
    """Follows a trainer up to that many epochs or steps; nothing where nobody can see it."""

    def __init__(self, trainer: "Trainer", epochs: int | None, steps: int | None):
        self.trainer, self.epochs, self.steps = trainer, epochs, steps
        self.open = ExitStack()
        self.shown: Any = None
        self.epoch, self.looked = -1, 0.0

    def __enter__(self) -> Self:
        if self.trainer.bar:
            self._show_new()
        return self

    def __exit__(self, *error: Any) -> None:
        self.open.close()
        self.shown = None

    def _show_new(self) -> None:
        self.open.close()
        trainer, length = self.trainer, getattr(self.trainer.batches.loader, "__len__", lambda: None)()
        self.epoch = trainer.epoch
        if self.steps is None:
            title, total, done = f"epoch {trainer.epoch + 1}/{self.epochs}", length, trainer.batches.used_batches
        else:
            title, total, done = "step", self.steps, trainer.steps
        self.shown = self.open.enter_context(progress(None, title, total, done))

    def update(self) -> None:
        if self.shown is None:
            return
        if self.epochs is not None and self.epoch != self.trainer.epoch:
            if self.trainer.epoch >= self.epochs:
                return self.__exit__()
            self._show_new()
        self.shown.update(
            (self.trainer.batches.used_batches if self.steps is None else self.trainer.steps) - self.shown.n
        )
        if time.monotonic() - self.looked > LOOK:
            self.looked = time.monotonic()
            self.shown.set_postfix_str(self.trainer.log.running(), refresh=False)

    def say(self, line: str) -> None:
        """Prints a line above the bar."""
        if self.shown is None:
            print(line, flush=True)
        else:
            self.shown.write(line)
