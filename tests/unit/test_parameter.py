"""Parameters: the plain step, copies and pickles, parameters that are tied, replaced or frozen."""

import copy
import pickle
from fractions import Fraction

import numpy
import pytest

from mtorch import Layer, Parameter, ShapeMismatchError, layers

X, G = numpy.arange(12.0).reshape(4, 3) / 7, numpy.arange(8.0).reshape(4, 2) - 3
LR = 0.25


def linear() -> layers.Linear:
    return layers.Linear(3, 2, dtype="float64", rng=0)


def pass_through(layer, count=1):
    for _ in range(count):
        layer(X)
        layer.backward(G)
    return layer


def expected(layer, moved=("weight", "bias"), count=1):
    """What a step of LR after so many passes leaves."""
    grads = {"weight": G.T @ X * count, "bias": G.sum(axis=0) * count}
    values = layer.state_dict()
    return {name: values[name] - LR * grads[name] * (name in moved) for name in values}


def assert_steps_to(layer, values):
    layer.step(LR)
    for name, value in layer.state_dict().items():
        numpy.testing.assert_allclose(value, values[name], rtol=1e-13, err_msg=name)
    assert not any(p.has_grad or p.grad.any() for p in layer.parameters().values())


@pytest.mark.parametrize("count", [1, 3])
def test_a_step_moves_by_all_that_was_accumulated(count):
    layer = pass_through(linear(), count)
    assert_steps_to(layer, expected(layer, count=count))


@pytest.mark.parametrize(("resting", "other"), [("weight", "bias"), ("bias", "weight")])
def test_one_of_them_moves_by_itself(resting, other):
    still = [pass_through(linear()) for _ in range(3)]
    frozen, without, standing = (getattr(layer, resting) for layer in still)
    frozen.trainable = False
    without.zero_grad()
    standing.direction = numpy.zeros_like(standing.value)
    for layer in still:
        assert_steps_to(layer, expected(layer, moved=[other]))


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_other_memory_and_other_parameters_are_moved_where_they_are(name):
    changed = [linear() for _ in range(3)]
    part, other = getattr(changed[0], name), getattr(changed[1], name)
    part.value = part.value + 1
    other.forget()
    setattr(changed[2], name, getattr(linear(), name))
    for layer in changed:
        assert_steps_to(pass_through(layer), expected(layer))


def test_a_direction_is_followed_once_and_not_written_to():
    direction = numpy.array([1.0, -2.0])
    both = [Parameter(numpy.zeros(2)) for _ in range(2)]
    for parameter in both:
        parameter.accumulate(numpy.ones(2))
        parameter.direction = direction
        parameter.step(0.5)
        assert parameter.value.tolist() == [-0.5, 1.0] and parameter.direction is None
        parameter.step(0.5)
        assert parameter.value.tolist() == [-0.5, 1.0]
    assert direction.tolist() == [1.0, -2.0]


@pytest.mark.parametrize("size", [1, 100_000])
@pytest.mark.parametrize("huge", [3e38, numpy.inf, numpy.nan])
@pytest.mark.parametrize("directed", [False, True])
def test_numbers_that_are_too_large_stop_no_step(size, huge, directed):
    """The session raises on overflow: a warning that is an error would leave the net half moved."""
    layer = layers.Linear(size, 1)
    for parameter in (layer.weight, layer.bias):
        parameter.value[...] = -3e38
        parameter.accumulate(numpy.full(parameter.value.shape, huge, "float32"))
        if directed:
            parameter.direction = parameter.grad.copy()
    layer.step(2.0)
    for parameter in (layer.weight, layer.bias):
        assert not numpy.isfinite(parameter.value).any() and not parameter.has_grad


def test_a_fixed_value_stays_as_it_is():
    p = Parameter(numpy.ones(7, "f"))
    p.accumulate(numpy.ones(7, "f"))
    p.value.setflags(write=False)
    with pytest.raises(ValueError, match="read-only"):
        p.step(0.5)
    assert (p.value == 1).all()


RATES = [numpy.uint8(1), numpy.True_, numpy.float64(1), numpy.float32(1), numpy.float16(1), 1, True, numpy.array(1.0)]


@pytest.mark.parametrize("rate", [*RATES, Fraction(1)], ids=str)
def test_a_rate_of_any_type(rate):
    for layer in (layers.Linear(3, 2), layers.Conv2d(1, 1, 2), layers.LayerNorm(3)):
        for p in layer.parameters().values():
            p.value[...] = 1
            p.accumulate(numpy.ones_like(p.value))
        layer.step(rate)
        assert not any(p.value.any() or p.has_grad for p in layer.parameters().values())


def test_a_direction_may_share_memory_and_have_another_shape():
    n = 10
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
    assert p.value[8] == 7 + 8 - 0.5 * 8
    for direction in (numpy.ones(1, "f"), 1.0, numpy.float32(1)):
        p.value = numpy.ones(n, "f")
        p.accumulate(numpy.ones(n, "f"))
        p.direction = direction
        p.step(0.5)
        assert (p.value == 0.5).all()


