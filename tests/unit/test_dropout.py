"""Dropout: the mask's statistics, its seed and counter, and both modes."""

import copy
import math

import numpy
import pytest

import mtorch
from mtorch import Sequential, layers

ONES = numpy.ones((200, 300), dtype="float32")


@pytest.mark.parametrize("p", [0.1, 0.5, 0.8])
def test_each_element_is_dropped_with_probability_p_and_the_rest_is_scaled_up(p):
    layer = layers.Dropout(p, rng=0)
    y = layer(ONES)
    kept = y != 0
    assert y.dtype == numpy.float32
    assert (y[kept] == numpy.float32(1 / (1 - p))).all()
    assert abs(kept.mean() - (1 - p)) < 4 * math.sqrt(p * (1 - p) / y.size)
    assert (layer.backward(2 * ONES) == 2 * y).all()


def test_regression_p_the_mask_is_drawn_for_each_sample_not_for_the_batch():
    """An original drew one mask and used it for the whole batch."""
    y = layers.Dropout(0.5, rng=0)(ONES)
    assert len({row.tobytes() for row in y}) == len(y)
    assert len({column.tobytes() for column in y.T}) == y.shape[1]


def test_a_mask_never_comes_twice_and_one_seed_is_one_series():
    one, other = layers.Dropout(rng=3), layers.Dropout(rng=3)
    series = [one(ONES) for _ in range(3)]
    assert all((a != b).any() for a, b in [series[:2], series[1:]])
    assert all((other(ONES) == y).all() for y in series)
    rng = numpy.random.default_rng(3)
    assert layers.Dropout(rng=rng).seed == one.seed != layers.Dropout(rng=rng).seed
    mtorch.seed(5)
    first = layers.Dropout().seed
    mtorch.seed(5)
    assert layers.Dropout().seed == first


def test_the_same_mask_in_every_dtype():
    masks = [layers.Dropout(0.3, dtype=dtype, rng=1)(ONES) != 0 for dtype in ("float32", "float64", "longdouble")]
    assert (masks[0] == masks[1]).all() and (masks[0] == masks[2]).all()


def test_eval_mode_and_predict_are_the_identity_and_draw_nothing():
    layer = layers.Dropout(0.5, rng=0)
    assert (layer.predict(ONES) == ONES).all()
    layer.eval()
    assert (layer(ONES) == ONES).all() and (layer.backward(ONES) == ONES).all()
    assert layer.random_state()["counter"] == 0


def test_backward_follows_the_forward_not_the_mode():
    layer = layers.Dropout(0.5, rng=0)
    y = layer(ONES)
    layer.eval()
    assert (layer.backward(ONES) == y).all()


def test_0_and_1_are_valid():
    keep, drop = layers.Dropout(0, rng=0), layers.Dropout(1, rng=0)
    x = numpy.array([[1.0, -2, 1e30]], dtype="float32")
    assert (keep(x) == x).all() and (keep.backward(x) == x).all()
    assert (drop(x) == 0).all() and (drop.backward(x) == 0).all()


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan, math.inf])
def test_a_p_outside_the_unit_interval_is_a_value_error(p):
    with pytest.raises(ValueError, match="Dropout expected p >= 0 and p <= 1, got"):
        layers.Dropout(p)


@pytest.mark.parametrize("p", ["0.5", None, True, [0.5]])
def test_a_p_that_is_no_number_is_a_type_error(p):
    with pytest.raises(TypeError, match="Dropout expected a number as p"):
        layers.Dropout(p)


def test_seed_and_counter_are_checkpoint_state_not_weights():
    net = Sequential(layers.Linear(3, 3, rng=0), layers.Dropout(0.5, rng=0))
    assert not any(name.startswith("1") for name in net.state_dict())
    layer = layers.Dropout(0.5, rng=0)
    layer(ONES)
    state, expected = layer.random_state(), layer(ONES)
    other = layers.Dropout(0.5, rng=9)
    other.set_random_state(state)
    assert (other(ONES) == expected).all()
    twin = copy.deepcopy(layer)
    assert (twin(ONES) == layer(ONES)).all()


def test_one_dropout_twice_in_a_net_draws_two_masks_and_goes_back_through_each():
    layer = layers.Dropout(0.5, rng=0)
    net = Sequential(layer, layer)
    y = net(ONES)
    assert set(numpy.unique(y)) == {0, 4} and 0.2 < (y != 0).mean() < 0.3
    assert (net.backward(ONES) == y).all()


def test_a_number_without_axes_stays_an_array():
    layer = layers.Dropout(0.5, rng=0)
    y = layer.forward(numpy.array(2.0, "float32"))
    assert type(y) is type(layer.backward(y)) is numpy.ndarray and y.shape == ()
