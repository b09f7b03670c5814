"""Predict: a pass of its own, from any number of threads, and the state that travels through it as a value."""

import contextvars
import copy
import os
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from harness import (
    assert_same,
    attributes,
    in_threads,
    left_by_training,
    threads_take_turns_often,
    trained,
    unchanged,
    without_momentum,
)

import mtorch
from mtorch import (
    Bidirectional,
    DataParallel,
    Fork,
    Graph,
    Input,
    Module,
    Parallel,
    Recurrent,
    Residual,
    Sequential,
    layers,
)
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.states import Stateful
from mtorch.testing import strict

X = numpy.random.default_rng(0).standard_normal((4, 3)).astype("float32")
nn = layers.on(dtype="float64", rng=0)


often = pytest.fixture(autouse=True)(threads_take_turns_often)


# ---------------------------------------------------------------------- threads


@pytest.mark.parametrize(
    "inner", [layers.BatchNorm1d(3), layers.Dropout(0.5, rng=0), layers.GRU(3, 3, dropout=0.5, num_layers=2)], ids=repr
)
def test_a_training_step_may_pass_while_a_predict_is_in_the_middle(inner):
    entered, go = threading.Event(), threading.Event()

    class Gate(layers.Identity):
        def forward(self, x):
            if not self.training:
                entered.set()
                assert go.wait(10)
            return super().forward(x)

    x = X[:, None] if isinstance(inner, layers.GRU) else X
    net = Sequential(layers.Linear(3, 3, rng=0), Gate(), without_momentum(inner))
    go.set()
    expected, alone = net.predict(x), copy.deepcopy(net)
    go.clear(), entered.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(net.predict, x)
        assert entered.wait(10)
        assert net.training and all(layer.training for _, layer in net.walk())
        training = trained(net, x)
        go.set()
        assert_same(waiting.result(), expected)
    expected_training = trained(alone, x)
    assert_same(training[0], expected_training[0])
    assert training[1] == expected_training[1]


def test_running_statistics_are_those_of_training_alone_whoever_predicts():
    net, twin = (Sequential(layers.BatchNorm1d(3), layers.Linear(3, 2, rng=0)) for _ in range(2))
    batches = [X + k for k in range(20)]
    possible = []
    for batch in batches:
        possible.append(twin.predict(X).tobytes())
        twin(batch)
    possible.append(twin.predict(X).tobytes())

    def train():
        for batch in batches:
            net(batch)

    def predict():
        return [net.predict(X) for _ in range(20)]

    _, *found = in_threads(train, predict, predict)
    assert left_by_training(net) == left_by_training(twin)
    assert all(numpy.isfinite(y).all() for group in found for y in group)
    assert net.predict(X).tobytes() == possible[-1]


def test_a_module_is_traced_by_one_of_many_threads():
    class Skip(Module):
        traces = 0

        def __init__(self):
            super().__init__()
            self.first, self.rest = layers.Linear(3, 3, rng=0), [layers.Linear(3, 3, rng=k) for k in range(5)]

        def forward(self, x):
            type(self).traces += 1
            h = mtorch.tanh(self.first(x))
            for layer in self.rest:
                h = layer(h) + x
            return h

    expected = Skip().predict(X)
    for _ in range(20):
        module, Skip.traces = Skip(), 0
        names = set(vars(module))
        results = in_threads(
            *[lambda m=module: m.predict(X)] * 3,
            *[lambda m=module: (m.training, m.xp, m.dtype)] * 2,
            lambda m=module: m(X),
        )
        assert Skip.traces == 1 and set(vars(module)) == names
        for y in results[:3] + results[-1:]:
            assert_same(y, expected)
        assert results[3] == results[4] == (True, numpy, numpy.dtype("float32"))


