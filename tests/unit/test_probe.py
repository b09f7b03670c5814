"""Looking inside a net: probes, which count in no name, and attention weights, which are kept on request."""

import copy
import pickle
from threading import Thread

import numpy
import pytest
from numpy.testing import assert_allclose, assert_array_equal

import mtorch
from mtorch import Adam, Graph, Input, Module, MSELoss, Sequential, accelerate, layers
from mtorch.layers import BatchNorm1d, Dropout, Embedding, Linear, MultiHeadAttention, Probe, ReLU, Tanh

X = numpy.random.default_rng(0).standard_normal((4, 3)).astype("float32")


def nets():
    """The same net with probes at every place, and without."""
    probes = [Probe(name) for name in ("first", "hidden", "active", "last")]
    trained = [Linear(3, 5, rng=0), BatchNorm1d(5), ReLU(), Dropout(0.5, rng=1), Linear(5, 2, rng=2)]
    a, b, c, d = probes
    linear, norm, relu, drop, out = trained
    return probes, Sequential(a, linear, b, norm, relu, c, drop, out, d), Sequential(copy.deepcopy(trained))


# ---------------------------------------------------------------------- probes


@pytest.mark.parametrize("fast", [True, False])
def test_a_probe_keeps_the_value_and_the_gradient_of_the_last_pass(fast):
    if not fast:
        with accelerate.disabled():
            return test_a_probe_keeps_the_value_and_the_gradient_of_the_last_pass(True)
    (first, hidden, active, last), net, plain = nets()
    assert hidden.value is None and hidden.grad is None
    for _ in range(2):
        y = net(X)
        assert_array_equal(y, plain(X))
        assert hidden.grad is None
        assert_array_equal(first.value, X)
        assert_array_equal(hidden.value, X @ net[1].weight.value.T + net[1].bias.value)
        assert_array_equal(last.value, y)
        g = numpy.ones_like(y)
        assert_array_equal(net.backward(g), plain.backward(g))
        assert_array_equal(last.grad, g)
        for probe in (first, hidden, active):
            assert probe.grad.shape == probe.value.shape
        assert_allclose(first.grad, hidden.grad @ net[1].weight.value, rtol=1e-5)
        for name, parameter in plain.parameters().items():
            assert_array_equal(net.parameters()[name].grad, parameter.grad)
        net.zero_grad(), plain.zero_grad()


def chains():
    nn = layers.on(numpy, rng=0)
    image = [
        nn.Conv2d(1, 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 5),
    ]
    yield [*image, nn.Sigmoid()], (6, 1, 8, 8)
    yield [nn.LSTM(4, 6), nn.LayerNorm(6), nn.GRU(6, 4), nn.MultiHeadAttention(4, 2), nn.Tanh()], (5, 3, 4)
    yield [nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Softmax()], (128, 32)


@pytest.mark.parametrize("fast", [True, False])
@pytest.mark.parametrize("number", range(3))
def test_what_a_probe_keeps_is_nobodys_workspace(number, fast):
    """After a step and a prediction it still holds what the layers in front of it made, and those behind it."""
    chain, shape = list(chains())[number]
    probed = [part for i, layer in enumerate(chain) for part in (layer, Probe(f"p{i}"))]
    plain, net = copy.deepcopy(chain), Sequential(probed)
    rng = numpy.random.default_rng(1)
    x = rng.standard_normal(shape).astype("float32")
    with accelerate.disabled() if not fast else pytest.MonkeyPatch.context():
        y = net(x)
        g = rng.standard_normal(y.shape).astype("float32")
        net.backward(g)
        values = {name: (probe.value, probe.grad) for name, probe in Probe.within(net).items()}
        net(2 * x)
        net.backward(g)
        net.step(0.1)
        net.predict(x)
        for i, layer in enumerate(plain):
            x = layer(x)
            assert_allclose(values[f"p{i}"][0], x, rtol=1e-6, atol=1e-6)
        for i, layer in reversed(list(enumerate(plain))):
            assert_allclose(values[f"p{i}"][1], g, rtol=1e-5, atol=1e-6)
            g = layer.backward(g)


