"""A plain Layer that assigns layers as attributes and calls them in its forward and backward, as users of torch do."""

import copy
import pickle

import numpy
import pytest

import mtorch
from mtorch import BackwardError, Buffer, Layer, Parameter, Residual, Sequential, ShapeMismatchError, layers
from mtorch.testing import check_gradients, strict

X = numpy.random.default_rng(0).standard_normal((5, 3)).astype("float32")


class Block(Layer):
    """y = norm(tanh(fc(x))) * gain + x"""

    def __init__(self, size=3, *, xp=numpy, dtype="float32", rng=0):
        super().__init__(xp=xp, dtype=dtype)
        nn = layers.on(xp, dtype=dtype, rng=rng)
        self.fc, self.tanh, self.norm = nn.Linear(size, size), nn.Tanh(), nn.BatchNorm1d(size)
        self.gain = Parameter(xp.full(size, 0.5, dtype=self.dtype))

    def forward(self, x):
        h = self.norm(self.tanh(self.fc(x)))
        self.remember(h)
        return h * self.gain.value + x

    def backward(self, output_grad):
        g = self.cast_grad(output_grad)
        h = self.recall()
        self.gain.accumulate((g * h).sum(axis=0))
        return self.fc.backward(self.tanh.backward(self.norm.backward(g * self.gain.value))) + g


class Outer(Layer):
    """A block among layers, one level deeper."""

    def __init__(self):
        super().__init__()
        self.block, self.chain = Block(), Sequential(layers.Linear(3, 3, rng=1), layers.Sigmoid())

    def forward(self, x):
        return self.chain(self.block(x))

    def backward(self, output_grad):
        return self.block.backward(self.chain.backward(output_grad))


NAMES = ["fc.weight", "fc.bias", "norm.weight", "norm.bias", "gain"]


def test_its_parameters_are_named_and_moved():
    layer = Block()
    assert sorted(layer.parameters()) == sorted(NAMES)
    assert check_gradients(layer, (5, 3), "longdouble") < 1e-10
    before, y = layer.state_dict(), layer(X)
    layer.backward(numpy.random.default_rng(1).standard_normal(y.shape))
    grads = {name: p.grad.copy() for name, p in layer.parameters().items()}
    layer.step(0.1)
    for name, p in layer.parameters().items():
        assert grads[name].any()
        numpy.testing.assert_allclose(p.value, before[name] - 0.1 * grads[name], rtol=1e-5, atol=1e-6)
        assert not p.grad.any()


@pytest.mark.parametrize("optimizer", [mtorch.SGD, mtorch.Adam])
@pytest.mark.parametrize("make", [Block, Outer, lambda: Sequential(Block(), Outer()), lambda: mtorch.Module(Outer())])
def test_it_learns_alone_and_in_every_container(make, optimizer):
    net = make()
    loss_func, optimizer, losses = mtorch.MSELoss(net), optimizer(net, lr=0.2), []
    target = numpy.sin(X)
    before = net.state_dict()
    for _ in range(60):
        loss = loss_func(net(X), target)
        loss.backward()
        optimizer.step()
        losses.append(loss.value)
    assert losses[-1] < 0.8 * losses[0]
    assert all((value != before[name]).any() for name, value in net.state_dict().items())


def test_zero_grad_modes_and_conversions_reach_its_layers():
    layer = Block()
    layer.backward(layer(X))
    layer.zero_grad()
    assert not any(p.has_grad for p in layer.parameters().values())
    layer.eval()
    assert not layer.norm.training and not layer.tanh.training
    double = layer.train().to(dtype="float64")
    assert double.fc.weight.value.dtype == double(X).dtype == numpy.float64
    device = layer.to(xp=strict)
    assert device.fc.xp is strict and numpy.allclose(device(strict.asarray(X)).get(), layer(X), atol=1e-6)


@pytest.mark.parametrize("twin", [copy.deepcopy, lambda layer: pickle.loads(pickle.dumps(layer))])
def test_a_copy_between_forward_and_backward_answers_too(twin):
    net = Sequential(Outer(), Block())
    y = net(X)
    other = twin(net)
    numpy.testing.assert_array_equal(other.backward(y), net.backward(y))
    for name, p in net.parameters().items():
        numpy.testing.assert_array_equal(other.parameters()[name].grad, p.grad)


def test_one_that_stands_twice_in_a_net_keeps_the_memories_of_both_calls():
    block = Block(dtype="float64")
    for net in (Sequential(block, layers.Tanh(dtype="float64"), block), Residual(Sequential(block, block))):
        assert check_gradients(net, (5, 3), "longdouble", tolerance=1e-8) < 1e-8
    x = mtorch.Input()
    assert check_gradients(mtorch.Graph.of(block(block(x)) * x), (5, 3), "longdouble", tolerance=1e-8) < 1e-8


def test_a_call_that_fails_leaves_no_memory_and_old_buffers():
    layer = Outer()
    layer.chain = Sequential(layers.Linear(4, 4))
    before = layer.state_dict()
    for net, forward in ((layer, layer), (Sequential(layer), Sequential(layer).forward)):
        with pytest.raises(ShapeMismatchError, match=r"Linear\(4 -> 4\)"):
            forward(X)
        for name, value in net.state_dict().items():
            numpy.testing.assert_array_equal(value, before[name.removeprefix("0.")])
        with pytest.raises(BackwardError):
            layer.block.backward(X)


def test_an_error_in_the_middle_of_backward_drops_what_is_below():
    class Failing(Block):
        def backward(self, output_grad):
            super().backward(output_grad)
            raise RuntimeError("burst")

    net = Sequential(layers.Linear(3, 3), Failing(), layers.Linear(3, 3))
    y = net(X)
    with pytest.raises(RuntimeError, match="burst") as caught:
        net.backward(y)
    assert caught.value.__notes__[0] == "in layer 1 of Sequential"
    assert not any(p.has_grad for p in net.parameters().values())
    with pytest.raises(BackwardError):
        net[1].norm.backward(y)


def test_predict_changes_nothing_and_leaves_a_pending_backward():
    net = Sequential(Block(), Outer())
    y = net(X)
    before = net.state_dict()
    net.predict(2 * X)
    assert all((value == before[name]).all() for name, value in net.state_dict().items())
    net.backward(y)
    alone = Block()
    y = alone(X)
    alone.predict(2 * X)
    alone.backward(y)


def test_buffers_of_its_own_go_back_too():
    class Counting(Block):
        def __init__(self):
            super().__init__()
            self.calls = Buffer(numpy.zeros((), "int64"))

        def forward(self, x):
            self.calls.value = self.calls.value + 1
            return super().forward(x)

    layer = Counting()
    for net in (layer, Sequential(layer, layers.Linear(3, 3))):
        net(X)
        with pytest.raises(ShapeMismatchError):
            net(X[:, :2])
    assert layer.calls.value == 2


@pytest.mark.parametrize("make", [list, lambda layers: {str(i): layer for i, layer in enumerate(layers)}])
def test_a_list_or_dict_of_layers_is_an_error_and_not_lost(make):
    class Listed(Layer):
        def __init__(self):
            super().__init__()
            self.stack = make([layers.Linear(3, 3), layers.Linear(3, 3)])

    for use in (Layer.parameters, Layer.state_dict, Layer.train, lambda layer: Sequential(layer)):
        with pytest.raises(TypeError, match="Listed expected layers and parameters as attributes, or in a Sequential"):
            use(Listed())
