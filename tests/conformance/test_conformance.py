"""The proofs every layer and loss gets from its `examples()` alone: `pytest -k Name` shows those of one class."""

import copy
import pickle

import numpy
import pytest
from harness import LAYERS, LOSSES, assert_same, cotangent, example, final_classes, host, leaves, run

from mtorch import arrays
from mtorch.errors import BackwardError, ShapeMismatchError
from mtorch.layer import EMPTY, Layer
from mtorch.parameter import Buffer
from mtorch.testing import check_gradients, strict

every_layer = pytest.mark.parametrize("cls, index", LAYERS)
every_loss = pytest.mark.parametrize("cls, index", LOSSES)


def buffers(layer):
    return {id(b): arrays.as_numpy(b.value).copy() for _, each in layer.walk() for _, b in each.own(Buffer)}


def holds_nothing(layer):
    return all(each._memory is EMPTY and each._returned is None for _, each in layer.walk())


def floats(value):
    return [leaf for leaf in leaves(value) if leaf is not None and leaf.dtype.kind == "f"]


@every_layer
@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
def test_gradients_agree_with_finite_differences(cls, index, dtype):
    layer, x = example(cls, index)
    assert check_gradients(layer, x, dtype) <= (1e-10 if dtype == "longdouble" else 1e-6)


@every_layer
@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_outputs_and_gradients_keep_the_dtype_and_mirror_the_input(cls, index, dtype):
    layer, x = example(cls, index, dtype=dtype)
    y = layer(x)
    dx = layer.backward(cotangent(y))
    assert {leaf.dtype for leaf in floats(y)} <= {numpy.dtype(dtype)}
    assert {leaf.dtype for leaf in leaves(dx) if leaf is not None} <= {numpy.dtype(dtype)}
    for given, grad in zip(leaves(x), leaves(dx), strict=True):
        assert (grad is None) if given is None or given.dtype.kind != "f" else grad.shape == given.shape
    for parameter in layer.parameters().values():
        assert parameter.grad.dtype == numpy.dtype(dtype) and parameter.grad.shape == parameter.value.shape
    layer.step(0.1)
    assert {p.value.dtype for p in layer.parameters().values()} <= {numpy.dtype(dtype)}


@every_layer
def test_arguments_are_never_written_to(cls, index):
    layer, x = example(cls, index)
    expected = run(layer, x)
    grad = cotangent(copy.deepcopy(layer)(x))
    for leaf in leaves(x) + leaves(grad):
        if leaf is not None:
            leaf.flags.writeable = False
    for got, want in zip(run(layer, x, grad), expected, strict=True):
        assert_same(tuple(got.values()), tuple(want.values())) if isinstance(got, dict) else assert_same(got, want)


@every_layer
def test_any_memory_layout_gives_the_same_result(cls, index):
    layer, x = example(cls, index)
    y, dx, _ = run(layer, x)

    def scattered(a):
        wide = numpy.zeros(tuple(2 * n for n in a.shape), a.dtype, order="F")
        wide[tuple(slice(None, None, 2) for _ in a.shape)] = a
        return wide[tuple(slice(None, None, 2) for _ in a.shape)]

    got_y, got_dx, _ = run(layer, arrays.map_value(scattered, x), arrays.map_value(scattered, cotangent(y)))
    assert_same(got_y, y, 1e-12)
    assert_same(got_dx, dx, 1e-12)


@every_layer
def test_gradients_accumulate_until_step_consumes_them(cls, index):
    layer, x = example(cls, index)
    _, _, once = run(layer, x)
    state = [(each, each.random_state()) for _, each in layer.walk()]
    for _ in range(2):
        for each, random in state:
            each.set_random_state(random)
        layer.backward(cotangent(layer(x)))
    before = {name: p.value.copy() for name, p in layer.parameters().items()}
    for name, p in layer.parameters().items():
        assert_same(p.grad, 2 * once[name], 1e-12)
    layer.step(0.5)
    for name, p in layer.parameters().items():
        assert_same(p.value, before[name] - 0.5 * 2 * once[name], 1e-12)
        assert not p.grad.any()
    layer.step(0.5)
    for name, p in layer.parameters().items():
        assert_same(p.value, before[name] - 0.5 * 2 * once[name], 1e-12)


@every_layer
def test_each_forward_is_answered_once(cls, index):
    layer, x = example(cls, index)
    y = layer(x)
    layer.backward(cotangent(y))
    assert holds_nothing(layer)
    with pytest.raises(BackwardError, match=type(layer.core()).__name__):
        layer.backward(cotangent(y))


