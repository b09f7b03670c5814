"""Proofs about predict that every layer gets from its `examples()`: many threads, and a state that travels."""

import copy

import numpy
import pytest
from harness import (
    LAYERS,
    assert_same,
    attributes,
    example,
    host,
    in_threads,
    leaves,
    threads_take_turns_often,
    trained,
    unchanged,
    without_momentum,
)

from mtorch.states import Stateful

PREDICTORS, ROUNDS = 3, 3


often = pytest.fixture(autouse=True)(threads_take_turns_often)


@pytest.mark.parametrize("cls, index", LAYERS)
def test_threads_predict_beside_one_that_trains_and_nobody_sees_the_other(cls, index):
    layer, x = example(cls, index)
    without_momentum(layer)
    alone = copy.deepcopy(layer)
    alone.predict(x)
    before = attributes(layer)
    expected = host(layer.predict(x))
    results = in_threads(*[lambda: layer.predict(x)] * PREDICTORS)
    assert unchanged(before, attributes(layer))
    expected_training = trained(alone, x)
    expected_afterwards = host(alone.predict(x))

    def predict():
        return [host(layer.predict(x)) for _ in range(ROUNDS)]

    training, *predictions = in_threads(lambda: trained(layer, x), *[predict] * PREDICTORS)
    if same(expected, expected_afterwards):  # else buffers that predict reads move in training
        results += [each for group in predictions for each in group]
    for result in results:
        assert_same(host(result), expected)
    assert_same(host(layer.predict(x)), expected_afterwards)
    assert_same(training[0], expected_training[0])
    assert training[1] == expected_training[1]


def same(a, b):
    return all(x is y or x.tobytes() == y.tobytes() for x, y in zip(leaves(a), leaves(b), strict=True))


@pytest.mark.parametrize("cls, index", [case for case in LAYERS if issubclass(case.values[0], Stateful)])
def test_every_layer_with_a_state_goes_on_where_it_ended(cls, index):
    """A layer is given its first state in x, too: what travels goes before it."""
    layer, x = example(cls, index)
    first, sequence, *lengths = x if isinstance(x, tuple) else (None, x)
    if not layer.has_state or getattr(layer, "bidirectional", False) or lengths:
        with pytest.raises(TypeError, match="whole sequence|no layer with a state"):
            layer.predict(x, state=None)
        return
    axis = int(getattr(layer, "batch_first", False))
    parts = numpy.split(sequence, sequence.shape[axis], axis)
    whole, outputs, state = layer.predict(x), [], None
    for part in parts:
        y, state = layer.predict((first, part) if isinstance(x, tuple) else part, state=state)
        outputs.append(y)
    if isinstance(whole, tuple):
        assert_same(state, whole[0], 1e-12)
        assert_same(numpy.concatenate([y for _, y in outputs], axis), whole[1], 1e-12)
    else:
        assert_same(numpy.concatenate(outputs, axis), whole, 1e-12)
