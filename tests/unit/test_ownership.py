"""What one layer of a chain hands to the next: whose memory it is, and who may write there."""

import copy

import numpy
import pytest
from harness import assert_same, cotangent

from mtorch import Parameter, Residual, Sequential, ShapeMismatchError, layers
from mtorch.arrays import map_value
from mtorch.layer import Layer


def one_by_one(net, x, grad):
    """The chain rule by hand: no layer meets an array that another can write to."""
    for layer in net:
        x = layer.forward(x.copy()).copy()
    for layer in reversed(net.layers):
        grad = layer.backward(grad.copy()).copy()
    return x, grad, {name: p.grad.copy() for name, p in net.parameters().items()}


class KeepsItsResult(layers.Linear):
    def forward(self, x):
        self.seen = super().forward(x)
        return self.seen


class Recorder(Layer):
    """Passes on what it gets, and keeps it."""

    def forward(self, x):
        self.seen = x
        return x

    def backward(self, output_grad):
        self.grad = output_grad
        return output_grad


D = 300  # so that arrays are large enough for the bodies that write in place
CHAINS = {
    "linear": lambda: [layers.Linear(D, D), layers.ReLU(), layers.Linear(D, D), layers.ReLU(), layers.ReLU()],
    "first": lambda: [layers.ReLU(), layers.Linear(D, D)],
    "last": lambda: [layers.Linear(D, D), layers.ReLU()],
    "views": lambda: [layers.Reshape((D,)), layers.ReLU(), layers.Flatten(), layers.ReLU(), layers.Linear(D, D)],
    "kept": lambda: [layers.Sigmoid(), layers.ReLU(), layers.Tanh(), layers.ReLU(), layers.Softmax(), layers.ReLU()],
    "dropout": lambda: [layers.Linear(D, D), layers.Dropout(0.3, rng=1), layers.ReLU(), layers.Dropout(0.0)],
    "norms": lambda: [layers.LayerNorm(D), layers.ReLU(), layers.BatchNorm1d(D), layers.ReLU(), layers.Linear(D, D)],
    "nested": lambda: [Sequential(layers.Linear(D, D), layers.Dropout(0.0)), layers.ReLU(), Sequential(layers.ReLU())],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_its_layers_one_by_one(name):
    rng, net = numpy.random.default_rng(0), Sequential(CHAINS[name]())
    x, g = (rng.standard_normal((250, D)).astype("float32") for _ in range(2))
    before = x.copy(), g.copy()
    expected = one_by_one(copy.deepcopy(net), x, g)
    for _ in range(2):  # the memory of the first pass is used again by the second
        twin = copy.deepcopy(net)
        y = twin(x)
        kept = y.copy()
        dx = twin.backward(g)
        assert_same((y, dx), expected[:2])
        assert_same(tuple(p.grad for p in twin.parameters().values()), tuple(expected[2].values()))
        assert_same((x, g, y), (*before, kept))


@pytest.mark.parametrize("keeper", [KeepsItsResult(D, D), Sequential(Recorder()), Recorder()])
def test_what_a_layer_of_the_users_own_keeps_nobody_overwrites(keeper):
    net = Sequential(layers.Linear(D, D), keeper, layers.ReLU(), Recorder(), layers.Linear(D, D))
    y = net(numpy.random.default_rng(0).standard_normal((250, D)).astype("float32"))
    seen = keeper.layers[0].seen if isinstance(keeper, Sequential) else keeper.seen
    assert (seen < 0).any()
    net.backward(cotangent(y))
    assert ((net.layers[3].grad != 0) & (net.layers[3].seen == 0)).any()


def test_a_gradient_that_was_adopted_is_not_written_over():
    class Bias(Layer):
        array_only = True

        def __init__(self):
            super().__init__()
            self.bias = Parameter(numpy.zeros((250, D), "float32"))

        def forward(self, x):
            return x + self.bias.value

        def backward(self, output_grad):
            self.bias.accumulate(output_grad)
            return output_grad

    net = Sequential(layers.Linear(D, D), layers.ReLU(), Bias(), layers.Linear(D, D))
    x = numpy.random.default_rng(0).standard_normal((250, D)).astype("float32")
    _, _, grads = one_by_one(copy.deepcopy(net), x, x)
    net(x)
    net.backward(x)
    assert_same(net.parameters()["2.bias"].grad, grads["2.bias"])
    assert map_value(lambda a: a.shape, x) == (250, D)


def test_a_number_goes_through_residual_and_relu():
    net = Sequential(Residual(layers.Identity()), layers.ReLU())
    assert net(numpy.asarray(-2.0, "float32")) == 0 and net.backward(numpy.asarray(1.0, "float32")) == 0


def test_another_dtype_within_a_net_is_computed_with():
    """Containers pass on what a layer returns; a wider array is computed with as it is."""
    layer, x = layers.Linear(D, 400, rng=0), numpy.random.default_rng(0).standard_normal((500, D))
    for given in (x, numpy.asfortranarray(x)):
        y = layer.forward(given)
        assert y.dtype == "float64"
        assert_same(y, x @ layer.weight.value.T.astype("float64"), 1e-6)
    attention = layers.MultiHeadAttention(64, 4, rng=0)
    x = numpy.random.default_rng(0).standard_normal((20, 20, 64))
    y = attention.forward((x.astype("float32"), x, x))
    attention.backward(y)
    twin = attention.to(dtype="float64")
    twin.backward(twin((x, x, x)))
    assert_same(attention.in_proj_weight.grad, twin.in_proj_weight.grad, 1e-5)


def test_the_layers_of_a_chain_are_those_it_was_made_of():
    net = Sequential(layers.Linear(2, 2), layers.ReLU())
    with pytest.raises(AttributeError, match="layers"):
        net.layers = net.layers[:1]
    assert len(net) == 2


def test_a_plain_class_mixed_in_has_its_say_in_a_chain_too():
    class Twice:
        def forward(self, x):
            return 2 * super().forward(x)

        def backward(self, output_grad):
            return super().backward(2 * output_grad)

    class Louder(Twice, layers.Linear):
        pass

    layer, x = Louder(3, 2, rng=0), numpy.ones((4, 3), "float32")
    expected = 2 * (x @ layer.weight.value.T)
    for net in (layer, Sequential(layer)):
        assert_same(net(x), expected)
        assert_same(net.backward(numpy.ones((4, 2), "float32")), 2 * numpy.ones((4, 2), "float32") @ layer.weight.value)
        assert_same(net.predict(x), expected)
    with pytest.raises(ShapeMismatchError, match=r"Louder\(3 -> 2\)"):
        layer(numpy.ones((4, 5), "float32"))
