"""What a hostile or a new user types is refused with a typed error that names the class or argument."""

import math
import re
import types

import numpy
import pytest

import mtorch
from apps.mnist.__main__ import main as recogniser
from mtorch import (
    Graph,
    Input,
    Layer,
    Module,
    Parameter,
    Residual,
    Sequential,
    ShapeMismatchError,
    initializers,
    layers,
    losses,
    optim,
)
from mtorch.data import ArrayDataset, DataLoader
from mtorch.optim import schedules
from mtorch.testing import check_gradients

PAIR = numpy.ones((2, 3), "float32")
NET = Module(Sequential(layers.Linear(3, 2)))

CONSTRUCTIONS = [
    (lambda: layers.Linear(2, 2, coe="a"), TypeError, "Linear expected a number as coe"),
    (lambda: layers.Linear(2, 2, coe=None), TypeError, "Linear expected a number as coe"),
    (lambda: layers.Linear(2, 2, coe=math.nan), ValueError, "Linear"),
    (lambda: layers.Linear(2, 2, init="he"), TypeError, "Linear expected a function .* as init"),
    (lambda: layers.Linear(2, 3, init=initializers.orthogonal), TypeError, r"Linear .* as init, .*orthogonal\(\)"),
    (lambda: layers.Linear(2, 3, init=lambda *_: numpy.zeros((1, 1))), ValueError, r"Linear expected init .*\(3, 2\)"),
    (lambda: layers.Linear(2, 2, xp="numpy"), TypeError, "Linear expected xp to be an array module"),
    (lambda: layers.ReLU(xp=None), TypeError, "ReLU expected xp to be an array module"),
    (lambda: layers.Conv2d(1, 1, 1, xp=math), TypeError, "Conv2d expected xp to be an array module"),
    (lambda: layers.Transpose(1), TypeError, "Transpose expected a tuple of all axes"),
    (lambda: layers.Reshape(3.5), TypeError, "Reshape expected shape"),
    (lambda: Parameter("a"), TypeError, "Parameter expected an array of floats"),
    (lambda: Parameter([1.0, 2.0]), TypeError, "Parameter expected an array of floats"),
    (lambda: Parameter(numpy.array([1, 2])), TypeError, "Parameter expected an array of floats, got dtype int64"),
    (lambda: Parameter(numpy.array(["a"])), TypeError, "Parameter expected an array of floats, got dtype <U"),
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
    (lambda: NET.step("a"), TypeError, r"expected a number as learning rate, got lr='a'"),
    (lambda: NET.step(numpy.ones(2)), TypeError, "expected a number as learning rate"),
    (lambda: layers.LSTMCell(2, 3).initial_state(-1), ValueError, "LSTMCell expected n >= 0, got -1"),
    (lambda: layers.RNNCell(2, 3).initial_state("a"), TypeError, "RNNCell expected an integer n"),
    (lambda: layers.Linear(3, 2).to(xp=math), TypeError, r"Linear\(3 -> 2\) expected xp to be an array module"),
    (lambda: layers.Linear(3, 2).to(dtype="int32"), ValueError, r"Linear\(3 -> 2\): dtype must be"),
    (lambda: layers.on(math), TypeError, "on expected xp to be an array module"),
    (lambda: layers.on(dtype="int8"), ValueError, "on: dtype must be"),
    (lambda: layers.MultiHeadAttention(4, 2, dropout="a"), TypeError, "MultiHeadAttention expected a number as drop"),
    (lambda: schedules.MultiStepLR(0.1, 3), TypeError, "MultiStepLR expected a list of integers as milestones, got 3"),
    (lambda: optim.SGD(NET, lr=lambda: 1), TypeError, "SGD expected a number or a schedule, .* as lr, got"),
    (lambda: optim.SGD(NET, 0.1, momentum=0.5, nesterov="no"), TypeError, "SGD expected nesterov to be True or False"),
    (lambda: optim.RMSprop(NET, centered="no"), TypeError, "RMSprop expected centered to be True or False"),
    (lambda: Graph(None, None, None), TypeError, "Graph expected nodes as"),
    (lambda: Graph("x", {"y": (layers.ReLU(), "x")}, "y", named=3), TypeError, "Graph expected named as"),
    (lambda: Graph("x", {"y": (layers.ReLU(), "x")}, "y", dtype="int8"), ValueError, "Graph: dtype must be"),
    (lambda: Graph.of(Input("x") + 1, inputs=3), TypeError, "Graph expected inputs as a tuple of Inputs, got 3"),
    (lambda: losses.CrossEntropyLoss(weight=[[1], [1, 2]]), ValueError, "CrossEntropyLoss weight.* ragged list"),
    (lambda: losses.NLLLoss(weight=[]), ValueError, "NLLLoss expected weight"),
    (lambda: optim.Adam(NET, lr=0.1, momntum=0.9), TypeError, "^Adam has no option momntum: there are .*betas"),
    (lambda: optim.AdamW(NET, beta=1, wd=2), TypeError, "^AdamW has no option beta, wd: .*weight_decay"),
    (lambda: optim.SGD(NET, 0.1, betas=1), TypeError, "^SGD has no option betas: there are .*momentum"),
    (lambda: losses.SquareLoss()(PAIR, PAIR, transform=0), TypeError, r"SquareLoss\(\) expected transform to be True"),
    (lambda: losses.SquareLoss(transform="no"), TypeError, "SquareLoss expected transform to be True or False"),
    (lambda: losses.SquareLoss()(PAIR, PAIR, transform="no"), TypeError, "SquareLoss.* expected transform to be True"),
    (lambda: DataLoader(ArrayDataset([1])).load_state_dict(None), TypeError, "DataLoader state: expected what"),
    (lambda: mtorch.save(3, NET), TypeError, "save expected a path, got 3"),
    (lambda: mtorch.load(None, NET), TypeError, "load expected a path, got None"),
    (lambda: layers.Linear(1, 1).load_state_dict({1: 2}), ValueError, "unexpected: 1"),
    (lambda: layers.Linear(1, 1).load_state_dict({"weight": [[1], [1, 2]]}), ValueError, "weight.* ragged list"),
    (lambda: layers.Linear(1, 1).train("no"), TypeError, r"Linear.* expected mode to be True or False"),
    (lambda: layers.Slice(slice("a", None)), TypeError, "Slice expected integers in a slice"),
    (lambda: Module(layers.ReLU(), input_grad="no"), TypeError, "Module expected input_grad to be True or False"),
    (lambda: Parameter(PAIR, trainable="no"), TypeError, "Parameter expected trainable to be True or False"),
    (lambda: mtorch.seed("a"), TypeError, "seed expected an int, got 'a'"),
    (lambda: initializers.normal("a"), TypeError, "normal expected a number as mean, got 'a'"),
    (lambda: initializers.coe("a"), TypeError, "coe expected a number as coe, got 'a'"),
    (lambda: layers.Linear(2, 3, init=lambda *_: numpy.full((3, 2), "a")), ValueError, "Linear expected init .*<U1"),
    (lambda: mtorch.concat(3, 0), TypeError, "concat expected a tuple or list of arrays, got 3"),
    (lambda: check_gradients(3, (4, 3)), TypeError, "check_gradients expected a layer or a loss function, got 3"),
    (lambda: mtorch.save("never.npz", NET, a=[{"__mtorch__": 3}]), ValueError, "never.npz cannot hold a dict with"),
]

