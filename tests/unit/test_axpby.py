"""Large arrays are scaled and added by BLAS: the same values as NumPy's, and nothing where BLAS would do otherwise."""

import math

import numpy
import pytest

from mtorch import Adam, Module, fast, layers
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


@pytest.mark.skipif(not BY_BLAS, reason="this BLAS has no axpby")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("of_y", ["C", "F"])
def test_memory_order_changes_no_bit(of_y, dtype):
    x, y = numbers(dtype, (200, 300)), numbers(dtype, (200, 300), seed=1)
    expected = y.copy()
    assert axpby(-0.1, x, 1.0, expected)
    gaps = numpy.empty((200, 600), dtype)[:, ::2]
    gaps[...] = x
    for each in (x, numpy.asfortranarray(x), gaps, x[::-1].copy()[::-1], numpy.broadcast_to(x, (1, *x.shape))[0]):
        found = numpy.array(y, order=of_y)
        assert axpby(-0.1, each, 1.0, found)
        assert (found == expected).all() and (each == x).all()


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
        (numbers(), numbers(shape=(N, 2))[:, 0]),
        (numbers(shape=(200, 200)), numbers(shape=(200, 400))[:, :200]),
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
