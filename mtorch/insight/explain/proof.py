"""The proof that runs at the end of an explanation: something that can fail, and the largest error that it found.

* A layer or a loss: `check_gradients` over its `examples()`, on the reference code in longdouble; then the code that
  runs by default (`mtorch.fast` may replace the reference) against the reference, in float64.
* An optimizer: ten steps, against the equations of its docstring, read from there and evaluated in longdouble.
* A schedule: its rates, against the equation of its docstring, in the same way.
"""

import copy
import inspect
import re
import time
import warnings
from collections.abc import Iterator
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy

from mtorch import accelerate, arrays
from mtorch.insight.explain.docstring import docstring
from mtorch.insight.explain.formula import WIDE, equations, evaluate, expression
from mtorch.layer import Layer
from mtorch.layers.linear import Linear
from mtorch.losses.base import LossFunction
from mtorch.module import Module
from mtorch.optim.base import Optimizer
from mtorch.optim.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    InverseSqrt,
    LinearWarmup,
    MultiStepLR,
    Schedule,
    StepLR,
)

SECONDS = 1.0  # after that no further example is begun
WIDE_ENOUGH = numpy.finfo(WIDE).eps < 1e-18
TOLERANCE = 1e-10 if WIDE_ENOUGH else 1e-8


class Check(NamedTuple):
    """One example: what it was, and its error; with a `fault`, what is wrong."""

    subject: str
    error: float
    fault: str = ""


class Proof(NamedTuple):
    method: str
    checks: list[Check]
    left: int = 0  # examples for which there was no time
    tolerance: float = TOLERANCE

    @property
    def error(self) -> float:
        errors = [check.error for check in self.checks]
        return float("inf") if not errors or any(numpy.isnan(errors)) else float(max(errors))

    @property
    def holds(self) -> bool:
        return self.error <= self.tolerance and not any(check.fault for check in self.checks)


def prove(cls: Any, seconds: float = SECONDS) -> Proof:
    """The proof of a class; what goes wrong is an error of infinity, never an exception."""
    if issubclass(cls, Layer | LossFunction):
        makers, method = _gradient_checks(cls), GRADIENTS
    elif issubclass(cls, Optimizer):
        makers, method = _optimizer_checks(cls), UPDATES
    else:
        makers, method = _schedule_checks(cls), RATES
    checks: list[Check] = []
    begin, left = time.monotonic(), 0
    while True:
        try:
            with warnings.catch_warnings(), numpy.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                subject, check = next(makers, ("", None))
        except Exception as error:
            checks.append(Check(cls.__name__, float("inf"), said(error)))
            break
        if check is None:
            break
        if checks and time.monotonic() - begin > seconds:
            left += 1
            continue
        try:
            with warnings.catch_warnings(), numpy.errstate(all="ignore"):
                warnings.simplefilter("ignore")
                checks.append(Check(subject, check()))
        except Exception as error:
            found = re.search(r"relative error ([-+.\w]+)", str(error))
            checks.append(Check(subject, float(found[1]) if found else float("inf"), said(error)))
    return Proof(method, checks, left)


GRADIENTS = (
    "Every gradient against fourth-order finite differences of the reference code in longdouble, and the code that "
    "runs by default against the reference in float64, over the class's examples():"
)
UPDATES = (
    "Ten steps with random gradients, against the equations of the docstring above, which are read from there and "
    "evaluated in longdouble:"
)
RATES = "A hundred rates against the equation of the docstring above, read from there and evaluated in longdouble:"


def said(error: Exception) -> str:
    """The class of an error and the first line of its text."""
    return f"{type(error).__name__}: {error}".partition("\n")[0]


# ---------------------------------------------------------------------- layers and losses


