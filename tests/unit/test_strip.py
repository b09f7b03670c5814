"""A weight and its bias side by side in memory: one pass moves both, and they stay two parameters."""

import copy
import pickle

import numpy
import pytest

from mtorch import Layer, Parameter, layers, parameter

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


@pytest.fixture
def passes(monkeypatch):
    """The sizes of what was moved at once."""
    sizes, descend = [], parameter.descend
    monkeypatch.setattr(parameter, "descend", lambda value, *more: (sizes.append(value.size), descend(value, *more)))
    return sizes


@pytest.mark.parametrize("count", [1, 3])
def test_one_pass_moves_both(passes, count):
    layer = pass_through(linear(), count)
    assert_steps_to(layer, expected(layer, count=count))
    assert passes == [8 + 2]  # the bias begins on a cache line of its own
    assert all(p.value.ctypes.data % 64 == 0 for p in layer.parameters().values())


@pytest.mark.parametrize(("resting", "other"), [("weight", "bias"), ("bias", "weight")])
def test_one_of_them_moves_by_itself(passes, resting, other):
    still = [pass_through(linear()) for _ in range(3)]
    frozen, without, standing = (getattr(layer, resting) for layer in still)
    frozen.trainable = False
    without.zero_grad()
    standing.direction = numpy.zeros_like(standing.value)
    for layer in still:
        assert_steps_to(layer, expected(layer, moved=[other]))
    assert passes == [getattr(linear(), other).value.size] * 3


@pytest.mark.parametrize("name", ["weight", "bias"])
def test_other_memory_and_other_parameters_are_moved_where_they_are(passes, name):
    changed = [linear() for _ in range(3)]
    part, other = getattr(changed[0], name), getattr(changed[1], name)
    part.value = part.value + 1
    other.forget()
    setattr(changed[2], name, getattr(linear(), name))
    for layer in changed:
        assert_steps_to(pass_through(layer), expected(layer))
        assert layer.strip is None  # its memory is free
    assert 10 not in passes


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
