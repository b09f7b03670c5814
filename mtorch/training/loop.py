"""One pass over a data set: with training, and without."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from mtorch import arrays
from mtorch.arrays import Array, Value
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


class Tally:
    """Sums that stay where the arrays live, so that a step on a GPU never waits."""

    def __init__(self) -> None:
        self.loss: Any = 0.0
        self.right: Any = 0
        self.samples = self.guesses = 0

    def add(self, loss: Loss, prediction: Value, labels: Value, count: Callable[[Array], Any] | None) -> None:
        """Adds a batch. count: the array module's `count_nonzero`; None where the targets are no labels."""
        n = len(labels[0] if isinstance(labels, tuple) else labels)
        self.loss = self.loss + loss.lazy_value * n
        self.samples += n
        if count is not None and not isinstance(prediction, tuple) and not isinstance(labels, tuple):
            guess = prediction.argmax(-1)
            right = labels.argmax(-1) if labels.shape == prediction.shape else labels.reshape(guess.shape)
            self.right = self.right + count(guess == right)
            self.guesses += guess.size

    def score(self, module: Layer) -> Score:
        if not self.samples:
            raise ValueError("a pass expected at least one batch, got none: is the loader used up?")
        loss, right = float(arrays.as_numpy(self.loss)), float(arrays.as_numpy(self.right))
        if loss != loss:
            raise_deferred(module)
        return Score(loss / self.samples, right / max(self.guesses, 1))

    def state_dict(self) -> dict[str, Any]:
        """The sums as numbers."""
        loss, right = float(arrays.as_numpy(self.loss)), int(arrays.as_numpy(self.right))
        return {"loss": loss, "right": right, "samples": self.samples, "guesses": self.guesses}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over `state_dict()`; a ValueError if it is none."""
        counts: list[Any] = [state.get(name) for name in ("right", "samples", "guesses")]
        if type(state.get("loss")) is not float or not all(map(is_count, counts)):
            raise ValueError("these are not the sums of a pass")
        self.loss, (self.right, self.samples, self.guesses) = state["loss"], counts


def is_count(n: Any) -> bool:
    """Whether it counts something: what a file says is not believed."""
    return type(n) is int and 0 <= n < 2**63


def are_labels(loss_func: Any, prediction: Any, target: Any) -> bool:
    """Whether these targets are classes, so that a prediction is right or wrong: integers, or shares of each class."""
    if isinstance(target, tuple) or isinstance(prediction, tuple) or prediction.ndim < 1 or prediction.shape[-1] < 2:
        return False
    if target.shape == prediction.shape:
        return bool(getattr(loss_func, "class_axis", False))
    return target.dtype.kind in "iu" and target.size * prediction.shape[-1] == prediction.size


def train_epoch(module: Layer, loss_func: LossFunc, optimizer: Optimizer, batches: Iterable[Any]) -> Score:
    """Trains on every (input, labels) of `batches`; the score is that of the predictions on the way.

    batches: a DataLoader, or one wrapped by `progress`, whose bar then shows loss and accuracy.
    """
    tally, shown, count = Tally(), 0.0, module.xp.count_nonzero
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
    tally, count = Tally(), module.xp.count_nonzero
    for x, labels in batches:
        prediction = module.predict(x)
        tally.add(loss_func(prediction, labels), prediction, labels, count)
    return tally.score(module)


def significant(value: float) -> float:
    """The number with six significant digits, as a history has it."""
    return float(f"{value:.6g}")
