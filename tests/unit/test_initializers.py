"""Initial values: moments, bounds, fans and gains as PyTorch defines them, and the default generator."""

import math

import numpy
import pytest

import mtorch
from mtorch import initializers
from mtorch.initializers import as_generator, default_generator, fans, gain

SHAPE = (60, 50, 4, 5)
FAN_IN, FAN_OUT = 50 * 20, 60 * 20

NORMALS = {
    "normal": (initializers.normal(0.5, 2.0), 0.5, 2.0),
    "xavier": (initializers.xavier_normal(3.0), 0, 3 * math.sqrt(2 / (FAN_IN + FAN_OUT))),
    "kaiming": (initializers.kaiming_normal(), 0, math.sqrt(2 / FAN_IN)),
    "kaiming out tanh": (initializers.kaiming_normal(0, "fan_out", "tanh"), 0, 5 / 3 / math.sqrt(FAN_OUT)),
    "kaiming leaky": (initializers.kaiming_normal(a=0.5), 0, math.sqrt(2 / 1.25 / FAN_IN)),
    "coe": (initializers.coe(2), 0, math.sqrt(2 / FAN_IN)),
}
UNIFORMS = {
    "uniform": (initializers.uniform(-1.0, 3.0), -1, 3),
    "xavier": (initializers.xavier_uniform(2.0), -2 * math.sqrt(6 / (FAN_IN + FAN_OUT)), None),
    "kaiming": (initializers.kaiming_uniform(), -math.sqrt(6 / FAN_IN), None),
    "torch's layers": (initializers.kaiming_uniform(math.sqrt(5)), -1 / math.sqrt(FAN_IN), None),
}


def draw(init, shape=SHAPE, rng=0):
    return init(as_generator(rng), shape, *fans(shape))


@pytest.mark.parametrize("name", NORMALS)
def test_normal_initializers_have_the_moments_of_their_definition(name):
    init, mean, std = NORMALS[name]
    w = draw(init)
    z = (w - mean) / std
    assert w.shape == SHAPE and w.dtype == numpy.float64
    assert abs(z.mean()) < 4 / math.sqrt(z.size)
    assert abs(z.var() - 1) < 4 * math.sqrt(2 / z.size)
    assert abs((z**4).mean() - 3) < 4 * math.sqrt(96 / z.size)  # normal, not merely of that variance


@pytest.mark.parametrize("name", UNIFORMS)
def test_uniform_initializers_fill_their_bounds(name):
    init, low, high = UNIFORMS[name]
    high = -low if high is None else high
    w = draw(init)
    assert w.shape == SHAPE and w.dtype == numpy.float64
    u = (w - low) / (high - low)
    assert 0 <= u.min() < 1e-3 and 1 - 1e-3 < u.max() <= 1
    assert abs(u.mean() - 0.5) < 4 * math.sqrt(1 / 12 / u.size)
    assert abs(u.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / u.size)


@pytest.mark.parametrize("shape", [(4, 9), (9, 4), (6, 6), (8, 2, 3, 3), (20, 2, 3)])
def test_orthogonal_weights_keep_lengths(shape):
    w = draw(initializers.orthogonal(1.5), shape).reshape(shape[0], -1) / 1.5
    small = w @ w.T if w.shape[0] <= w.shape[1] else w.T @ w
    assert abs(small - numpy.eye(len(small))).max() < 1e-12


def test_orthogonal_matrices_have_no_preferred_sign():
    rng = as_generator(1)
    traces = [numpy.trace(initializers.orthogonal()(rng, (3, 3), 3, 3)) for _ in range(400)]
    assert abs(numpy.mean(traces)) < 4 / math.sqrt(400)  # a trace of the Haar measure has mean 0 and variance 1


def test_constant_is_the_same_number_everywhere():
    assert (draw(initializers.constant(0.25), (3,) * 2) == 0.25).all()


