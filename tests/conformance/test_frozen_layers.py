"""What freezing means, for every layer: no gradient is collected and none is computed, and nothing else changes."""

import contextlib
import copy

import numpy
import pytest
from harness import LAYERS, assert_same, cotangent, example, host, run

from mtorch import fast
from mtorch.errors import BackwardError
from mtorch.testing import strict, strict_array

TRAINED = [case for case in LAYERS if example(*case.values)[0].parameters()]
every_layer = pytest.mark.parametrize(("cls", "index"), TRAINED)
BODIES = {"fast": contextlib.nullcontext, "reference": fast.disabled} if fast.ENABLED else {"reference": fast.disabled}


@pytest.fixture(params=BODIES)
def bodies(request):
    with BODIES[request.param]():
        yield


@pytest.fixture
def made(monkeypatch):
    """The arrays that operations of the strict module have made, views left out."""
    found, wrap = [], strict_array.wrap

    def noted(result, *device):
        if isinstance(result, numpy.ndarray | numpy.generic) and getattr(result, "base", None) is None:
            found.append(result.shape)
        return wrap(result, *device)

    monkeypatch.setattr(strict_array, "wrap", noted)
    return found


def freeze(layer, *names):
    for name, parameter in layer.parameters().items():
        if not names or name in names:
            parameter.trainable = False
    return layer


@every_layer
def test_a_frozen_layer_gives_the_same_input_gradient_and_collects_nothing(cls, index, bodies):
    layer, x = example(cls, index)
    y, dx, _ = run(layer, x)
    freeze(layer)
    assert_same(host(layer(x)), y)
    assert_same(host(layer.backward(cotangent(y))), dx)
    for parameter in layer.parameters().values():
        assert not parameter.has_grad and not parameter.grad.any()
    before = layer.state_dict()
    layer.step(1.0)
    for name, parameter in layer.parameters().items():
        assert_same(host(parameter.value), before[name])


@every_layer
def test_with_one_frozen_the_other_gradients_are_what_they_were(cls, index, bodies):
    layer, x = example(cls, index)
    y, dx, grads = run(layer, x)
    for k, frozen in enumerate(grads):
        twin, wanted = freeze(copy.deepcopy(layer), frozen), k % 2 == 0  # both verbs take turns
        twin(x)
        found = (twin.backward if wanted else twin.backward_parameters)(cotangent(y))
        assert_same(host(found), dx if wanted else None, 1e-12)
        for name, parameter in twin.parameters().items():
            assert parameter.has_grad == (name != frozen)
            assert_same(host(parameter.grad), 0 * grads[name] if name == frozen else grads[name], 1e-12)


@every_layer
def test_without_anything_trainable_backward_parameters_answers_and_makes_no_array(cls, index, made):
    layer, x = example(cls, index, xp=strict, dtype="float32")
    for twin in (layer, freeze(copy.deepcopy(layer))):
        grad = cotangent(twin(x))
        made.clear()
        assert twin.backward_parameters(grad) is None
        assert bool(made) == (twin is layer)
        with pytest.raises(BackwardError):
            twin.backward_parameters(grad)


@every_layer
def test_a_frozen_layer_makes_fewer_arrays_in_backward(cls, index, made):
    layer, x = example(cls, index, xp=strict, dtype="float32")
    counts = []
    for twin in (layer, freeze(copy.deepcopy(layer))):
        grad = cotangent(twin(x))
        made.clear()
        twin.backward(grad)
        counts.append(len(made))
    assert counts[1] < counts[0], "hand `accumulate` a function: `weight.accumulate(lambda: (g * x).sum())`"


@every_layer
def test_what_is_thawed_after_a_forward_gets_its_whole_gradient(cls, index, bodies):
    layer, x = example(cls, index)
    y, dx, grads = run(layer, x)
    freeze(layer)
    layer(x)
    for parameter in layer.parameters().values():
        parameter.trainable = True
    assert_same(host(layer.backward(cotangent(y))), dx)
    for name, parameter in layer.parameters().items():
        assert_same(host(parameter.grad), grads[name])
