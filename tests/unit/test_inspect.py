"""`mtorch.inspect`: what one forward and one backward did at every layer, and that the net stays as it was."""

import io
import json
import pickle
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser

import numpy
import pytest
from harness import LAYERS, example, leaves
from numpy.testing import assert_allclose

import mtorch
from mtorch import (
    Bidirectional,
    CrossEntropyLoss,
    DataParallel,
    Graph,
    Layer,
    Module,
    MSELoss,
    Recurrent,
    Residual,
    Sequential,
    inspect,
    layers,
    models,
)
from mtorch.layers import (
    GRU,
    LSTM,
    BatchNorm1d,
    Dropout,
    Embedding,
    Flatten,
    Identity,
    Linear,
    MultiHeadAttention,
    ReLU,
    Sigmoid,
    Slice,
    Tanh,
)

RNG = numpy.random.default_rng(0)
X = RNG.standard_normal((6, 4)).astype("float32")
LABELS = RNG.integers(0, 3, 6)


def small():
    return Sequential(
        Flatten(), Linear(4, 5, rng=0), BatchNorm1d(5), ReLU(), Dropout(0.4, rng=1), Identity(), Linear(5, 3, rng=2)
    )


# ---------------------------------------------------------------------- the records


def test_there_is_a_record_for_every_layer_that_is_no_container_in_the_order_of_the_forward():
    net = small()
    found = inspect(net, X, LABELS, CrossEntropyLoss(net))
    assert [record.name for record in found] == list("0123456") and len(found) == 7
    assert all(record.layer is net[i] for i, record in enumerate(found))
    assert found[1] is found["1"] and found[-1].shape == (6, 3) and found[1:3] == (found[1], found[2])
    body = Sequential(Residual(Sequential(Linear(4, 4, rng=0), Tanh())), Sequential(Linear(4, 3, rng=1)))
    names = [record.name for record in inspect(Module(body), X, LABELS, CrossEntropyLoss)]
    assert names == ["0.body.0", "0.body.1", "1.0"]
    parameters = {name.rpartition(".")[0] for name in body.parameters()}
    assert parameters <= set(names)


def test_the_numbers_are_those_of_a_forward_and_a_backward():
    net = Sequential(Linear(4, 5, rng=0), Tanh(), Linear(5, 3, rng=2))
    linear, tanh, out = net.layers
    a = X @ linear.weight.value.T + linear.bias.value
    h = numpy.tanh(a)
    y = h @ out.weight.value.T + out.bias.value
    target = numpy.ones_like(y)
    loss = MSELoss()(y, target)
    dh = loss.grad @ out.weight.value
    da = dh * (1 - h * h)
    found = inspect(net, X, target, MSELoss)
    assert_allclose(found.loss, loss.value, rtol=1e-6)
    assert_allclose([r.mean for r in found], [a.mean(), h.mean(), y.mean()], rtol=1e-4)
    assert_allclose([r.std for r in found], [a.std(), h.std(), y.std()], rtol=1e-4)
    assert_allclose([r.grad_norm for r in found], [numpy.linalg.norm(g) for g in (da, dh, loss.grad)], rtol=1e-4)
    assert found[1].weight_norm is None and found[1].weight_grad_norm is None
    weights = numpy.concatenate([linear.weight.value.ravel(), linear.bias.value])
    grads = numpy.concatenate([(da.T @ X).ravel(), da.sum(axis=0)])
    assert_allclose(found[0].weight_norm, numpy.linalg.norm(weights), rtol=1e-5)
    assert_allclose(found[0].weight_grad_norm, numpy.linalg.norm(grads), rtol=1e-4)
    assert_allclose(found[0].input_grad_norm, numpy.linalg.norm(da @ linear.weight.value), rtol=1e-4)
    assert all(r.forward_seconds > 0 and r.backward_seconds > 0 for r in found)


def test_dead_is_the_share_of_a_samples_entries_that_are_0_for_every_sample():
    x = numpy.array([[1, -1, 0, -2, 3], [-1, -1, 0, 2, 3]], "float32")
    found = inspect(Sequential(ReLU()), x, x, MSELoss)
    assert found[0].dead == pytest.approx(2 / 5)
    # in sequences (T, N, H) the samples lie on axis 1: entry (t, h) is dead if it is 0 for all of them
    steps = numpy.zeros((3, 2, 2), "float32")
    steps[0, :, 0], steps[1, 1, 1] = 1, 1
    net = Sequential(ReLU(), GRU(2, 2, rng=0))
    assert inspect(net, steps, numpy.ones((3, 2, 2)), MSELoss)[0].dead == pytest.approx(4 / 6)


