"""Batch, layer, group and RMS norm: statistics, modes, layouts of memory, numerics and refused arguments."""

import contextlib
import math

import numpy
import pytest

from mtorch import Sequential, ShapeMismatchError, fast, layers
from mtorch.testing import check_gradients

D = "float64"


def random(*shape, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape)


@pytest.mark.parametrize(
    "layer, shape, axes",
    [
        (layers.BatchNorm1d(3, eps=0, dtype=D), (8, 3), (0,)),
        (layers.BatchNorm1d(3, eps=0, dtype=D), (8, 3, 5), (0, 2)),
        (layers.BatchNorm2d(3, eps=0, dtype=D), (8, 3, 5, 2), (0, 2, 3)),
        (layers.InstanceNorm1d(3, eps=0, dtype=D), (8, 3, 5), (2,)),
        (layers.InstanceNorm2d(3, eps=0, dtype=D), (8, 3, 5, 2), (2, 3)),
        (layers.LayerNorm(6, eps=0, dtype=D), (8, 3, 6), (2,)),
        (layers.LayerNorm((3, 6), eps=0, dtype=D), (8, 3, 6), (1, 2)),
    ],
    ids=repr,
)
def test_outputs_have_mean_0_and_variance_1_over_the_right_axes(layer, shape, axes):
    y = layer(5 + 3 * random(*shape))
    assert abs(y.mean(axis=axes)).max() < 1e-12
    assert abs(y.var(axis=axes) - 1).max() < 1e-12


def test_group_norm_normalises_each_group_of_each_sample():
    y = layers.GroupNorm(2, 6, eps=0, dtype=D)(5 + 3 * random(4, 6, 5, 3)).reshape(4, 2, 45)
    assert abs(y.mean(axis=2)).max() < 1e-12 and abs(y.var(axis=2) - 1).max() < 1e-12


def test_rms_norm_gives_rows_of_unit_mean_square():
    y = layers.RMSNorm(7, eps=0, dtype=D)(5 + random(4, 7))
    assert ((y * y).mean(axis=1)) == pytest.approx(1, abs=1e-12)
    assert layers.RMSNorm(2)(numpy.zeros((1, 2), "float32")).tolist() == [[0, 0]]


def test_running_statistics_move_by_momentum_to_the_batch_with_the_unbiased_variance():
    layer, x = layers.BatchNorm1d(3, momentum=0.25, dtype=D), 2 + random(5, 3)
    layer(x)
    state = layer.state_dict()
    assert list(state) == ["weight", "bias", "running_mean", "running_var", "num_batches_tracked"]
    assert state["running_mean"] == pytest.approx(0.25 * x.mean(axis=0))
    assert state["running_var"] == pytest.approx(0.75 + 0.25 * x.var(axis=0, ddof=1))
    assert state["num_batches_tracked"] == 1 and state["num_batches_tracked"].dtype == numpy.int64
    layer(x + 1)
    state = layer.state_dict()
    assert state["running_mean"] == pytest.approx(0.75 * 0.25 * x.mean(axis=0) + 0.25 * (x + 1).mean(axis=0))
    assert state["running_var"] == pytest.approx(0.75**2 + (1 - 0.75**2) * x.var(axis=0, ddof=1))
    assert state["num_batches_tracked"] == 2
    assert set(layer.parameters()) == {"weight", "bias"}  # buffers are not trained, and never decayed


@pytest.mark.parametrize("fast_bodies", [True, False])
@pytest.mark.parametrize(
    "layer, shape", [(layers.BatchNorm2d, (3, 2, 5, 4)), (layers.BatchNorm1d, (3, 2, 5)), (layers.BatchNorm1d, (7, 2))]
)
def test_the_running_variance_counts_every_value_of_a_channel(layer, shape, fast_bodies):
    """running_var = 0.7 + 0.3 S / (n - 1), S the sum of squared differences, n = N H W, N T or N."""
    x = 2 + random(*shape)
    norm = layer(2, momentum=0.3, dtype=D)
    with contextlib.nullcontext() if fast_bodies else fast.disabled():
        norm(x)
    for c in range(2):
        values = [float(v) for v in x[:, c].ravel()]
        n, mean = len(values), math.fsum(values) / len(values)
        squares = math.fsum((v - mean) ** 2 for v in values)
        assert norm.running_mean.value[c] == pytest.approx(0.3 * mean, rel=1e-12)
        assert norm.running_var.value[c] == pytest.approx(0.7 + 0.3 * squares / (n - 1), rel=1e-12)


