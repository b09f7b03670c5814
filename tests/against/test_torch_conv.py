"""Convolution and pooling against PyTorch: values and every gradient over a grid of options."""

import contextlib
import itertools

import numpy
import pytest

from mtorch import Sequential, fast, layers

torch = pytest.importorskip("torch")


def compare(ours, theirs, x, tolerance, order=None):
    """Runs both on x with the same parameters and the same random output gradient."""
    theirs = theirs.to(torch.from_numpy(x).dtype)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    leaf = torch.tensor(x, requires_grad=True)
    want = theirs(leaf)
    g = numpy.random.default_rng(1).standard_normal(tuple(want.shape)).astype(x.dtype)
    want.backward(torch.from_numpy(g))
    if order is not None:
        x = numpy.ascontiguousarray(x.transpose(order)).transpose(numpy.argsort(order))
    y = ours(x)
    dx = ours.backward(g)
    for name, got, expected in (
        ("y", y, want.detach()),
        ("dx", dx, leaf.grad),
        *((name, p.grad, dict(theirs.named_parameters())[name].grad) for name, p in ours.parameters().items()),
    ):
        expected = expected.numpy()
        assert got.shape == expected.shape and got.dtype == x.dtype, name
        error = abs(got - expected).max(initial=0) / max(1, abs(expected).max(initial=0))
        assert error <= tolerance, f"{name} differs by {error:.2g}: {ours!r}"


@pytest.mark.parametrize("sizes", [(2,), (3, 1), (3, 2, 1), ((2, 3), (1, 2), (0, 1))])
@pytest.mark.parametrize("reference", [False, True])
def test_nan_in_max_pooling_is_torchs(sizes, reference):
    x = numpy.random.default_rng(5).choice([numpy.nan, numpy.inf, 0.0, 1.0, 2.0], (3, 2, 8, 7))
    leaf = torch.tensor(x, requires_grad=True)
    want = torch.nn.MaxPool2d(*sizes)(leaf)
    g = numpy.random.default_rng(1).integers(1, 9, tuple(want.shape)).astype("float64")
    want.backward(torch.from_numpy(g))
    pool = layers.MaxPool2d(*sizes, dtype="float64")
    with fast.disabled() if reference else contextlib.nullcontext():
        numpy.testing.assert_array_equal(pool(x), want.detach().numpy())
        numpy.testing.assert_array_equal(pool.backward(g), leaf.grad.numpy())


def draw(*shape, dtype="float64"):
    return numpy.random.default_rng(0).standard_normal(shape).astype(dtype)


@pytest.fixture(params=["reference", "rows"])
def body(request, monkeypatch):
    """The equations of the layers, and the body for NumPy that large batches take."""
    if request.param == "reference":
        with fast.disabled():
            yield
        return
    if not fast.ENABLED:
        pytest.skip("fast bodies are switched off")
    from mtorch.fast.numpy import convolution

    monkeypatch.setattr(convolution, "FEW_COLUMNS", 0)
    yield


@pytest.mark.parametrize("kernel", [1, 2, 3, (3, 2), (1, 4), (4, 1)])
def test_conv2d_equals_torch(body, kernel):
    for stride, padding, dilation, (c, o, groups), bias in itertools.chain(
        itertools.product((1, 2, (2, 3)), (0, (1, 2)), (1, (2, 1)), ((4, 6, 1), (4, 6, 2)), (True,)),
        itertools.product((1, (3, 1)), (2,), (2,), ((3, 3, 3), (3, 6, 3), (1, 5, 1)), (False,)),
    ):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
        ours = layers.Conv2d(c, o, kernel, dtype="float64", **options)
        compare(ours, torch.nn.Conv2d(c, o, kernel, **options), draw(3, c, 9, 10), 1e-9)


@pytest.mark.parametrize("kernel", [1, 3, (3, 2), (2, 4)])
def test_conv_transpose2d_equals_torch(body, kernel):
    for stride, padding, dilation, (c, o, groups), bias in itertools.chain(
        itertools.product((1, 2, (3, 2)), (0, 1), (1, (1, 2)), ((4, 6, 1), (4, 6, 2)), (True,)),
        itertools.product((1, 4), (1,), (2,), ((3, 3, 3), (5, 1, 1)), (False,)),
    ):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups, "bias": bias}
        ours = layers.ConvTranspose2d(c, o, kernel, dtype="float64", **options)
        compare(ours, torch.nn.ConvTranspose2d(c, o, kernel, **options), draw(3, c, 5, 6), 1e-9)


