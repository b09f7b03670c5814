"""Where features meet: faults that random programs found between freezing, states, sums of losses and new layers."""

import numpy
import pytest

from mtorch import (
    CosineEmbeddingLoss,
    Fork,
    Module,
    MSELoss,
    Recurrent,
    Sequential,
    ShapeMismatchError,
    TripletMarginLoss,
    layers,
)

RNG = numpy.random.default_rng(0)


def three(n=5):
    nn = layers.on(numpy, dtype="float64", rng=0)
    return Module(Sequential(nn.Linear(4, 6), Fork(*(nn.Linear(6, 3) for _ in range(n)))))


@pytest.mark.parametrize(
    "loss, heads, target", [(TripletMarginLoss, 3, ()), (CosineEmbeddingLoss, 2, (numpy.ones(5),))]
)
def test_a_loss_of_several_predictions_can_be_weighted(loss, heads, target):
    module, twin, weights = three(heads), three(heads), RNG.standard_normal(5)
    x = RNG.standard_normal((5, 4))
    found = loss(module, reduction="none")(module(x), *target)
    found.weighted(weights).backward()
    loss(twin, reduction="none")(twin(x), *target).backward(weights)
    for mine, other in zip(module.parameters().values(), twin.parameters().values(), strict=True):
        numpy.testing.assert_allclose(mine.grad, other.grad, rtol=1e-12)
    assert found.weighted(weights).value == pytest.approx((weights * found.value).sum())


@pytest.mark.parametrize("driver", [None, lambda grad: None])
def test_two_losses_of_the_same_several_predictions_have_one_gradient(driver):
    triplet = [RNG.standard_normal((5, 3)) for _ in range(3)]
    loss = TripletMarginLoss(driver)
    one, both = loss(*triplet), loss(*triplet) + loss(*triplet)
    for single, double in zip(one.grad, both.grad, strict=True):
        numpy.testing.assert_allclose(double, 2 * single)


def test_a_triplet_of_nan_has_a_gradient_of_nan():
    triplet = [RNG.standard_normal((2, 3)) for _ in range(3)]
    triplet[0][1, 0] = numpy.nan
    loss = TripletMarginLoss(reduction="none")(*triplet)
    assert numpy.isnan(loss.value).tolist() == [False, True]
    assert [numpy.isnan(grad).any(axis=1).tolist() for grad in loss.grad] == [[False, True]] * 3


def test_an_argument_may_be_called_cls():
    class Head(Module):
        def __init__(self, cls=3):
            super().__init__(layers.Linear(4, cls))

    class Own(MSELoss):
        def __init__(self, backward_func=None, *, cls=1):
            super().__init__(backward_func)

    assert Head(cls=2)(numpy.ones((1, 4))).shape == (1, 2)
    assert isinstance(Own(cls=2), MSELoss)


def test_a_probe_in_two_branches_keeps_the_gradient_of_its_last_call():
    a, b, probe = layers.Linear(3, 2, rng=0), layers.Linear(3, 2, rng=1), layers.Probe("p")
    net = Fork(Sequential(probe, a), Sequential(probe, b))
    x, g = numpy.ones((4, 3), "float32"), numpy.ones((4, 2), "float32")
    net(x)
    net.backward((g, 2 * g))
    numpy.testing.assert_allclose(probe.grad, 2 * g @ b.weight.value, rtol=1e-6)


@pytest.mark.parametrize("first", ["cell", "outside"])
def test_a_layer_in_a_cell_and_outside_of_it_has_no_state_that_travels(first):
    gru = layers.GRU(3, 3, rng=0)

    class Cell(layers.GRUCell):
        def __init__(self):
            super().__init__(3, 3, rng=1)
            self.within = gru

    parts = [Recurrent(Cell()), gru]
    net = Sequential(*(parts if first == "cell" else parts[::-1]))
    assert net.predict(numpy.ones((2, 1, 3), "float32")).shape == (2, 1, 3)
    with pytest.raises(TypeError, match="in a cell and outside of it: call predict"):
        net.predict(numpy.ones((2, 1, 3), "float32"), state=None)


@pytest.mark.parametrize("name", ["0:x", "0:1", "0:", "1", ":2"])
def test_a_state_with_another_name_is_refused(name):
    net = Sequential(layers.GRU(3, 4, rng=0), layers.Tanh())
    with pytest.raises(ValueError, match="has states named '0', got a state named"):
        net.predict(numpy.ones((1, 2, 3), "float32"), state={name: numpy.zeros((1, 2, 4))})


def test_keys_and_values_of_a_state_are_of_one_length():
    attention = layers.MultiHeadAttention(4, 2, causal=True, rng=0)
    x, state = numpy.ones((1, 2, 4), "float32"), (numpy.zeros((3, 2, 4)), numpy.zeros((2, 2, 4)))
    with pytest.raises(ShapeMismatchError, match="a state of two arrays"):
        attention.predict(x, state=state)