def test_saturated_is_the_share_within_1_percent_of_the_bounds_of_a_bounded_activation():
    x = numpy.array([[-9, -3, 0, 3], [9, 4, -4.7, 0.5]], "float32")
    values = {
        kind: inspect(Sequential(kind()), x, x, MSELoss)[0].saturated
        for kind in (Sigmoid, Tanh, layers.Hardtanh, layers.Softmax, ReLU, layers.ELU)
    }
    s = 1 / (1 + numpy.exp(-x))
    assert values[Sigmoid] == numpy.mean((s < 0.01) | (s > 0.99)) == 3 / 8
    assert values[Tanh] == 6 / 8 and values[layers.Hardtanh] == 6 / 8
    assert values[layers.Softmax] > 0 and values[ReLU] is None and values[layers.ELU] is None


def test_the_pass_runs_in_the_mode_of_the_module():
    net = Sequential(Linear(4, 50, rng=0), Dropout(0.5, rng=1))
    target = numpy.zeros((6, 50))
    assert (inspect(net, X, target, MSELoss)[1].sample.y[0] == 0).mean() > 0.2
    assert (inspect(net.eval(), X, target, MSELoss)[1].sample.y[0] == 0).mean() < 0.1


@pytest.mark.parametrize("loss", [
    CrossEntropyLoss, CrossEntropyLoss(), lambda net: CrossEntropyLoss(net),
    lambda net: lambda y, t: 2 * CrossEntropyLoss(net)(y, t) / 2,
])  # fmt: skip
def test_a_loss_is_a_function_its_class_or_anything_that_returns_one(loss):
    net = small()
    made = loss(net) if type(loss).__name__ == "function" else loss
    assert inspect(net, X, LABELS, made).loss == pytest.approx(inspect(net, X, LABELS, CrossEntropyLoss).loss)


def test_losses_of_several_outputs_add_up():
    net = Module(layers_with_two_heads())
    a, b = CrossEntropyLoss(net), MSELoss(net)
    before = pickle.dumps(net)

    def loss(y, target):
        return a(y[0], target[0]) + 0.5 * b(y[1], target[1])

    found = inspect(net, X, (LABELS, numpy.zeros((6, 2))), loss)
    y = net(X)
    total = a(y[0], LABELS) + 0.5 * b(y[1], numpy.zeros((6, 2)))
    assert found.loss == pytest.approx(total.value)
    total.backward()
    weight = net.parameters()["body.weight"]
    bias = net.parameters()["body.bias"]
    expected = numpy.sqrt((weight.grad**2).sum() + (bias.grad**2).sum())
    assert found["body"].weight_grad_norm == pytest.approx(expected, rel=1e-5)
    assert pickle.dumps(Module(layers_with_two_heads())) == before


def layers_with_two_heads():
    nodes = {"body": (Linear(4, 5, rng=0), "x"), "h": (Tanh(), "body")}
    nodes |= {"scores": (Linear(5, 3, rng=1), "h"), "place": (Linear(5, 2, rng=2), "h")}
    return Graph("x", nodes, ("scores", "place"))


def test_a_layer_that_is_called_several_times_has_one_record():
    twice = Linear(4, 4, rng=0)
    found = inspect(Sequential(twice, Tanh(), twice), X, numpy.zeros((6, 4)), MSELoss)
    assert [(r.name, r.calls) for r in found] == [("0", 2), ("1", 1)]
    single = Sequential(Linear(4, 4, rng=0), Tanh(), Linear(4, 4, rng=0))
    parts = inspect(single, X, numpy.zeros((6, 4)), MSELoss)
    assert found[0].grad_norm == pytest.approx(numpy.hypot(parts[0].grad_norm, parts[2].grad_norm), rel=1e-5)
    assert found[0].mean == pytest.approx((parts[0].mean + parts[2].mean) / 2, rel=1e-4)
    assert found[0].over_time == pytest.approx((parts[0].grad_norm, parts[2].grad_norm), rel=1e-5)


