"""The linear map: large batches, for which there are fast bodies, and what does not fit."""

import numpy
import pytest

import mtorch
from mtorch import ShapeMismatchError, layers


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