def test_a_module_that_is_traced_anew_within_a_predict_keeps_its_mode():
    class One(Module):
        def __init__(self):
            super().__init__()
            self.first = layers.Linear(3, 3, rng=0)

        def forward(self, x):
            return self.first(x) * 1.0

    module = One()
    net = Sequential(module, layers.Tanh())
    module.first = layers.Linear(3, 3, rng=1)
    net.predict(X)
    assert module.training and all(layer.training for _, layer in net.walk())


def test_threads_of_a_layer_that_run_in_a_copy_of_its_context_belong_to_the_pass():
    class Both(Layer):
        """Two layers at once, each in a thread."""

        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Dropout(0.5, rng=0), Sequential(layers.BatchNorm1d(3), layers.Dropout(0.5, rng=1))

        def forward(self, x):
            with ThreadPoolExecutor(2) as pool:
                futures = [pool.submit(contextvars.copy_context().run, each.forward, x) for each in (self.a, self.b)]
                a, b = (future.result() for future in futures)
            self.remember()
            return a + b

        def backward(self, output_grad):
            g = self.cast_grad(output_grad)
            self.recall()
            return self.a.backward(g) + self.b.backward(g)

    net = Sequential(Both(), layers.Tanh())
    before = attributes(net)
    y = net.predict(X)
    assert unchanged(before, attributes(net))
    assert_same(y, net.eval()(X))


def test_a_layer_that_sets_an_attribute_in_training_disturbs_no_predict():
    class Notes(Layer):
        """A layer of layers that writes down what it saw."""

        def __init__(self):
            super().__init__()
            self.rnn = layers.GRU(3, 3, rng=0)

        def forward(self, x):
            if self.training:
                setattr(self, f"note_{len(vars(self))}", x)
            return self.rnn.forward(x)

        def backward(self, output_grad):
            return self.rnn.backward(output_grad)

    net, x = Sequential(Notes(), layers.Tanh()), X[:, None]
    expected = net.predict(x)

    def train():
        for _ in range(100):
            net.backward(net(x))

    def predict():
        return [net.predict(x) for _ in range(30)] + [net.predict(x, state=None)[0] for _ in range(30)]

    _, *found = in_threads(train, predict, predict)
    for y in found[0] + found[1]:
        assert_same(y, expected)


def test_a_context_that_outlives_its_pass_is_in_no_predict():
    kept = []

    class Keeps(layers.Identity):
        def forward(self, x):
            kept.append(contextvars.copy_context())
            return super().forward(x)

    layer = Keeps()
    layer.predict(X)
    kept[0].run(layer, X)
    assert layer.training and kept[0].run(lambda: layer.training) and not layer.predicting
    layer.backward(X)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_process_forked_while_a_thread_predicts_is_in_no_predict():
    entered, go = threading.Event(), threading.Event()

    class Gate(layers.Identity):
        def forward(self, x):
            entered.set()
            go.wait(10)
            return super().forward(x)

    layer = Gate()
    thread = threading.Thread(target=layer.predict, args=(X,))
    thread.start()
    assert entered.wait(10)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of several threads only this one lives on in the child
        pid = os.fork()
    if not pid:
        found = []
        other = threading.Thread(target=lambda: found.append(layer.training))  # its id may be that of the lost one
        other.start()
        other.join()
        os._exit(0 if found == [True] and layer.training else 1)
    go.set()
    thread.join()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_a_predict_within_a_predict_ends_alone_and_an_error_ends_both():
    class Outer(layers.Identity):
        def forward(self, x):
            inner.predict(x)
            assert not self.training and self.predicting
            if fail:
                raise RuntimeError("outer")
            return super().forward(x)

    inner, fail = layers.Dropout(0.5, rng=0), False
    net = Sequential(Outer(), layers.Tanh())
    net.predict(X)
    assert net.training and inner.training
    fail = True
    with pytest.raises(RuntimeError, match="outer"):
        net.predict(X)
    assert net.training and inner.training and not net.predicting


# ---------------------------------------------------------------------- a state that travels