def test_recurrent_nets_show_the_gradient_over_time():
    x = RNG.standard_normal((7, 5, 3))
    net = Sequential(LSTM(3, 4, rng=0), Slice(-1), Linear(4, 2, rng=1))
    found = inspect(net, x, numpy.zeros((5, 2)), MSELoss)
    assert len(found[0].over_time) == len(found[0].input_over_time) == 7
    assert found[0].over_time[:-1] == (0,) * 6 and found[0].over_time[-1] == pytest.approx(found[0].grad_norm)
    assert numpy.linalg.norm(found[0].input_over_time) == pytest.approx(found[0].input_grad_norm)
    assert found[1].over_time is None and found[0].shape == (7, 5, 4)
    cell = inspect(Sequential(Recurrent(layers.RNNCell(3, 4, rng=0)), Slice(-1)), x, numpy.zeros((5, 4)), MSELoss)
    assert cell[0].name == "0.cell" and cell[0].calls == 7 and len(cell[0].over_time) == 7
    first = Sequential(LSTM(3, 4, batch_first=True, rng=0), Slice((slice(None), -1)), Linear(4, 2, rng=1))
    other = inspect(first, x.swapaxes(0, 1), numpy.zeros((5, 2)), MSELoss)
    assert other[0].over_time == pytest.approx(found[0].over_time)
    both = inspect(Bidirectional(GRU(3, 2, rng=0), GRU(3, 2, rng=1)), x, numpy.zeros((7, 5, 4)), MSELoss)
    assert [r.name for r in both] == ["a", "b"]


def test_attention_shows_its_map():
    net = Sequential(MultiHeadAttention(4, 2, causal=True, rng=0), Linear(4, 3, rng=1))
    x = RNG.standard_normal((5, 6, 4))
    found = inspect(net, x, numpy.zeros((5, 6, 3)), MSELoss)
    weights = found[0].sample.attention
    assert weights.shape == (2, 5, 5) and numpy.allclose(weights.sum(axis=-1), 1) and not numpy.triu(weights, 1).any()
    assert [r.name for r in found] == ["0", "0.dropout", "0.out_proj", "1"] and not net[0].keep_weights


def test_a_net_in_parallel_runs_in_this_process():
    net = Module(DataParallel(Linear(4, 3, rng=0), workers=2))
    plain = inspect(Linear(4, 3, rng=0), X, LABELS, CrossEntropyLoss)
    found = inspect(net, X, LABELS, CrossEntropyLoss(net))
    assert found[0].weight_grad_norm == plain[0].weight_grad_norm and net.net._replicas is None


def test_frozen_parameters_have_no_gradient_and_those_below_them_see_one():
    net = Sequential(Linear(4, 5, rng=0), Linear(5, 3, rng=1))
    net[1].trainable = False
    found = inspect(net, X, LABELS, CrossEntropyLoss)
    assert found[1].weight_grad_norm == 0 and found[0].weight_grad_norm > 0 and found[1].weight_norm > 0


# ---------------------------------------------------------------------- the net stays as it was


def state_of(net):
    """Everything there is to a net, gradients that do not count included."""
    return pickle.dumps(net)


def test_the_module_stays_as_it_was_to_the_bit():
    net = Module(small())
    loss, optimizer = CrossEntropyLoss(net), mtorch.Adam(net, lr=0.01)
    loss(net(X), LABELS).backward()
    optimizer.step()
    loss(net(X), LABELS).backward()  # gradients that wait for a step
    y = net(X)  # and a forward that waits for its backward
    before, twin = state_of(net), pickle.loads(pickle.dumps(net))
    inspect(net, X, LABELS, loss)
    assert state_of(net) == before
    loss(y, LABELS).backward()
    CrossEntropyLoss(twin)(y, LABELS).backward()
    for name, parameter in net.parameters().items():
        numpy.testing.assert_array_equal(parameter.grad, twin.parameters()[name].grad)


class Faulty(Layer):
    """y = x; one of its verbs fails."""

    def __init__(self, verb):
        super().__init__()
        self.verb = verb

    def forward(self, x):
        self.remember()
        if self.verb == "forward":
            raise FloatingPointError("half way")
        return x

    def backward(self, output_grad):
        if self.verb == "backward":
            raise FloatingPointError("half way")
        self.recall()
        return output_grad


