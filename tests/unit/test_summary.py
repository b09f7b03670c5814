"""The summary: what a net is made of, its shapes, and its costs counted by hand."""

import pickle

import numpy
import pytest
from harness import LAYERS, example

import mtorch
from mtorch import (
    Bidirectional,
    DataParallel,
    Graph,
    Module,
    Recurrent,
    Residual,
    Sequential,
    ShapeMismatchError,
    layers,
    models,
    summary,
)
from mtorch.layers import GRU, LSTM, RNN, Conv2d, Embedding, Flatten, Linear, MultiHeadAttention, ReLU, Slice


def convolutional():
    body = Sequential(Conv2d(4, 4, 3, padding=1, rng=1), ReLU())
    return Sequential(
        Conv2d(1, 4, 3, padding=1, rng=0), Residual(body), layers.MaxPool2d(2), Flatten(), Linear(784, 10, rng=2)
    )


def rows(net, shape):
    return {row.name: row for row in summary(net, shape).rows}


def test_layers_are_indented_as_they_nest():
    lines = summary(convolutional()).splitlines()
    names = [line[: lines[0].index("layer")].rstrip() for line in lines[2:-2]]
    assert names == ["0", "1", "  body", "    0", "    1", "2", "3", "4"]
    assert [row.name for row in summary(convolutional()).rows][:4] == ["0", "1", "1.body", "1.body.0"]


def test_str_of_a_net_is_indented_and_its_repr_is_one_line():
    net = convolutional()
    assert str(net).splitlines() == [
        "Sequential",
        "  (0): Conv2d(1 -> 4, kernel_size=3, padding=1)",
        "  (1): Residual",
        "    (body): Sequential",
        "      (0): Conv2d(4 -> 4, kernel_size=3, padding=1)",
        "      (1): ReLU()",
        "  (2): MaxPool2d(kernel_size=2, stride=2)",
        "  (3): Flatten()",
        "  (4): Linear(784 -> 10)",
    ]
    assert str(Module(net)).splitlines()[:2] == ["Module", "  Sequential"]
    assert "\n" not in repr(net) and str(net[0]) == repr(net[0])
    assert str(MultiHeadAttention(4, 2)).splitlines()[0] == "MultiHeadAttention(4, 2)"


def test_with_a_shape_each_line_has_the_output_and_what_a_sample_costs():
    found = rows(convolutional(), (1, 28, 28))
    assert found["0"].output == "(N, 4, 28, 28)" and found["2"].output == "(N, 4, 14, 14)"
    assert found["1.body"].output == "(N, 4, 28, 28)" and found["4"].output == "(N, 10)"
    assert found["0"].memory == 4 * 28 * 28 * 4 and found["4"].memory == 40 and found["1"].memory == 0
    assert found["0"].multiply_adds == 4 * 28 * 28 * 9 and found["1.body.0"].multiply_adds == 4 * 28 * 28 * 4 * 9
    assert found["4"].multiply_adds == 7840 and found["2"].multiply_adds == 0
    text = summary(convolutional(), (1, 28, 28))
    assert "(N, 4, 14, 14)" in text and "148,960 multiply-adds" in text and text.endswith("8,038 parameters")
    assert max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("batch", [1, 2, 7])
def test_an_example_with_the_batch_axis_tells_as_much_as_a_shape(batch):
    net = convolutional()
    assert summary(net, numpy.zeros((batch, 1, 28, 28))) == summary(net, (1, 28, 28))
    assert summary(Linear(3, 2), 3) == summary(Linear(3, 2), (3,))
    sequences = Sequential(Embedding(9, 4, rng=0), LSTM(4, 3, rng=0), Slice(-1))
    assert summary(sequences, numpy.zeros((6, batch), int)) == summary(sequences, (6,))


