"""Every fast body gives what its reference gives, and never takes the place of what a user overrides."""

import copy
import pickle
import subprocess
import sys
import threading

import numpy
import pytest
from harness import LAYERS, LOSSES, assert_same, cotangent, example, host, run

import mtorch
from mtorch import accelerate, fast
from mtorch.accelerate import VERBS, FastMemory
from mtorch.testing import strict

pytestmark = pytest.mark.skipif(not fast.ENABLED, reason="MTORCH_FAST=0 leaves the fast bodies out")


def verbs_of(layer):
    """The fast bodies of that layer, if it has any."""
    return accelerate._bodies.get(accelerate._name(type(layer).forward), {}).get(layer.xp)


def is_replaced(layer, x):
    verbs = verbs_of(layer)
    return verbs is not None and (not verbs.least or x.size >= verbs.least)


REPLACED = [case for case in LAYERS if is_replaced(*example(*case.values))]
every_pair = pytest.mark.parametrize(("cls", "index"), REPLACED)


def answer(layer, grad, wanted=True):
    """What backward gives, on the host, and the gradients that the parameters have then."""
    layer.zero_grad()
    dx = layer.backward(grad) if wanted else layer.backward_parameters(grad)
    return host(dx), {name: host(p.grad.copy()) for name, p in layer.parameters().items()}


def assert_equal_answers(found, expected, tolerance=1e-11):
    assert_same(found[0], expected[0], tolerance)
    for name, grad in expected[1].items():
        assert_same(found[1][name], grad, tolerance)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("cls", "index"), LAYERS)
def test_a_layer_computes_the_same_with_and_without_fast_bodies(cls, index, dtype):
    layer, x = example(cls, index, dtype=dtype)
    twin, tolerance = copy.deepcopy(layer), 1e-11 if dtype == "float64" else 1e-4
    with fast.disabled():
        y = twin(x)
        expected = answer(twin, cotangent(y))
    z = layer(x)
    assert_same(host(z), host(y), tolerance)
    assert_equal_answers(answer(layer, cotangent(y)), expected, tolerance)
    with fast.disabled():
        twin.predict(x)
        predicted = host(twin.predict(x))
    assert_same(host(layer.predict(x)), predicted, tolerance)


@every_pair
def test_the_forward_decides_which_backward_answers(cls, index):
    layer, x = example(cls, index)
    twin = copy.deepcopy(layer)
    y = twin(x)
    grad = cotangent(y)
    expected, own = answer(twin, grad), copy.deepcopy(layer)
    own(x)
    assert holds_fast_memory(own)
    with fast.disabled():  # entered between
        assert_equal_answers(answer(own, grad), expected)
    other = copy.deepcopy(layer)
    with fast.disabled():  # left between
        other(x)
    assert not holds_fast_memory(other)
    assert_equal_answers(answer(other, grad), expected)
    for inside in (True, False):  # answered by another thread, in which nothing is disabled
        third, found = copy.deepcopy(layer), []
        if inside:
            with fast.disabled():
                third(x)
                in_thread(lambda layer=third, found=found: found.append(answer(layer, grad, wanted=False)))
        else:
            third(x)
            in_thread(lambda layer=third, found=found: found.append(answer(layer, grad, wanted=False)))
        assert_equal_answers(found[0], (None, expected[1]))


@every_pair
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", ["subclass", "class at run time", "instance"])
def test_where_one_verb_is_overridden_the_references_of_all_run(cls, index, verb, how):
    layer, x = example(cls, index)
    twin, heard = copy.deepcopy(layer), []
    y = twin(x)
    grad = cotangent(y)
    expected = answer(twin, grad)
    heard_parameters = answer_parameters(copy.deepcopy(layer), x, grad)
    kind = type(layer)

    def listen(self, value):
        heard.append(verb)
        return getattr(kind, verb)(self, value)

    child = type(kind.__name__, (kind,), {verb: listen} if how == "subclass" else {})
    layer.__class__ = child
    if how == "class at run time":
        setattr(child, verb, listen)
    if how == "instance":
        setattr(layer, verb, listen.__get__(layer))
    assert_same(host(layer(x)), host(y), 1e-11)
    assert not holds_fast_memory(layer)
    if verb == "backward_parameters":
        layer.zero_grad()
        layer.backward_parameters(grad)
        for name, p in layer.parameters().items():
            assert_same(host(p.grad), heard_parameters[name], 1e-11)
    else:
        assert_equal_answers(answer(layer, grad), expected)
    assert heard == [verb]


@every_pair
def test_a_copy_and_a_pickle_between_forward_and_backward_answer_too(cls, index):
    layer, x = example(cls, index)
    y = layer(x)
    grad = cotangent(y)
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert_equal_answers(answer(twin, grad), answer(copy.deepcopy(layer), grad))


@every_pair
def test_another_array_module_runs_the_reference(cls, index):
    layer, x = example(cls, index, xp=strict)
    assert verbs_of(layer) is None
    layer(x)
    assert not holds_fast_memory(layer)


@pytest.mark.parametrize(("cls", "index"), LOSSES)
def test_a_loss_computes_the_same_with_and_without_fast_bodies(cls, index):
    loss_func, (prediction, target) = example(cls, index)
    loss = loss_func(prediction, target)
    with fast.disabled():
        other = loss_func(prediction, target)
    assert_same(numpy.asarray(loss.value), numpy.asarray(other.value), 1e-12)
    assert_same(loss.grad, other.grad, 1e-12)


def test_disabled_is_a_matter_of_one_thread():
    layer, x = mtorch.layers.ReLU(), numpy.ones((3, 2), "float32")
    seen = []
    with fast.disabled():
        in_thread(lambda: seen.append(threading.get_ident() in accelerate._disabled))
        seen.append(threading.get_ident() in accelerate._disabled)
        with fast.disabled():
            pass
        layer(x)
        assert not holds_fast_memory(layer)
    assert seen == [False, True] and not accelerate._disabled
    with pytest.raises(ZeroDivisionError), fast.disabled():
        raise ZeroDivisionError
    assert not accelerate._disabled


def test_switched_off_at_import_the_mark_hands_back_the_function_itself():
    code = """
import sys, mtorch
from mtorch.accelerate import accelerated
def forward(self, x): return x
assert accelerated(forward) is forward and not mtorch.fast.ENABLED
assert "mtorch.fast.numpy" not in sys.modules
with mtorch.fast.disabled():
    pass
assert not hasattr(mtorch.layers.ReLU.forward, "__wrapped__")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={"MTORCH_FAST": "0", "PYTHONPATH": ":".join(sys.path)})


# ---------------------------------------------------------------------- helpers


def holds_fast_memory(layer):
    return any(isinstance(each._memory, FastMemory) for _, each in layer.walk())


def in_thread(function):
    thread = threading.Thread(target=function)
    thread.start()
    thread.join()


def answer_parameters(layer, x, grad):
    _, _, grads = run(layer, x, grad)
    return grads