@pytest.mark.parametrize("body", ["fast", "reference"])
def test_without_momentum_the_running_statistics_are_means_over_all_batches(body):
    layer, batches = layers.BatchNorm1d(3, momentum=None, dtype=D), [random(5, 3, seed=seed) for seed in range(4)]
    with fast.disabled() if body == "reference" else contextlib.nullcontext():
        for x in batches:
            layer(x)
    state = layer.state_dict()
    assert state["running_mean"] == pytest.approx(numpy.mean([x.mean(axis=0) for x in batches], axis=0))
    assert state["running_var"] == pytest.approx(numpy.mean([x.var(axis=0, ddof=1) for x in batches], axis=0))


def test_eval_mode_uses_the_running_statistics_and_leaves_them():
    layer, x = layers.BatchNorm2d(3, eps=0.5, dtype=D), random(4, 3, 2, 2)
    layer.running_mean.value, layer.running_var.value = numpy.array([1.0, 2, 3]), numpy.array([0.5, 3.5, 8.5])
    before = layer.state_dict()
    layer.eval()
    y = layer(x)
    expected = (x - numpy.array([1, 2, 3])[:, None, None]) / numpy.array([1, 2, 3])[:, None, None]
    assert y == pytest.approx(expected)
    assert layer.predict(x) == pytest.approx(expected)
    assert all((layer.state_dict()[name] == before[name]).all() for name in before)
    assert layer.backward(numpy.ones_like(y))[0, :, 0, 0] == pytest.approx([1, 1 / 2, 1 / 3])


@pytest.mark.parametrize("cls, shape", [(layers.BatchNorm1d, (4, 3)), (layers.BatchNorm2d, (4, 3, 2, 2))])
@pytest.mark.parametrize("affine", [True, False])
def test_gradients_in_eval_mode_are_proved_too(cls, shape, affine):
    layer = cls(3, affine=affine, dtype=D)
    layer(random(*shape))
    layer.backward(random(*shape))
    assert check_gradients(layer.eval(), random(*shape, seed=1), "longdouble") < 1e-10


@pytest.mark.parametrize("affine", [True, False])
def test_gradients_of_running_instance_statistics_are_proved_too(affine):
    layer = layers.InstanceNorm2d(3, affine=affine, track_running_stats=True, dtype=D)
    layer(random(4, 3, 2, 2))
    layer.backward(random(4, 3, 2, 2))
    assert check_gradients(layer.eval(), random(4, 3, 2, 2, seed=1), "longdouble") < 1e-10
    assert layer(random(4, 3, 1, 1)).shape == (4, 3, 1, 1)  # one value is enough here


@pytest.mark.parametrize("layer", [layers.InstanceNorm1d(3), layers.InstanceNorm1d(3, track_running_stats=True)])
def test_one_value_of_an_instance_is_an_error_and_no_instance_is_an_empty_result(layer):
    with pytest.raises(
        ValueError, match=r"InstanceNorm1d\(3.*needs more than one value per channel of an instance, got 1"
    ):
        layer(numpy.zeros((4, 3, 1)))
    y = layer(numpy.zeros((0, 3, 4)))
    assert y.shape == layer.backward(y).shape == (0, 3, 4)
    assert all(numpy.isfinite(value).all() for value in layer.state_dict().values())


def test_backward_follows_the_forward_not_the_mode():
    one, other = layers.BatchNorm1d(3, dtype=D), layers.BatchNorm1d(3, dtype=D)
    x, g = random(5, 3), random(5, 3, seed=1)
    one(x), other(x)
    assert (one.eval().backward(g) == other.backward(g)).all()


@pytest.mark.parametrize("shape", [(1, 3), (0, 3), (1, 3, 1)])
def test_one_value_per_channel_in_training_is_an_error_that_changes_nothing(shape):
    layer = layers.BatchNorm1d(3)
    before = layer.state_dict()
    with pytest.raises(ValueError, match=r"BatchNorm1d\(3\) in training needs more than one value per channel"):
        layer(numpy.zeros(shape, "float32"))
    assert all((layer.state_dict()[name] == before[name]).all() for name in before)
    assert layer.eval()(numpy.zeros(shape, "float32")).shape == shape


def test_a_forward_that_fails_later_puts_the_running_statistics_back():
    net = Sequential(layers.BatchNorm1d(3), layers.Reshape((2, 2)))
    before = net.state_dict()
    with pytest.raises(ValueError):
        net(numpy.ones((4, 3), "float32") * numpy.arange(4, dtype="float32")[:, None])
    assert all((net.state_dict()[name] == before[name]).all() for name in before)