FLAGS = [
    (layers.Linear, (2, 2), "bias"),
    (layers.Conv2d, (1, 1, 1), "bias"),
    (layers.ConvTranspose2d, (1, 1, 1), "bias"),
    (layers.GRUCell, (1, 1), "bias"),
    (layers.LSTM, (1, 1), "bias batch_first bidirectional return_state"),
    (layers.MultiHeadAttention, (4, 2), "bias causal"),
    (layers.BatchNorm2d, (2,), "affine"),
    (layers.GroupNorm, (1, 2), "affine"),
    (layers.LayerNorm, (2,), "elementwise_affine bias"),
    (layers.RMSNorm, (2,), "elementwise_affine"),
    (layers.PositionalEmbedding, (2, 2), "learned"),
    (layers.Mean, (), "keepdims"),
]
RANDOM = [
    *FLAGS[:6],
    (layers.Embedding, (2, 2), ""),
    (layers.PositionalEmbedding, (2, 2), ""),
    (layers.Dropout, (), ""),
]


@pytest.mark.parametrize("cls, sizes, names", FLAGS, ids=lambda each: getattr(each, "__name__", ""))
def test_a_truth_value_is_true_or_false_and_nothing_else(cls, sizes, names):
    for name in names.split():
        for wrong in ("no", "false", 1, None):
            with pytest.raises(TypeError, match=f"{cls.__name__} expected {name} to be True or False, got {wrong!r}"):
                cls(*sizes, **{name: wrong})
        assert repr(cls(*sizes, **{name: numpy.True_})) == repr(cls(*sizes, **{name: True}))


