"""float16: sums and statistics are made in float32, so that results are float64's to within rounding."""

import numpy
import pytest

import mtorch
from mtorch import accelerate, layers, optim
from mtorch.arrays import unbroadcast

ROUNDING, SMALLEST = 2.0**-11, 2.0**-24  # of a number in float16, relative; the smallest one

bodies = pytest.mark.parametrize("fast", [True, False], ids=["fast", "reference"])


def normal(*shape, mean=0.0, std=1.0, seed=1):
    return (mean + std * numpy.random.default_rng(seed).standard_normal(shape)).astype("float16")


def ids(*shape):
    return numpy.zeros(shape, "int64")


CASES = {  # layer, input: each sum has thousands of terms, or leaves the range of float16
    "batch norm over more values than float16 counts": (layers.BatchNorm1d(2), normal(70_000, 2, mean=3)),
    "batch norm of large values": (layers.BatchNorm1d(3), normal(64, 3, mean=900, std=300)),
    "batch norm of images": (layers.BatchNorm2d(2), normal(8, 2, 40, 30, mean=40, std=20)),
    "batch norm of sequences": (layers.BatchNorm1d(2), normal(40, 2, 100, mean=40, std=20)),
    "batch norm without parameters": (layers.BatchNorm2d(2, affine=False), normal(8, 2, 20, 30, std=300)),
    "layer norm of deviation 12": (layers.LayerNorm(512), normal(9, 512, std=12)),
    "layer norm of deviation 300": (layers.LayerNorm((4, 512)), normal(3, 4, 512, std=300)),
    "layer norm, the gradient of the weight": (layers.LayerNorm(3), normal(5000, 3)),
    "layer norm of tiny values": (layers.LayerNorm(64), normal(4, 64, std=0.003)),
    "RMS norm of deviation 300": (layers.RMSNorm(512, eps=1e-5), normal(9, 512, std=300)),
    "RMS norm, the gradient of the weight": (layers.RMSNorm(3, eps=1e-5), normal(5000, 3)),
    "group norm of deviation 300": (layers.GroupNorm(2, 4), normal(3, 4, 30, 20, std=300)),
    "group norm, the gradient of the weight": (layers.GroupNorm(2, 4), normal(50, 4, 10, 10)),
    "average pooling": (layers.AvgPool2d(64), normal(2, 2, 64, 128, mean=100)),
    "average pooling over more than float16 counts": (layers.AvgPool2d(260), normal(1, 1, 260, 260, mean=100)),
    "average pooling that overlaps": (layers.AvgPool1d(50, 1), normal(2, 2, 300, mean=100)),
    "adaptive pooling": (layers.AdaptiveAvgPool2d((2, 1)), normal(2, 2, 100, 80, mean=100)),
    "adaptive pooling whose bins overlap": (layers.AdaptiveAvgPool2d((30, 30)), normal(2, 1, 7, 7)),
    "max pooling that overlaps": (layers.MaxPool1d(50, 1), normal(2, 2, 300)),
    "softmax": (layers.Softmax(), normal(3, 9000)),
    "softmax along the first axis": (layers.Softmax(axis=0), normal(9000, 3)),
    "log-softmax": (layers.LogSoftmax(), normal(3, 9000)),
    "log-softmax along the first axis": (layers.LogSoftmax(axis=0), normal(9000, 3)),
    "a sum along the first axis": (layers.Sum(0), normal(5000, 3, mean=0.5)),
    "a mean of large values": (layers.Mean(0), normal(5000, 3, mean=500)),
    "a mean of more than float16 counts": (layers.Mean(), normal(100_000, mean=1)),
    "a linear map of long rows": (layers.Linear(5000, 3, rng=0), normal(4, 5000)),
    "a linear map of many rows": (layers.Linear(3, 4, rng=0), normal(9000, 3)),
    "embedding": (layers.Embedding(2, 3, rng=0), ids(9000)),
    "positional embedding": (layers.PositionalEmbedding(2, 3, rng=0), normal(2, 5000, 3)),
    "entries read many times": (layers.Slice([0] * 5000), normal(2, 3)),
    "convolution": (layers.Conv2d(2, 3, 3, padding=1, rng=0), normal(64, 2, 20, 20)),
    "convolution with long kernels": (layers.Conv1d(1, 2, 200, rng=0), normal(3, 1, 900)),
    "convolution with long kernels, many": (layers.Conv1d(1, 2, 200, rng=0), normal(70, 1, 230)),
    "transposed convolution": (layers.ConvTranspose2d(2, 3, 9, rng=0), normal(40, 2, 20, 20)),
    "attention": (layers.MultiHeadAttention(8, 2, rng=0), normal(500, 1, 8)),
    "causal attention": (layers.MultiHeadAttention(8, 2, causal=True, rng=0), normal(300, 1, 8)),
    "attention whose scores leave the range of its mask": (
        layers.MultiHeadAttention(4, 1, causal=True, bias=False, rng=0), normal(5, 2, 4, std=300),
    ),
    "RNN": (layers.RNN(2, 3, rng=0), normal(3, 2000, 2)),
    "GRU": (layers.GRU(2, 3, rng=0), normal(3, 2000, 2)),
    "LSTM": (layers.LSTM(2, 3, rng=0), normal(3, 2000, 2)),
}  # fmt: skip


