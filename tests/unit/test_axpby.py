"""Large arrays are scaled and added by BLAS: the same values as NumPy's, and nothing where BLAS would do otherwise."""

import math

import numpy
import pytest

from mtorch import Adam, Module, Parameter, fast, layers
from mtorch.blas import address, cblas
from mtorch.fast.axpby import LARGE, axpby

N = LARGE + 5
BY_BLAS = cblas("?axpby", "f", "inpinpi") is not None


def numbers(dtype="float32", shape=(N,), seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape).astype(dtype)


@pytest.mark.skipif(not BY_BLAS, reason="this BLAS has no axpby")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("alpha", "beta"), [(-0.1, 1), (0.3, 0.7), (2.0, 0.5), (numpy.array(0.1, "f"), 0.9)])
def test_it_scales_and_adds(alpha, beta, dtype):
    x, y = numbers(dtype), numbers(dtype, seed=1)
    expected = float(alpha) * x.astype("longdouble") + beta * y.astype("longdouble")
    before = x.copy()
    assert axpby(alpha, x, beta, y)
    numpy.testing.assert_allclose(y, expected, rtol=0, atol=8 * numpy.finfo(dtype).eps)
    assert (x == before).all()


def shared(x, y):
    """The numbers of both in one memory."""
    both = numbers(shape=(N + 7,))
    return both[x : x + N], both[y : y + N]


@pytest.mark.parametrize(
    ("x", "y"),
    [
        shared(0, 7),
        shared(7, 0),
        shared(0, 0),
        (numbers(shape=(1, N)), numbers()),
        (numbers(shape=(100,)), numbers(shape=(400, 100))),
        (1.0, numbers()),
        (numpy.float32(1), numbers()),
        (numbers(shape=10), numbers(shape=10)),
        (numbers("float64"), numbers()),
        (numbers(shape=(N, 2))[:, 0], numbers()),
        (numbers(), numbers(shape=(N, 2))[:, 0]),
        (numbers(shape=(200, 200)).T, numbers(shape=(200, 200))),
        (numbers("float16"), numbers("float16")),
        (numbers(">f4"), numbers(">f4")),
    ],
)
def test_what_blas_cannot_take_stays_as_it_is(x, y):
    before = y.copy()
    assert not axpby(0.5, x, 0.5, y)
    assert (y == before).all()


@pytest.mark.parametrize(("alpha", "beta"), [(0.0, 1.0), (1.0, 0.0), (1e-46, 1.0), (1.0, -1e-46)])
def test_a_factor_of_zero_is_left_to_numpy(alpha, beta):
    """BLAS leaves the array out, and a NaN in it."""
    x, y = numbers(), numbers()
    before = y.copy()
    assert not axpby(alpha, x, beta, y)
    assert (y == before).all()


@pytest.mark.parametrize("n", [7, N])
def test_a_fixed_value_stays_as_it_is(n):
    p = Parameter(numpy.ones(n, "f"))
    p.accumulate(numpy.ones(n, "f"))
    p.value.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        p.step(0.5)
    assert (p.value == 1).all()


@pytest.mark.parametrize("n", [10, N])
@pytest.mark.parametrize("rate", [numpy.uint8(1), numpy.True_, numpy.float64(1), numpy.float32(1), 1])
def test_a_rate_of_any_type(n, rate):
    p = Parameter(numpy.ones(n, "f"))
    p.accumulate(numpy.ones(n, "f"))
    p.step(rate)
    assert (p.value == 0).all()


