"""What `export_onnx` writes, computed by ONNX Runtime and compared with `predict`."""

from pathlib import Path

import numpy
import pytest

onnx = pytest.importorskip("onnx", minversion="1.19")
runtime = pytest.importorskip("onnxruntime")

from harness import LAYERS, example, leaves  # noqa: E402
from onnx_models import MODELS, build  # noqa: E402

import mtorch  # noqa: E402
from mtorch import (  # noqa: E402
    CrossEntropyLoss,
    DataParallel,
    Graph,
    Input,
    Layer,
    Module,
    Parameter,
    Recurrent,
    Sequential,
    layers,
)
from mtorch.interop import OnnxError, export_onnx, import_onnx  # noqa: E402
from mtorch.testing import strict  # noqa: E402

runtime.set_default_logger_severity(4)
RNG = numpy.random.default_rng(0)


def floats(shape, dtype="float32"):
    return RNG.standard_normal(shape).astype(dtype)


def arrays_of(net, x):
    """The arrays among what a net takes, as its inputs in the file."""
    return [leaf for leaf in leaves(net.core().cast_input(x)) if leaf is not None]


class Session:
    """A file in ONNX Runtime."""

    def __init__(self, path):
        self.model = onnx.load(path)
        self.session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])

    def __call__(self, *feeds):
        names = [each.name for each in self.session.get_inputs()]
        return self.session.run(None, dict(zip(names, feeds, strict=True)))

    def axes(self):
        """{name of an input: the name or size of each of its axes}"""
        return {
            each.name: [dim.dim_param or dim.dim_value for dim in each.type.tensor_type.shape.dim]
            for each in self.model.graph.input
        }


def exported(net, x, path):
    export_onnx(net, path, x)
    return Session(path)


def assert_near(got, wanted, tolerance=1e-5):
    wanted = [leaf for leaf in leaves(wanted) if leaf is not None]
    assert len(got) == len(wanted)
    for a, b in zip(got, wanted, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        numpy.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * max(1, numpy.abs(b).max(initial=0)))


def check(net, x, path):
    """Compares at the example, and at another number of samples where the file says which axis they lie on."""
    session = exported(net, x, path)
    given = arrays_of(net, x)
    assert_near(session(*given), net.predict(x))
    more = [longer(array, axes) for array, axes in zip(given, session.axes().values(), strict=True)]
    if any(a is not b for a, b in zip(given, more, strict=True)):
        assert_near(session(*more), net.predict(refilled(x, iter(more))))
        return True
    return False


def longer(array, axes):
    """With three times as many samples."""
    for axis, name in enumerate(axes):
        if str(name).startswith("batch"):
            return numpy.concatenate([array, array, array], axis=axis)
    return array


def refilled(x, parts):
    if isinstance(x, tuple):
        return tuple(refilled(part, parts) for part in x)
    return None if x is None else next(parts)


@pytest.mark.slow
@pytest.mark.parametrize("cls, index", LAYERS)
def test_every_example_is_what_the_runtime_computes(cls, index, tmp_path):
    net, x = example(cls, index, dtype="float32")
    check(net, x, tmp_path / "net.onnx")


@pytest.mark.slow
def test_so_it_is_in_float64_where_the_runtime_has_kernels_for_it(tmp_path):
    compared = 0
    for cls, index in (case.values for case in LAYERS):
        net, x = example(cls, index, dtype="float64")
        export_onnx(net, tmp_path / "net.onnx", x)
        try:
            got = Session(tmp_path / "net.onnx")(*arrays_of(net, x))
        except Exception as error:
            assert "implementation" in str(error) or "double" in str(error), error
            continue
        assert_near(got, net.predict(x))
        compared += 1
    assert compared >= 250


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_is_written_with_a_free_batch_and_the_names_of_the_state_dict(name, tmp_path):
    net, x = build(name)
    assert check(net, x, tmp_path / "net.onnx"), "no axis is called batch"
    names = [each.name for each in onnx.load(tmp_path / "net.onnx").graph.initializer]
    assert set(net.parameters()) <= set(names) <= set(net.state_dict())


# ---------------------------------------------------------------------- which axes are free


def test_a_batch_is_free_and_called_so(tmp_path):
    session = exported(Sequential(layers.Linear(3, 2), layers.ReLU()), floats((4, 3)), tmp_path / "net.onnx")
    assert session.axes() == {"x": ["batch", 3]}
    assert session(floats((9, 3)))[0].shape == (9, 2)


