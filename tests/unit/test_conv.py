"""Convolution and pooling against loops over the definition, and the bugs that others shipped."""

import contextlib
import itertools
import math

import numpy
import pytest

from mtorch import Sequential, ShapeMismatchError, fast, layers
from mtorch.arrays import as_numpy
from mtorch.math.windows import Window, spans, windows_back, windows_out
from mtorch.testing import check_gradients, strict

rng = numpy.random.default_rng(0)


def taps(window, size):
    """(output row, output column, kernel row, kernel column, image row or None, image column) by the definition."""
    out_h, out_w = window.out_size(size)
    for i, j, k, m in itertools.product(range(out_h), range(out_w), range(window.kernel[0]), range(window.kernel[1])):
        u = i * window.stride[0] - window.padding[0] + k * window.dilation[0]
        v = j * window.stride[1] - window.padding[1] + m * window.dilation[1]
        if 0 <= u < size[0] and 0 <= v < size[1]:
            yield i, j, k, m, u, v


def loop_convolve(x, weight, bias, window, groups):
    (n, channels, *size), o = x.shape, len(weight)
    y = numpy.zeros((n, o, *window.out_size(size))) + (0 if bias is None else bias[:, None, None])
    for q in range(o):
        first = q // (o // groups) * (channels // groups)
        for i, j, k, m, u, v in taps(window, size):
            for c in range(channels // groups):
                y[:, q, i, j] += weight[q, c, k, m] * x[:, first + c, u, v]
    return y


def loop_grads(x, weight, dy, window, groups):
    (_, channels, *size), o = x.shape, len(weight)
    dx, dw = numpy.zeros_like(x), numpy.zeros_like(weight)
    for q in range(o):
        first = q // (o // groups) * (channels // groups)
        for i, j, k, m, u, v in taps(window, size):
            for c in range(channels // groups):
                dw[q, c, k, m] += (dy[:, q, i, j] * x[:, first + c, u, v]).sum()
                dx[:, first + c, u, v] += dy[:, q, i, j] * weight[q, c, k, m]
    return dx, dw


# (channels in, channels out, groups, image, window)
GRID = [
    (2, 3, 1, (5, 6), Window((3, 3))),
    (1, 2, 1, (6, 7), Window((3, 2), (2, 2), (1, 1))),
    (2, 2, 1, (4, 8), Window((1, 3), (1, 2), (0, 1), (1, 2))),
    (2, 1, 1, (7, 5), Window((3, 2), (2, 1), (2, 1), (2, 3))),
    (4, 6, 2, (4, 5), Window((2, 3), (1, 1), (1, 0))),
    (3, 3, 3, (5, 5), Window((3, 3), (1, 1), (1, 1))),
    (3, 6, 3, (5, 4), Window((2, 2), (2, 1), (0, 1), (1, 2))),
    (2, 14, 1, (5, 4), Window((3, 3), (1, 1), (1, 1))),
    (2, 2, 1, (5, 5), Window((2, 2), (3, 3))),  # image elements no window sees
    (1, 1, 1, (3, 4), Window((2, 2), (1, 1), (3, 3))),  # windows that see nothing but padding
    (2, 3, 1, (6, 6), Window((1, 1), (2, 2))),
    (2, 2, 1, (9, 6), Window((3, 3), (3, 1), (2, 2), (2, 2))),
]


@pytest.fixture(params=["reference", "rows", "rows in small parts"])
def body(request, monkeypatch):
    """The equations of the layers, the body for NumPy that large batches take, and the same in parts of few rows."""
    if request.param == "reference":
        with fast.disabled():
            yield
        return
    if not fast.ENABLED:
        pytest.skip("fast bodies are switched off")
    from mtorch.fast.numpy import convolution

    monkeypatch.setattr(convolution, "FEW_COLUMNS", 0)
    if request.param == "rows in small parts":
        monkeypatch.setattr(convolution, "UNROLLED_BYTES", 1)
    yield


def convolution_of(weight, bias, window, groups=1, dtype="float64"):
    """The layer with that weight (O, C / G, KH, KW) and that bias."""
    o, c, *_ = weight.shape
    layer = layers.Conv2d(c * groups, o, *window[:4], groups, bias is not None, dtype=dtype)
    layer.load_state_dict({"weight": weight} | ({} if bias is None else {"bias": bias}))
    return layer


def forward_and_backward(layer, x, output_grad):
    """y, dx and the gradients of the parameters."""
    y = layer(x)
    dx = layer.backward(output_grad)
    return y, dx, *(parameter.grad.copy() for parameter in layer.parameters().values())


@pytest.mark.parametrize("channels, out, groups, size, window", GRID)
def test_convolution_and_its_gradients_are_those_of_the_definition(body, channels, out, groups, size, window):
    x, bias = rng.standard_normal((3, channels, *size)), rng.standard_normal(out)
    weight = rng.standard_normal((out, channels // groups, *window.kernel))
    dy = rng.standard_normal((3, out, *window.out_size(size)))
    dx, dw = loop_grads(x, weight, dy, window, groups)
    for given in (bias, None):
        layer = convolution_of(weight, given, window, groups)
        wanted = loop_convolve(x, weight, given, window, groups), dx, dw, dy.sum(axis=(0, 2, 3))
        for got, want in zip(forward_and_backward(layer, x, dy), wanted, strict=given is not None):
            numpy.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("channels, out, groups, size, window", GRID)
def test_a_transposed_convolution_exchanges_forward_and_input_gradient(body, channels, out, groups, size, window):
    if any((n + 2 * p - d * (k - 1) - 1) % s for n, k, s, p, d in zip(size, *window[:4], strict=True)):
        size = tuple((n - 1) * s - 2 * p + d * (k - 1) + 1
                     for n, k, s, p, d in zip(window.out_size(size), *window[:4], strict=True))  # fmt: skip
    layer = layers.ConvTranspose2d(
        out, channels, *window[:3], groups=groups, dilation=window.dilation, dtype="float64", rng=0
    )
    layer.bias.value[...] = rng.standard_normal(channels)
    weight = layer.weight.value
    x, g = rng.standard_normal((3, out, *window.out_size(size))), rng.standard_normal((3, channels, *size))
    y, dw = loop_grads(g, weight, x, window, groups)
    wanted = y + layer.bias.value[:, None, None], loop_convolve(g, weight, None, window, groups), dw, g.sum((0, 2, 3))
    for got, want in zip(forward_and_backward(layer, x, g), wanted, strict=True):
        numpy.testing.assert_allclose(got, want, rtol=0, atol=1e-12)


@pytest.mark.parametrize("order", [(0, 1, 2, 3), (2, 1, 3, 0), (1, 2, 3, 0), (3, 2, 1, 0), (0, 2, 3, 1)])
@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2d(3, 2, 3, padding=1, dtype="float64", rng=0),
        layers.ConvTranspose2d(3, 2, 3, padding=1, dtype="float64", rng=0),
        layers.MaxPool2d(2, dtype="float64"),
        layers.MaxPool2d(3, 1, 1, dtype="float64"),
        layers.AvgPool2d(3, 1, 1, dtype="float64"),
        layers.AdaptiveAvgPool2d((2, 4), dtype="float64"),
    ],
    ids=repr,
)
def test_the_memory_order_of_an_image_does_not_matter(body, layer, order):
    def stored(a):
        return numpy.ascontiguousarray(a.transpose(order)).transpose(numpy.argsort(order))

    x = rng.standard_normal((4, 3, 5, 6))
    g = rng.standard_normal(layer(x).shape)
    wanted = forward_and_backward(layer, x, g)
    for a, b in itertools.product((x, stored(x)), (g, stored(g))):
        layer.zero_grad()
        for got, want in zip(forward_and_backward(layer, a, b), wanted, strict=True):
            numpy.testing.assert_allclose(got, want, atol=1e-12)
    layer.zero_grad()


@pytest.mark.parametrize("layout", ["reversed", "broadcast", "read-only", "Fortran", "every second"])
@pytest.mark.parametrize(
    "layer",
    [
        layers.Conv2d(2, 3, 3, padding=1, dtype="float64", rng=0),
        layers.ConvTranspose2d(2, 3, 2, stride=2, dtype="float64", rng=0),
        layers.MaxPool2d(2, dtype="float64"),
        layers.AvgPool2d(3, 1, 1, dtype="float64"),
        layers.AdaptiveAvgPool2d(2, dtype="float64"),
    ],
    ids=repr,
)
def test_views_of_any_kind_are_read_and_left_alone(layer, layout):
    x = rng.standard_normal((40, 2, 6, 8))
    view = {
        "reversed": x[::-1, ::-1, ::-1, ::-1],
        "broadcast": numpy.broadcast_to(x[:1, :, :, :1], (40, 2, 6, 8)),
        "read-only": x[...],
        "Fortran": numpy.asfortranarray(x),
        "every second": numpy.repeat(numpy.repeat(x, 2, axis=0), 2, axis=3)[::2, :, :, ::2],
    }[layout]
    view.flags.writeable = False
    plain = view.copy()
    y = layer(plain)
    g = rng.standard_normal(y.shape)
    dx = layer.backward(g)
    numpy.testing.assert_allclose(layer(view), y, atol=1e-12)
    g.flags.writeable = False
    numpy.testing.assert_allclose(layer.backward(g), dx, atol=1e-12)
    assert (view == plain).all()


@pytest.mark.parametrize(
    "kernel, stride, padding, size",
    [
        ((2, 2), (2, 2), (0, 0), (6, 8)),
        ((2, 2), (2, 2), (0, 0), (7, 5)),
        ((3, 3), (3, 3), (1, 1), (3, 6)),  # side by side, and yet the last row and column are in no window
        ((3, 3), (2, 2), (1, 1), (7, 6)),
        ((3, 2), (1, 1), (1, 1), (4, 5)),
        ((2, 3), (3, 4), (0, 1), (8, 9)),
        ((1, 4), (1, 2), (0, 2), (1, 9)),
    ],
)
@pytest.mark.parametrize("batch_last", [False, True])
def test_pooling_is_that_of_the_definition_also_at_ties(kernel, stride, padding, size, batch_last):
    window = Window(kernel, stride, padding)
    x = rng.integers(-3, 3, (3, 2, *size)).astype("float64")  # many ties
    if batch_last:
        x = numpy.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)
    shape = (3, 2, *window.out_size(size))
    best, number, mean = numpy.full(shape, -numpy.inf), numpy.zeros(shape, int), numpy.zeros(shape)
    for i, j, k, m, u, v in taps(window, size):
        wins = x[:, :, u, v] > best[:, :, i, j]
        best[:, :, i, j][wins] = x[:, :, u, v][wins]
        number[:, :, i, j][wins] = k * kernel[1] + m
        mean[:, :, i, j] += x[:, :, u, v] / (kernel[0] * kernel[1])
    dy = rng.standard_normal(shape)
    dx, spread = numpy.zeros_like(x), numpy.zeros_like(x)
    for i, j, k, m, u, v in taps(window, size):
        dx[:, :, u, v] += dy[:, :, i, j] * (number[:, :, i, j] == k * kernel[1] + m)
        spread[:, :, u, v] += dy[:, :, i, j] / (kernel[0] * kernel[1])
    sizes = {"kernel_size": kernel, "stride": stride, "padding": padding, "dtype": "float64"}
    for switch in (contextlib.nullcontext, fast.disabled):
        with switch():
            y, got = forward_and_backward(layers.MaxPool2d(**sizes), x, dy)
            assert (y == best).all()
            numpy.testing.assert_allclose(got, dx, atol=1e-12)
            y, got = forward_and_backward(layers.AvgPool2d(**sizes), x, dy)
            numpy.testing.assert_allclose(y, mean, atol=1e-12)
            numpy.testing.assert_allclose(got, spread, atol=1e-12)


@pytest.mark.parametrize("xp", [numpy, strict])
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 1), (4, 2, 2), (5, 3, 2)])
def test_in_a_window_of_negative_infinities_the_first_inside_the_image_wins(kernel, stride, padding, xp):
    pool = layers.MaxPool2d(kernel, stride, padding, xp=xp, dtype="float64")
    y = pool(xp.full((2, 1, 7, 6), -numpy.inf))
    assert (as_numpy(y) == -numpy.inf).all()
    expected = numpy.zeros((2, 1, 7, 6))
    for i, j in itertools.product(*map(range, y.shape[2:])):
        expected[:, :, max(i * stride - padding, 0), max(j * stride - padding, 0)] += 1
    assert (as_numpy(pool.backward(xp.ones_like(y))) == expected).all()