@pytest.mark.parametrize("verb", ["forward", "backward", "loss"])
def test_the_module_stays_as_it_was_where_the_pass_fails_half_way(verb):
    net = Module(Sequential(BatchNorm1d(4), Dropout(0.5, rng=0), Linear(4, 3, rng=0), Faulty(""), Linear(3, 3, rng=1)))
    CrossEntropyLoss(net)(net(X), LABELS).backward()
    net(X)
    net.net[3].verb = verb
    before = state_of(net)
    with pytest.raises((FloatingPointError, ValueError)):
        inspect(net, X, LABELS if verb != "loss" else LABELS + 5, CrossEntropyLoss(net))
    assert state_of(net) == before


@pytest.mark.parametrize("cls, index", [case for case in LAYERS if case.values[1] < 3])
def test_every_class_can_be_inspected_and_stays_as_it_was(cls, index, tmp_path):
    """The loss is the mean square of all outputs, so that every layer gets a gradient."""
    layer, x = example(cls, index)
    before = state_of(layer)

    def loss(y, target):
        return sum(MSELoss(layer)(part, numpy.zeros(part.shape)) for part in leaves(y))

    found = inspect(layer, x, None, loss)
    assert state_of(layer) == before
    assert len(found) >= 1 and max(map(len, str(found).splitlines())) <= 80
    check_page(found.html(tmp_path / "page.html"))


# ---------------------------------------------------------------------- mistakes


@pytest.mark.parametrize("args, error, text", [
    ((3, X, LABELS, CrossEntropyLoss), TypeError, "inspect expected a module or layer, got 3"),
    ((Linear(4, 3), X, LABELS, "mse"), TypeError, "inspect expected a loss function"),
    ((Linear(4, 3), X, LABELS, Linear(3, 3)), TypeError, "inspect expected a loss function"),
    ((Linear(4, 3), X, LABELS, lambda y, t: 1.0), TypeError, "to return a Loss, got 1.0"),
    ((Linear(5, 3), X, LABELS, CrossEntropyLoss), mtorch.ShapeMismatchError, r"Linear\(5 -> 3\) expected input"),
    ((Linear(4, 3), mtorch.Input(), LABELS, CrossEntropyLoss), TypeError, "inspect expected arrays"),
])  # fmt: skip
def test_a_mistake_is_named(args, error, text):
    with pytest.raises(error, match=text):
        inspect(*args)


def test_a_layer_that_cannot_be_copied_is_named():
    net = Sequential(Linear(4, 3))
    net[0].lock = (each for each in ())
    with pytest.raises(TypeError) as caught:
        inspect(net, X, LABELS, CrossEntropyLoss)
    assert "cannot be copied" in caught.value.__notes__[0]


# ---------------------------------------------------------------------- table, figure, page


class Page(HTMLParser):
    """What a page asks for from elsewhere, and its elements."""

    def __init__(self):
        super().__init__()
        self.elements = []

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))


def check_page(path):
    text = path.read_text(encoding="utf-8")
    assert path.stat().st_size < 3_000_000
    assert "//" not in text and "http" not in text and "url(" not in text and "@import" not in text
    page = Page()
    page.feed(text)
    asked = [(tag, attrs) for tag, attrs in page.elements if {"src", "href", "action", "srcset"} & {*attrs}]
    assert asked == [("link", {"rel": "icon", "href": "data:,"})]
    return text


def data_of(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL)[1])


def test_the_table_fits_80_columns_and_names_every_layer():
    net = models.lenet(rng=0)
    found = inspect(net, RNG.standard_normal((4, 784)), numpy.array([1, 2, 3, 4]), CrossEntropyLoss(net))
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 80 and "CrossEntropyLoss" in lines[0] and "4 samples" in lines[0]
    assert sum("Conv2d" in line for line in lines) == 4  # in the forward and in the backward
    assert lines[2] == "forward" and "backward" in lines
    assert found._repr_html_().startswith("<pre>") and "13 layers" in repr(found)


def test_one_sample_and_one_layer_are_counted_so():
    found = inspect(Sequential(Linear(4, 3, rng=0)), X[:1], LABELS[:1], CrossEntropyLoss)
    assert str(found).splitlines()[0].endswith(", 1 sample") and "1 layer," in repr(found)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_tables_can_be_printed_where_the_terminal_knows_few_letters(encoding, monkeypatch):
    """A file that Windows writes in its own encoding has no bars."""
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    net = Sequential(layers.Conv2d(1, 2, 3, padding=1, dilation=(1, 1), stride=(1, 1), padding_mode="reflect", rng=0))
    found, size = inspect(net, numpy.ones((2, 1, 4, 4)), numpy.ones((2, 2, 4, 4)), MSELoss), (1, 4, 4)
    for text in (str(found), mtorch.summary(net, size)):
        print(text, flush=True)
        assert max(map(len, text.splitlines())) <= 80
    assert ("█" in str(found)) is (encoding == "utf-8")


