"""Learning-rate schedules in closed form."""

import math

import numpy
import pytest

from mtorch import SGD, layers
from mtorch.optim.schedules import (
    CosineAnnealingLR,
    ExponentialLR,
    InverseSqrt,
    LinearWarmup,
    MultiStepLR,
    StepLR,
)

RATES = [
    (StepLR(1.0, 3, 0.5), [1, 1, 1, 0.5, 0.5, 0.5, 0.25]),
    (StepLR(1.0, 1), [1, 0.1, 0.01]),
    (MultiStepLR(1.0, [4, 2, 4], 0.5), [1, 1, 0.5, 0.5, 0.125, 0.125]),
    (MultiStepLR(2.0, [], 0.5), [2, 2, 2]),
    (ExponentialLR(8.0, 0.5), [8, 4, 2, 1]),
    (CosineAnnealingLR(1.0, 2), [1, 0.5, 0, 0.5, 1, 0.5, 0]),
    (CosineAnnealingLR(3.0, 2, eta_min=1.0), [3, 2, 1, 2, 3]),
    (LinearWarmup(1.0, 4), [0.25, 0.5, 0.75, 1, 1, 1]),
    (LinearWarmup(ExponentialLR(1.0, 0.5), 2), [0.5, 0.5, 0.25, 0.125]),
    (InverseSqrt(2.0), [2, 2 / math.sqrt(2), 2 / math.sqrt(3), 1]),
]


@pytest.mark.parametrize("schedule, rates", RATES, ids=lambda value: repr(value) if callable(value) else "")
def test_rates_are_the_closed_form(schedule, rates):
    found = [schedule(k) for k in range(len(rates))]
    assert found == pytest.approx(rates, abs=1e-15)
    assert all(type(rate) is float for rate in found)
    assert [schedule(k) for k in reversed(range(len(rates)))] == found[::-1]  # nothing is kept between calls


def test_the_kth_step_of_an_optimizer_uses_the_rate_of_k_minus_1():
    layer = layers.Linear(1, 1, bias=False, dtype="float64", rng=0)
    optimizer, value = SGD(layer, lr=ExponentialLR(0.5, 0.5)), layer.weight.value.item()
    for k in range(4):
        layer(numpy.ones((1, 1)))
        layer.backward(numpy.ones((1, 1)))
        optimizer.step()
        value -= 0.5 * 0.5**k
        assert layer.weight.value.item() == pytest.approx(value, rel=1e-14)


def test_regression_p_exponential_step_and_cosine_are_functions_of_the_step_count():
    """All three were wrong in an original."""
    assert ExponentialLR(1.0, 0.9)(3) == pytest.approx(0.729)
    assert StepLR(1.0, 10, 0.1)(19) == pytest.approx(0.1)
    assert CosineAnnealingLR(1.0, 10)(5) == pytest.approx(0.5)
    assert CosineAnnealingLR(1.0, 10)(10) == pytest.approx(0.0, abs=1e-15)


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: StepLR(-0.1, 2, 0.5), ValueError, "StepLR expected lr >= 0, got -0.1"),
        (lambda: StepLR(math.nan, 2, 0.5), ValueError, "StepLR expected lr >= 0"),
        (lambda: StepLR("0.1", 2, 0.5), TypeError, "StepLR expected a number as lr, got '0.1'"),
        (lambda: StepLR(0.1, 0, 0.5), ValueError, "StepLR expected step_size >= 1, got 0"),
        (lambda: StepLR(0.1, 2.5, 0.5), TypeError, "StepLR expected an integer step_size, got 2.5"),
        (lambda: StepLR(0.1, 2, -1), ValueError, "StepLR expected gamma >= 0"),
        (lambda: MultiStepLR(0.1, [1, -2], 0.5), ValueError, "MultiStepLR expected milestones >= 0, got -2"),
        (lambda: MultiStepLR(0.1, [1, 2.0], 0.5), TypeError, "MultiStepLR expected an integer milestones"),
        (lambda: ExponentialLR(0.1, math.inf), ValueError, "ExponentialLR expected gamma >= 0"),
        (lambda: CosineAnnealingLR(0.1, 0), ValueError, "CosineAnnealingLR expected T_max >= 1"),
        (lambda: CosineAnnealingLR(0.1, 5, math.nan), ValueError, "CosineAnnealingLR expected eta_min >= 0"),
        (lambda: LinearWarmup(0.1, 0), ValueError, "LinearWarmup expected steps >= 1"),
        (lambda: LinearWarmup(math.inf, 3), ValueError, "LinearWarmup expected lr >= 0"),
        (lambda: InverseSqrt(-1), ValueError, "InverseSqrt expected lr >= 0"),
    ],
)
def test_bad_arguments_name_class_and_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()


def test_the_repr_is_the_constructor_call():
    assert repr(StepLR(0.1, 5, 0.5)) == "StepLR(lr=0.1, step_size=5, gamma=0.5)"
    assert repr(LinearWarmup(InverseSqrt(1), 3)) == "LinearWarmup(lr=InverseSqrt(lr=1.0), steps=3)"