def _gradient_checks(cls: Any) -> Iterator[Any]:
    from mtorch.testing.gradients import check_gradients, make_value

    found: list[tuple[int, int, Any, Any, Any]] = []
    for subject, inputs in cls.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
        value = make_value(inputs, numpy, numpy.dtype("float64"), numpy.random.default_rng(1))
        sizes = [leaf.size for leaf in arrays.leaves(value)]
        sizes += [p.value.size for p in subject.parameters().values()] if isinstance(subject, Layer) else []
        found.append((sum(sizes), len(found), subject, inputs, value))
    for _, _, subject, inputs, value in sorted(found, key=lambda each: each[:2]):  # the smallest takes the least time

        def check(subject: Any = subject, inputs: Any = inputs, value: Any = value) -> float:
            with accelerate.disabled():
                error = check_gradients(subject, inputs, "longdouble")
            return max(error, _difference(_outcome(subject, value, False), _outcome(subject, value, True)))

        yield f"{subject!r} on {arrays.shape_value(value)}", check


def _outcome(subject: Any, value: Any, fast: bool) -> list[Any]:
    """Output and gradients of one forward and backward in float64."""
    with nullcontext() if fast else accelerate.disabled():
        if isinstance(subject, LossFunction):
            loss = subject(*value)
            return [numpy.asarray(loss.value), *arrays.leaves(loss.grad)]
        layer = copy.deepcopy(subject)
        if isinstance(layer, Module):
            layer.input_grad = True
        y = layer(value)
        rng = numpy.random.default_rng(2)
        grad = arrays.map_value(lambda a: rng.standard_normal(a.shape) if a.dtype.kind == "f" else None, y)
        dx = layer.backward(grad)
        return [*arrays.leaves(y), *arrays.leaves(dx), *(p.grad.copy() for p in layer.parameters().values())]


def _difference(a: list[Any], b: list[Any]) -> float:
    """The largest difference of two lists of arrays, relative to the largest entry of each, at least 1."""
    worst = 0.0
    for x, y in zip(a, b, strict=True):
        if x.size:
            x, y = x.astype(float), y.astype(float)
            same = (x == y) | (numpy.isnan(x) & numpy.isnan(y))
            worst = max(worst, float(numpy.where(same, 0, abs(x - y)).max() / max(1.0, float(abs(x).max()))))
    return worst


# ---------------------------------------------------------------------- optimizers


def _optimizer_checks(cls: Any) -> Iterator[Any]:
    for options in cls.examples():
        text = ", ".join(f"{name}={value!r}" for name, value in options.items())
        yield f"{cls.__name__}(module, {text})", lambda options=options: _steps_by_the_docstring(cls, options)


def _steps_by_the_docstring(cls: Any, options: dict[str, Any]) -> float:
    """The largest difference of the parameters after each of ten steps, relative to 1."""
    worst = 0.0
    for dtype, context in (("longdouble", accelerate.disabled), ("float64", nullcontext)):
        module = Module(Linear(3, 2, dtype=dtype, rng=0))
        optimizer = cls(module, **options)
        names = _attributes(optimizer)
        rules = equations("\n\n".join(_active(optimizer)), {*names, "g", "t", "w"})
        if not any(rule.name == "d" for rule in rules):
            raise ValueError(f"the docstring of {cls.__name__} has no equation for d")
        mine = {name: p.value.astype(WIDE) for name, p in module.parameters().items()}
        states = {
            name: {rule.name: numpy.zeros_like(w) + _begin(optimizer, rule.name) for rule in rules if rule.state}
            for name, w in mine.items()
        }
        # A decay that is decoupled stands in the equation, as AdamW has it, or is added to d as `Optimizer` says.
        said = not optimizer.decoupled or any("weight_decay" in rule.expression for rule in rules)
        decay = WIDE(optimizer.weight_decay) if not optimizer.decoupled else WIDE(0)
        rng = numpy.random.default_rng(3)
        for t in range(1, 11):
            grads = {name: rng.standard_normal(w.shape) for name, w in mine.items()}
            with context():
                for name, p in module.parameters().items():
                    p.accumulate(grads[name].astype(dtype))
                optimizer.step()
            for name, w in mine.items():
                values = {**names, **states[name], "t": WIDE(t), "w": w, "g": grads[name].astype(WIDE) + decay * w}
                for rule in rules:
                    values[rule.name] = evaluate(rule.expression, values)
                    if rule.state:
                        states[name][rule.name] = values[rule.name]
                d = values["d"] if said else values["d"] + WIDE(optimizer.weight_decay) * w
                mine[name] = w - WIDE(optimizer.lr) * d
                found = module.parameters()[name].value.astype(WIDE)
                worst = max(worst, float((abs(found - mine[name]) / numpy.maximum(1, abs(mine[name]))).max()))
    return worst