def test_the_figure_has_a_panel_more_for_sequences():
    pyplot = pytest.importorskip("matplotlib.pyplot")
    net = Sequential(Linear(4, 5, rng=0), Sigmoid(), Linear(5, 3, rng=1))
    assert len(inspect(net, X, LABELS, CrossEntropyLoss).plot().axes) == 3
    sequence = Sequential(Embedding(5, 3, rng=0), GRU(3, 3, rng=1), Slice(-1))
    figure = inspect(sequence, RNG.integers(0, 5, (7, 6)), LABELS, CrossEntropyLoss).plot()
    assert len(figure.axes) == 4
    pyplot.close("all")


def test_without_matplotlib_the_figure_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    found = inspect(Linear(4, 3), X, LABELS, CrossEntropyLoss)
    with pytest.raises(ImportError, match=r"pip install -e '\.\[plot\]'"):
        found.plot()


def test_the_figure_of_the_readme_shows_what_it_says():
    pytest.importorskip("matplotlib")
    from vanishing_gradients import IMAGE, NETS, norms

    sigmoid, relu = (norms(activation, coe) for _, activation, coe, _ in NETS)
    assert len(sigmoid) == len(relu) == 11
    assert sigmoid[0] < 1e-6 * sigmoid[-1] and 0.3 < relu[0] / relu[-1] < 3
    assert IMAGE.stat().st_size < 120_000


def test_names_are_escaped_in_the_page(tmp_path):
    name = "</script><img src=x onerror=alert(1)>"
    kind = type("<b>&Net", (Module,), {})
    net = kind(Graph("x", {name: (Linear(4, 3, rng=0), "x")}, name))
    text = check_page(inspect(net, X, LABELS, CrossEntropyLoss).html(tmp_path / "page.html"))
    assert "<img" not in text and "<b>" not in text
    assert data_of(text)["layers"][0]["name"] == name and data_of(text)["title"] == "<b>&Net"


def test_the_page_of_a_large_net_stays_small_and_numbers_that_are_none_are_words(tmp_path):
    wide = Sequential(*[layer for i in range(60) for layer in (Linear(200, 200, rng=i), Tanh())])
    x = RNG.standard_normal((3, 200))
    check_page(inspect(wide, x, x, MSELoss).html(tmp_path / "page.html"))
    x = numpy.array([[1.0, numpy.nan, numpy.inf, 2.0]], "float32")
    with numpy.errstate(invalid="ignore"):  # in the loss
        found = inspect(Sequential(Identity()), x, numpy.ones((1, 4)), MSELoss)
    text = check_page(found.html(tmp_path / "page.html"))
    assert data_of(text)["layers"][0]["x"][0]["numbers"] == [[1.0, "nan", "inf", 2.0]]


def test_the_page_has_equations_with_their_numbers(tmp_path):
    net = Sequential(Linear(4, 3, rng=0), ReLU(), Dropout(0.5, rng=0), Linear(3, 3, rng=1), layers.Softmax())
    data = data_of(inspect(net, X, X[:, :3], MSELoss).html(tmp_path / "p.html").read_text())
    linear, relu = data["layers"][:2]
    assert linear["equation"] == [
        "y = x W^T + b over the last axis.",
        "y_nh = sum_d x_nd W_hd + b_h, so with g = output_grad\n    dW = g^T x,   db = sum_n g,   dx = g W.",
    ]
    assert relu["equation"][0] == "y = max(x, 0), elementwise."
    assert linear["memory"].startswith("x. ") and linear["kept"] == ["x"] and relu["kept"] == ["y"]
    assert all(layer["worked"][0] and layer["worked"][1] for layer in data["layers"])
    numbers = linear["x"][0]["numbers"][0], linear["parameters"][0][0]["numbers"], linear["y"][0]["numbers"][0]
    assert_allclose(numpy.dot(numbers[1], numbers[0]), numbers[2], atol=0.02)