@pytest.mark.parametrize("n", [10, N])
def test_a_direction_may_share_memory_and_have_another_shape(n):
    with numpy.errstate(all="raise"):
        p = Parameter(numpy.arange(n, dtype="f"))
        p.accumulate(numpy.ones(n, "f"))
        p.grad[0] = 1e-38
        p.direction = p.grad[::-1]
        p.step(1e-3)
    numpy.testing.assert_allclose(p.value[:3], [-0.001, 0.999, 1.999], rtol=1e-6)
    both = numpy.arange(n + 7, dtype="f")
    p.value = both[7:]
    p.accumulate(numpy.ones(n, "f"))
    p.direction = both[:-7]
    p.step(0.5)
    assert p.value[8 % n] == 7 + 8 - 0.5 * 8
    for direction in (numpy.ones(1, "f"), 1.0, numpy.float32(1)):
        p.value = numpy.ones(n, "f")
        p.accumulate(numpy.ones(n, "f"))
        p.direction = direction
        p.step(0.5)
        assert (p.value == 0.5).all()


@pytest.mark.parametrize("n", [7, N])
@pytest.mark.parametrize("rate", [0.0, 1e-46, 1e-41, 1.0, 1e39])
@pytest.mark.parametrize("entry", [numpy.nan, 0.0, 3e38])
def test_a_step_raises_nothing_and_hides_nothing(n, rate, entry):
    with numpy.errstate(all="raise"):
        p = Parameter(numpy.full(n, -3e38, "f"))
        p.accumulate(numpy.full(n, entry, "f"))
        p.step(rate)
    with numpy.errstate(all="ignore"):
        expected = numpy.float32(-3e38) - numpy.float32(rate) * numpy.float32(entry)
    numpy.testing.assert_array_equal(p.value, numpy.full(n, expected))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_large_parameter_steps_along_its_gradient_or_its_direction(dtype, order):
    value, g, d = (numpy.asarray(numbers(dtype, (200, 200), seed), order=order) for seed in range(3))
    p, tolerance = Parameter(value), 8 * numpy.finfo(dtype).eps
    p.accumulate(g)
    p.step(0.25)
    numpy.testing.assert_allclose(p.value, value - 0.25 * g, rtol=0, atol=tolerance)
    p.accumulate(g)
    p.direction, kept = d, d.copy()
    p.step(0.5)
    numpy.testing.assert_allclose(p.value, value - 0.25 * g - 0.5 * d, rtol=0, atol=2 * tolerance)
    assert (d == kept).all()  # it may be a momentum that the optimizer keeps


@pytest.mark.parametrize("betas", [(0.9, 0.999), (0.0, 0.5), (0.999, 0.0)])
@pytest.mark.parametrize("size", [3, 200])
@pytest.mark.parametrize("first", [1.0, math.nan, math.inf, 1e160])
def test_adam_in_place_is_adam(size, betas, first):
    """Also after a first gradient that is too large, or none."""

    def trained():
        module = Module(layers.Linear(size, size, dtype="float64", rng=0))
        adam = Adam(module, lr=0.01, betas=betas)
        for k in range(5):
            for i, p in enumerate(module.parameters().values()):
                g = numbers("float64", p.value.shape, seed=10 * k + i)
                g[:2] *= first if k == 0 else 1
                p.accumulate(g)
            adam.step()
        return module.state_dict() | adam.state_dict()

    found = trained()
    with fast.disabled():
        expected = trained()
    for name in expected:
        numpy.testing.assert_allclose(found[name], expected[name], rtol=1e-12, atol=1e-14, err_msg=name)


@pytest.mark.parametrize(("dtype", "large"), [("float16", 303.0), ("float32", 5e19)])
@pytest.mark.parametrize("size", [3, 200])
def test_adam_goes_on_after_a_large_gradient(size, dtype, large):
    module = Module(layers.Linear(size, size, dtype=dtype, rng=0))
    adam, start = Adam(module, lr=0.01), module.state_dict()
    for k in range(20):
        for p in module.parameters().values():
            p.accumulate(numpy.full(p.value.shape, large if k == 0 else large / 100, dtype))
        adam.step()
    assert all((value < start[name] - 0.03).all() for name, value in module.state_dict().items())


def test_the_address_of_an_array():
    x = numbers(shape=(6, 4))
    fixed = x.copy()
    fixed.setflags(write=False)
    for each in (x, x.T, x[:, 1:], x[2:], x[::2].T, fixed, fixed.T, x[:0]):
        assert address(each) == each.ctypes.data