def test_conv1d_equals_torch(body):
    for kernel, stride, padding, dilation, (c, o, groups) in itertools.product(
        (1, 4), (1, 3), (0, 2), (1, 2), ((4, 6, 1), (4, 6, 2), (3, 3, 3))
    ):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        ours = layers.Conv1d(c, o, kernel, dtype="float64", **options)
        compare(ours, torch.nn.Conv1d(c, o, kernel, **options), draw(3, c, 13), 1e-9)


PADDINGS = [
    ({"padding": "same"}, 1), ({"padding": "same", "dilation": 2}, 1), ({"padding": "valid", "stride": 2}, 1),
    ({"padding": 2, "padding_mode": "reflect", "stride": 2}, 1), ({"padding": 2, "padding_mode": "replicate"}, 2),
    ({"padding": 3, "padding_mode": "circular", "dilation": 2}, 1), ({"padding_mode": "reflect"}, 1),
    ({"padding": "same", "padding_mode": "reflect"}, 1), ({"padding": "same", "padding_mode": "circular"}, 2),
    ({"padding": "same", "padding_mode": "replicate", "dilation": 3}, 1), ({"padding": 1, "padding_mode": "zeros"}, 1),
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")  # torch's: it copies the image
@pytest.mark.parametrize("kernel", [1, 3, 4])
@pytest.mark.parametrize("options, groups", PADDINGS)
def test_every_padding_equals_torchs(body, options, groups, kernel):
    for rank, name, shape in ((1, "Conv1d", (3, 4, 13)), (2, "Conv2d", (3, 4, 12, 13))):
        size = kernel if rank == 1 else (kernel, 5 - kernel)
        both = {"groups": groups, **options}
        ours = getattr(layers, name)(4, 2, size, dtype="float64", **both)
        compare(ours, getattr(torch.nn, name)(4, 2, size, **both), draw(*shape), 1e-9)
    if rank == 2 and options.get("padding") in (2, 3):
        both["padding"] = (options["padding"], 0)
        compare(
            layers.Conv2d(4, 2, 3, dtype="float64", **both), torch.nn.Conv2d(4, 2, 3, **both), draw(3, 4, 9, 10), 1e-9
        )


@pytest.mark.parametrize("kernel, stride, padding, more", [(3, 2, 1, 1), (2, 3, 0, 2), (4, (2, 3), (1, 2), (1, 0))])
def test_output_padding_equals_torchs(body, kernel, stride, padding, more):
    for groups, dilation in ((1, 1), (2, 2)):
        options = {"stride": stride, "padding": padding, "output_padding": more, "groups": groups, "dilation": dilation}
        ours = layers.ConvTranspose2d(4, 2, kernel, dtype="float64", **options)
        compare(ours, torch.nn.ConvTranspose2d(4, 2, kernel, **options), draw(3, 4, 5, 6), 1e-9)


def test_conv_transpose1d_equals_torch(body):
    for kernel, stride, padding, dilation, (c, o, groups) in itertools.product(
        (1, 4), (1, 3), (0, 1), (1, 2), ((4, 6, 1), (4, 6, 2))
    ):
        options = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
        options["output_padding"] = stride - 1
        ours = layers.ConvTranspose1d(c, o, kernel, dtype="float64", **options)
        theirs = torch.nn.ConvTranspose1d(c, o, kernel, **options)
        compare(ours, theirs, draw(3, c, 7), 1e-9)
    positions = (4, 2, 3, 2, 1, 1, 2, False, 2)
    for name, shape in (("ConvTranspose1d", (3, 4, 5)), ("ConvTranspose2d", (3, 4, 5, 6))):  # torch's order
        ours = getattr(layers, name)(*positions, dtype="float64")
        compare(ours, getattr(torch.nn, name)(*positions), draw(*shape), 1e-9)


@pytest.mark.parametrize("order", [None, (2, 1, 3, 0), (1, 2, 3, 0)])
def test_pooling_equals_torch(order):
    sizes = [(2,), (2, 1), (3, 2, 1), (3, 1, 1), ((2, 3), (3, 2), (1, 1)), ((1, 4), 2, (0, 2)), (2, 3)]
    for name, size, shape in itertools.product(("MaxPool2d", "AvgPool2d"), sizes, ((2, 3, 8, 8), (5, 2, 7, 9))):
        ours, theirs = getattr(layers, name)(*size, dtype="float64"), getattr(torch.nn, name)(*size)
        compare(ours, theirs, draw(*shape), 1e-12, order)


def test_every_option_of_pooling_equals_torch():
    sizes = [(2,), (3,), (2, 3), (3, 2, 1), (4, 3, 2), (3, 1, 1), (2, 5, 1)]
    for rank, size, ceil, n in itertools.product((1, 2), sizes, (False, True), (3, 4, 6, 9)):
        shape = (2, 3, n, 11 - n)[: rank + 2] if rank == 2 else (2, 3, n)
        for inside in (True, False):
            options = {"ceil_mode": ceil, "count_include_pad": inside}
            ours, theirs = (getattr(home, f"AvgPool{rank}d") for home in (layers, torch.nn))
            if n >= size[0] or ceil:
                compare_where_torch_can(ours, theirs, size, options, draw(*shape))
        for dilation in (1, 2, 3):
            options = {"ceil_mode": ceil, "dilation": dilation}
            ours, theirs = (getattr(home, f"MaxPool{rank}d") for home in (layers, torch.nn))
            compare_where_torch_can(ours, theirs, size, options, draw(*shape))


def compare_where_torch_can(ours, theirs, size, options, x):
    """Both compute, or both refuse an image that is too small."""
    theirs, ours = theirs(*size, **options), ours(*size, dtype="float64", **options)
    try:
        expected = theirs(torch.from_numpy(x))
    except RuntimeError:
        with pytest.raises(ValueError):
            ours(x)
    else:
        if expected.isfinite().all():  # a window that sees nothing has no winner
            compare(ours, theirs, x, 1e-12)


def test_pooling_along_one_axis_and_into_bins_equals_torch():
    for name, size in itertools.product(("MaxPool1d", "AvgPool1d"), ((2,), (3, 2, 1), (4, 1, 2), (2, 3))):
        ours, theirs = getattr(layers, name)(*size, dtype="float64"), getattr(torch.nn, name)(*size)
        compare(ours, theirs, draw(3, 2, 11), 1e-12)
    for out in (1, (2, 3), (7, 5), (4, 9)):
        ours, theirs = layers.AdaptiveAvgPool2d(out, dtype="float64"), torch.nn.AdaptiveAvgPool2d(out)
        compare(ours, theirs, draw(2, 3, 7, 8), 1e-12)


def test_max_pooling_gives_a_tie_to_the_winner_torch_gives_it_to():
    x = numpy.random.default_rng(0).integers(0, 3, (4, 2, 9, 8)).astype("float64")
    for size in ((2,), (3, 2, 1), (2, 1)):
        for order in (None, (2, 1, 3, 0)):
            compare(layers.MaxPool2d(*size, dtype="float64"), torch.nn.MaxPool2d(*size), x, 1e-12, order)


@pytest.mark.parametrize("c, o, size, options", [
    (1, 32, 28, {"kernel_size": 3}),
    (32, 64, 14, {"kernel_size": 3}),
    (6, 16, 14, {"kernel_size": 5}),
    (16, 32, 15, {"kernel_size": 3, "stride": 2, "padding": 1}),
    (24, 24, 10, {"kernel_size": 3, "padding": 1, "groups": 24}),
])  # fmt: skip
def test_float32_convolutions_equal_torch_to_rounding(c, o, size, options):
    compare(
        layers.Conv2d(c, o, **options), torch.nn.Conv2d(c, o, **options), draw(32, c, size, size, dtype="float32"), 1e-4
    )


def test_a_small_network_trains_like_torchs():
    """Memory orders change hands between layers here; after ten steps every parameter is still the same."""
    nn = layers.on(dtype="float64", rng=0)
    ours = Sequential([
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3, padding=1, stride=2), nn.Tanh(),
        nn.ConvTranspose2d(6, 3, 2, stride=2), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(27, 3),
    ])  # fmt: skip
    theirs = torch.nn.Sequential(
        torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.MaxPool2d(2), torch.nn.Conv2d(4, 6, 3, padding=1, stride=2),
        torch.nn.Tanh(), torch.nn.ConvTranspose2d(6, 3, 2, stride=2), torch.nn.AvgPool2d(2), torch.nn.Flatten(),
        torch.nn.Linear(27, 3),
    ).double()  # fmt: skip
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    rng = numpy.random.default_rng(0)
    for _ in range(10):
        x, target = rng.standard_normal((70, 1, 14, 14)), rng.standard_normal((70, 3))
        ours.backward_parameters((ours(x) - target) / 70)
        ours.step(0.05)
        theirs.zero_grad()
        ((theirs(torch.from_numpy(x)) - torch.from_numpy(target)) ** 2 / 140).sum().backward()
        with torch.no_grad():
            for parameter in theirs.parameters():
                parameter -= 0.05 * parameter.grad
    expected = theirs.state_dict()
    for name, value in ours.state_dict().items():
        numpy.testing.assert_allclose(value, expected[name].numpy(), rtol=0, atol=1e-10)