def test_fans_are_those_of_linear_and_convolution_weights():
    assert fans((16, 784)) == (784, 16)
    assert fans((50, 20, 5, 5)) == (500, 1250)
    assert fans((8, 3, 7)) == (21, 56)
    with pytest.raises(ValueError, match=r"fans .* got shape \(3,\)"):
        fans((3,))


def test_regression_p_fan_in_and_fan_out_of_a_convolution_are_not_swapped():
    """An original swapped them: a 1 -> 64 channel convolution then started eight times too small."""
    w = draw(initializers.kaiming_normal(nonlinearity="linear"), (64, 1, 5, 5))
    assert w.std() == pytest.approx(1 / 5, rel=0.1)
    w = draw(initializers.kaiming_normal(mode="fan_out", nonlinearity="linear"), (64, 1, 5, 5))
    assert w.std() == pytest.approx(1 / 40, rel=0.1)


def test_gains_are_those_of_the_table():
    table = {"linear": 1, "conv": 1, "sigmoid": 1, "tanh": 5 / 3, "relu": math.sqrt(2), "selu": 3 / 4}
    assert {name: gain(name) for name in table} == table
    assert gain("leaky_relu") == math.sqrt(2 / (1 + 0.01**2))
    assert gain("leaky_relu", 0.2) == math.sqrt(2 / 1.04)


@pytest.mark.parametrize(
    "make, text",
    [
        (lambda: initializers.normal(std=-1), "normal expected std >= 0"),
        (lambda: initializers.normal(mean=math.nan), "normal expected a finite mean"),
        (lambda: initializers.uniform(1, 0), "uniform expected high >= 1"),
        (lambda: initializers.constant(math.inf), "constant expected a finite value"),
        (lambda: initializers.coe(0), "coe expected coe > 0"),
        (lambda: initializers.coe(math.nan), "coe expected coe > 0"),
        (lambda: initializers.xavier_uniform(math.inf), "xavier_uniform expected a finite gain"),
        (lambda: initializers.kaiming_uniform(mode="fan"), "expected mode 'fan_in' or 'fan_out', got 'fan'"),
        (lambda: initializers.kaiming_normal(nonlinearity="relu6"), "kaiming_normal expected a non.* out of .*'relu6'"),
        (lambda: initializers.kaiming_normal(a=math.nan), "kaiming_normal expected a finite a"),
        (lambda: initializers.orthogonal()(as_generator(0), (4,), 4, 4), "orthogonal expected a weight of at"),
        (lambda: initializers.xavier_normal()(as_generator(0), (2, 0), 0, 0), "xavier_normal expected fans > 0"),
        (lambda: as_generator(-1), "seed >= 0, got -1"),
    ],
)  # fmt: skip
def test_bad_arguments_are_value_errors_that_name_function_and_argument(make, text):
    with pytest.raises(ValueError, match=text):
        make()


@pytest.mark.parametrize("bad", [1.0, "0", True, [1], numpy.random.RandomState(0)])
def test_a_generator_is_made_of_an_int_a_generator_or_none_only(bad):
    with pytest.raises(TypeError, match="expected an int, a numpy.random.Generator or None"):
        as_generator(bad)


def test_an_int_is_a_new_generator_and_a_generator_is_itself():
    rng = numpy.random.default_rng(5)
    assert as_generator(rng) is rng
    assert as_generator(5).random() == as_generator(numpy.int64(5)).random() == rng.random()
    assert as_generator() is default_generator() is as_generator(None)


def test_seed_restarts_the_default_generator_for_those_who_already_hold_it():
    state = default_generator().bit_generator.state
    try:
        held = default_generator()
        mtorch.seed(7)
        first = held.random(3)
        mtorch.seed(7)
        assert (default_generator().random(3) == first).all()
        assert (numpy.random.default_rng(7).random(3) == first).all()
        with pytest.raises(TypeError):
            mtorch.seed("x")
    finally:
        default_generator().bit_generator.state = state