def test_time_and_batch_of_a_recurrent_net_are_free(tmp_path):
    net = Sequential(layers.LSTM(3, 4, num_layers=2, bidirectional=True), layers.Linear(8, 2))
    session = exported(net, floats((5, 2, 3)), tmp_path / "net.onnx")
    assert session.axes() == {"x": ["x_0", "batch", 3]}
    x = floats((7, 6, 3))
    assert_near(session(x), net.predict(x))


@pytest.mark.parametrize("kind", ["RNN", "GRU", "LSTM"])
@pytest.mark.parametrize("batch_first", [False, True])
def test_states_and_lengths_are_inputs_like_x(kind, batch_first, tmp_path):
    net = getattr(layers, kind)(3, 4, 2, batch_first=batch_first, bidirectional=True, return_state=True, rng=0)

    def value(n):
        h = tuple(floats((4, n, 4)) for _ in range(net.state_arrays))
        lengths = RNG.integers(1, 6, n)
        return h if len(h) > 1 else h[0], floats((n, 5, 3) if batch_first else (5, n, 3)), lengths

    session = exported(net, value(2), tmp_path / "net.onnx")
    for n in (2, 5):
        x = value(n)
        assert_near(session(*arrays_of(net, x)), net.predict(x))


def test_a_net_that_writes_takes_texts_of_any_length_up_to_its_longest(tmp_path):
    nn = layers.on(rng=0)
    attend = Sequential(nn.LayerNorm(8), nn.MultiHeadAttention(8, 2, causal=True))
    net = Sequential(nn.Embedding(9, 8), nn.PositionalEmbedding(6, 8), mtorch.Residual(attend), nn.Linear(8, 9))
    session = exported(net, RNG.integers(0, 9, (6, 2)), tmp_path / "net.onnx")
    assert session.axes() == {"x": ["x_0", "batch"]}
    for shape in ((6, 2), (1, 1), (4, 5)):
        ids = RNG.integers(0, 9, shape)
        assert_near(session(ids), net.predict(ids))
        assert_near([import_onnx(tmp_path / "net.onnx").predict(ids)], net.predict(ids))


def own_cell():
    s, x = Input("s"), Input("x")
    h = mtorch.tanh(layers.Linear(3, 2, rng=0)(x) + s)
    return Recurrent(Graph.of((h, h), inputs=(s, x)))


def test_a_cell_of_ones_own_is_unrolled_for_that_many_steps(tmp_path):
    net, x = own_cell(), (floats((4, 2)), floats((5, 4, 3)))
    session = exported(net, x, tmp_path / "net.onnx")
    assert session.axes() == {"x0": ["batch", 2], "x1": [5, "batch", 3]}
    x = floats((6, 2)), floats((5, 6, 3))
    assert_near(session(*x), net.predict(x))


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["for all", "for each sample", "one row", "for each head", "numbers"])
def test_attention_takes_every_kind_of_mask(kind, causal, tmp_path):
    net = layers.MultiHeadAttention(4, 2, causal=causal, rng=0)

    def value(n):
        shape = {"for all": (3, 3), "for each sample": (n, 3, 3), "one row": (n, 1, 3), "for each head": (2 * n, 3, 3)}
        mask = RNG.random(shape.get(kind, (n, 3, 3))) < 0.5
        if kind == "numbers":
            mask = numpy.where(mask, -numpy.inf, 0.5).astype("float32")
        return floats((3, n, 4)), floats((3, n, 4)), floats((3, n, 4)), mask

    session = exported(net, value(2), tmp_path / "net.onnx")
    for n in (2, 6):
        x = value(n)
        assert_near(session(*x), net.predict(x))


def test_a_net_of_many_inputs_is_written_in_no_time(tmp_path):
    """Of all choices of one axis for each of twelve inputs there are 10^7."""
    symbols = [Input() for _ in range(12)]
    total = symbols[0]
    for symbol in symbols[1:]:
        total = total + symbol
    net, x = Graph.of(total, inputs=tuple(symbols)), tuple(floats((2, 3, 4)) for _ in range(12))
    axes = exported(net, x, tmp_path / "net.onnx").axes()
    assert all(names[0] == "batch" for names in axes.values())


# ---------------------------------------------------------------------- nets of every make


class Skip(Module):
    def __init__(self):
        super().__init__()
        self.scale, self.body = Parameter(floats(3)), Sequential(layers.Linear(3, 3, rng=1), layers.GELU())

    def forward(self, x, ids):
        return mtorch.concat((self.body(x) * self.scale + x, mtorch.take(x, ids)[:, None]), 1), x**2.0