def test_a_sequence_has_its_batch_on_axis_1():
    net = Sequential(Linear(3, 4, rng=0), GRU(4, 5, num_layers=2, bidirectional=True, rng=0), Slice(-1), Linear(10, 2))
    found = rows(net, (7, 3))
    assert [found[name].output for name in "0123"] == ["(7, N, 4)", "(7, N, 10)", "(N, 10)", "(N, 2)"]
    # layer 0 reads 4, layer 1 reads 10; each of 2 directions has 15 rows for x and for h of size 5, at 7 steps
    assert found["1"].multiply_adds == 7 * 2 * 15 * ((4 + 5) + (10 + 5))
    assert found["0"].multiply_adds == 7 * 3 * 4 and found["3"].multiply_adds == 20


def test_the_batch_is_where_the_layers_of_sequences_find_it():
    """Batch first by an option, or by a transposition in front."""
    first = Sequential(Linear(3, 4), LSTM(4, 5, batch_first=True), Slice((slice(None), -1)))
    assert [row.output for row in summary(first, (7, 3)).rows] == ["(N, 7, 4)", "(N, 7, 5)", "(N, 5)"]
    turned = Sequential(layers.Conv1d(3, 4, 3), layers.Transpose((2, 0, 1)), RNN(4, 5))
    assert [row.output for row in summary(turned, (3, 9)).rows] == ["(N, 4, 7)", "(7, N, 4)", "(7, N, 5)"]
    merged = Sequential(Linear(3, 4), Flatten())
    assert [row.output for row in summary(merged, (7, 3)).rows] == ["(N, 7, 4)", "(N, 28)"]


T, L, S, E, N_HEADS = 7, 5, 6, 8, 2
BY_HAND = [
    (Linear(5, 3), (4, 5), 4 * 5 * 3),
    (Conv2d(4, 6, (3, 2), stride=2, groups=2), (4, 9, 8), 6 * 4 * 4 * (2 * 3 * 2)),
    (layers.Conv1d(3, 5, 3, dilation=2), (3, 12), 5 * 8 * (3 * 3)),
    (layers.ConvTranspose2d(4, 6, 3, stride=2, groups=2), (4, 5, 5), 4 * 5 * 5 * (3 * 3 * 3)),
    (LSTM(3, 5), (T, 3), T * 4 * 5 * (3 + 5)),
    (GRU(3, 5, bias=False), (T, 3), T * 3 * 5 * (3 + 5)),
    (RNN(3, 5, bidirectional=True), (T, 3), T * 2 * 5 * (3 + 5)),
    (LSTM(3, 5, return_state=True), (((1, 5), (1, 5)), (T, 3)), T * 4 * 5 * (3 + 5)),
    (layers.LSTMCell(3, 5), (((5,), (5,)), (3,)), 4 * 5 * (3 + 5)),
    (Recurrent(layers.GRUCell(3, 5)), (T, 3), T * 3 * 5 * (3 + 5)),
    (Bidirectional(RNN(3, 2), RNN(3, 4)), (T, 3), T * (2 * (3 + 2) + 4 * (3 + 4))),
    # q, k, v and the output projection, then q k^T and P v
    (MultiHeadAttention(E, N_HEADS), (T, E), 4 * T * E * E + 2 * T * T * E),
    (MultiHeadAttention(E, N_HEADS), ((L, E), (S, E), (S, E)), 2 * L * E * E + 2 * S * E * E + 2 * L * S * E),
    (layers.MatMul(), ((3, 4), (4, 5)), 3 * 4 * 5),
    (ReLU(), (9,), 0),
    (layers.LayerNorm(9), (9,), 0),
]


@pytest.mark.parametrize("layer, shape, expected", BY_HAND, ids=lambda value: repr(value) if not value else None)
def test_multiply_adds_are_those_counted_by_hand(layer, shape, expected):
    assert sum(row.multiply_adds for row in summary(layer, shape).rows) == expected


