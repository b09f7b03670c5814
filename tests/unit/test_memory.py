"""Memory that is freed is found again, and results lie in memory as their inputs do."""

import subprocess
import sys

import numpy
import pytest

import mtorch
from mtorch import Sequential, layers

FAULTS = """
import os, resource, sys
if sys.argv[1] == "kept":
    os.environ.pop("MTORCH_FAST", None)
else:
    os.environ["MTORCH_FAST"] = "0"
import mtorch, numpy

def step():
    arrays = [numpy.ones((1 << 18) + 1000 * i) for i in range(8)]

for _ in range(3):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="page faults are counted on Linux")
def test_a_step_like_the_one_before_asks_the_system_for_no_memory():
    def faults(how):
        run = [sys.executable, "-c", FAULTS, how]
        return int(subprocess.run(run, capture_output=True, text=True, check=True).stdout)

    assert 10 * faults("kept") < faults("returned")


@pytest.mark.parametrize("shape", [(300, 200), (40, 50, 30)])
@pytest.mark.parametrize("order", "CF")
@pytest.mark.parametrize("outputs", [7, 70])
def test_a_linear_input_gradient_lies_in_memory_as_the_input_does(shape, order, outputs):
    """So that a convolution gets its gradient in the order in which it left its result: Flatten copies nothing."""
    rng = numpy.random.default_rng(0)
    layer = layers.Linear(shape[-1], outputs, dtype="float64", rng=0)
    layer.bias.value[...] = rng.standard_normal(outputs)
    x, g = (rng.standard_normal(s) for s in (shape, shape[:-1] + (outputs,)))
    y = layer(numpy.asarray(x, order=order))
    numpy.testing.assert_allclose(y, x @ layer.weight.value.T + layer.bias.value, rtol=1e-10, atol=1e-12)
    assert y.flags.c_contiguous
    dx = layer.backward(g)
    numpy.testing.assert_allclose(dx, g @ layer.weight.value, rtol=1e-10, atol=1e-12)
    rows, grads = x.reshape(-1, shape[-1]), g.reshape(-1, outputs)
    for times in (1, 2):
        numpy.testing.assert_allclose(layer.weight.grad, times * grads.T @ rows, rtol=1e-9, atol=1e-10)
        numpy.testing.assert_allclose(layer.bias.grad, times * grads.sum(axis=0), rtol=1e-9, atol=1e-10)
        layer(x)
        layer.backward_parameters(g)
    if len(shape) == 2 and mtorch.fast.ENABLED:
        assert dx.flags.c_contiguous == (order == "C")


@pytest.mark.skipif(not mtorch.fast.ENABLED, reason="the references know no order of memory")
def test_images_keep_their_order_in_memory_from_the_pool_to_the_dense_layer_and_back():
    """Channels first, the batch innermost: a transposing copy on the way costs as much as the pool."""
    conv, dense = layers.Conv2d(1, 4, 3, rng=0), layers.Linear(4 * 13 * 13, 5, rng=0)
    net = Sequential(conv, layers.MaxPool2d(2), layers.ReLU(), layers.Flatten(), dense)
    image, seen = numpy.random.default_rng(0).standard_normal((64, 1, 28, 28)).astype("float32"), []
    for layer in net.layers:
        image = layer(image)
        seen.append(image)
    grad = numpy.ones_like(image)
    for layer in net.layers[:0:-1]:
        grad = layer.backward(grad)
        if grad.ndim == 4:
            assert grad.strides[0] == grad.itemsize, layer
    assert grad.strides == seen[0].strides