def test_a_module_with_a_forward_of_its_own_keeps_the_names_of_its_arguments(tmp_path):
    net = Skip()
    session = exported(net, (floats((4, 3)), numpy.array([0, 2, 1, 1])), tmp_path / "net.onnx")
    assert session.axes() == {"x": ["batch", 3], "ids": ["batch"]}
    assert {each.name for each in session.model.graph.initializer} == {*net.state_dict()}
    x = floats((2, 3)), numpy.array([2, 0])
    assert_near(session(*x), net.predict(x))


def test_a_net_for_several_processes_is_written_like_the_net(tmp_path):
    net = Sequential(layers.Linear(3, 2, rng=0))
    export_onnx(net, tmp_path / "a.onnx", floats((4, 3)))
    export_onnx(Module(DataParallel(net, workers=2)), tmp_path / "b.onnx", floats((4, 3)))
    a, b = ((tmp_path / name).read_bytes() for name in ("a.onnx", "b.onnx"))
    assert len(a) == len(b) or onnx.load_from_string(a).graph.node == onnx.load_from_string(b).graph.node


def test_a_layer_that_stands_twice_is_written_with_one_weight(tmp_path):
    twice = layers.Linear(3, 3, rng=0)
    net = Sequential(twice, layers.Tanh(), twice)
    session = exported(net, floats((2, 3)), tmp_path / "net.onnx")
    assert [each.name for each in session.model.graph.initializer] == ["0.weight", "0.bias"]
    x = floats((5, 3))
    assert_near(session(x), net.predict(x))


def test_the_module_and_its_memories_stay_as_they_were(tmp_path):
    net = Sequential(layers.Linear(3, 2, rng=0), layers.BatchNorm1d(2), layers.Dropout(0.5, rng=0))
    x = floats((4, 3))
    net(x)
    state, randoms = net.state_dict(), net[2].random_state()
    export_onnx(net, tmp_path / "net.onnx", x)
    net.backward(floats((4, 2)))
    assert net.training and net[2].random_state() == randoms
    assert all((value == state[name]).all() for name, value in net.state_dict().items())


def test_a_net_on_another_array_module_gives_the_same_file(tmp_path):
    net, x = Sequential(layers.Linear(3, 2, rng=0), layers.Tanh()), floats((4, 3))
    export_onnx(net, tmp_path / "a.onnx", x)
    export_onnx(net.to(xp=strict), tmp_path / "b.onnx", strict.asarray(x))
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    back = import_onnx(tmp_path / "a.onnx", xp=strict)
    assert back.xp is strict and isinstance(back.predict(strict.asarray(x)), strict.ndarray)


# ---------------------------------------------------------------------- what cannot be written


class Odd(Layer):
    def forward(self, x):
        return x


class OddReLU(layers.ReLU):
    def forward(self, x):
        return 2 * super().forward(x)


def patched():
    """An Odd of ReLU's class, whose forward is its own."""
    layer = layers.ReLU()
    layer.forward = Odd().forward
    layer.details = lambda: "Odd"
    return layer


@pytest.mark.parametrize("odd", [Odd(), OddReLU(), patched(), Sequential(layers.ReLU(), OddReLU())], ids=repr)
def test_a_layer_that_onnx_does_not_know_is_named_and_the_file_stays(odd, tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"before")
    with pytest.raises(OnnxError, match="Odd"):
        export_onnx(odd, path, floats((2, 3)))
    assert path.read_bytes() == b"before"


def test_losses_other_dtypes_and_things_that_are_no_layers_are_refused(tmp_path):
    path, x = tmp_path / "net.onnx", floats((2, 3))
    with pytest.raises(TypeError, match="a loss is not exported"):
        export_onnx(CrossEntropyLoss(), path, x)
    with pytest.raises(TypeError, match="expected a layer"):
        export_onnx(len, path, x)
    for dtype in ("float16", "longdouble"):
        with pytest.raises(OnnxError, match="float32 and float64"):
            export_onnx(layers.Linear(3, 2, dtype=dtype), path, x)
    with pytest.raises(ValueError, match=r"\(\.\.\., 3\)"):
        export_onnx(layers.Linear(3, 2), path, floats((2, 4)))
    assert not path.exists()


def test_the_page_on_it_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    page = (Path(mtorch.__file__).parents[1] / "docs" / "interop.md").read_text()
    block = page.split("```python", 1)[1].split("```", 1)[0]
    assert "import_onnx" in block
    exec(compile(block, "docs/interop.md", "exec"), {})