def _active(optimizer: Optimizer) -> list[str]:
    """The parts of the docstring that apply: the first, then each `option: ...` whose option is set."""
    text = docstring(type(optimizer))
    cuts = list(re.finditer(r"(?:^|(?<=\.  ))(\w+): ", text, re.MULTILINE))
    ends = [*(cut.start() for cut in cuts), len(text)]
    parts = [text[: ends[0]]]
    parts += [
        text[cut.end() : end]
        for cut, end in zip(cuts, ends[1:], strict=True)
        if getattr(optimizer, cut[1], None) and cut[1] != "options"
    ]
    return parts


def _begin(optimizer: Optimizer, name: str) -> Any:
    """What a state begins as: 0, or what the docstring says: "s begins at `initial_accumulator_value`"."""
    said = re.search(rf"\b{name} begins at\s+`(\w+)`", docstring(type(optimizer)))
    return WIDE(getattr(optimizer, said[1])) if said else WIDE(0)


def _attributes(of: Any) -> dict[str, Any]:
    """The numbers among the attributes, in longdouble; of a tuple `betas` they are beta1 and beta2."""
    found: dict[str, Any] = {}
    for name, value in vars(of).items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            found[name] = WIDE(value)
        elif isinstance(value, list):
            found[name] = numpy.asarray(value, dtype=WIDE)
        elif isinstance(value, tuple) and all(isinstance(each, float) for each in value):
            found |= {f"{name.removesuffix('s')}{i + 1}": WIDE(each) for i, each in enumerate(value)}
    return found


# ---------------------------------------------------------------------- schedules


def schedules_of(cls: Any) -> list[Schedule]:
    """Some schedules of a class, the first with the simplest numbers."""
    made: dict[Any, list[Schedule]] = {
        StepLR: [StepLR(1.0, 3, gamma=0.5), StepLR(0.1, 7)],
        MultiStepLR: [MultiStepLR(1.0, [3, 8], gamma=0.5), MultiStepLR(0.1, [1, 20, 50])],
        ExponentialLR: [ExponentialLR(1.0, 0.5), ExponentialLR(0.3, 0.97)],
        CosineAnnealingLR: [CosineAnnealingLR(1.0, 6), CosineAnnealingLR(0.5, 30, eta_min=0.01)],
        LinearWarmup: [LinearWarmup(1.0, 4), LinearWarmup(StepLR(0.5, 10), 5)],
        InverseSqrt: [InverseSqrt(1.0), InverseSqrt(0.3)],
    }
    return made[cls] if cls in made else [cls(1.0)]


def _schedule_checks(cls: Any) -> Iterator[Any]:
    for schedule in schedules_of(cls):

        def check(schedule: Schedule = schedule) -> float:
            rates = [(schedule(k), rate_by_the_docstring(schedule, k)) for k in range(100)]
            return max(float(abs(rate - said) / max(1, abs(said))) for rate, said in rates)

        yield repr(schedule), check


def rate_by_the_docstring(schedule: Any, k: int) -> Any:
    """The rate of step k, from the expression that the docstring begins with and the names that it defines."""
    text = inspect.cleandoc(type(schedule).__doc__ or "")
    values = {**_attributes(schedule), "k": WIDE(k)}
    if isinstance(schedule.lr, Schedule):
        values["lr"] = rate_by_the_docstring(schedule.lr, k)
    for rule in equations(text, values):
        values[rule.name] = evaluate(rule.expression, values)
    return evaluate(expression(text, values)[0], values)
