"""The validators that constructors share."""

import math
from fractions import Fraction

import numpy
import pytest

import mtorch
from mtorch import layers, losses, models
from mtorch.checks import (
    check_axes,
    check_axis,
    check_choice,
    check_flag,
    check_integer,
    check_number,
    check_rate,
    check_size,
    plain,
    shown,
)
from mtorch.data import digits, sine_cosine


@pytest.mark.parametrize("number", [0.5, numpy.float32(0.5), numpy.longdouble(0.5), Fraction(1, 2)])
def test_a_number_of_any_kind_becomes_a_float(number):
    found = check_number("Layer", "p", number, least=0.5, most=0.5)
    assert found == 0.5 and type(found) is float


@pytest.mark.parametrize("number", [True, "1", None, 1j, [1.0], numpy.array(1.0)])
def test_what_is_no_real_number_is_a_type_error(number):
    with pytest.raises(TypeError, match="Layer expected a number as p, got"):
        check_number("Layer", "p", number)


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf, 10**400, numpy.longdouble("1e400")])
@pytest.mark.parametrize("bounds", [{}, {"least": 0}, {"most": 1}, {"above": 0, "below": 1}])
def test_a_number_must_be_finite(number, bounds):
    with pytest.raises(ValueError, match="Layer expected "):
        check_number("Layer", "p", number, **bounds)


@pytest.mark.parametrize(
    "bounds, good, bad, text",
    [
        ({"least": 0}, 0, -1, "p >= 0"),
        ({"above": 0}, 1e-9, 0, "p > 0"),
        ({"most": 1}, 1, 1.5, "p <= 1"),
        ({"least": 0, "below": 1}, 0, 1, "p >= 0 and p < 1"),
        ({}, 3, math.inf, "a finite p"),
    ],
)
def test_a_number_outside_of_its_bounds_is_a_value_error_that_names_them(bounds, good, bad, text):
    assert check_number("Layer", "p", good, **bounds) == good
    with pytest.raises(ValueError, match=f"^Layer expected {text}, got {bad}$"):
        check_number("Layer", "p", bad, **bounds)


def test_a_bound_holds_after_rounding_to_a_float():
    almost = numpy.nextafter(numpy.longdouble(1), numpy.longdouble(0))
    with pytest.raises(ValueError, match="p < 1"):
        check_number("Layer", "p", almost, below=1)


@pytest.mark.parametrize("number", [3, numpy.int8(3), numpy.uint64(3), numpy.array(3)])
def test_an_integer_of_any_width_becomes_an_int(number):
    for found in (check_integer("Layer", "n", number), check_size("Layer", "n", number), check_axis("Layer", number)):
        assert found == 3 and type(found) is int


@pytest.mark.parametrize("number", [3.0, True, numpy.True_, "3", None, [3]])
def test_what_is_no_integer_is_a_type_error(number):
    with pytest.raises(TypeError, match="Layer expected an integer n, got"):
        check_integer("Layer", "n", number)
    with pytest.raises(TypeError, match="Layer expected an integer axis, got"):
        check_axis("Layer", number)


def test_a_size_is_at_least_one():
    assert check_size("Layer", "n", 0, least=0) == 0 and check_axis("Layer", -1) == -1
    with pytest.raises(ValueError, match="Layer expected n >= 1, got 0"):
        check_size("Layer", "n", 0)


def test_axes_are_an_int_or_different_ints_or_none():
    assert check_axes("Sum", None) is None and check_axes("Sum", numpy.int64(2)) == 2
    assert check_axes("Sum", (0, numpy.int8(-1))) == (0, -1) and check_axes("Sum", ()) == ()
    for wrong in (1.0, [0, 1], (0, True), "0"):
        with pytest.raises(TypeError, match="Sum expected axis to be an int, a tuple of ints or None, got"):
            check_axes("Sum", wrong)
    with pytest.raises(ValueError, match=r"Sum expected different axes, got axis=\(0, 0\)"):
        check_axes("Sum", (0, 0))


def test_a_flag_is_a_truth_value_and_nothing_that_has_one():
    assert check_flag("Layer", "bias", numpy.True_) is True and check_flag("Layer", "bias", False) is False
    for wrong in (0, 1, "no", None, []):
        with pytest.raises(TypeError, match="Layer expected bias to be True or False, got"):
            check_flag("Layer", "bias", wrong)


class Rude:
    def __repr__(self):
        raise RuntimeError("no repr")


def test_what_an_error_shows_is_one_line_of_bounded_length_whatever_it_is():
    endless, deep = [], []
    endless.append(endless)
    for _ in range(5000):
        deep = [deep]
    for value in (10**5000, -(10**5000), "x" * 10**6, "a\nb\x1b[31m", b"x" * 10**6, Rude(), deep, endless, [0] * 10**6,
                  {n: n for n in range(10**4)}, numpy.ones(10**5), (1, 2)):  # fmt: skip
        assert len(shown(value)) <= 210 and shown(value).isprintable()
    assert shown((1, "a")) == "(1, 'a')" and shown(10**5000) == "an integer of 16610 bits"
    assert shown([0] * 1000) == "a list of 1000 entries" and shown(2**64) == str(2**64)
    assert plain("red\x1b[31m") == "red\\x1b[31m"


