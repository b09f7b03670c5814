"""Analytic gradients against fourth-order finite differences.

With a random output gradient c, the cotangent, the objective is f = sum(c * y). For every entry of every input and
parameter,

    f'(0) ~ (8 (f(h) - f(-h)) - (f(2h) - f(-2h))) / 12h,

whose truncation error is h^4 f^(5) / 30. With c = 1 the gradient of a softmax or a normalisation is 0, whatever
backward does wrong, and float32 has too few digits. An entry within 2h of a kink is recognised by its second and third
differences, and left out.
"""

import copy
import itertools
import math
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Value
from mtorch.checks import check_number, shown
from mtorch.initializers import as_generator
from mtorch.layer import Layer
from mtorch.losses.base import LossFunction
from mtorch.module import Module
from mtorch.parameter import Buffer
from mtorch.tree import home_of

ENTRIES = 128  # of a larger array that many entries are drawn
KINK = 1e-4


class GradientError(AssertionError):
    """An analytic gradient that finite differences contradict."""


def make_value(inputs: Any, xp: ModuleType, dtype: Any, rng: numpy.random.Generator) -> Value:
    """The value that an example's input stands for: a shape, a tuple of shapes, or a function of (xp, rng)."""
    if callable(inputs):
        return arrays.map_value(lambda x: x.astype(dtype) if x.dtype.kind == "f" else x, inputs(xp, rng))
    if isinstance(inputs, tuple) and all(isinstance(n, int | numpy.integer) for n in inputs):
        return xp.asarray(rng.standard_normal(inputs), dtype=dtype)
    if isinstance(inputs, tuple):
        return tuple(make_value(part, xp, dtype, rng) for part in inputs)
    if inputs is None:
        return None
    array = arrays.as_numeric(xp, inputs, "check_gradients")
    return array.astype(dtype) if array.dtype.kind == "f" else array


def check_gradients(
    layer_or_loss: Layer | LossFunction,
    inputs: Any,
    dtype: Any = "float64",
    *,
    tolerance: float | None = None,
    seed: int = 0,
) -> float:
    """Checks the gradients of a layer (all inputs, all parameters that are not frozen) or a loss (its prediction).

    inputs: the input value, or a shape, a tuple of shapes, or a function of (xp, rng); for a loss the pair
        (prediction, target).
    dtype: "float64" (tolerance 1e-6) or "longdouble" (1e-10; NumPy only, 1e-8 where longdouble is double).
    tolerance: of max|analytic - numeric| / max(1, max|numeric|) over each array.

    Returns the worst error. Works on a copy, and reseeds random layers for every evaluation. GradientError names the
    worst entry.
    """
    dtype = home_of("check_gradients", numpy, dtype)[1]
    if dtype.kind != "f" or dtype.itemsize < 8:
        raise ValueError(f"check_gradients needs dtype float64 or longdouble, got {dtype}")
    wide = dtype.itemsize > 8
    if tolerance is None:
        tolerance = 1e-10 if wide else 1e-8 if dtype.name == "longdouble" else 1e-6
    tolerance, rng = (
        check_number("check_gradients", "tolerance", tolerance, least=0),
        as_generator(seed, "check_gradients seed:"),
    )
    if not isinstance(layer_or_loss, Layer | LossFunction):
        raise TypeError(f"check_gradients expected a layer or a loss function, got {shown(layer_or_loss)}")
    subject: _Subject
    if isinstance(layer_or_loss, LossFunction):
        subject = _LossSubject(layer_or_loss, inputs, dtype, rng)
    else:
        subject = _LayerSubject(layer_or_loss, inputs, dtype, rng)
    h = 5e-4 if wide else 1e-3
    worst = 0.0
    for name, target, analytic in subject.gradients():
        worst = max(worst, _compare(subject, name, target, analytic, h, tolerance, rng))
    return worst


def _compare(
    subject: "_Subject", name: str, target: numpy.ndarray, analytic: Any, h: float, tolerance: float, rng: Any
) -> float:
    """The relative error of one array's gradient; `target` is that array, which `_slope` changes in place."""
    if analytic is None:
        raise GradientError(f"{subject}: no gradient came back for {name}")
    if analytic.shape != target.shape or analytic.dtype != target.dtype:
        raise GradientError(
            f"{subject}: the gradient of {name} is {analytic.shape} {analytic.dtype}, "
            f"expected {target.shape} {target.dtype}"
        )
    analytic = arrays.as_numpy(analytic)
    indices = list(numpy.ndindex(target.shape))
    if len(indices) > ENTRIES:
        indices = [indices[i] for i in sorted(rng.choice(len(indices), ENTRIES, replace=False))]
    rows, kinks = [], 0
    for index in indices:
        slope = _slope(subject.objective, target, index, h)
        if slope is None:
            kinks += 1
        else:
            rows.append((abs(analytic[index] - slope), index, analytic[index], slope))
    if indices and kinks > len(indices) // 2:
        text = f"{kinks} of {len(indices)} entries of {name} sit at a kink: choose other inputs"
        raise GradientError(f"{subject}: {text}")
    if not rows:
        return 0.0
    scale = max(1.0, max(abs(slope) for *_, slope in rows))
    not_finite = next((row for row in rows if not math.isfinite(row[0])), None)
    error, index, a, n = not_finite or max(rows, key=lambda row: row[0])
    if not error / scale <= tolerance:
        raise GradientError(
            f"{subject}: gradient of {name}{list(index)} is {a:.12g}, finite differences say {n:.12g} "
            f"(relative error {error / scale:.2g}, allowed {tolerance:.2g})"
        )
    return float(error / scale)


