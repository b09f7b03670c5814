"""The history of a run: a row of scores for each epoch, or for every so many steps."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from mtorch.layer import Layer
from mtorch.training import stops
from mtorch.training.every import Every
from mtorch.training.loop import Tally, are_labels, evaluate, significant
from mtorch.training.nonfinite import NonFiniteError

Row = dict[str, Any]
Test = Iterable[Any] | Callable[[], Mapping[str, float]] | None


class Log:
    """Rows {"epoch" or "step", "train_loss", "train_accuracy", and what the test gives}, numbers with six digits.

    The training scores are means over the samples since the last row. There is an accuracy where targets are classes.
    """

    def __init__(
        self,
        module: Layer,
        loss_func: Any,
        test: Test,
        every: Every | None,
        guard: bool,
        check: Callable[[], None] | None = stops.check,
    ):
        self.every = every or Every(epochs=1)
        if self.every.seconds is not None:
            raise ValueError("Trainer expected log_every in steps or epochs: seconds differ from run to run")
        self.key = "epoch" if self.every.epochs else "step"
        self.module, self.loss_func, self.test, self.guard = module, loss_func, test, guard
        self.rows: list[Row] = []
        self.check = check or (lambda: None)  # between two batches of a test
        self.tally = Tally()

    def add(self, loss: Any, prediction: Any, target: Any) -> None:
        """Counts a batch in."""
        labels = are_labels(self.loss_func, prediction, target)
        self.tally.add(loss, prediction, target, self.module.xp.count_nonzero if labels else None)

    def is_due(self, steps: int) -> bool:
        """Whether that many steps are worth a row which is not there yet."""
        every, last = self.every.steps, self.rows[-1]["step"] if self.rows and self.every.steps else 0
        return every is not None and steps % every == 0 and steps > last

    def is_due_after(self, epoch: int) -> bool:
        return self.every.epochs is not None and epoch % self.every.epochs == 0

    def row(self, number: int) -> Row:
        """The row of that step or epoch; it is not yet part of the history, and nothing is changed."""
        train, labels = self.tally.score(self.module), bool(self.tally.guesses)
        row = {"train_loss": train.loss} | ({"train_accuracy": train.accuracy} if labels else {}) | self.evaluate()
        if self.guard and not all(map(math.isfinite, row.values())):
            raise NonFiniteError(f"the loss is not finite in {self.key} {number}")
        return {self.key: number} | {name: significant(value) for name, value in row.items()}

    def append(self, row: Row) -> None:
        self.rows.append(row)
        self.tally = Tally()

    def evaluate(self) -> dict[str, float]:
        """The numbers of the test as it is now, by name."""
        if self.test is None:
            return {}
        if not isinstance(self.test, Iterable):
            return {name: float(value) for name, value in self.test().items()}
        score = evaluate(self.module, self.loss_func, self._unless_stopped(self.test))
        return {"test_loss": score.loss} | ({"test_accuracy": score.accuracy} if self.tally.guesses else {})

    def running(self) -> str:
        """The scores since the last row as text; on a GPU it waits for the queue."""
        if not self.tally.samples:
            return ""
        score = self.tally.score(self.module)
        return f"loss {score.loss:.4f}" + (f", accuracy {score.accuracy:.1%}" if self.tally.guesses else "")

    def _unless_stopped(self, batches: Iterable[Any]) -> Iterator[Any]:
        for batch in batches:
            self.check()
            yield batch