class Swish(Layer):
    """y = x * sigmoid(x)."""

    def forward(self, x):
        s = 1 / (1 + numpy.exp(-x))
        self.remember(x, s)
        return x * s

    def backward(self, output_grad):
        g = self.cast_grad(output_grad)
        x, s = self.recall()
        return g * (s + x * s * (1 - s))


def test_what_a_layer_of_ones_own_remembers_has_its_name(tmp_path):
    net = Sequential(Linear(4, 3, rng=0), Swish())
    data = data_of(inspect(net, X, LABELS, CrossEntropyLoss).html(tmp_path / "p.html").read_text())
    assert data["layers"][1]["memory"] == "x (6, 3), an array (6, 3): 144 bytes."


WORKED = [
    (Linear(4, 3, rng=0), (6, 4)),
    (layers.Conv2d(2, 3, 3, padding=1, rng=0), (4, 2, 5, 5)),
    (layers.Conv1d(4, 6, 3, stride=2, dilation=2, groups=2, rng=0), (4, 4, 9)),
    (layers.MaxPool2d(2), (4, 2, 6, 6)),
    (layers.AvgPool1d(3, 2, 1), (4, 2, 7)),
    (Tanh(), (6, 4)),
    (layers.Softmax(), (6, 4)),
    (layers.LogSoftmax(1), (6, 4, 2)),
    (layers.LayerNorm(4), (6, 4)),
    (Dropout(0.5, rng=0), (6, 4)),
    (GRU(3, 4, rng=0), (5, 6, 3)),
    (LSTM(3, 4, rng=0), (5, 6, 3)),
    (layers.RNN(3, 4, rng=0), (5, 6, 3)),
]


@pytest.mark.parametrize("layer, shape", WORKED, ids=lambda value: repr(value))
def test_what_is_worked_out_in_numbers_is_right(layer, shape):
    """A line "name = formula = sum = number" gives that number when its sum is computed."""
    from mtorch.insight.inspection.arithmetic import worked

    x = numpy.random.default_rng(3).standard_normal(shape)
    forward, backward = worked(inspect(layer, x, numpy.zeros_like(layer.predict(x)), MSELoss)[0])
    assert forward and backward
    functions = {"exp": numpy.exp, "log": numpy.log, "tanh": numpy.tanh, "Tanh": numpy.tanh, "max": max}
    functions["mean"] = lambda *values: sum(values) / len(values)
    checked = 0
    for line in forward + backward:
        *_, text, result = line.replace("−", "-").replace("·", "*").split(" = ")
        result = re.match(r"-?[\d.]+(e-?\d+)?", result)
        if "gives" in line or line.count(" = ") < 2 and not line.startswith("entry"):
            continue
        text = re.sub(r"log (\S+)", r"log(\1)", re.sub(r"^.*: y|^.*: dx| from \d+ more", "", text))
        if text:
            value = eval(text, {"__builtins__": {}}, functions)  # noqa: S307
            assert value == pytest.approx(float(result[0]), rel=0.03, abs=0.02), line
        checked += 1
    assert checked


CHROMIUM = next((path for path in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if path), None)
STEPS = """<script>
const seen = [find("where").textContent];
function press(key) {
  document.dispatchEvent(new KeyboardEvent("keydown", { key }));
  seen.push(find("where").textContent);
}
for (let i = 0; i < 15; i++) press("ArrowRight");
press("ArrowLeft"); press("Home"); press("End");
find("back").click(); seen.push(find("where").textContent);
chain.children[7].firstChild.click(); seen.push(find("where").textContent);
document.body.dataset.seen = seen.join("|");
document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;
</script>"""


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
def test_the_page_steps_through_the_chain_in_a_browser(tmp_path):
    path = inspect(Module(small()), X, LABELS, CrossEntropyLoss).html(tmp_path / "page.html")
    path.write_text(path.read_text() + STEPS)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"]
    done = subprocess.run([*command, path.as_uri()], capture_output=True, text=True, timeout=60)
    seen = re.search(r'data-seen="([^"]*)"', done.stdout)[1].split("|")
    steps = [f"forward {i} of 7" for i in range(1, 8)] + ["loss"] + [f"backward {i} of 7" for i in range(1, 8)]
    assert seen == [*steps, steps[-1], steps[-2], steps[0], steps[-1], steps[-2], "loss"]
    assert "CONSOLE" not in done.stderr and 'data-wide="false"' in done.stdout