def _slope(objective: Callable[[], Any], target: Any, index: tuple, h: float) -> Any:
    """df / d target[index] by fourth-order differences; None near a kink."""
    middle, f = target[index].copy(), {}
    for step in (-2, -1, 0, 1, 2):
        target[index] = middle + step * h
        f[step] = objective()
    target[index] = middle
    slope = (8 * (f[1] - f[-1]) - (f[2] - f[-2])) / (12 * h)
    # A smooth f has f(h) - 2 f(0) + f(-h) = h^2 f'', at 2h four times that, and a third difference of order h^3.
    near, far = f[1] - 2 * f[0] + f[-1], f[2] - 2 * f[0] + f[-2]
    third = f[2] - 2 * f[1] + 2 * f[-1] - f[-2]
    kink = max(abs(far - 4 * near), abs(third)) / h
    return slope if kink <= KINK * max(1.0, abs(slope)) or not math.isfinite(kink) else None


class _Subject:
    """What is checked: an objective, its analytic gradients, and the arrays that `_slope` changes in place."""

    original: Layer | LossFunction

    def objective(self) -> Any:
        raise NotImplementedError

    def gradients(self) -> Iterator[tuple[str, Any, Any]]:
        raise NotImplementedError

    def __repr__(self) -> str:
        return repr(self.original)


def _leaves(value: Value, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from _leaves(part, f"{path}[{i}]")
    else:
        yield path, value


class _LayerSubject(_Subject):
    def __init__(self, layer: Layer, inputs: Any, dtype: numpy.dtype, rng: numpy.random.Generator):
        self.original = layer
        self.layer = layer.to(dtype=dtype)
        if isinstance(self.layer, Module):
            self.layer.input_grad = True
        self.inputs = arrays.map_value(lambda x: x.copy(), make_value(inputs, self.layer.xp, dtype, rng))
        below = [each for _, each in self.layer.walk()]
        self.random = [(each, each.random_state()) for each in below]
        self.buffers = [(buffer, buffer.value) for each in below for _, buffer in each.own(Buffer)]
        y = self.forward()
        self._check_draws(y, self.forward())
        self.cotangent = arrays.map_value(
            lambda part: self.layer.xp.asarray(rng.standard_normal(part.shape), dtype=dtype)
            if part.dtype.kind == "f" else None, y
        )  # fmt: skip

    def forward(self) -> Value:
        for each, state in self.random:
            each.set_random_state(copy.deepcopy(state))
        for buffer, value in self.buffers:
            buffer.value = value
        return self.layer(self.inputs)

    def _check_draws(self, first: Value, second: Value) -> None:
        """GradientError for a layer whose random numbers are not those of its `random_state`."""
        for (path, a), (_, b) in zip(_leaves(first, "y"), _leaves(second, "y"), strict=True):
            a, b = arrays.as_numpy(a), arrays.as_numpy(b)
            if not numpy.array_equal(a, b, equal_nan=a.dtype.kind == "f"):
                raise GradientError(
                    f"{self}: {path} of two calls from one random_state differs. A layer that draws random numbers "
                    "draws them from a seed and a counter, and has random_state() and set_random_state(state) for both"
                )

    def objective(self) -> Any:
        pairs = zip(_leaves(self.forward(), "y"), _leaves(self.cotangent, "y"), strict=True)
        return sum((part * c).sum() for (_, part), (_, c) in pairs if c is not None)

    def gradients(self) -> Iterator[tuple[str, Any, Any]]:
        self.layer.zero_grad()
        self.forward()
        grad = self.layer.backward(self.cotangent)
        if grad is None and any(x is not None and x.dtype.kind == "f" for _, x in _leaves(self.inputs, "")):
            raise GradientError(f"{self}: backward returned no input gradient")
        own = self.layer.parameters().items()
        frozen = [name for name, p in own if not p.trainable and p.has_grad]
        if frozen:
            raise GradientError(f"{self}: a gradient was added for the frozen {', '.join(frozen)}")
        parameters = [(name, p.value, p.grad.copy()) for name, p in own if p.trainable]
        for (path, x), (_, dx) in itertools.zip_longest(
            _leaves(self.inputs, "input"), _leaves(grad, "input"), fillvalue=("", None)
        ):
            if x is not None and x.dtype.kind == "f":
                yield path, x, dx
            elif dx is not None:
                raise GradientError(f"{self}: {path} holds no floats, so its gradient must be None")
        yield from parameters


class _LossSubject(_Subject):
    def __init__(self, loss: LossFunction, inputs: Any, dtype: numpy.dtype, rng: numpy.random.Generator):
        self.original = loss
        self.loss = copy.copy(loss)
        prediction, *rest = make_value(inputs, numpy, dtype, rng)
        self.prediction, self.rest = arrays.map_value(lambda x: x.copy(), prediction), rest
        value = numpy.asarray(self.loss(self.prediction, *rest).value)
        self.weights = rng.standard_normal(value.shape).astype(dtype) if value.ndim else None

    def objective(self) -> Any:
        value = self.loss(self.prediction, *self.rest).value
        return value if self.weights is None else (value * self.weights).sum()

    def gradients(self) -> Iterator[tuple[str, Any, Any]]:
        caught: list = []
        self.loss.backward_func = caught.append
        self.loss(self.prediction, *self.rest).backward(*(() if self.weights is None else (self.weights,)))
        for (path, part), (_, grad) in zip(_leaves(self.prediction, "prediction"), _leaves(caught[0], ""), strict=True):
            yield path, part, grad
