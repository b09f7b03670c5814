"""Fast bodies against the generic ones."""

import numpy
import pytest

from mtorch.kernels.relu import relu, relu_grad, relu_grad_generic
from mtorch.kernels.rows import row_dots, row_sums
from mtorch.kernels.sigmoid import sigmoid


@pytest.mark.parametrize("shape", [(20, 16), (64, 100, 9), (5000,), (0, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_rectifiers_derivative_equals_its_definition(shape, dtype):
    rng = numpy.random.default_rng(0)
    y = numpy.maximum(rng.standard_normal(shape).astype(dtype), 0)
    y[rng.random(shape) < 0.1] = -0.0
    grad = rng.standard_normal(shape).astype(dtype)
    got = relu_grad(numpy, y, grad)
    assert got.dtype == dtype
    numpy.testing.assert_array_equal(got, relu_grad_generic(numpy, y, grad))
    if len(shape) > 1:
        numpy.testing.assert_array_equal(relu_grad(numpy, y.T, grad.T), got.T)


def test_the_rectifier_keeps_what_is_not_a_number():
    for size in (10, 10_000):
        x = numpy.linspace(-1, 1, size, dtype="float32")
        x[3] = numpy.nan
        numpy.testing.assert_array_equal(relu(numpy, x), numpy.maximum(x, 0))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_sigmoid_is_exact_at_every_size(dtype):
    x = numpy.array([-1e4, -80.0, -20.0, -1.0, 0.0, 1.0, 20.0, 80.0, 1e4], dtype)
    if dtype == "float16":
        x = x[(abs(x) < 9) | (x > 0)]
    wide = x.astype(numpy.longdouble)
    with numpy.errstate(over="ignore", under="ignore"):
        expected = 1 / (1 + numpy.exp(-wide))
    y = sigmoid(numpy, x)
    assert y.dtype == x.dtype
    numpy.testing.assert_allclose(y.astype(numpy.longdouble), expected, rtol=4 * numpy.finfo(dtype).eps, atol=1e-45)


@pytest.mark.parametrize("columns", range(1, 34))
def test_row_sums_raise_no_false_alarm(columns):
    """A signalling NaN left on the stack must not be met: OpenBLAS copies a strided vector there and leaves it."""
    signalling = numpy.full(512, 0x7FA00000, numpy.uint32).view("float32")[::2]
    rows, one = numpy.ones((9, 256), "float32"), numpy.ones(columns, "float32")
    x = numpy.arange(7 * columns, dtype="float32").reshape(7, columns)
    expected = row_sums(numpy, x)
    numpy.testing.assert_array_equal(expected, x.sum(axis=1))
    for sums in (row_sums, lambda xp, x: row_dots(xp, x, one)):
        with numpy.errstate(invalid="ignore"):
            rows.dot(signalling)
        with numpy.errstate(invalid="raise"):
            numpy.testing.assert_array_equal(sums(numpy, x), expected)