def run(layer, x, g):
    """y, dx and the gradients of the parameters."""
    y = layer(x)
    dx = layer.backward(g.astype(y.dtype))
    return {"y": y, "dx": dx} | {name: p.grad for name, p in layer.parameters().items()}


def assert_close(found, exact, roundings):
    assert found.dtype == numpy.float16
    scale = abs(exact).max()
    assert abs(found - exact).max() <= max(roundings * ROUNDING * scale, SMALLEST)


@bodies
@pytest.mark.parametrize("case", CASES)
def test_results_and_gradients_are_those_of_float64(case, fast):
    layer, x = CASES[case]
    half = layer.to(dtype="float16")
    twin = half.to(dtype="float64")
    exact_x = x.astype("float64") if x.dtype.kind == "f" else x
    y = twin.predict(exact_x)
    g = (0.1 * normal(*y.shape, mean=1, seed=2) + 0.1 * numpy.tanh(y)).astype("float16")  # along y: no sum cancels
    exact = run(twin, exact_x, g)
    if fast:
        found = run(half, x, g)
    else:
        with accelerate.disabled():
            found = run(half, x, g)
    for name, wanted in exact.items():
        if wanted is not None:
            assert_close(found[name], wanted, 8)


@bodies
def test_running_statistics_count_more_values_than_float16_has(fast):
    x = normal(70_000, 2, mean=3, std=2)
    layer = layers.BatchNorm1d(2, momentum=1, dtype="float16")
    if fast:
        layer(x)
    else:
        with accelerate.disabled():
            layer(x)
    exact = x.astype("float64")
    assert_close(layer.running_mean.value, exact.mean(axis=0), 1.1)
    assert_close(layer.running_var.value, exact.var(axis=0, ddof=1), 1.1)


@bodies
def test_eval_mode_knows_variances_below_float16s_range(fast):
    layer = layers.BatchNorm1d(1, dtype="float16")
    layer.running_var.value = numpy.zeros(1, "float16")
    x = normal(5, 1, std=0.01)
    with accelerate.disabled() if not fast else numpy.errstate():
        y = layer.predict(x)
    assert_close(y, x.astype("float64") / numpy.sqrt(1e-5), 1.5)


@bodies
def test_layer_norm_of_deviation_12_is_not_zero(fast):
    with accelerate.disabled() if not fast else numpy.errstate():
        y = layers.LayerNorm(512, dtype="float16")(normal(4, 512, std=12))
    assert y.astype("float64").std() == pytest.approx(1, abs=1e-3)


def test_a_stretched_operand_gets_the_whole_sum():
    g = numpy.full((9000, 3), 0.01, "float16")
    total = unbroadcast(g, (3,))
    assert_close(total, g.astype("float64").sum(axis=0), 1.1)
    layer = layers.Add(dtype="float16")
    layer((normal(9000, 3), normal(3)))
    assert_close(layer.backward(g)[1], g.astype("float64").sum(axis=0), 1.1)


def test_functions_of_float16_arrays_sum_in_float32():
    x = normal(5000, 3, mean=0.5)
    assert_close(mtorch.sum(x, 0), x.astype("float64").sum(axis=0), 1.1)
    assert_close(mtorch.mean(100 * x, 0), (100 * x).astype("float64").mean(axis=0), 1.1)


def test_a_norm_beyond_float16_clips_gradients_exactly():
    layer = layers.Linear(300, 300, bias=False, dtype="float16", rng=0)
    layer.weight.accumulate(numpy.full((300, 300), 300, "float16"))  # of norm 90,000
    optimizer = optim.SGD(layer, 1.0, clip_norm=3.0)
    before = layer.weight.value.copy()
    optimizer.step()
    assert abs((before - layer.weight.value).astype("float64") - 0.01).max() <= 2e-4


@pytest.mark.parametrize("cls", [layers.BatchNorm1d, layers.BatchNorm2d])
@pytest.mark.parametrize("fast", [True, False])
def test_other_dtypes_are_returned_as_they_are_computed(cls, fast):
    """No pass casts what has its dtype already: results of float32 and float64 are the arrays that were computed."""
    for dtype in ("float32", "float64", "longdouble"):
        layer = cls(2, dtype=dtype)
        x = numpy.random.default_rng(0).standard_normal((3, 2, 4, 5)[: layer.ranks[-1]]).astype(dtype)
        y = layer(x)
        assert y.dtype == layer.backward(y).dtype == layer.running_var.value.dtype == numpy.dtype(dtype)