class Traced(Module):
    """Two recurrent layers in a forward, one of them called twice, with an attention over a memory."""

    def __init__(self):
        super().__init__()
        self.embed, self.rnns = nn.Linear(3, 4), {"low": nn.GRU(4, 4), "high": nn.RNN(4, 4)}
        self.attend, self.out = nn.MultiHeadAttention(4, 2), nn.Linear(4, 2)

    def forward(self, x, memory):
        h = self.rnns["low"](self.embed(x))
        h = self.rnns["low"](mtorch.tanh(h)) + self.rnns["high"](h)
        return self.out(self.attend((h, memory, memory)) + h)


class Twice(Layer):
    """A layer of somebody's own that calls one recurrent layer twice."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.rnn = nn.GRU(3, 3)

    def forward(self, x):
        return self.rnn.forward(self.rnn.forward(x)) * 2


class NestedCell(Layer):
    """A cell with a recurrent layer in it, which begins anew at every step, and one that reads backwards."""

    def __init__(self):
        super().__init__(dtype="float64")
        self.rnn, self.both, self.cell = nn.LSTM(3, 3), Bidirectional(nn.RNN(3, 1), nn.RNN(3, 2)), nn.RNNCell(3, 3)

    def forward(self, value):
        state, x = value
        return self.cell.forward((state, self.both.forward(self.rnn.forward(x[None]))[0]))


def normal(*shape):
    return numpy.random.default_rng(7).standard_normal(shape)


IDS = numpy.random.default_rng(1).integers(0, 5, (6, 2))

shared = nn.RNN(3, 3)
NETS = {  # net, sequence (6, 2, ...), the names of its states
    "lstm": (nn.LSTM(3, 4, num_layers=2, dropout=0.5), normal(6, 2, 3), None),
    "net": (Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.Linear(4, 5)), IDS, ["1"]),
    "module": (Module(Sequential(nn.Embedding(5, 3), nn.GRU(3, 4), nn.Linear(4, 5))), IDS, ["1"]),
    "module of one layer": (Module(nn.GRU(3, 4)), normal(6, 2, 3), None),
    "residual": (
        Residual(Sequential(nn.RNN(3, 3), nn.Tanh()), shortcut=nn.RNN(3, 3)),
        normal(6, 2, 3),
        ["body.0", "shortcut"],
    ),
    "branches": (
        Sequential(Fork(nn.GRU(3, 2), nn.RNN(3, 2)), Parallel(nn.GRU(2, 2), nn.LSTM(2, 2)), nn.Add()),
        normal(6, 2, 3),
        ["0.0", "0.1", "1.0", "1.1"],
    ),
    "one layer twice": (Sequential(shared, nn.Tanh(), shared), normal(6, 2, 3), ["0", "0:2"]),
    "a layer of layers": (Sequential(nn.RNN(3, 3), Twice()), normal(6, 2, 3), ["0", "1.rnn", "1.rnn:2"]),
    "cells": (Sequential(Recurrent(nn.LSTMCell(3, 3)), Recurrent(nn.GRUCell(3, 2))), normal(6, 2, 3), ["0", "1"]),
    "one cell": (Recurrent(nn.LSTMCell(3, 4)), normal(6, 2, 3), None),
    "processes": (DataParallel(Sequential(nn.GRU(3, 2), nn.Linear(2, 2)), workers=2, axis=1), normal(6, 2, 3), ["0"]),
    "deep": (
        Module(Sequential(Residual(Sequential(nn.LayerNorm(3), Residual(nn.LSTM(3, 3)))), nn.Linear(3, 1))),
        normal(6, 2, 3),
        ["0.body.1.body"],
    ),
    "transformer": (
        Sequential(
            nn.Embedding(5, 4),
            nn.PositionalEmbedding(6, 4),
            Residual(Sequential(nn.LayerNorm(4), nn.MultiHeadAttention(4, 2, causal=True, dropout=0.1))),
            nn.GRU(4, 4),
        ),
        IDS,
        ["1", "2.body.1", "3"],
    ),
    "attention": (nn.MultiHeadAttention(4, 2, causal=True, bias=False), normal(6, 2, 4), None),
    "positions": (nn.PositionalEmbedding(6, 4, learned=False), normal(6, 2, 4), None),
}


def by_steps(net, parts, state=None):
    """The outputs of one predict for each part, put together, and the last state."""
    found = []
    for part in parts:
        y, state = net.predict(*part, state=state) if isinstance(part, tuple) else net.predict(part, state=state)
        found.append(y)
    return numpy.concatenate(found), state


@pytest.mark.parametrize("sizes", [(1,) * 6, (2, 1, 3), (6,)], ids=str)
@pytest.mark.parametrize("name", NETS)
def test_predicting_in_parts_with_the_state_is_predicting_the_whole(name, sizes):
    net, x, names = NETS[name]
    before = attributes(net)
    y, state = by_steps(net, numpy.split(x, numpy.cumsum(sizes)[:-1]))
    assert unchanged(before, attributes(net))
    assert_same(y, net.predict(x), 1e-12)
    assert names is None or sorted(state) == names
    assert not isinstance(net.predict(x), tuple)


def test_a_traced_module_of_two_inputs_carries_the_states_of_both_layers_and_of_both_calls():
    net, x, memory = Traced(), normal(5, 2, 3), normal(3, 2, 4)
    y, state = by_steps(net, [(part, memory) for part in numpy.split(x, 5)])
    assert_same(y, net.predict(x, memory), 1e-12)
    assert sorted(state) == ["rnns.high", "rnns.low", "rnns.low:2"]


def test_a_graph_names_its_states_after_its_nodes():
    x = Input("x")
    graph = Graph("x", {"h": (nn.GRU(3, 3), "x"), "k": (nn.RNN(3, 3), "h"), "y": (nn.Add(), ("h", "k"))}, "y")
    z = normal(5, 2, 3)
    y, state = by_steps(graph, numpy.split(z, 5))
    assert_same(y, graph.predict(z), 1e-12)
    assert sorted(state) == ["h", "k"]
    formula = Graph.of(nn.GRU(3, 3)(x) * 2.0)
    assert_same(by_steps(formula, numpy.split(z, 5))[0], formula.predict(z), 1e-12)


def test_lengths_end_the_state_of_each_sequence():
    net, x = nn.GRU(3, 4), normal(5, 2, 3)
    y, state = net.predict((None, x, numpy.array([5, 2])), state=None)
    alone = net.predict(x[:2, 1:], state=None)[1]
    assert_same(state[:, 1:], alone, 1e-12)


def test_a_state_is_a_value_that_may_be_used_again_chosen_from_and_made_by_hand():
    net = Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.Linear(4, 5))
    _, state = net.predict(IDS[:3], state=None)
    copies = copy.deepcopy(state)
    one, _ = net.predict(IDS[3:4], state=state)
    again, _ = net.predict(IDS[3:4], state=state)
    assert_same(one, again)
    assert_same(state["1"], copies["1"])
    chosen = {name: tuple(part[:, [1, 1, 0]] for part in each) for name, each in state.items()}
    assert_same(net.predict(IDS[3:4][:, [1, 1, 0]], state=chosen)[0], one[:, [1, 1, 0]], 1e-12)
    h, c = state["1"]
    assert_same(net.predict(IDS[3:4], state={"1": (h[0].tolist(), c[0].astype("float32"))})[0], one, 1e-6)
    assert_same(net.predict(IDS[:1], state={})[0], net.predict(IDS[:1]))
    assert net.predict(IDS[:1], state=state)[1].keys() == state.keys()


def test_a_layer_given_none_begins_anew_and_one_that_is_left_out_keeps_its_own_beginning():
    net, x = Sequential(nn.RNN(3, 3), nn.RNN(3, 3)), normal(4, 2, 3)
    _, state = net.predict(x, state=None)
    y, after = net.predict(x, state=state | {"0": None})
    h, first = net[0].predict(x, state=None)
    assert_same(y, net[1].predict(h, state=state["1"])[0], 1e-12)
    assert_same(after["0"], first)


def test_every_thread_has_a_state_of_its_own():
    net = Sequential(nn.Embedding(5, 3), nn.LSTM(3, 4), nn.GRU(4, 4), nn.Linear(4, 5))
    sequences = [numpy.random.default_rng(k).integers(0, 5, (8, 2)) for k in range(4)]
    alone = [by_steps(net, numpy.split(ids, 8))[0] for ids in sequences]
    found = in_threads(*[lambda ids=ids: by_steps(net, numpy.split(ids, 8))[0] for ids in sequences])
    for y, expected in zip(found, alone, strict=True):
        assert_same(y, expected)


def test_a_predict_within_a_pass_has_no_part_in_its_states():
    class Looks(layers.Identity):
        def forward(self, x):
            seen.append((beside.predict(x), beside.predict(x, state=None)[0]))
            return super().forward(x)

    seen, beside = [], nn.GRU(3, 3)
    net, x = Sequential(beside, Looks(dtype="float64"), nn.RNN(3, 3)), normal(4, 2, 3)
    y, state = by_steps(net, numpy.split(x, 4))
    assert_same(y, by_steps(Sequential(beside, net[2]), numpy.split(x, 4))[0])
    assert sorted(state) == ["0", "2"]
    for plain, own in seen:
        assert_same(plain, own)


def test_layers_within_a_cell_begin_anew_at_every_step():
    net, x = Recurrent(NestedCell()), normal(4, 2, 3)
    first = numpy.zeros((2, 3))
    y, _ = by_steps(net, [(first, part) for part in numpy.split(x, 4)])
    assert_same(y, net.predict(first, x), 1e-12)
    assert len(net.predict((first, x), state=None)[1]) == 2  # (2, 3): the state of the cell alone


def test_a_state_on_another_array_module_is_never_read_on_the_host():
    net = Sequential(
        nn.Embedding(5, 4), nn.PositionalEmbedding(6, 4), nn.MultiHeadAttention(4, 2, causal=True), nn.LSTM(4, 3)
    )
    twin, state, found = net.to(xp=strict), None, []
    for part in numpy.split(IDS, 6):
        part = strict.asarray(part)
        with strict.count_synchronisations() as places, strict.frozen():
            y, state = twin.predict(part, state=state)
        found.append(y.get())
        assert not [place for place in places if "id" not in place], places
    assert_same(numpy.concatenate(found), net.predict(IDS), 1e-12)


# ---------------------------------------------------------------------- what no state travels through


@pytest.mark.parametrize(
    "net, why",
    [
        (nn.LSTM(3, 4, bidirectional=True), "from its end"),
        (Sequential(nn.RNN(3, 3), Bidirectional(nn.RNN(3, 2), nn.RNN(3, 2))), "from its end"),
        (Sequential(nn.RNN(3, 3), nn.MultiHeadAttention(3, 1)), "later"),
        (Sequential(nn.RNN(3, 3), Fork(*[nn.Identity()] * 3), nn.MultiHeadAttention(3, 1, causal=True)), "came before"),
        (nn.Linear(3, 3), "no layer with a state"),
        (nn.LSTMCell(3, 3), "no layer with a state"),
    ],
    ids=str,
)
def test_a_net_without_a_way_to_go_on_says_so(net, why):
    x = normal(4, 2, 3)
    cell = isinstance(net, layers.LSTMCell)
    with pytest.raises(TypeError, match=why):
        net.predict((net.initial_state(2), x[0]) if cell else x, state=None)
    assert net.training and not net.predicting


def test_a_layer_that_the_net_does_not_know_cannot_lose_its_state_in_silence():
    hidden = nn.GRU(3, 3)

    class Hides(layers.Identity):
        def forward(self, x):
            return hidden.forward(x)

    net, x = Sequential(nn.RNN(3, 3), Hides(dtype="float64")), normal(4, 2, 3)
    assert net.predict(x).shape == x.shape
    with pytest.raises(TypeError, match="no attribute of a layer below"):
        net.predict(x, state=None)


def test_a_wrong_state_is_an_error_that_names_the_layer_and_what_it_takes():
    net, x = Sequential(nn.RNN(3, 3), Residual(nn.LSTM(3, 3))), normal(4, 2, 3)
    _, state = net.predict(x, state=None)
    for wrong in (3, (1, 2), state["0"]):
        with pytest.raises(TypeError, match="dict of states by name .'0', '1.body'"):
            net.predict(x, state=wrong)
    with pytest.raises(ValueError, match="'0', '1.body', got a state named 'lstm'"):
        net.predict(x, state={"lstm": state["0"]})
    for name, wrong in (("0", state["0"][:, :1]), ("0", state["1.body"]), ("1.body", state["0"]), ("0", "text")):
        with pytest.raises((ShapeMismatchError, TypeError), match="RNN|LSTM"):
            net.predict(x, state=state | {name: wrong})
    positions = nn.PositionalEmbedding(4, 3)
    with pytest.raises(ShapeMismatchError, match="after 4 steps"):
        by_steps(positions, numpy.split(normal(5, 2, 3), 5))
    with pytest.raises(ShapeMismatchError, match=r"shape \(t, 2, 0\)"):
        positions.predict(normal(1, 2, 3), state=normal(3, 2, 3))
    attention = nn.MultiHeadAttention(4, 2, causal=True)
    with pytest.raises(ShapeMismatchError, match="two arrays"):
        attention.predict(normal(1, 2, 4), state=(normal(3, 1, 4), normal(3, 1, 4)))


# ---------------------------------------------------------------------- final_state


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM", "cell"])
def test_final_state_is_that_of_the_last_forward_and_says_so_after_a_predict(kind):
    layer = Recurrent(nn.LSTMCell(3, 3)) if kind == "cell" else getattr(nn, kind)(3, 3)
    net, x = Sequential(layer, nn.Tanh()), normal(4, 2, 3)
    assert layer.final_state is None
    net(x)
    before = layer.final_state
    assert in_threads(lambda: (net.predict(x), 1)[1], lambda: 1) == [1, 1]
    assert layer.final_state is before  # a predict of another thread is none of this one's business
    net.predict(x)
    with pytest.raises(RuntimeError, match=r"y, state = net.predict\(x, state=state\)"):
        layer.final_state  # noqa: B018
    assert in_threads(lambda: layer.final_state)[0] is before
    assert copy.deepcopy(layer).final_state is not None
    net.eval()(x[:2])
    assert_same(
        layer.final_state, net.predict(x[:2], state=None)[1]["0"] if kind != "cell" else layer.final_state, 1e-12
    )
    net.train()(x)
    assert_same(layer.final_state, before)
    net.predict(x)
    layer.final_state = None
    assert layer.final_state is None


def test_final_state_read_within_a_predict_is_not_that_of_training():
    class Summary(Layer):
        def __init__(self):
            super().__init__(dtype="float64")
            self.rnn = nn.GRU(3, 3)

        def forward(self, x):
            y = self.rnn.forward(x)
            return y + self.rnn.final_state

    net, x = Summary(), normal(4, 2, 3)
    net(x)
    with pytest.raises(RuntimeError, match="final_state"):
        net.predict(x)


def test_a_layer_of_ones_own_takes_part():
    class Sum(Stateful, Layer):
        """y_t = x_0 + ... + x_t."""

        def forward(self, x):
            before = self.begin_with(self.xp.zeros((1, *x.shape[1:]), self.dtype))
            y = before + x.cumsum(axis=0)
            self.end_with(y[-1:])
            self.remember()
            return y

    net, x = Sequential(Sum(dtype="float64"), nn.Linear(3, 2)), normal(5, 2, 3)
    y, state = by_steps(net, numpy.split(x, 5))
    assert_same(y, net.predict(x), 1e-12)
    assert list(state) == ["0"]
