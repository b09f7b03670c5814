"""erf and the normal distribution function against numbers computed with 40 digits (mpmath)."""

import math

import numpy
import pytest

from mtorch.math.erf import erf, normal_cdf, normal_density

ERF = [
    ("0", "0.0"),
    ("1e-10", "1.128379167095512573892e-10"),
    ("0.125", "0.140316204801333817393"),
    ("0.5", "0.5204998778130465376827"),
    ("0.9375", "0.815102401034399804177"),
    ("1", "0.8427007929497148693412"),
    ("1.0625", "0.8670582694349527553838"),
    ("2", "0.9953222650189527341621"),
    ("3.5", "0.9999992569016276585873"),
    ("5", "0.9999999999984625402056"),
    ("5.75", "0.9999999999999995767863"),
]
NORMAL_CDF = [
    ("-37.5", "4.605353009581954843828e-308"),
    ("-20", "2.753624118606233695076e-89"),
    ("-10", "7.619853024160526065973e-24"),
    ("-5", "2.866515718791939116738e-7"),
    ("-2.5", "0.006209665325776135166978"),
    ("-1", "0.1586552539314570514148"),
    ("-0.25", "0.4012936743170762757591"),
    ("0", "0.5"),
    ("0.25", "0.5987063256829237242409"),
    ("1", "0.8413447460685429485852"),
    ("3", "0.9986501019683699054733"),
    ("8", "0.9999999999999993779039"),
]
DTYPES = ["float32", "float64", "longdouble"]


def columns(table, dtype):
    kind = numpy.dtype(dtype).type
    return (numpy.array([kind(row[i]) for row in table]) for i in (0, 1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_erf_is_right_to_a_few_units_in_the_last_place(dtype):
    x, expected = columns(ERF, dtype)
    for sign in (1, -1):
        found = erf(numpy, sign * x)
        assert found.dtype == x.dtype
        assert (abs(found - sign * expected) <= 2 * numpy.finfo(dtype).eps * abs(expected)).all()


@pytest.mark.parametrize("dtype, allowed", [("float32", 120), ("float64", 400), ("longdouble", 400)])
def test_the_normal_tail_keeps_its_relative_accuracy(dtype, allowed):
    """The error grows like the square of x, because exp(-x^2/2) passes on the rounding of x^2."""
    x, expected = columns(NORMAL_CDF, dtype)
    normal = abs(expected) > numpy.finfo(dtype).tiny
    found = normal_cdf(numpy, x)
    assert found.dtype == x.dtype
    eps = numpy.finfo(dtype).eps
    assert (abs(found - expected) <= allowed * eps * expected)[normal].all()
    assert (abs(found - expected) <= 2 * eps).all()


def test_erf_agrees_with_the_one_of_the_math_module():
    x = numpy.linspace(-7, 7, 4001)
    expected = numpy.array([math.erf(v) for v in x])
    assert (abs(erf(numpy, x) - expected) <= 4e-16 * abs(expected)).all()
    narrow = erf(numpy, x.astype("float32"))
    again = numpy.array([math.erf(v) for v in x.astype("float32")])
    assert (abs(narrow - again) <= 1.5e-7 * abs(again)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_far_out_values_are_the_limits_and_raise_no_flags(dtype):
    big = numpy.array([20, 200, 1e4, 1e30], dtype=dtype)
    with numpy.errstate(over="raise", divide="raise", invalid="raise"):
        for sign in (1, -1):
            assert (erf(numpy, sign * big) == sign).all()
        assert (normal_cdf(numpy, big) == 1).all()
        assert (normal_cdf(numpy, -big[1:]) == 0).all()
    assert numpy.isnan(erf(numpy, numpy.array([numpy.nan], dtype=dtype))).all()


def test_pieces_join_and_differences_agree_with_the_derivative_in_longdouble():
    """Fourth-order differences across 0 and 1, where the formulas change."""
    if numpy.finfo("longdouble").eps > 1e-18:
        pytest.skip("longdouble is double here")
    root = numpy.sqrt(numpy.longdouble(2))
    x, h = numpy.linspace(-3, 3, 601, dtype="longdouble"), numpy.longdouble(2.0**-10)
    slopes = (normal_cdf, normal_density(numpy, x)), (erf, 2 * root * normal_density(numpy, root * x))
    for function, derivative in slopes:
        near, far = (function(numpy, x + k * h) - function(numpy, x - k * h) for k in (1, 2))
        assert abs((8 * near - far) / (12 * h) - derivative).max() < 4e-12


def test_any_shape_and_any_strides_are_taken():
    x = numpy.linspace(-2, 2, 24).reshape(4, 6)
    for view in (x.T, x[::2, ::-1], x[0, 0:0], numpy.broadcast_to(x[0], (3, 6)), numpy.float64(0.5).reshape(())):
        assert erf(numpy, view).shape == view.shape
        assert (erf(numpy, view) == erf(numpy, view.copy())).all()
