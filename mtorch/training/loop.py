"""One pass over a data set: with training, and without."""

import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from mtorch import arrays
from mtorch.arrays import Array
from mtorch.deferred import raise_deferred
from mtorch.layer import Layer
from mtorch.losses.base import Loss
from mtorch.optim.base import Optimizer

LossFunc = Callable[[Array, Array], Loss]
REFRESH = 0.2  # seconds between two looks at the running score: on a GPU each look waits for the queue


class Score(NamedTuple):
    """Mean loss over the samples of one pass, and accuracy over their labels."""

    loss: float
    accuracy: float


class _Tally:
    """Sums that stay where the arrays live, so that a step on a GPU never waits."""

    def __init__(self) -> None:
        self.loss: Any = 0.0
        self.right: Any = 0
        self.samples = self.guesses = 0

    def add(self, loss: Loss, prediction: Array, labels: Array, count: Callable[[Array], Any]) -> None:
        n, guess = len(labels), prediction.argmax(-1)
        self.loss = self.loss + loss.lazy_value * n
        right = labels.argmax(-1) if labels.shape == prediction.shape else labels.reshape(guess.shape)
        self.right = self.right + count(guess == right)
        self.samples += n
        self.guesses += guess.size

    def score(self, module: Layer) -> Score:
        if not self.samples:
            raise ValueError("a pass expected at least one batch, got none: is the loader used up?")
        loss, right = float(arrays.as_numpy(self.loss)), float(arrays.as_numpy(self.right))
        if loss != loss:
            raise_deferred(module)
        return Score(loss / self.samples, right / max(self.guesses, 1))


def train_epoch(module: Layer, loss_func: LossFunc, optimizer: Optimizer, batches: Iterable[Any]) -> Score:
    """Trains on every (input, labels) of `batches`; the score is that of the predictions on the way.

    batches: a DataLoader, or one wrapped by `progress`, whose bar then shows loss and accuracy.
    """
    tally, shown, count = _Tally(), 0.0, module.xp.count_nonzero
    show = getattr(batches, "set_postfix_str", None)
    for x, labels in batches:
        prediction = module(x)
        loss = loss_func(prediction, labels)
        loss.backward()
        optimizer.step()
        tally.add(loss, prediction, labels, count)
        if show is not None and time.monotonic() - shown > REFRESH:
            shown, score = time.monotonic(), tally.score(module)
            show(f"loss {score.loss:.4f}, accuracy {score.accuracy:.1%}", refresh=False)
    return tally.score(module)


def evaluate(module: Layer, loss_func: LossFunc, batches: Iterable[Any]) -> Score:
    """The score of eval-mode predictions; keeps nothing and changes nothing."""
    tally, count = _Tally(), module.xp.count_nonzero
    for x, labels in batches:
        prediction = module.predict(x)
        tally.add(loss_func(prediction, labels), prediction, labels, count)
    return tally.score(module)