@pytest.mark.parametrize("number", [2**63, -(2**63), 10**400])
def test_an_integer_has_64_bits(number):
    for check in (check_integer, check_size):
        with pytest.raises(ValueError, match="Layer expected n (up to 2|>= 1)"):
            check("Layer", "n", number)
    assert check_integer("Layer", "n", 2**63 - 1) == 2**63 - 1


@pytest.mark.parametrize("rate", [-1, math.nan, math.inf, 10**400])
def test_a_rate_is_a_finite_number(rate):
    with pytest.raises(ValueError, match="'Layer' expected a finite learning rate >= 0"):
        check_rate("Layer", rate)


def test_a_choice_is_one_of_the_names():
    assert check_choice("Layer", "mode", "a", ("a", "b")) == "a"
    for wrong in ("c", None, ["a"], numpy.array(["a", "b"])):
        with pytest.raises(ValueError, match=r"Layer expected mode in \('a', 'b'\), got"):
            check_choice("Layer", "mode", wrong, ("a", "b"))


@pytest.mark.parametrize(
    "make",
    [
        lambda n, few: layers.Linear(n, n, rng=0),
        lambda n, few: layers.Conv2d(n, n, few, rng=0),
        lambda n, few: layers.Conv2d(n, n, few, groups=few, rng=0),
        lambda n, few: layers.ConvTranspose2d(n, n, few, groups=few, rng=0),
        lambda n, few: layers.RNNCell(n, n, rng=0),
        lambda n, few: layers.LSTM(n, n, few, bidirectional=True, rng=0),
        lambda n, few: layers.Embedding(n, n, n - 1, rng=0),
        lambda n, few: layers.PositionalEmbedding(n, n, learned=False),
        lambda n, few: layers.MultiHeadAttention(n, few, rng=0),
        lambda n, few: layers.GroupNorm(few, n),
        lambda n, few: layers.LayerNorm((n, n)),
        lambda n, few: layers.PReLU(n),
        lambda n, few: models.linear(784, n, rng=0),
        lambda n, few: models.bilstm(n, classes=few, embedding=n, hidden=n, rng=0),
        lambda n, few: models.transformer(width=n, heads=few, blocks=few, rng=0),
    ],
)
def test_sizes_may_be_numpys(make):
    """The number of classes may be the maximum of some bytes, plus one."""
    expected, found = make(200, 2), make(numpy.uint8(200), numpy.uint8(2))
    assert repr(found) == repr(expected)
    for name, value in expected.state_dict().items():
        numpy.testing.assert_array_equal(found.state_dict()[name], value, strict=True)


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("name", "number"), [("size", 250), ("scale_factor", 2)])
def test_the_numbers_of_upsample_may_be_numpys(name, number, mode):
    x = numpy.arange(800.0).reshape(2, 2, 200)
    expected, found = (
        layers.Upsample(**{name: each}, mode=mode, dtype="float64") for each in (number, numpy.uint8(number))
    )
    assert repr(found) == repr(expected)
    numpy.testing.assert_array_equal(found.forward(x), expected.forward(x), strict=True)


def test_other_sizes_may_be_numpys():
    byte = numpy.uint8(200)
    found, expected = (sine_cosine(first=n, count=n, steps=n) for n in (byte, 200))
    numpy.testing.assert_array_equal(found, expected, strict=True)
    assert layers.Reshape((numpy.int8(-1), byte)).shape == (-1, 200)
    assert [type(n) for n in layers.Reshape(numpy.int8(-1)).shape] == [int]
    assert digits(numpy.int64(8)).train_images.shape == (1257, 8, 8)
    assert str(mtorch.summary(layers.Linear(200, 2), byte)) == str(mtorch.summary(layers.Linear(200, 2), 200))


@pytest.mark.parametrize("wrong", [0, False, "", 2.0])
def test_a_wrong_size_of_a_model_is_named(wrong):
    with pytest.raises((TypeError, ValueError), match="gru expected"):
        models.gru(64, 10, hidden=wrong)


@pytest.mark.parametrize(
    ("loss", "target"),
    [
        (losses.HuberLoss(delta=numpy.float64(0.5)), numpy.ones((2, 3), "f")),
        (losses.CrossEntropyLoss(label_smoothing=numpy.float64(0.1)), numpy.array([0, 2])),
    ],
    ids=repr,
)
def test_a_number_of_numpys_leaves_a_gradient_the_dtype_of_the_prediction(loss, target):
    assert loss(numpy.zeros((2, 3), "f"), target).grad.dtype == "f"
