"""Large arrays that begin on a cache line."""

import numpy
import pytest

from mtorch import layers
from mtorch.fast import aligned
from mtorch.fast.numpy import convolution

RNG = numpy.random.default_rng(0)


def place(x):
    """How many bytes behind the beginning of a cache line the memory of x begins."""
    return x.ctypes.data % 64


@pytest.mark.parametrize("dtype", ["uint8", "float16", "float32", "float64"])
@pytest.mark.parametrize("length", [0, 1, 7, 200])
def test_an_array_begins_on_a_cache_line(dtype, length):
    kept = [aligned.aligned((length, 3, 5), dtype) for _ in range(20)]
    assert {place(x) for x in kept} == {0}
    assert all(x.shape == (length, 3, 5) and x.dtype == dtype and x.flags.carray for x in kept)


def test_a_large_array_begins_on_a_cache_line():
    length = aligned.LARGE // 4
    large, smaller = ([aligned.empty((n,), "f") for _ in range(20)] for n in (length, length - 1))
    assert {place(x) for x in large} == {0} and all(x.flags.owndata for x in smaller)
    assert large[0].shape == (length,) and smaller[0].shape == (length - 1,) and large[0].dtype == "f"


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (1, 2, 0)])
def test_a_large_array_like_another_keeps_its_order_in_memory(order, monkeypatch):
    x = numpy.empty((40, 9, 7), "f").transpose(order)
    monkeypatch.setattr(aligned, "LARGE", x.nbytes)
    kept = [aligned.empty_like(x, numpy.int32) for _ in range(20)]
    assert {place(y) for y in kept} == {0}
    assert all((y.shape, y.strides, y.dtype) == (x.shape, x.strides, numpy.int32) for y in kept)
    longer = aligned.empty_like(x, shape=(41, 41, 41))
    assert longer.shape == (41, 41, 41) and longer.dtype == x.dtype and place(longer) == 0


@pytest.mark.parametrize("above", [layers.ReLU(), layers.BatchNorm2d(5), layers.MaxPool2d(2)], ids=repr)
def test_what_a_large_convolution_multiplies_with_begins_on_a_cache_line(above, monkeypatch):
    monkeypatch.setattr(aligned, "is_large", lambda nbytes: True)
    places, multiply = set(), convolution.in_columns
    monkeypatch.setattr(convolution, "in_columns", lambda a, b, out: places.add(place(b)) or multiply(a, b, out))
    conv, kept = layers.Conv2d(3, 5, 3, rng=0), []
    for _ in range(20):
        y = above.forward(conv.forward(RNG.standard_normal((32, 3, 8, 10)).astype("f")))
        kept.append(conv.backward(above.backward(y)))
    assert places == {0}


def test_large_results_around_a_convolution_begin_on_a_cache_line(monkeypatch):
    """So their blocks are as long as those of gradients, and each fits where another one was freed."""
    monkeypatch.setattr(aligned, "is_large", lambda nbytes: True)
    conv, relu, kept = layers.Conv2d(3, 5, 3, rng=0), layers.ReLU(), []
    for _ in range(20):
        y = conv.forward(RNG.standard_normal((32, 3, 8, 10)).astype("f"))
        kept += [y, relu.forward(y), conv.backward(y)]
    assert {place(x) for x in kept} == {0}


@pytest.mark.parametrize(
    "layer", [layers.Conv2d(16, 192, 3, rng=0), layers.ConvTranspose2d(192, 16, 3, rng=0)], ids=repr
)
def test_a_convolution_has_the_same_bits_wherever_its_arrays_lie(layer):
    """Of 576 products BLAS adds up a sum in another order where it packs nothing."""

    def at(start, shape):
        memory = aligned.aligned((4 * numpy.prod(shape) + 64,), "uint8")
        x = numpy.ndarray(shape, "f", memory, start)  # (H, C, W, N), as a convolution reads it
        x[...] = numpy.random.default_rng(0).standard_normal(shape)
        return x.transpose(3, 1, 0, 2)

    found = []
    for start in range(0, 64, 16):
        y = layer.forward(at(start, (5, layer.in_channels, 26, 64)))
        _, channels, height, width = y.shape
        dx = layer.backward(at(start, (height, channels, width, 64)))
        found.append([y.tobytes(), dx.tobytes(), layer.weight.grad.tobytes()])
        layer.zero_grad()
    assert all(each == found[0] for each in found)
