"""The two tasks: cosine from sine, step by step, and the next point of a noisy sine."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy

from mtorch import Sequential, layers
from mtorch.arrays import as_numpy
from mtorch.data import noisy_sine, sine_cosine
from mtorch.layer import Layer

PERIOD = 22  # samples of sine after which they repeat
BATCH = 32
CELLS = ("rnn", "gru", "lstm")


@dataclass(frozen=True)
class Task:
    """What to train on and how to judge the net.

    batches: (x, target) pairs, taken in turn.  test: the x to test with, and further arrays that `score` compares
    predictions with.  score(prediction, test) -> the measures by name.  steps, lr, gamma: the defaults; the rate is
    multiplied by gamma after each step.
    """

    build: Callable[..., Layer]
    batches: list[tuple[Any, Any]]
    test: tuple[Any, ...]
    score: Callable[[numpy.ndarray, tuple[numpy.ndarray, ...]], dict[str, float]]
    steps: int
    lr: float
    gamma: float


def recurrent(cell: str, hidden: int, nn: Any, **options: Any) -> Layer:
    return {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](1, hidden, **options)


def sine_to_cosine(xp: ModuleType, rng: numpy.random.Generator) -> Task:
    """Reads T = 10 samples of sine and gives the cosine at each; 32 sequences a batch, one after another.

    The sign of the first cosine cannot be known from one sample of sine: half the squared error of that step remains
    whatever is learned, 0.05 of the mean over ten.
    """

    def build(cell: str, hidden: int) -> Layer:
        nn = layers.on(xp, rng=rng)
        return Sequential(recurrent(cell, hidden, nn), nn.Linear(hidden, 1))

    def score(prediction: numpy.ndarray, test: tuple[numpy.ndarray, ...]) -> dict[str, float]:
        square = (prediction - test[1]) ** 2
        return {"test_mse": float(square.mean()), "test_mse_after_first_step": float(square[1:].mean())}

    batches = [on(xp, sine_cosine(BATCH * k % PERIOD, BATCH)) for k in range(PERIOD // 2)]
    return Task(build, batches, on(xp, sine_cosine(0, PERIOD)), score, steps=1500, lr=0.01, gamma=0.999)


def next_of_noisy_sine(xp: ModuleType, rng: numpy.random.Generator) -> Task:
    """Reads windows of 4 of 300 points of a noisy sine and gives the next; tested on 300 points with other noise."""

    def build(cell: str, hidden: int) -> Layer:
        nn = layers.on(xp, rng=rng)
        return Sequential(recurrent(cell, hidden, nn), nn.Slice(-1), nn.Linear(hidden, 1))

    def score(prediction: numpy.ndarray, test: tuple[numpy.ndarray, ...]) -> dict[str, float]:
        noisy, clean = (float(numpy.sqrt(((prediction - target) ** 2).mean())) for target in test[1:])
        return {"test_rmse": noisy, "test_rmse_noise_free": clean}

    windows, following, _ = noisy_sine(rng=rng)
    test = on(xp, noisy_sine(rng=rng))
    return Task(build, [on(xp, (windows, following))], test, score, steps=400, lr=0.01, gamma=0.995)


TASKS: dict[str, Callable[[ModuleType, numpy.random.Generator], Task]] = {
    "sine-cosine": sine_to_cosine,
    "noisy-sine": next_of_noisy_sine,
}


def on(xp: ModuleType, data: tuple[numpy.ndarray, ...]) -> tuple[Any, ...]:
    return tuple(xp.asarray(array) for array in data)


def on_host(data: tuple[Any, ...]) -> tuple[numpy.ndarray, ...]:
    return tuple(as_numpy(array) for array in data)