@pytest.mark.parametrize("shape", [(6, 3), (6, 3, 5), (6, 3, 4, 5)])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("channels_first", [True, False])
def test_memory_that_runs_along_the_batch_gives_the_same_and_stays_so(shape, training, channels_first):
    """Convolutions hand on images in memory (H, C, W, N), poolings in (C, H, W, N); it is neither copied nor turned."""
    cls = layers.BatchNorm2d if len(shape) == 4 else layers.BatchNorm1d
    one, other = cls(3, dtype=D).train(training), cls(3, dtype=D).train(training)
    x, g = random(*shape), random(*shape, seed=1)
    order = [*range(1, len(shape)), 0]
    if not channels_first and len(shape) == 4:
        order = [2, 1, 3, 0]
    turned = numpy.ascontiguousarray(x.transpose(order)).transpose(numpy.argsort(order))
    y, z = one(x), other(turned)
    assert z == pytest.approx(y) and z.strides == turned.strides
    assert other.backward(g) == pytest.approx(one.backward(g))
    assert other.weight.grad == pytest.approx(one.weight.grad)


LARGE = [
    (layers.BatchNorm1d(3, dtype=D), (50_000, 3)),
    (layers.BatchNorm1d(3, dtype=D), (9000, 3, 8)),
    (layers.BatchNorm2d(3, dtype=D), (50, 3, 30, 30)),
    (layers.BatchNorm2d(3, affine=False, dtype=D), (2, 3, 200, 200)),
]


@pytest.mark.skipif(not fast.ENABLED, reason="nothing is replaced")
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("layer, shape", LARGE, ids=repr)
def test_large_arrays_are_worked_through_in_pieces_with_the_references_result(layer, shape, training):
    layer = layer.to().train(training)
    for i, parameter in enumerate(layer.parameters().values()):
        parameter.value[...] = 1 + random(*parameter.value.shape, seed=i)
    x, g = 1 + random(*shape), random(*shape, seed=1)
    orders = [x] if len(shape) < 3 else [x, numpy.moveaxis(numpy.ascontiguousarray(numpy.moveaxis(x, 0, -1)), -1, 0)]
    for given in orders:
        pieced = passes(layer, given, g)
        with fast.disabled():
            whole = passes(layer, given, g)
        for one, other in zip(pieced, whole, strict=True):
            numpy.testing.assert_allclose(one, other, rtol=1e-11, atol=1e-11)


def passes(layer, x, g):
    twin = layer.to()
    y, dx = twin(x), twin.backward(g)
    return [y, dx, *(parameter.grad for parameter in twin.parameters().values()), *twin.state_dict().values()]


@pytest.mark.parametrize("layer, shape", [
    (layers.BatchNorm2d(4), (8, 4, 14, 14)), (layers.BatchNorm1d(4), (500, 4)),
    (layers.LayerNorm(64), (50, 64)), (layers.GroupNorm(2, 4), (8, 4, 14, 14)),
], ids=repr)  # fmt: skip
def test_a_large_mean_costs_float32_no_more_than_its_own_rounding(layer, shape):
    """At a mean of 1e4 the entries themselves are rounded to 1e-3; E[x^2] - E[x]^2 would lose everything."""
    x = (1e4 + random(*shape)).astype("float32")
    exact = layer.to(dtype=D)(x)
    assert abs(layer(x) - exact).max() < 2e-3
    assert layer(x).dtype == numpy.float32


def test_regression_p_batch_norm_has_an_eps():
    """An original divided by the bare deviation: a constant channel was NaN."""
    layer = layers.BatchNorm1d(2)
    y = layer(numpy.full((4, 2), 7.0, "float32"))
    assert (y == 0).all()
    assert numpy.isfinite(layer.backward(random(4, 2).astype("float32"))).all()


def test_regression_p_layer_norm_is_over_features_not_over_the_batch():
    """An original took mean and variance over the batch axis: a row's result then depended on the other rows."""
    layer, x = layers.LayerNorm(5, dtype=D), random(4, 5)
    whole, alone = layer(x), layer(x[:1])
    assert whole[:1] == pytest.approx(alone, abs=1e-15)
    assert abs(whole.mean(axis=1)).max() < 1e-15


@pytest.mark.parametrize("layer", [layers.LayerNorm(3), layers.GroupNorm(1, 3), layers.RMSNorm(3)], ids=repr)
def test_an_empty_batch_is_an_empty_result(layer):
    y = layer(numpy.zeros((0, 3), "float32"))
    assert y.shape == layer.backward(y).shape == (0, 3)
    assert (layer.weight.grad == 0).all()