@pytest.mark.parametrize("cls, sizes, names", RANDOM, ids=lambda each: getattr(each, "__name__", ""))
def test_a_bad_generator_or_dtype_names_the_layer(cls, sizes, names):
    for wrong, kind in (("a", TypeError), (1.5, TypeError), (-1, ValueError)):
        with pytest.raises(kind, match=f"^{cls.__name__} rng expected"):
            cls(*sizes, rng=wrong)
    for wrong in ("int32", "bogus", None):
        with pytest.raises(ValueError, match=f"^{cls.__name__}: dtype must"):
            cls(*sizes, dtype=wrong)


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
    with pytest.raises(ShapeMismatchError, match="MultiHeadAttention"):
        layers.MultiHeadAttention(4, 2)((x,))


def test_nothing_where_a_net_wants_an_array_names_the_layer_and_its_place():
    x = Input("x")
    sliced = Graph.of(x[0] + 1)
    for net in (Graph("x", {"h": (layers.Linear(3, 3), "x"), "y": (layers.Add(), ("h", "x"))}, "y"), sliced):
        for verb in (net, net.predict):
            with pytest.raises(TypeError, match=r"(Linear|Slice)\(.*\) expected an array, got None") as error:
                verb(None)
            assert "in node" in error.value.__notes__[0]


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


class Forgetful(Layer):
    def __init__(self, answer=None):
        super().__init__()
        self.answer = answer

    def forward(self, x):
        self.remember(x)
        return self.answer


@pytest.mark.parametrize("verb", ["__call__", "predict"])
def test_a_forward_that_returns_nothing_is_named_in_its_place_too(verb):
    chain = Sequential(layers.Linear(3, 3), Forgetful(), layers.ReLU())
    last = Sequential(layers.Linear(3, 3), Forgetful())
    graph = Graph("x", {"h": (Forgetful(), "x"), "y": (layers.ReLU(), "h")}, "y")
    for net, place in ((chain, "layer 1 of Seq"), (last, "layer 1 of Seq"), (graph, "node 'h' of Graph")):
        with pytest.raises(TypeError, match=r"Forgetful\(\) expected its forward to return.*got None") as error:
            getattr(net, verb)(PAIR)
        assert any(place in note for note in error.value.__notes__)
        with pytest.raises(mtorch.BackwardError):
            net.backward(PAIR)
    for wrong in (None, [1.0], 1.0, "text"):
        for net in (Forgetful(wrong), Sequential(Forgetful(wrong), layers.Linear(3, 2))):
            with pytest.raises(TypeError, match=r"^Forgetful\(\) expected its forward to return an array"):
                getattr(net, verb)(PAIR)


class Unanswered(layers.Identity):
    def backward(self, output_grad):
        output_grad * 1


def test_a_backward_that_forgets_to_return_is_told_so_in_its_place():
    def linear():
        return layers.Linear(3, 3)

    nodes = {"a": (linear(), "x"), "b": (Unanswered(), "a"), "y": (layers.Add(), ("a", "b"))}
    for net, place in (
        (Sequential(linear(), Unanswered(), linear()), "layer 1 of Sequential"),
        (Sequential(linear(), Sequential(Unanswered(), layers.Tanh())), "layer 0 of Sequential"),
        (Sequential(linear(), mtorch.Residual(Unanswered())), "0 of Residual|body of Residual"),
        (Sequential(linear(), mtorch.Fork(layers.Tanh(), Unanswered()), layers.Add()), "branch 1 of Fork"),
        (Graph("x", nodes, "y"), "node 'b' of Graph"),
    ):
        y = net(PAIR)
        with pytest.raises(TypeError, match=r"Unanswered\(\) expected its backward to return .*got None") as error:
            net.backward_parameters(y)
        assert re.search(place, error.value.__notes__[0])
        assert not any(parameter.has_grad for parameter in net.parameters().values())


