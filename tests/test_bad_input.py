"""What a hostile or a new user types is refused with a typed error that names the class or argument."""

import math
import types

import numpy
import pytest

import mtorch
from mtorch import Graph, Input, Layer, Module, Parameter, Sequential, ShapeMismatchError, layers, losses, optim
from mtorch.optim import schedules

PAIR = numpy.ones((2, 3), "float32")
NET = Module(Sequential(layers.Linear(3, 2)))

CONSTRUCTIONS = [
    (lambda: layers.Linear(2, 2, coe="a"), TypeError, "Linear expected a number as coe"),
    (lambda: layers.Linear(2, 2, coe=None), TypeError, "Linear expected a number as coe"),
    (lambda: layers.Linear(2, 2, coe=math.nan), ValueError, "Linear"),
    (lambda: layers.Linear(2, 2, init="he"), TypeError, "Linear expected a function .* as init"),
    (lambda: layers.Linear(2, 3, init=lambda *_: numpy.zeros((1, 1))), ValueError, r"Linear expected init .*\(3, 2\)"),
    (lambda: layers.Linear(2, 2, xp="numpy"), TypeError, "Linear expected xp to be an array module"),
    (lambda: layers.ReLU(xp=None), TypeError, "ReLU expected xp to be an array module"),
    (lambda: layers.Conv2d(1, 1, 1, xp=math), TypeError, "Conv2d expected xp to be an array module"),
    (lambda: layers.Transpose(1), TypeError, "Transpose expected a tuple of all axes"),
    (lambda: layers.Reshape(3.5), TypeError, "Reshape expected shape"),
    (lambda: Parameter("a"), TypeError, "Parameter expected an array of numbers"),
    (lambda: Parameter([1.0, 2.0]), TypeError, "Parameter expected an array of numbers"),
    (lambda: Parameter(numpy.array(["a"])), TypeError, "Parameter expected an array of numbers, got dtype <U"),
    (lambda: optim.SGD(NET, 0.1, scale=3), TypeError, "SGD expected scale"),
    (lambda: optim.Adam(NET, scale={1: 1}), TypeError, "Adam expected scale"),
    (lambda: optim.AdamW(NET, scale=["0.*"]), TypeError, "AdamW expected scale"),
    (lambda: mtorch.save("never.npz", 3), TypeError, "save expected a module"),
    (lambda: mtorch.save("never.npz", NET, 3), TypeError, "save expected an optimizer"),
    (lambda: mtorch.load("never.npz", None), TypeError, "load expected a module"),
    (lambda: NET.load_state_dict(None), TypeError, "expected a state dict of arrays by name, got None"),
    (lambda: layers.Linear(1, 1).load_state_dict([1]), TypeError, r"Linear\(1 -> 1\) expected a state dict"),
    (lambda: optim.Adam(NET).load_state_dict(None), TypeError, "Adam expected a state dict"),
    (lambda: mtorch.summary(3), TypeError, "summary expected a module"),
]


@pytest.mark.parametrize("make, kind, text", CONSTRUCTIONS)
def test_a_wrong_argument_is_refused_by_name(make, kind, text):
    with pytest.raises(kind, match=text):
        make()


@pytest.mark.parametrize("name", ["Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum", "Pow", "MatMul"])
def test_an_operator_says_that_an_operand_is_missing(name):
    layer = getattr(layers, name)()
    for pair in ((None, PAIR), (PAIR, None), (None, None)):
        with pytest.raises(ShapeMismatchError, match=name):
            layer(pair)


def test_concat_and_attention_say_that_an_array_is_missing():
    with pytest.raises(ShapeMismatchError, match="Concat"):
        layers.Concat(0)((PAIR, None))
    x = numpy.ones((3, 2, 4), "float32")
    for missing in range(3):
        with pytest.raises(ShapeMismatchError, match="MultiHeadAttention"):
            layers.MultiHeadAttention(4, 2)(tuple(None if i == missing else x for i in range(3)))


def test_attention_over_an_empty_batch_is_empty_and_gives_zero_gradients():
    layer = layers.MultiHeadAttention(4, 2)
    x = numpy.ones((3, 0, 4), "float32")
    y = layer(x)
    assert y.shape == x.shape and layer.backward(y).shape == x.shape
    assert not any(parameter.grad.any() for parameter in layer.parameters().values())


def test_a_forward_that_returns_no_array_is_told_so_and_leaves_no_memory():
    class Forgets(Layer):
        def forward(self, x):
            self.remember(x)

    layer = Forgets()
    with pytest.raises(TypeError, match=r"Forgets\(\) expected its forward to return an array"):
        layer(PAIR)
    with pytest.raises(mtorch.BackwardError):
        layer.recall()
    with pytest.raises(TypeError, match=r"Identity\(\) expected its forward"):
        layers.Identity()((None, PAIR))


@pytest.mark.parametrize("attribute", ["shape", "reshape", "mean", "T"])
def test_an_expression_says_that_it_is_no_array_yet(attribute):
    for expression in (Input("x"), Input("x") + 1):
        with pytest.raises(AttributeError, match="data that is not there yet"):
            getattr(expression, attribute)
        assert not hasattr(expression, attribute)


@pytest.mark.parametrize(
    "schedule",
    [schedules.StepLR(0.1, 1, 2.0), schedules.ExponentialLR(0.1, 2.0), schedules.MultiStepLR(0.1, range(2000), 2.0)],
)
def test_a_rate_that_grows_beyond_all_floats_is_refused_by_the_optimizer(schedule):
    assert schedule(5000) == math.inf
    optimizer = optim.SGD(NET, schedule)
    optimizer.steps = 5000
    with pytest.raises(ValueError, match="SGD expected a learning rate"):
        optimizer.step()


def test_a_refused_call_of_a_loss_leaves_the_pending_backward():
    net = Module(Sequential(layers.Linear(3, 2)))
    prediction = net(PAIR)
    for labels in ([0.0, 1.0], [0, 2], [0, -1], [0], [[0, 1]], "ab", None):
        with pytest.raises((TypeError, ValueError), match="CrossEntropyLoss"):
            losses.CrossEntropyLoss(net)(prediction, labels)
    losses.CrossEntropyLoss(net)(prediction, [0, 1]).backward()
    assert net.parameters()["0.weight"].grad.any()


def test_a_graph_names_itself_when_nothing_is_to_do():
    with pytest.raises(ValueError, match="Graph needs at least one node"):
        Graph.of(Input("x"))


def test_no_module_of_arrays_is_any_object_with_functions():
    with pytest.raises(TypeError, match="array module"):
        layers.Linear(1, 1, xp=types.SimpleNamespace(zeros=numpy.zeros))