@pytest.mark.parametrize(
    "make, error, text",
    [
        (lambda: layers.BatchNorm1d(0), ValueError, "BatchNorm1d expected num_features >= 1, got 0"),
        (lambda: layers.BatchNorm2d(2.0), TypeError, "BatchNorm2d expected an integer num_features"),
        (lambda: layers.BatchNorm2d(2, eps=-1e-5), ValueError, "BatchNorm2d expected eps >= 0, got -1e-05"),
        (lambda: layers.BatchNorm2d(2, momentum=1.5), ValueError, "BatchNorm2d expected momentum >= 0 and"),
        (lambda: layers.BatchNorm2d(2, momentum="0.1"), TypeError, "BatchNorm2d expected a number as momentum"),
        (lambda: layers.InstanceNorm1d(0), ValueError, "InstanceNorm1d expected num_features >= 1, got 0"),
        (lambda: layers.InstanceNorm2d(2, momentum=None), TypeError, "InstanceNorm2d expected a number as momentum"),
        (lambda: layers.InstanceNorm2d(2, affine=1), TypeError, "InstanceNorm2d expected affine to be True or False"),
        (lambda: layers.LayerNorm(3, eps=math.nan), ValueError, "LayerNorm expected eps >= 0, got nan"),
        (lambda: layers.LayerNorm(()), ValueError, "LayerNorm expected a normalized_shape of at least one axis"),
        (lambda: layers.LayerNorm((3, 0)), ValueError, "LayerNorm expected normalized_shape >= 1, got 0"),
        (lambda: layers.RMSNorm(3, eps=-1), ValueError, "RMSNorm expected eps >= 0"),
        (lambda: layers.GroupNorm(2, 5), ValueError, "GroupNorm expected num_groups to divide num_channels, got 2, 5"),
        (lambda: layers.GroupNorm(0, 4), ValueError, "GroupNorm expected num_groups >= 1"),
        (lambda: layers.GroupNorm(2, 4, eps="1"), TypeError, "GroupNorm expected a number as eps"),
    ],
)
def test_bad_arguments_name_the_class_and_the_argument(make, error, text):
    with pytest.raises(error, match=text):
        make()


@pytest.mark.parametrize(
    "layer, shape, form",
    [
        (layers.BatchNorm1d(3), (4, 2), r"\(N, 3\) or \(N, 3, T\)"),
        (layers.BatchNorm1d(3), (4, 3, 2, 2), r"\(N, 3\) or \(N, 3, T\)"),
        (layers.BatchNorm1d(3), (3,), r"\(N, 3\) or \(N, 3, T\)"),
        (layers.BatchNorm2d(3), (4, 3, 2), r"\(N, 3, H, W\)"),
        (layers.InstanceNorm1d(3), (4, 3), r"\(N, 3, T\)"),
        (layers.InstanceNorm2d(3), (4, 2, 5, 5), r"\(N, 3, H, W\)"),
        (layers.LayerNorm(3), (4, 2), r"\(\.\.\., 3\)"),
        (layers.LayerNorm((2, 3)), (3,), r"\(\.\.\., 2, 3\)"),
        (layers.RMSNorm(3), (), r"\(\.\.\., 3\)"),
        (layers.GroupNorm(1, 3), (4, 2), r"\(N, 3, \.\.\.\)"),
        (layers.GroupNorm(1, 3), (4, 3, 0), r"\(N, 3, \.\.\.\)"),
    ],
)
def test_a_wrong_input_shape_says_what_was_expected(layer, shape, form):
    with pytest.raises(ShapeMismatchError, match=f"expected input of shape {form}, got"):
        layer(numpy.zeros(shape, "float32"))


def test_sequential_finds_channels_that_do_not_fit_when_it_is_built():
    for later in (layers.BatchNorm2d(5), layers.GroupNorm(1, 5), layers.InstanceNorm2d(5)):
        with pytest.raises(ShapeMismatchError):
            Sequential(layers.Conv2d(1, 4, 3), later)
    with pytest.raises(ShapeMismatchError):
        Sequential(layers.Linear(3, 4), layers.LayerNorm(5))


@pytest.mark.parametrize(
    "layer", [layers.LayerNorm(8), layers.RMSNorm(8), layers.GroupNorm(2, 8), layers.BatchNorm1d(8)], ids=repr
)
def test_numbers_whose_squares_overflow_become_zero_without_a_warning(layer):
    x = (numpy.random.default_rng(0).standard_normal((3, 8)) * 1e30).astype("float32")
    with numpy.errstate(all="raise"):
        y = layer(x)
        dx = layer.backward(numpy.ones_like(x))
        layer(x * 1e8)  # the sums overflow as well
    assert not y.any() and not dx.any()


@pytest.mark.parametrize("cls", [layers.LayerNorm, layers.RMSNorm])
def test_long_rows_of_float32_keep_their_digits(cls):
    row = numpy.where(numpy.arange(300_000) % 2, 0.1, -0.1).astype("float32")
    y = cls(row.size, eps=1e-5)(row[None])
    numpy.testing.assert_allclose(y[0], row / numpy.sqrt(row.astype("float64") ** 2 + 1e-5), rtol=5e-7)