@every_layer
def test_a_wrong_output_gradient_changes_nothing(cls, index):
    layer, x = example(cls, index)
    expected_y, expected_dx, expected = run(layer, x)
    y = layer(x)
    grad = cotangent(y)
    wrong = [arrays.map_value(lambda a: None if a is None else a[None], grad), (grad, grad, grad, grad, grad)]
    wrong.append(arrays.map_value(lambda a: None if a is None else a.sum(keepdims=True)[..., None], grad))
    for bad in wrong:
        with pytest.raises(ShapeMismatchError, match="expected an output gradient"):
            layer.backward(bad)
    assert_same(host(layer.backward(grad)), expected_dx)
    for name, p in layer.parameters().items():
        assert_same(p.grad, expected[name])


def certain(layer):
    """Whether a dropout below has the probability 0 or 1, so that nothing is left to chance."""
    return any(getattr(each, "p", 0.5) in (0, 1) for _, each in layer.walk())


RANDOM = [c for c in LAYERS if any(each.random_state() for _, each in example(*c.values)[0].walk())]


@pytest.mark.parametrize(("cls", "index"), RANDOM)
def test_random_numbers_are_those_of_the_random_state(cls, index):
    """Drawn anew in each training call, again from the same state, the same in a copy, and none in predict."""
    layer, x = example(cls, index)
    random = [each for _, each in layer.walk() if each.random_state()]
    states = [each.random_state() for each in random]
    y, twin = host(layer(x)), copy.deepcopy(layer)
    drawn = [each.random_state() for each in random]
    if drawn != states:
        again = host(copy.deepcopy(layer)(x))
        same = [numpy.array_equal(a, b) for a, b in zip(leaves(again), leaves(y), strict=True)]
        assert not all(same) or certain(layer), "a second call draws the same numbers"
    layer.predict(x)
    assert [each.random_state() for each in random] == drawn
    assert_same(host(twin(x)), host(layer(x)))
    for each, state in zip(random, states, strict=True):
        each.set_random_state(state)
    assert_same(host(layer(x)), y)
    for each in random:
        with pytest.raises(ValueError, match="random state"):
            each.set_random_state({"seed": -1})


@every_layer
def test_backward_does_not_ask_for_the_mode(cls, index):
    layer, x = example(cls, index)
    twin = copy.deepcopy(layer)
    grad = cotangent(layer(x))
    twin(x)
    twin.eval()
    assert_same(host(twin.backward(grad)), host(layer.backward(grad)))
    for name, p in layer.parameters().items():
        assert_same(host(twin.parameters()[name].grad), host(p.grad))


@every_layer
def test_backward_parameters_gives_the_same_parameter_gradients(cls, index):
    layer, x = example(cls, index)
    _, _, expected = run(layer, x)
    y = layer(x)
    assert layer.backward_parameters(cotangent(y)) is None
    assert holds_nothing(layer)
    for name, p in layer.parameters().items():
        assert_same(p.grad, expected[name], 1e-12)


@every_layer
def test_results_are_not_overwritten_by_later_calls(cls, index):
    layer, x = example(cls, index)
    y = layer(x)
    dx = layer.backward(cotangent(y))
    kept = host((y, dx))
    second = layer(arrays.map_value(lambda a: a + 1 if a.dtype.kind == "f" else a, x))
    layer.backward(cotangent(second, seed=5))
    layer.step(0.1)
    assert_same(host((y, dx)), kept)


@every_layer
def test_state_goes_round_and_a_bad_state_changes_nothing(cls, index):
    layer, x = example(cls, index)
    twin = copy.deepcopy(layer)
    state = layer.state_dict()
    for _, p in twin.parameters().items():
        p.value += 1
    twin.load_state_dict(state)
    assert_same(run(twin, x)[0], run(layer, x)[0])
    before = twin.state_dict()
    with pytest.raises(ValueError, match="unexpected: nonsense"):
        twin.load_state_dict(state | {"nonsense": numpy.zeros(2)})
    if state:
        first = next(iter(state))
        with pytest.raises(ValueError, match=f"missing: {first}"):
            twin.load_state_dict({name: value for name, value in state.items() if name != first})
        with pytest.raises(ValueError, match="wrong shape"):
            twin.load_state_dict(state | {first: numpy.zeros((7, 7, 7, 7, 7))})
    assert before.keys() == twin.state_dict().keys()
    for name, value in twin.state_dict().items():
        assert_same(value, before[name])


@every_layer
def test_predict_keeps_nothing_and_disturbs_nothing(cls, index):
    layer, x = example(cls, index)
    evaluated = host(copy.deepcopy(layer).eval()(x))
    before = buffers(layer)
    assert_same(host(layer.predict(x)), evaluated)
    assert holds_nothing(layer) and all(each.training for _, each in layer.walk())
    for (_, now), (_, then) in zip(buffers(layer).items(), before.items(), strict=True):
        assert_same(now, then)
    _, expected_dx, _ = run(layer, x)
    y = layer(x)
    layer.predict(x)
    assert_same(host(layer.backward(cotangent(y))), expected_dx)