def test_nan_goes_through_max_pooling():
    x = numpy.zeros((1, 1, 4, 4))
    x[0, 0, 0, 3] = numpy.nan
    for sizes in ((2,), (3, 1), (3, 2, 1)):
        pool = layers.MaxPool2d(*sizes, dtype="float64")
        for switch in (contextlib.nullcontext, fast.disabled):
            with switch():
                y = pool(x)
                assert numpy.isnan(y).any() and not numpy.isnan(y).all()
                assert (pool.predict(x) == y)[~numpy.isnan(y)].all()
                assert pool.backward(numpy.ones_like(y)).sum() == y.size


@pytest.mark.parametrize("xp", [numpy, strict])
@pytest.mark.parametrize("kernel, stride, padding", [(2, 2, 0), (3, 2, 1), (3, 1, 0), (1, 2, 0)])
@pytest.mark.parametrize("batch_last", [False, True])
def test_nan_wins_its_window_and_gets_the_gradient(kernel, stride, padding, batch_last, xp):
    """Whatever else is there, infinity too; of several NaN the last one, as in torch."""
    draw = numpy.random.default_rng(3)
    x = draw.choice([numpy.nan, -numpy.inf, numpy.inf, -1.0, 0.0, 2.0, 3.0], (4, 3, 7, 6))
    window = Window((kernel, kernel), (stride, stride), (padding, padding))
    shape = (4, 3, *window.out_size((7, 6)))
    dy = draw.integers(1, 9, shape).astype("float64")
    best, expected = numpy.full(shape, numpy.nan), numpy.zeros_like(x)
    for n, c, i, j in numpy.ndindex(shape):
        rows, columns = (range(max(0, at * stride - padding), at * stride - padding + kernel) for at in (i, j))
        seen = [(u, v) for u in rows for v in columns if u < 7 and v < 6]
        nans = [at for at in seen if math.isnan(x[n, c, *at])]
        at = nans[-1] if nans else max(seen, key=lambda at: x[n, c, *at])
        best[n, c, i, j] = x[n, c, *at]
        expected[n, c, *at] += dy[n, c, i, j]
    if batch_last:
        x = numpy.ascontiguousarray(x.transpose(2, 1, 3, 0)).transpose(3, 1, 0, 2)
    pool = layers.MaxPool2d(kernel, stride, padding, xp=xp, dtype="float64")
    for switch in (contextlib.nullcontext, fast.disabled):
        with switch():
            y, dx = forward_and_backward(pool, xp.asarray(x), xp.asarray(dy))
            numpy.testing.assert_array_equal(as_numpy(y), best)
            numpy.testing.assert_array_equal(as_numpy(pool.predict(xp.asarray(x))), best)
            numpy.testing.assert_array_equal(as_numpy(dx), expected)