def test_ids_have_no_gradient_and_what_is_not_asked_for_may_be_forgotten():
    ids = numpy.array([[0, 1], [2, 0]])
    turned = Sequential(layers.Transpose((1, 0)), layers.Embedding(3, 2))
    for net in (Sequential(layers.Embedding(3, 2), layers.Tanh()), turned):
        assert net.backward(net(ids)) is None
    embed = layers.Embedding(3, 2)
    fork = mtorch.Fork(embed, Sequential(embed, layers.Tanh()))
    assert fork.backward(fork(ids)) is None
    net = Sequential(Unanswered(), layers.Linear(3, 2))
    net.backward_parameters(net(PAIR))
    assert net.layers[1].weight.has_grad


@pytest.mark.parametrize(
    "wrong, text",
    [(PAIR.astype("float64"), r"float64 \(2, 3\)"), (PAIR[:1], r"float32 \(1, 3\)")],
    ids=["dtype", "shape"],
)
def test_an_error_in_backward_says_where_the_gradient_came_from(wrong, text):
    class Careless(layers.Identity):
        def backward(self, output_grad):
            return wrong

    net = Sequential(layers.Linear(3, 3), Careless(), layers.Linear(3, 3))
    y = net(PAIR)
    with pytest.raises(ValueError) as error:
        net.backward(y)
    assert error.value.__notes__[0] == "in layer 0 of Sequential"
    assert re.match(f"its output gradient, {text}, came from Careless", error.value.__notes__[1])


def test_a_layer_without_the_constructor_of_layers_is_told_so():
    class Hasty(Layer):
        def __init__(self):
            self.size = 3

        def forward(self, x):
            return x

    for use in (lambda: Hasty()(PAIR), lambda: Sequential(Hasty()), lambda: Hasty().predict(PAIR)):
        with pytest.raises(AttributeError, match=r"Hasty.__init__ must begin with super\(\).__init__\(\)"):
            use()
    with pytest.raises(AttributeError, match="^'ReLU' object has no attribute 'bogus'$"):
        layers.ReLU().bogus  # noqa: B018


@pytest.mark.parametrize("attribute", ["shape", "reshape", "mean", "size"])
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


@pytest.mark.parametrize("model, loss, side", [
    *((model, loss, 28) for model in ("linear", "x", []) for loss in (None, "x", [])),
    ("linear", "square", 28.0), ("linear", "square", numpy.array([28])), ("linear", "square", True),
    (numpy.array(["linear"]), "square", 28), (numpy.arange(2), "square", 28), ("linear", numpy.array(["square"]), 28),
])  # fmt: skip
def test_a_checkpoint_with_settings_of_another_program_is_one_line(tmp_path, capsys, model, loss, side):
    mtorch.save(tmp_path / "model.npz", NET, settings={"model": model, "loss": loss, "side": side})
    assert recogniser(["evaluate", "--data", "digits", "--out", str(tmp_path)]) == 2
    assert "is not a checkpoint of the digit recogniser" in capsys.readouterr().err


def test_no_module_of_arrays_is_any_object_with_functions():
    with pytest.raises(TypeError, match="array module"):
        layers.Linear(1, 1, xp=types.SimpleNamespace(zeros=numpy.zeros))


def test_a_shortcut_that_is_missing_is_told_when_the_net_is_built():
    wanted = "both branches to return one shape, got 4 and 3 entries on axis -1"
    with pytest.raises(ShapeMismatchError, match=wanted) as caught:
        Sequential(layers.Linear(2, 3), Residual(layers.Linear(3, 4)))
    assert str(caught.value).startswith("Residual(Linear(3 -> 4))")


def test_a_misspelt_option_is_told_with_the_name_of_its_loss():
    with pytest.raises(TypeError, match="CrossEntropyLoss.*wieght"):
        losses.CrossEntropyLoss(wieght=[1, 2])


def test_an_error_of_a_container_is_one_line():
    """`print(net)` has a line for each layer, a message has not."""
    net = Sequential(layers.Linear(3, 2), layers.Tanh())
    for wrong in (lambda: net.train("yes"), lambda: net.load_state_dict(net.state_dict(), strict=1)):
        with pytest.raises(TypeError) as error:
            wrong()
        assert "\n" not in str(error.value) and str(error.value).startswith("Sequential(")