@every_layer
def test_copies_and_pickles_compute_the_same(cls, index):
    layer, x = example(cls, index)
    expected = run(layer, x)
    layer(x)  # a backward is pending while it is copied
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer)), layer.to()):
        twin.discard()
        for each, (_, original) in zip((e for _, e in twin.walk()), example(cls, index)[0].walk(), strict=True):
            each.set_random_state(original.random_state())
        assert_same(run(twin, x)[1], expected[1])


@every_layer
def test_a_converted_copy_computes_there_in_the_other_dtype(cls, index):
    layer, x = example(cls, index, dtype="float32")
    twin = layer.to(xp=strict, dtype="float64")
    assert all(each.xp is strict and each.dtype == "float64" for _, each in twin.walk())
    y, dx, _ = run(twin, example(cls, index, xp=strict, dtype="float64")[1])
    expected = run(layer, x)
    assert_same(y, expected[0], 1e-5)
    assert_same(dx, expected[1], 1e-4)


@every_layer
def test_what_no_layer_takes_is_a_typed_error_and_leaves_no_memory(cls, index):
    layer, x = example(cls, index)
    for bad in (object(), "text", [[1.0], [2.0, 3.0]], numpy.array([1j, 2j]), (), numpy.zeros(())):
        before = buffers(layer)
        try:
            layer(bad)
        except (TypeError, ValueError, FloatingPointError):  # the logarithm of 0 and its kin
            assert holds_nothing(layer)
            for (_, now), (_, then) in zip(buffers(layer).items(), before.items(), strict=True):
                assert_same(now, then)
        else:
            assert isinstance(bad, tuple | numpy.ndarray), f"{layer!r} let {bad!r} in"
            layer.discard()


@every_layer
def test_a_strict_array_module_finds_no_leak_and_the_same_numbers(cls, index):
    layer, x = example(cls, index, dtype="float32")
    expected = run(layer, x)
    device, device_x = example(cls, index, xp=strict, dtype="float32")
    for mine, theirs in zip(device.parameters().values(), layer.parameters().values(), strict=True):
        assert_same(host(mine.value), theirs.value)  # one seed is one network on every array module
    with strict.count_synchronisations() as places, strict.frozen(), strict.read_only(device_x):
        device.backward(cotangent(device(device_x)))
    assert places == []
    got = run(example(cls, index, xp=strict, dtype="float32")[0], device_x)
    assert_same(got[0], expected[0], 1e-5)
    assert_same(got[1], expected[1], 1e-4)
    for name in expected[2]:
        assert_same(got[2][name], expected[2][name], 1e-4)


@pytest.mark.gpu
@every_layer
def test_cupy_gives_the_same_numbers(cls, index):
    cupy = pytest.importorskip("cupy")
    if not cupy.cuda.is_available():
        pytest.skip("CuPy finds no GPU")
    layer, x = example(cls, index)
    device, device_x = example(cls, index, xp=cupy)
    got, expected = run(device, device_x), run(layer, x)
    assert_same(got[0], expected[0], 1e-10)
    assert_same(got[1], expected[1], 1e-10)
    for name in expected[2]:
        assert_same(got[2][name], expected[2][name], 1e-10)


@every_loss
@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
def test_loss_gradients_agree_with_finite_differences(cls, index, dtype):
    loss, inputs = example(cls, index)
    assert check_gradients(loss, inputs, dtype) <= (1e-10 if dtype == "longdouble" else 1e-6)


@every_loss
def test_losses_keep_the_dtype_and_their_arguments(cls, index):
    loss, (prediction, target) = example(cls, index, dtype="float32")
    for leaf in leaves((prediction, target)):
        if leaf is not None:
            leaf.flags.writeable = False
    first, second = loss(prediction, target), loss(arrays.map_value(lambda x: x * 0.5, prediction), target)
    assert first is not second
    for grad, part in zip(leaves(first.grad), leaves(prediction), strict=True):
        assert grad.dtype == numpy.float32 and grad.shape == part.shape
    kept = host(first.grad)
    for grad in leaves(second.grad):
        grad[...] = 7
    assert_same(first.grad, kept)
    assert_same(numpy.asarray(loss(prediction, target).value), numpy.asarray(first.value))


@every_loss
def test_losses_run_on_a_strict_array_module_without_synchronising(cls, index):
    loss, (prediction, target) = example(cls, index, dtype="float32")
    expected = loss(prediction, target)
    device, (device_prediction, device_target) = example(cls, index, xp=strict, dtype="float32")
    with (
        strict.count_synchronisations() as places,
        strict.read_only(*(x for x in leaves((device_prediction, device_target)) if x is not None)),
    ):
        got = device(device_prediction, device_target)
    assert places == []
    assert_same(host(got.grad), host(expected.grad), 1e-5)
    assert_same(numpy.asarray(got.value), numpy.asarray(expected.value), 1e-5)


def test_every_final_class_has_examples():
    assert len(final_classes(Layer)) >= 11
    for cls in final_classes(Layer):
        assert any(case.values[0] is cls for case in LAYERS), f"{cls.__name__} has no example"