def test_max_pooling_windows_may_have_more_entries_than_a_byte_can_number():
    x = rng.standard_normal((2, 1, 20, 20))
    pool = layers.MaxPool2d((20, 17), 1, dtype="float64")
    y = pool(x)
    dx = pool.backward(numpy.ones_like(y))
    assert (y[0, 0, 0, 0], y[1, 0, 0, 3]) == (x[0, 0, :, :17].max(), x[1, 0, :, 3:20].max())
    assert (dx != 0).sum() <= 8 and dx.sum() == y.size


@pytest.mark.parametrize("size, out", [((5, 7), (2, 3)), ((4, 4), (1, 1)), ((2, 3), (3, 5)), ((6, 6), (6, 2))])
def test_adaptive_pooling_is_the_mean_over_each_bin(size, out):
    pool, x = layers.AdaptiveAvgPool2d(out, dtype="float64"), rng.standard_normal((2, 3, *size))
    y = pool(x)
    for i, j in itertools.product(range(out[0]), range(out[1])):
        rows = slice(i * size[0] // out[0], math.ceil((i + 1) * size[0] / out[0]))
        columns = slice(j * size[1] // out[1], math.ceil((j + 1) * size[1] / out[1]))
        numpy.testing.assert_allclose(y[:, :, i, j], x[:, :, rows, columns].mean(axis=(2, 3)), atol=1e-12)
    assert check_gradients(pool, (2, 3, *size)) < 1e-8


def test_windows_back_is_the_transpose_of_windows_out():
    for _, _, _, size, window in GRID:
        x = rng.standard_normal((2, 3, *size))
        columns = windows_out(numpy, x, window)
        with fast.disabled():
            assert (columns == windows_out(numpy, x, window)).all()
        other = rng.standard_normal(columns.shape)
        assert math.isclose((columns * other).sum(), (x * windows_back(numpy, other, size, window)).sum())


def test_the_columns_of_one_call_outlive_the_next():
    window = Window((2, 2), (1, 1), (1, 0), (1, 1))
    columns = windows_out(numpy, numpy.ones((1, 1, 4, 4)), window)
    windows_out(numpy, numpy.full((1, 1, 4, 4), 2.0), window)
    assert columns.max() == 1


def test_spans_name_exactly_the_real_elements():
    for size, kernel, stride, padding, dilation in itertools.product(
        (1, 4, 7), (1, 2, 3), (1, 2, 3), (0, 1, 4), (1, 2)
    ):
        window = Window((kernel, 1), (stride, 1), (padding, 0), (dilation, 1))
        out = window.out_size((size, 1))[0]
        for k, (to, origin) in enumerate(spans(window, size, 0)):
            want = [(i, i * stride - padding + k * dilation) for i in range(out)]
            got = list(zip(range(out)[to], range(size)[origin], strict=True))
            assert got == [(i, u) for i, u in want if 0 <= u < size]


# ---------------------------------------------------------------------- bugs that others shipped


def test_overlapping_windows_add_up_in_the_input_gradient():
    """An original's col2im assigned, so that the last window won: off by 94 to 98 %."""
    layer = layers.Conv2d(1, 1, 3, bias=False, dtype="float64")
    layer.weight.value[...] = 1
    y = layer(numpy.zeros((1, 1, 5, 5)))
    row = numpy.array([1.0, 2, 3, 2, 1])
    assert (layer.backward(numpy.ones_like(y)) == row[:, None] * row).all()


def test_the_bias_stands_on_the_channel_axis():
    """An original added it along the last axis, which went unnoticed where the sizes agreed."""
    layer = layers.Conv2d(2, 3, 1, dtype="float64")
    layer.weight.value[...], layer.bias.value[...] = 0, [1, 2, 3]
    y = layer(numpy.zeros((4, 2, 3, 3)))
    assert (y == numpy.array([1.0, 2, 3])[:, None, None]).all()
    g = rng.standard_normal(y.shape)
    layer.backward(g)
    numpy.testing.assert_allclose(layer.bias.grad, g.sum(axis=(0, 2, 3)), atol=1e-12)


def test_every_input_channel_has_a_kernel_of_its_own():
    """An original had one kernel for all channels."""
    layer = layers.Conv2d(2, 1, 1, bias=False, dtype="float64")
    layer.weight.value[0, :, 0, 0] = 1, 10
    assert layer(numpy.array([2.0, 3]).reshape(1, 2, 1, 1)).item() == 32


def test_a_max_pool_gradient_stays_inside_its_window_of_negatives():
    """An original padded with zeros, which beat every negative entry and took the gradient out of the image."""
    x = -1 - rng.random((2, 3, 5, 5))
    pool = layers.MaxPool2d(3, 2, 1, dtype="float64")
    y = pool(x)
    assert (y < 0).all()
    g = rng.standard_normal(y.shape)
    dx = pool.backward(g)
    numpy.testing.assert_allclose(dx.sum(), g.sum())
    assert {*x[dx != 0]} <= {*y.ravel()}


def test_initial_values_scale_with_the_inputs_of_a_unit():
    """An original exchanged fan_in and fan_out."""
    layer = layers.Conv2d(8, 128, 5, rng=0)
    bound = 1 / math.sqrt(8 * 25)
    assert 0.9995 * bound < abs(layer.weight.value).max() <= bound
    assert 0.9 * bound < abs(layer.bias.value).max() <= bound
    grouped = layers.Conv2d(8, 128, 5, groups=4, rng=0)
    assert 0.98 * 2 * bound < abs(grouped.weight.value).max() <= 2 * bound
    transposed = layers.ConvTranspose2d(128, 8, 5, rng=0)  # torch counts the second axis of its weight
    assert 0.98 * bound < abs(transposed.weight.value).max() <= bound


# ---------------------------------------------------------------------- the layers


def test_shapes_of_parameters_are_those_of_torch():
    assert layers.Conv2d(4, 6, (3, 2), groups=2).weight.value.shape == (6, 2, 3, 2)
    assert layers.Conv1d(4, 6, 3, groups=2).weight.value.shape == (6, 2, 3)
    assert layers.ConvTranspose2d(4, 6, (3, 2), groups=2).weight.value.shape == (4, 3, 3, 2)
    assert layers.Conv2d(4, 6, 3, bias=False).bias is None


def test_a_convolution_along_one_axis_is_one_over_images_of_height_one():
    flat, image = (
        layers.Conv1d(2, 3, 4, 2, 1, 2, dtype="float64"),
        layers.Conv2d(2, 3, (1, 4), 2, (0, 1), 2, dtype="float64"),
    )
    image.load_state_dict({"weight": flat.weight.value[:, :, None], "bias": flat.bias.value})
    x = rng.standard_normal((3, 2, 11))
    y = flat(x)
    numpy.testing.assert_allclose(y, image(x[:, :, None])[:, :, 0], atol=1e-12)
    g = rng.standard_normal(y.shape)
    numpy.testing.assert_allclose(flat.backward(g), image.backward(g[:, :, None])[:, :, 0], atol=1e-12)


@pytest.mark.parametrize(
    "layer, shape",
    [
        (layers.Conv2d(3, 4, 3), (0, 3, 8, 8)),
        (layers.Conv1d(3, 4, 3), (0, 3, 8)),
        (layers.ConvTranspose2d(3, 4, 3), (0, 3, 8, 8)),
        (layers.MaxPool2d(2), (0, 3, 8, 8)),
        (layers.MaxPool2d(3, 2, 1), (0, 3, 8, 8)),
        (layers.AvgPool1d(2), (0, 3, 8)),
        (layers.AdaptiveAvgPool2d(2), (0, 3, 8, 8)),
    ],
    ids=str,
)
def test_an_empty_batch_gives_an_empty_batch_and_zero_gradients(layer, shape):
    y = layer(numpy.zeros(shape, "float32"))
    assert y.shape[0] == 0 and y.dtype == numpy.float32
    assert layer.backward(y).shape == shape
    assert all(not parameter.grad.any() for parameter in layer.parameters().values())


@pytest.mark.parametrize("cls", [layers.Conv2d, layers.Conv1d, layers.ConvTranspose1d, layers.ConvTranspose2d])
@pytest.mark.parametrize(
    "options, error, text",
    [
        ({"stride": 0}, ValueError, "stride >= 1, got 0"),
        ({"padding": -1}, ValueError, "padding >= 0, got -1"),
        ({"dilation": 0}, ValueError, "dilation >= 1, got 0"),
        ({"groups": 3}, ValueError, "groups to divide in_channels=4"),
        ({"groups": 0}, ValueError, "groups >= 1"),
        ({"kernel_size": 2.5}, TypeError, "integer kernel_size, got 2.5"),
        ({"kernel_size": (2, 2, 2)}, ValueError, "kernel_size to be an int or a tuple"),
        ({"in_channels": 0}, ValueError, "in_channels"),
        ({"out_channels": 2.0}, TypeError, "out_channels"),
        ({"kernel_size": 0}, ValueError, "kernel_size >= 1"),
        ({"dtype": "int32"}, ValueError, "dtype"),
        ({"stride": True}, TypeError, "stride"),
    ],
)
def test_convolutions_refuse_bad_options(cls, options, error, text):
    with pytest.raises(error, match=text) as caught:
        cls(**({"in_channels": 4, "out_channels": 6, "kernel_size": 3} | options))
    if "dtype" not in options:
        assert cls.__name__ in str(caught.value)


@pytest.mark.parametrize("cls", [layers.Conv1d, layers.Conv2d])
@pytest.mark.parametrize(
    "options, text",
    [
        ({"padding": "SAME"}, "padding to be numbers, 'same' or 'valid', got 'SAME'"),
        ({"padding": "same", "stride": 2}, "a stride of 1 with padding='same', got 2"),
        ({"padding_mode": "mirror"}, "padding_mode in .*, got 'mirror'"),
    ],
)
def test_a_padding_that_there_is_not_is_refused(cls, options, text):
    with pytest.raises(ValueError, match=f"{cls.__name__} expected {text}"):
        cls(1, 1, 3, **options)


@pytest.mark.parametrize("cls", [layers.ConvTranspose1d, layers.ConvTranspose2d])
@pytest.mark.parametrize("more", [2, -1])
def test_output_padding_outside_of_the_stride_is_refused(cls, more):
    with pytest.raises(ValueError, match=f"{cls.__name__} expected output_padding (< stride 2|>= 0), got {more}"):
        cls(1, 1, 3, stride=2, output_padding=more)


@pytest.mark.parametrize(
    "mode, padding, n, least", [("reflect", 2, 2, 3), ("circular", 3, 2, 3), ("replicate", 1, 0, 1)]
)
def test_an_image_that_cannot_pad_itself_is_refused(mode, padding, n, least):
    layer = layers.Conv1d(1, 1, 1, padding=padding, padding_mode=mode)
    text = rf"Conv1d\(.*padding_mode='{mode}'\) expected at least {least} entries .* pad by {padding}, got {n}"
    with pytest.raises(ShapeMismatchError, match=text):
        layer(numpy.zeros((2, 1, n)))
    assert layer(numpy.zeros((2, 1, least))).shape == (2, 1, least + 2 * padding)


def test_a_convolution_that_pads_with_itself_goes_round_a_ring():
    """Every rotation of a ring has the rotated result: nothing at all happens at an edge."""
    layer = layers.Conv1d(2, 3, 4, padding="same", padding_mode="circular", dtype="float64", rng=0)
    x = rng.standard_normal((2, 2, 7))
    y = layer(x)
    for turn in range(7):
        numpy.testing.assert_allclose(layer(numpy.roll(x, turn, 2)), numpy.roll(y, turn, 2), rtol=0, atol=1e-14)


@pytest.mark.parametrize("cls", [layers.MaxPool2d, layers.AvgPool2d, layers.MaxPool1d, layers.AvgPool1d])
@pytest.mark.parametrize(
    "sizes, text",
    [
        ((0,), "kernel_size >= 1"),
        ((2, 0), "stride >= 1"),
        ((2, 2, -1), "padding >= 0"),
        ((3, 1, 2), "at most half the kernel_size"),
    ],
)
def test_poolings_refuse_bad_options(cls, sizes, text):
    with pytest.raises(ValueError, match=f"{cls.__name__}.*{text}"):
        cls(*sizes)


@pytest.mark.parametrize(
    "layer, shape, text",
    [
        (
            layers.Conv2d(3, 4, 3),
            (2, 4, 8, 8),
            r"Conv2d\(3 -> 4, .*expected input of shape \(N, 3, H, W\), got \(2, 4, 8, 8\)",
        ),
        (layers.Conv2d(3, 4, 3), (3, 8, 8), r"expected input of shape \(N, 3, H, W\)"),
        (layers.Conv2d(3, 4, 3, dilation=2), (2, 3, 4, 9), "an image of at least 5 x 5, got 4 x 9"),
        (layers.Conv2d(3, 4, 5, padding=1), (2, 3, 2, 9), "an image of at least 3 x 3, got 2 x 9"),
        (layers.Conv1d(3, 4, 3), (2, 3, 2), "Conv1d"),
        (layers.Conv1d(3, 4, 3), (2, 3, 2, 2), r"\(N, 3, T\)"),
        (layers.ConvTranspose2d(3, 4, 3), (2, 4, 8, 8), "ConvTranspose2d"),
        (layers.ConvTranspose2d(3, 4, 1, padding=1), (2, 3, 2, 8), "cuts off"),
        (layers.MaxPool2d(3), (2, 3, 2, 8), "MaxPool2d"),
        (layers.AvgPool1d(3), (2, 3, 4, 8), r"\(N, C, T\)"),
        (layers.AdaptiveAvgPool2d(3), (2, 3, 4), "AdaptiveAvgPool2d"),
        (layers.AdaptiveAvgPool2d(3), (2, 3, 0, 4), "at least 1 x 1"),
    ],
    ids=str,
)
def test_inputs_that_do_not_fit_are_shape_errors_that_name_the_layer(layer, shape, text):
    with pytest.raises(ShapeMismatchError, match=text) as caught:
        layer(numpy.zeros(shape, "float32"))
    assert type(layer).__name__ in str(caught.value)


def test_an_image_may_grow_from_a_single_element():
    layer, x = layers.ConvTranspose2d(3, 2, 4, bias=False, dtype="float64", rng=0), numpy.arange(6.0).reshape(2, 3)
    expected = numpy.einsum("nc,cokl->nokl", x, layer.weight.value)
    numpy.testing.assert_allclose(layer(x[:, :, None, None]), expected, rtol=0, atol=1e-12)


def test_a_chain_whose_channels_do_not_fit_is_refused_at_construction():
    with pytest.raises(ShapeMismatchError, match="Conv2d"):
        Sequential([layers.Conv2d(1, 8, 3), layers.ReLU(), layers.MaxPool2d(2), layers.Conv2d(4, 8, 3)])


def test_the_repr_names_what_is_not_usual():
    assert repr(layers.Conv2d(3, 8, 3)) == "Conv2d(3 -> 8, kernel_size=3)"
    text = "Conv2d(4 -> 8, kernel_size=(3, 2), stride=2, padding=1, dilation=(1, 2), groups=2, bias=False)"
    assert repr(layers.Conv2d(4, 8, (3, 2), 2, 1, (1, 2), 2, False)) == text
    text = "Conv1d(1 -> 2, kernel_size=4, padding='same', padding_mode='reflect')"
    assert repr(layers.Conv1d(1, 2, 4, padding="same", padding_mode="reflect")) == text
    assert repr(layers.Conv2d(1, 2, 3, padding="same")) == "Conv2d(1 -> 2, kernel_size=3, padding=1)"
    text = "ConvTranspose2d(1 -> 2, kernel_size=3, stride=2, output_padding=(0, 1))"
    assert repr(layers.ConvTranspose2d(1, 2, 3, 2, output_padding=(0, 1))) == text
    assert repr(layers.AvgPool1d(2, 2, 1, True, False)) == (
        "AvgPool1d(kernel_size=2, stride=2, padding=1, ceil_mode=True, count_include_pad=False)"
    )
    assert repr(layers.MaxPool2d(2)) == "MaxPool2d(kernel_size=2, stride=2)"


def test_results_belong_to_the_caller_also_when_a_workspace_is_used_again():
    a, b = layers.Conv2d(2, 4, 3, rng=0), layers.Conv2d(3, 5, 3, padding=1, rng=1)
    x, z = rng.standard_normal((64, 2, 6, 8)).astype("float32"), rng.standard_normal((64, 3, 9, 9)).astype("float32")
    y = a(x)
    kept = y.copy()
    g = rng.standard_normal(y.shape).astype("float32")
    want = a.backward(g).copy()
    y, w = a(x), b(z)
    b.backward(w)
    dx = a.backward(g)
    b(z)
    assert (y == kept).all() and (dx == want).all()


def test_float32_results_are_close_to_float64_in_a_large_convolution(body):
    x, weight = rng.standard_normal((64, 32, 10, 10)), rng.standard_normal((48, 32, 3, 3))
    window, dy = Window((3, 3), (1, 1), (1, 1)), rng.standard_normal((64, 48, 10, 10))
    wanted = forward_and_backward(convolution_of(weight, None, window), x, dy)
    layer = convolution_of(weight, None, window, dtype="float32")
    for got, want in zip(forward_and_backward(layer, *(a.astype("float32") for a in (x, dy))), wanted, strict=True):
        assert got.dtype == numpy.float32
        assert abs(got - want).max() <= 1e-5 * abs(want).max()
