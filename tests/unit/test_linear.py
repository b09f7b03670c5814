"""The linear map: large batches, for which there are fast bodies, and what does not fit."""

import numpy
import pytest

import mtorch
from mtorch import Parameter, ShapeMismatchError, layers


@pytest.mark.parametrize("shape", [(64, 1100), (4, 16, 1100), (66000,)])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_fast_bodies_for_large_batches_are_the_reference(shape, bias, dtype):
    rng = numpy.random.default_rng(0)
    layer = layers.Linear(shape[-1], 7, bias=bias, dtype=dtype, rng=0)
    x = rng.standard_normal(shape).astype(dtype)
    g = rng.standard_normal((*shape[:-1], 7)).astype(dtype)

    def passes(x):
        results = [layer(x), layer.backward(g), *(p.grad.copy() for p in layer.parameters().values())]
        layer(x)
        layer.backward_parameters(g)  # adds to the gradients of before
        results += [p.grad.copy() for p in layer.parameters().values()]
        layer.zero_grad()
        return results

    with mtorch.fast.disabled():
        expected = passes(x)
    for given in (x, numpy.asfortranarray(x)):
        for found, wanted in zip(passes(given), expected, strict=True):
            assert found.dtype == wanted.dtype and found.shape == wanted.shape
            numpy.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-4)


def test_a_large_batch_of_the_wrong_width_is_refused():
    with pytest.raises(ShapeMismatchError, match=r"Linear\(3 -> 2\) expected input of shape \(..., 3\)"):
        layers.Linear(3, 2)(numpy.zeros((300, 300)))


def test_a_gradient_given_as_lists_is_an_array():
    layer = layers.Linear(3, 2, dtype="float64", rng=0)
    layer(numpy.ones((2, 3)))
    dx = layer.backward([[1, 0], [0, 2]])
    numpy.testing.assert_array_equal(dx, layer.weight.value * [[1], [2]])
    numpy.testing.assert_array_equal(layer.bias.grad, [1, 2])


@pytest.mark.parametrize("moved", ["transposed", "reversed", "one buffer", "gain", "subclass"])
def test_a_step_moves_what_was_assigned_to_the_layer(moved):
    """The fast step moves weight and bias in one pass where they have the arrays that they were made with."""
    rng = numpy.random.default_rng(0)
    layer = layers.Linear(3, 3, rng=0)
    if moved == "transposed":
        layer.weight.value = layer.weight.value.T
    if moved == "reversed":
        layer.bias.value = layer.bias.value[::-1]
    if moved == "one buffer":
        buffer = numpy.zeros((3, 4), "float32")
        layer.weight.value, layer.bias.value = buffer[:, :3], buffer[:, 3]
    if moved == "gain":
        layer.gain = Parameter(numpy.ones(3, "float32"))
    if moved == "subclass":
        layer.bias = type("Named", (Parameter,), {})(numpy.ones(3, "float32"))
    for _ in range(2):
        y = layer(rng.standard_normal((4, 3)))
        layer.backward(rng.standard_normal(y.shape))
        if moved == "gain":
            layer.gain.accumulate(numpy.ones(3, "float32"))
        expected = {name: p.value - numpy.float32(0.1) * p.grad for name, p in layer.parameters().items()}
        layer.step(lr=0.1)
        for name, p in layer.parameters().items():
            numpy.testing.assert_allclose(p.value, expected[name], rtol=1e-6, atol=1e-7)
            assert not p.has_grad