def test_every_call_of_a_shared_layer_counts_and_its_parameters_once():
    twice = Linear(3, 3, rng=0)
    found = summary(Sequential(twice, ReLU(), twice), (3,)).rows
    assert [row.parameters for row in found] == [12, 0, 0]
    assert [row.multiply_adds for row in found] == [18, 0, 0] and found[0].memory == 24


def test_several_inputs_have_a_tuple_of_shapes():
    graph = Graph(("a", "b"), {"h": (Linear(3, 2), "a"), "y": (layers.Add(), ("h", "b"))}, ("y", "h"))
    assert [row.output for row in summary(graph, ((3,), (2,))).rows] == ["(N, 2)", "(N, 2)"]
    net = Sequential(GRU(3, 4))
    assert summary(net, ((1, 4), (5, 3), ())).rows[0].output == "(5, N, 4)"  # state, x, lengths
    assert summary(Recurrent(layers.RNNCell(3, 4)), ((4,), (5, 3))).rows[0].output == "((N, 4), (N, 4))"


def test_a_module_with_a_forward_and_a_net_in_parallel_are_summed_up():
    class Skip(Module):
        def __init__(self):
            super().__init__()
            self.fc1, self.fc2, self.unused = Linear(3, 3), Linear(3, 2), Linear(2, 2)

        def forward(self, x):
            return self.fc2(mtorch.tanh(self.fc1(x)) + x)

    found = rows(Skip(), (3,))
    assert found["fc2"].output == "(N, 2)" and found["unused"].output == "not called"
    assert summary(DataParallel(Linear(3, 2)), (3,)).rows[0].output == "(N, 2)"


def test_a_summary_with_shapes_leaves_the_net_as_it_was():
    net = Sequential(Linear(3, 3, rng=0), layers.BatchNorm1d(3), layers.Dropout(0.5, rng=1), Linear(3, 2, rng=2))
    net(numpy.ones((4, 3)))
    before = pickle.dumps(net)
    summary(net, (3,))
    assert pickle.dumps(net) == before


def test_the_summary_is_a_string_and_a_table_in_a_notebook():
    net = Sequential(Linear(3, 2), Module(Sequential(ReLU())))
    found = summary(net, (3,))
    assert isinstance(found, str) and pickle.loads(pickle.dumps(found)) == found
    assert repr(found) == str(found) and "\n" in repr(found)  # at a prompt
    html = found._repr_html_()
    assert html.startswith("<table") and "Linear(3 -&gt; 2)" in html and "(N, 2)" in html
    assert net._repr_html_() == summary(net)._repr_html_() and Module(net)._repr_html_() == net._repr_html_()


@pytest.mark.parametrize("name", ["mlp", "deep", "dropout", "batchnorm", "residual", "conv1d", "scn", "lenet"])
def test_models_are_summed_up(name):
    text = summary(getattr(models, name)(rng=0), (784,))
    assert "(N, 10)" in text and max(map(len, text.splitlines())) <= 80


@pytest.mark.parametrize("cls, index", [case for case in LAYERS if case.values[1] < 3])
def test_every_class_is_summed_up_from_an_example(cls, index):
    """But for those whose example has no axis of samples."""
    layer, x = example(cls, index)
    try:
        text = summary(layer, x)
    except ShapeMismatchError as error:
        assert layer.details() and "samples along axis 0" in error.__notes__[-1]
    else:
        assert max(map(len, text.splitlines())) <= 100 and "activations" in text


@pytest.mark.parametrize("module, shape, error", [
    (convolutional(), (3, 28, 28), ShapeMismatchError), (Sequential(LSTM(3, 4)), (7, 5), ShapeMismatchError),
    (Linear(3, 2), "abc", TypeError), (3, None, TypeError), (Linear(3, 2), (-1, 3), ValueError),
])  # fmt: skip
def test_a_shape_that_does_not_fit_is_the_layers_error(module, shape, error):
    with pytest.raises(error, match="expected "):
        summary(module, shape)