@pytest.mark.parametrize("rate", [0.0, 1e-46, 1e-41, 1.0, 1e39])
@pytest.mark.parametrize("entry", [numpy.nan, 0.0, 3e38])
def test_a_step_raises_nothing_and_hides_nothing(rate, entry):
    for layer in (layers.Linear(3, 2), layers.LayerNorm(3)):
        for p in layer.parameters().values():
            p.value[...] = -3e38
            p.accumulate(numpy.full_like(p.value, entry))
        with numpy.errstate(all="raise"):
            layer.step(rate)
        with numpy.errstate(all="ignore"):
            expected = numpy.float32(-3e38) - numpy.float32(rate) * numpy.float32(entry)
        for p in layer.parameters().values():
            numpy.testing.assert_array_equal(p.value, numpy.full_like(p.value, expected))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_direction_of_any_order_is_followed_and_kept(dtype, order):
    rng = numpy.random.default_rng(0)
    value, g, d = (numpy.asarray(rng.standard_normal((3, 4)).astype(dtype), order=order) for _ in range(3))
    p = Parameter(value)
    p.value = value.copy("K")
    p.accumulate(g)
    p.step(0.25)
    p.accumulate(g)
    p.direction, kept = d, d.copy()
    p.step(0.5)
    numpy.testing.assert_array_equal(p.value, value - 0.25 * g - 0.5 * d)
    assert (d == kept).all()  # it may be a momentum that the optimizer keeps


def test_a_parameter_holds_a_copy_in_row_order():
    given = numpy.asfortranarray(numpy.arange(6.0).reshape(2, 3))
    parameter = Parameter(given)
    parameter.accumulate(numpy.ones((2, 3)))
    parameter.step(1.0)
    assert given.tolist() == [[0, 1, 2], [3, 4, 5]] and parameter.value.flags.c_contiguous


def test_contributions_add_up_and_are_read_only():
    parameter, contribution = Parameter(numpy.zeros((2, 2))), numpy.eye(2)
    assert not parameter.has_grad and not parameter.grad.any()
    for k in (1, 2):
        parameter.accumulate(contribution)
        assert parameter.has_grad and (parameter.grad == k * numpy.eye(2)).all()
    parameter.accumulate_product(numpy.ones((2, 3)), numpy.ones((3, 2)))
    parameter.accumulate_result(numpy.multiply, contribution, 4.0)
    assert (parameter.grad == 6 * numpy.eye(2) + 3).all()
    with pytest.raises(ShapeMismatchError, match="gradient of its shape"):
        parameter.accumulate(numpy.ones(2))
    parameter.zero_grad()
    parameter.accumulate_product(numpy.ones((2, 3)), numpy.ones((3, 2)))
    assert (parameter.grad == 3).all() and (contribution == numpy.eye(2)).all()


def test_a_bias_may_be_taken_away_or_given():
    layer = linear()
    layer.bias = None
    assert_steps_to(pass_through(layer), expected(layer))
    layer = layers.Linear(3, 2, bias=False, dtype="float64", rng=0)
    layer.bias = Parameter(numpy.ones(2))
    assert_steps_to(pass_through(layer), expected(layer))


COPIED = pytest.mark.parametrize("copied", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])


@COPIED
def test_a_copy_goes_its_own_way_and_keeps_its_gradients(copied):
    layer = pass_through(linear())
    before, twin = layer.state_dict(), copied(layer)
    assert_steps_to(twin, expected(twin))
    assert all((value == before[name]).all() for name, value in layer.state_dict().items())
    assert_steps_to(layer, expected(layer))


@COPIED
def test_a_copy_of_replaced_tied_and_converted_parameters_works(copied):
    layer, other = (layers.Linear(3, 2, rng=seed) for seed in (0, 1))
    layer.weight = other.weight
    for start in (layer, layer.to(dtype="float64"), copied(layer)):
        twin = copied(start.to(dtype="float64"))
        assert twin.bias.value.dtype == twin.weight.value.dtype == "float64"
        assert_steps_to(pass_through(twin), expected(twin))


def test_a_pickle_holds_gradients_only_where_there_are_any():
    layer = layers.Linear(100, 100)
    assert len(pickle.dumps(layer)) < 1.1 * 101 * 100 * 4
    layer(numpy.ones((1, 100)))
    layer.backward(numpy.ones((1, 100)))
    twin = pickle.loads(pickle.dumps(layer))
    assert twin.weight.has_grad and (twin.weight.grad == layer.weight.grad).all()


def test_subclasses_move_all_they_have():
    class Third(layers.Linear):
        def __init__(self):
            super().__init__(3, 2, dtype="float64", rng=0)
            self.scale = Parameter(numpy.ones(2))

    class Own(layers.Linear):
        def __init__(self):
            Layer.__init__(self, dtype="float64")
            self.in_dim, self.out_dim = 3, 2
            self.weight, self.bias = Parameter(numpy.ones((2, 3))), Parameter(numpy.ones(2))

    third, own = Third(), Own()
    third.scale.accumulate(numpy.ones(2))
    before = own.state_dict()
    pass_through(third).step(LR)
    assert (third.scale.value == 1 - LR).all() and not third.weight.has_grad
    pass_through(own).step(LR)
    assert (own.weight.value != before["weight"]).all()


def test_a_bad_rate_changes_nothing():
    layer = pass_through(linear())
    with pytest.raises(ValueError, match="learning rate"):
        layer.step(-1.0)
    with pytest.raises(TypeError, match="learning rate"):
        layer.step("fast")
    assert_steps_to(layer, expected(layer))