def test_a_probe_counts_in_no_name(tmp_path):
    _, net, plain = nets()
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [name for name, _ in plain.walk()] == [name for name, layer in net.walk() if not isinstance(layer, Probe)]
    assert list(Module(net).parameters()) == list(plain.parameters())
    for a, b in ((Module(net), Module(plain)), (Module(plain), Module(net))):
        optimizer = Adam(a, lr=0.1, scale={"4.*": 0.5})
        MSELoss(a)(a(X), numpy.zeros((4, 2), "float32")).backward()
        optimizer.step()
        mtorch.save(tmp_path / "net.npz", a, optimizer)
        mtorch.load(tmp_path / "net.npz", b, Adam(b, lr=0.1, scale={"4.*": 0.5}))
        for name, value in a.state_dict().items():
            assert_array_equal(b.state_dict()[name], value)
        assert_array_equal(a.predict(X), b.predict(X))
    net.load_state_dict(plain.state_dict())


def test_the_place_in_an_error_is_the_name_in_the_state_dict():
    with pytest.raises(ValueError) as caught:
        Sequential(Linear(4, 3), Probe("a"), ReLU(), Linear(4, 2))
    assert caught.value.__notes__ == ["in layer 2 of Sequential"]
    net = Sequential(Probe("a"), Linear(3, 3), Probe("b"), layers.Slice(9))
    with pytest.raises(ValueError) as caught:
        net(X)
    assert caught.value.__notes__ == ["in layer 1 of Sequential"]
    assert "layer b of Sequential" in net.place(net[2], 2)


def test_probes_are_found_by_name_through_modules_and_traces():
    class Skip(Module):
        def __init__(self):
            super().__init__()
            self.fc, self.look = Linear(3, 3, rng=0), Probe("skip")
            self.net = Sequential(Linear(3, 2, rng=1), Probe("inner"))

        def forward(self, x):
            return self.net(self.look(mtorch.tanh(self.fc(x)) + x))

    module = Skip()
    probes = Probe.within(module)
    assert list(probes) == ["skip", "inner"] and probes["skip"] is module.look
    y = module(X)
    MSELoss(module)(y, 0 * y).backward()
    assert_array_equal(probes["inner"].value, y)
    assert_allclose(probes["skip"].value, numpy.tanh(X @ module.fc.weight.value.T) + X, rtol=1e-5)
    assert probes["skip"].grad.shape == X.shape
    assert "look.weight" not in module.state_dict() and len(module.state_dict()) == 4
    with pytest.raises(ValueError, match="two probes of .* are called 'a'"):
        Probe.within(Sequential(Probe("a"), Tanh(), Probe("a")))
    x = Input()
    assert Graph.of(Probe("g")(x) * 2.0)(X).shape == X.shape


def test_where_no_gradient_goes_there_is_none():
    first = Probe("x")
    net = Sequential(first, Linear(3, 2, rng=0))
    for module, comes in ((Module(net), False), (Module(net, input_grad=True), True)):
        y = module(X)
        module.backward(y)
        assert (first.grad is not None) is comes


def test_ids_tuples_and_repeated_calls():
    probe = Probe("ids")
    net = Sequential(probe, Embedding(5, 3, rng=0))
    net(numpy.array([[1, 2]]))
    assert probe.value.dtype.kind == "i"
    probe = Probe("pair")
    net = Sequential(mtorch.Fork(Tanh(), Linear(3, 2, rng=0)), probe)
    a, b = net(X)
    net.backward((a, b))
    assert probe.value == (a, b) and probe.grad == (a, b)
    u, v = net(Input("x"))  # its length is known
    twice = Sequential(probe, Tanh(), probe)
    y = twice(X)
    twice.backward(numpy.ones_like(y))
    assert_array_equal(probe.value, y)
    assert_array_equal(probe.grad, numpy.ones_like(y))  # of the same call


