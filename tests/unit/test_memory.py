"""Memory that is used again never belongs to two arrays at once."""

import threading

import numpy
import pytest

import mtorch
from mtorch import Sequential, layers
from mtorch.kernels import memory

F = numpy.dtype("float32")
SHAPE = (64, 1024)


@pytest.fixture(autouse=True)
def fresh(monkeypatch):
    monkeypatch.setattr(memory, "_memory", memory._Memory())


def address(array):
    return array.__array_interface__["data"][0]


def test_memory_that_nobody_holds_is_used_again():
    first = memory.empty(SHAPE, F)
    before = address(first)
    del first
    again = memory.empty(SHAPE, F)
    assert address(again) == before and again.shape == SHAPE and again.dtype == F
    assert again.flags.c_contiguous and again.flags.writeable and again.flags.aligned


HOLDERS = {
    "itself": lambda a: a,
    "a slice": lambda a: a[3:],
    "a view of a view": lambda a: a.T[5][::2],
    "another dtype": lambda a: a.view("int32").reshape(-1)[7:9],
    "a buffer": memoryview,
    "an array of a buffer": lambda a: numpy.asarray(memoryview(a))[1:],
    "a broadcast": lambda a: numpy.broadcast_to(a[:1], SHAPE),
    "a container": lambda a: [{"deep": a[0]}],
    "an iterator": lambda a: a.flat,
}


@pytest.mark.parametrize("hold", HOLDERS.values(), ids=HOLDERS)
def test_memory_that_anything_can_reach_is_left_alone(hold):
    array = memory.empty(SHAPE, F)
    before = address(array)
    held = hold(array)
    del array
    others = [memory.empty(SHAPE, F) for _ in range(3)]
    assert len({address(other) for other in others} | {before}) == 4
    del held, others
    assert before in {address(other) for other in [memory.empty(SHAPE, F) for _ in range(4)]}


def test_arrays_alive_together_never_share():
    rng = numpy.random.default_rng(0)
    alive = []
    for step in range(300):
        if alive and rng.random() < 0.5:
            alive.pop(rng.integers(len(alive)))
        array = (
            memory.empty((32, 1024), F)
            if rng.random() < 0.5
            else memory.empty_like(numpy, numpy.ones((64, 32, 16), F).T)
        )
        array[...] = step
        alive.append(array)
        values = [float(a.min()) for a in alive]
        assert values == [float(a.max()) for a in alive] and len(set(values)) == len(values)


def test_small_arrays_are_plain():
    assert memory.empty((4, 4), F).base is None and not memory._memory.results
    assert memory.empty_like(numpy, numpy.zeros((3, 0, 2))).shape == (3, 0, 2)


def test_empty_like_keeps_shape_dtype_and_memory_order():
    for order in ((0, 1, 2, 3), (2, 1, 3, 0), (1, 2, 3, 0)):
        x = numpy.zeros((8, 16, 32, 20)).transpose(order)
        got = memory.empty_like(numpy, x)
        assert (got.shape, got.dtype, got.strides) == (x.shape, x.dtype, x.strides)
        flags = memory.empty_like(numpy, x, numpy.dtype(bool))
        assert flags.dtype == bool and flags.strides == tuple(s // 8 for s in x.strides)


def test_every_thread_has_its_own():
    mine, theirs = memory.empty(SHAPE, F), []
    before = address(mine)
    del mine
    thread = threading.Thread(target=lambda: theirs.append(memory.empty(SHAPE, F)))
    thread.start()
    thread.join()
    assert address(theirs[0]) != before


def test_idle_memory_beyond_the_limit_is_given_back(monkeypatch):
    monkeypatch.setattr(memory, "LIMIT", 3 * memory.LARGE)
    kept = memory.empty((memory.LARGE,), numpy.dtype("uint8"))
    kept[...] = 5
    for extra in range(1, 20):
        memory.empty((memory.LARGE + extra,), numpy.dtype("uint8"))[...] = 1
    held = sum(block.nbytes for blocks in memory._memory.results.values() for block in blocks)
    assert held <= 5 * (memory.LARGE + 20) and (kept == 5).all()


def test_scratch_grows_and_keeps_its_name():
    a = memory.scratch("a", (10, 10), F)
    b = memory.scratch("b", (10, 10), F)
    assert not numpy.shares_memory(a, b)
    assert numpy.shares_memory(a, memory.scratch("a", (5,), numpy.dtype("float64")))
    assert memory.scratch("a", (100, 100), F).shape == (100, 100)


@pytest.mark.parametrize("missing", [-1, 0, 1, memory.PAGE - 1, memory.PAGE])
def test_a_block_as_large_as_a_slab_is_whole(missing):
    block = memory.empty((memory.SLAB - missing,), numpy.dtype("uint8"))
    block[0], block[-1] = 1, 2
    assert block.size == memory.SLAB - missing


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
