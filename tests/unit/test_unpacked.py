"""Products in pieces that BLAS need not pack: the same values, and pieces only where they pay."""

import numpy
import pytest

from mtorch.fast import product as products
from mtorch.fast import threads, unpacked

RNG = numpy.random.default_rng(0)


def numbers(*shape):
    return RNG.standard_normal(shape)


@pytest.fixture
def small(monkeypatch):
    """Pieces of at most a thousand multiplications."""
    monkeypatch.setattr(unpacked, "UNPACKED", 1000)
    monkeypatch.setattr(unpacked, "SHORT", 10)
    monkeypatch.setattr(unpacked, "NARROW", 16)
    monkeypatch.setattr(unpacked, "has_small_kernels", lambda: True)
    unpacked._width.cache_clear()
    yield
    unpacked._width.cache_clear()


@pytest.mark.parametrize(("columns", "width"), [(96, 32), (112, 16), (16, 0), (90, 0), (7, 0)])
def test_columns_in_pieces(small, columns, width):
    assert unpacked._width(28, columns) == width
    a, b = (x.astype("f") for x in (numbers(2, 1, 4, 7), numbers(2, 5, 7, columns + 3)))
    b, out = b[..., 1:-2], numpy.zeros((2, 6, 4, columns), "f")
    unpacked.in_columns(a, b, out[:, :5])
    numpy.testing.assert_allclose(out[:, :5], a @ b, rtol=0, atol=1e-5)
    assert not out[:, 5].any()


@pytest.mark.parametrize("inner", [11, 24, 100, 101, 1000, 1019])
@pytest.mark.parametrize("with_out", [False, True])
def test_sums_in_pieces(small, inner, with_out):
    a, b = numbers(inner, 9).T, numbers(inner, 13)[:, 2:-1]
    out = numpy.empty((9, 10)) if with_out else None
    assert unpacked.sums_pay(a, b) is (inner > 11)
    y = unpacked.in_sums(a, b, out)
    assert out is None or y is out
    numpy.testing.assert_allclose(y, a @ b, rtol=0, atol=1e-12)


def test_a_sum_may_take_the_place_of_its_factor_and_factors_must_fit(small):
    a, b = numbers(9, 101), numbers(101, 10)
    expected = a @ b
    products.product(a, b, b[:9])
    numpy.testing.assert_allclose(b[:9], expected, rtol=0, atol=1e-13)
    with pytest.raises(ValueError, match="mismatch"):
        products.product(a, numpy.ones((102, 10)))


@pytest.mark.parametrize("dtype", ["int32", "uint8", "bool", "float16", ">f4", ">f8", "longdouble", "complex64"])
@pytest.mark.parametrize("inner", [1, 101])
def test_numbers_that_blas_does_not_take_are_left_to_numpy(small, dtype, inner):
    a, b = (3 * numbers(9, inner)).astype(dtype), (3 * numbers(inner, 10)).astype(dtype)
    expected = a @ b
    y = products.product(a, b)
    assert y.dtype == expected.dtype
    for found in (y, products.product(a, b, numpy.empty_like(expected))):
        numpy.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("dtype", ["int32", "bool"])
@pytest.mark.parametrize("inner", [1, 7, 101])
def test_a_place_for_other_numbers_is_refused_as_numpy_does(small, dtype, inner):
    a, b, out = numbers(9, inner), numbers(inner, 10), numpy.ones((9, 10), dtype)
    with pytest.raises(TypeError, match="cast"):
        products.product(a, b, out)
    assert (out == 1).all()


def test_a_stack_of_nothing_has_no_pieces():
    out = numpy.empty((0, 16, 1792), "f")
    unpacked.in_columns(numpy.ones((16, 144), "f"), numpy.ones((0, 144, 1792), "f"), out)


def test_pieces_are_taken_only_where_they_pay():
    unpacked._width.cache_clear()
    assert unpacked._width(16 * 144, 28 * 64) == 256
    assert unpacked._width(16 * 150, 512) == 256
    assert not unpacked._width(6 * 25, 1536)  # BLAS takes it whole
    assert not unpacked._width(64 * 576, 448)  # the pieces would be too narrow


def test_a_product_with_a_long_sum_is_made_in_pieces(monkeypatch):
    made = []
    monkeypatch.setattr(unpacked, "has_small_kernels", lambda: True)
    monkeypatch.setattr(products, "in_sums", lambda *args: made.append(args[0].shape) or unpacked.in_sums(*args))
    sizes = (32, 1600, 34), (32, 1600, 1000), (20, 100, 34), (120, 64, 400), (34, 1600, 32)
    for rows, inner, columns in sizes:
        a, b = numbers(inner, rows).T, numbers(inner, columns)
        if rows == 34:  # of a right factor that lies the other way BLAS would pack the pieces too
            b = numpy.asfortranarray(b)
        with threads.single_threaded_blas():
            numpy.testing.assert_allclose(products.product(a, b), a @ b, rtol=0, atol=1e-11)
    assert made == [(32, 1600)]


def test_what_blas_does_not_pack_depends_on_its_threads_and_kernels(monkeypatch):
    for count, kernels, expected in ((1, "SkylakeX", True), (2, "SkylakeX", False), (1, "Haswell", False)):
        monkeypatch.setattr(threads, "_blas_threads", lambda count=count: threads.BlasThreads(lambda: count, print))
        monkeypatch.setattr(unpacked, "kernel", lambda kernels=kernels: kernels)
        assert unpacked.has_small_kernels() is expected
    monkeypatch.setattr(threads, "_blas_threads", lambda: threads.BlasThreads(lambda: 2, lambda n: None))
    with threads.single_threaded_blas():
        monkeypatch.setattr(unpacked, "kernel", lambda: "SkylakeX")
        assert unpacked.has_small_kernels()
    monkeypatch.undo()
    assert unpacked.kernel() == "" or unpacked.kernel().isalnum()