def test_predict_leaves_nothing_and_says_so():
    probe = Probe("hidden")
    net = Sequential(Linear(3, 3, rng=0), probe, Tanh())
    y = net(X)
    before = probe.value
    net.predict(2 * X)
    for name in ("value", "grad"):
        with pytest.raises(RuntimeError, match=rf"Probe\('hidden'\) in this thread was a predict.*{name} as it was"):
            getattr(probe, name)
    net.backward(y)  # the gradient of the forward before belongs to its value
    assert probe.value is before and probe.grad is not None
    other = Thread(target=net.predict, args=(3 * X,))
    other.start(), other.join()
    assert probe.value is before


def test_copies_and_conversions_look_at_nothing():
    probe = Probe("hidden")
    net = Sequential(Linear(3, 3, rng=0), probe)
    net(X)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.to(dtype="float64")):
        assert Probe.within(twin)["hidden"].value is None and twin[1].name == "hidden"
    assert probe.value is not None


def test_a_probe_needs_a_name():
    for wrong in (None, 3):
        with pytest.raises(TypeError, match="Probe expected a name"):
            Probe(wrong)
    for wrong in ("", "7", "a.b"):
        with pytest.raises(ValueError, match="Probe expected a name without dots"):
            Probe(wrong)
    assert repr(Probe("hidden")) == "Probe('hidden')"


# ---------------------------------------------------------------------- attention weights


def attention(**options):
    return MultiHeadAttention(4, 2, dtype="float64", rng=0, **options)


T, N, E = 5, 3, 4
SEQUENCE = numpy.random.default_rng(1).standard_normal((T, N, E))


def test_attention_weights_are_kept_on_request():
    layer, plain = attention(keep_weights=True, causal=True), attention(causal=True)
    assert layer.attention_weights is None
    y = layer(SEQUENCE)
    assert_array_equal(y, plain(SEQUENCE))  # never a second output
    p = layer.attention_weights
    assert p.shape == (N, 2, T, T) and plain.attention_weights is None
    assert_allclose(p.sum(axis=-1), 1)
    assert not numpy.triu(p, 1).any()
    before = p.copy()
    assert_array_equal(layer.backward(y), plain.backward(y))
    assert_array_equal(layer.attention_weights, before)  # backward writes into no array that is kept
    assert repr(layer) == "MultiHeadAttention(4, 2, causal=True, keep_weights=True)"
    with pytest.raises(TypeError, match="keep_weights to be True or False"):
        attention(keep_weights=1)


def test_both_bodies_keep_the_same_weights_before_dropout():
    layer = attention(keep_weights=True, dropout=0.5)
    layer(SEQUENCE)
    fast = layer.attention_weights
    with accelerate.disabled():
        layer(SEQUENCE)
    assert_allclose(layer.attention_weights, fast, rtol=1e-12)
    assert_allclose(fast.sum(axis=-1), 1)


def test_a_predict_leaves_the_weights_of_the_last_forward():
    layer = attention(keep_weights=True)
    net = Sequential(layer, Linear(4, 2, dtype="float64", rng=0))
    net.eval()
    net(SEQUENCE)
    p = layer.attention_weights
    other = Thread(target=net.predict, args=(2 * SEQUENCE,))
    other.start(), other.join()
    assert layer.attention_weights is p
    net.predict(2 * SEQUENCE)
    with pytest.raises(RuntimeError, match=r"attention_weights as it was: call the net itself"):
        layer.attention_weights  # noqa: B018
    net(SEQUENCE)
    assert_array_equal(layer.attention_weights, p)
    for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net)), net.to(dtype="float32")):
        assert twin[0].attention_weights is None and twin[0].keep_weights
