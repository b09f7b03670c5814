"""ONNX files as nets: our own, those that ship with ONNX, and those that somebody made to do harm."""

import glob
import os
import tracemalloc

import numpy
import pytest

onnx = pytest.importorskip("onnx", minversion="1.19")

from harness import LAYERS, example, leaves  # noqa: E402
from onnx import TensorProto, helper, numpy_helper  # noqa: E402
from onnx_models import MODELS, build  # noqa: E402
from onnx_nodes import compare, outputs_of  # noqa: E402

from mtorch import SGD, CrossEntropyLoss, Graph, MSELoss, Sequential, layers  # noqa: E402
from mtorch.interop import OnnxError, export_onnx, import_onnx  # noqa: E402
from mtorch.testing import check_gradients  # noqa: E402

RNG = numpy.random.default_rng(0)
FLOAT, INT64 = TensorProto.FLOAT, TensorProto.INT64


def floats(*shape):
    return RNG.standard_normal(shape).astype("float32")


# ---------------------------------------------------------------------- round trips


def fed(net, back, x):
    """What the imported net takes of what the net takes; inputs that no output needs are left out."""
    names = ["x"] if len(arrays := arrays_of(net, x)) == 1 else [f"x{i}" for i in range(len(arrays))]
    names = list(net.core().inputs) if isinstance(net.core(), Graph) else names
    taken = [array for name, array in zip(names, arrays, strict=True) if name in back.inputs]
    return taken[0] if len(taken) == 1 else tuple(taken)


def arrays_of(net, x):
    return [leaf for leaf in leaves(net.core().cast_input(x)) if leaf is not None]


def bits(net):
    return sorted(item.value.tobytes() for item in net.parameters().values())


@pytest.mark.slow
@pytest.mark.parametrize("cls, index", LAYERS)
def test_every_example_comes_back_with_the_same_bits_and_can_be_written_again(cls, index, tmp_path):
    net, x = example(cls, index)
    export_onnx(net, tmp_path / "a.onnx", x)
    back = import_onnx(tmp_path / "a.onnx")
    taken = fed(net, back, x)
    wanted = [leaf for leaf in leaves(net.predict(x)) if leaf is not None]
    for got, expected in zip(leaves(back.predict(taken)), wanted, strict=True):
        assert (got.shape, got.dtype) == (expected.shape, expected.dtype)
        numpy.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * max(1, numpy.abs(expected).max(initial=0)))
    assert bits(back) == bits(net)
    export_onnx(back, tmp_path / "b.onnx", taken)
    again = import_onnx(tmp_path / "b.onnx")
    assert bits(again) == bits(net)
    for got, expected in zip(leaves(again.predict(taken)), wanted, strict=True):
        numpy.testing.assert_allclose(got, expected, rtol=1e-9, atol=1e-9 * max(1, numpy.abs(expected).max(initial=0)))


def test_layers_that_share_a_weight_come_back_with_their_names(tmp_path):
    net = Sequential(layers.Linear(3, 3, rng=0), layers.Tanh(), layers.Linear(3, 3, rng=1), layers.Linear(3, 3, rng=2))
    net[2].weight = net[3].weight = net[0].weight
    export_onnx(net, tmp_path / "net.onnx", floats(2, 3))
    back = import_onnx(tmp_path / "net.onnx")
    state, twin = net.state_dict(), back.state_dict()
    assert list(twin) == list(state) and all(state[key].tobytes() == twin[key].tobytes() for key in state)
    assert len(back.parameters()) == len(net.parameters()) == 4


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_model_comes_back_with_its_names_its_bits_and_its_gradients(name, tmp_path):
    net, x = build(name)
    export_onnx(net, tmp_path / "net.onnx", x)
    back = import_onnx(tmp_path / "net.onnx")
    state, twin = net.state_dict(), back.state_dict()
    assert set(state) == set(twin)
    assert all(state[key].tobytes() == twin[key].tobytes() for key in net.parameters())
    if name in ("dropout", "cnn"):  # Dropout is not written
        return
    target = numpy.zeros_like(net(x))
    for each in (net, back):
        MSELoss(each)(each(x), target).backward()
    theirs = back.parameters()
    for key, parameter in net.parameters().items():
        if name == "bilstm" and key == "0.weight":  # nor is padding_idx, whose row gets no gradient
            continue
        scale = numpy.abs(parameter.grad).max()
        numpy.testing.assert_allclose(theirs[key].grad, parameter.grad, rtol=1e-3, atol=1e-5 * scale + 1e-9)


def test_an_imported_net_is_trained_further_like_the_one_it_was(tmp_path):
    net, x, labels = (
        Sequential(layers.Linear(3, 4, rng=0), layers.GELU(), layers.Linear(4, 2, rng=1)),
        floats(6, 3),
        6 * [1],
    )
    export_onnx(net, tmp_path / "net.onnx", x)
    back = import_onnx(tmp_path / "net.onnx")
    for each in (net, back):
        optimizer = SGD(each, lr=0.1)
        for _ in range(3):
            CrossEntropyLoss(each)(each(x), labels).backward()
            optimizer.step()
    for key, value in net.state_dict().items():
        assert (back.state_dict()[key] == value).all(), key
    export_onnx(back, tmp_path / "more.onnx", x)
    assert (import_onnx(tmp_path / "more.onnx").predict(x) == back.predict(x)).all()


def test_attention_comes_back_with_its_one_matrix_which_is_trained(tmp_path):
    net = layers.MultiHeadAttention(4, 2, causal=True, dtype="float64", rng=0)
    x = RNG.standard_normal((3, 2, 4))
    export_onnx(net, tmp_path / "net.onnx", x)
    back = import_onnx(tmp_path / "net.onnx")
    assert check_gradients(back, x) < 1e-6
    assert back.parameters()["in_proj_weight"].value.shape == (12, 4)


def model_of(nodes, inputs, outputs, constants=(), opset=21, **more):
    """A model with float inputs {name: shape}, outputs by name and initializers {name: array}."""
    values = [helper.make_tensor_value_info(name, FLOAT, shape) for name, shape in inputs.items()]
    asked = [helper.make_tensor_value_info(name, FLOAT, None) for name in outputs]
    stored = [numpy_helper.from_array(numpy.asarray(array), name) for name, array in dict(constants).items()]
    graph = helper.make_graph(nodes, "g", values, asked, stored)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10, **more)


def test_a_path_its_bytes_and_the_model_give_the_same_net(tmp_path):
    weight, x = floats(3, 2), floats(4, 3)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("Add", ["h", "b"], ["y"])]
    model = model_of(nodes, {"x": ["N", 3]}, ["y"], {"w": weight, "b": floats(2)})
    onnx.save(model, tmp_path / "net.onnx")
    nets = [
        import_onnx(source)
        for source in (tmp_path / "net.onnx", str(tmp_path / "net.onnx"), model.SerializeToString(), model)
    ]
    answers = [net.predict(x) for net in nets]
    assert all((answer == answers[0]).all() for answer in answers)
    (linear,) = [layer for _, layer in nets[0].children()]
    assert isinstance(linear, layers.Linear) and (linear.weight.value == weight.T).all()


def test_a_matrix_that_two_products_read_stays_one_parameter():
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
        helper.make_node("MatMul", ["h", "t"], ["y"]),
    ]
    weight, x = floats(3, 2), floats(4, 3)
    net = import_onnx(model_of(nodes, {"x": [4, 3]}, ["y"], {"w": weight}))
    assert len(net.parameters()) == 1
    numpy.testing.assert_allclose(net.predict(x), x @ weight @ weight.T, rtol=1e-5)
    assert check_gradients(net.to(dtype="float64"), x.astype("float64")) < 1e-6


def test_constants_stay_and_initializers_are_trained():
    constant = helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(floats(3)))
    nodes = [constant, helper.make_node("Mul", ["x", "c"], ["h"]), helper.make_node("Mul", ["h", "w"], ["y"])]
    net = import_onnx(model_of(nodes, {"x": [4, 3]}, ["y"], {"w": floats(3)}))
    assert list(net.parameters()) == ["w"]


def test_gelu_as_torch_writes_it_is_read():
    """x (1 + erf(x / sqrt 2)) / 2, in single nodes."""
    scalars = {"two": 2.0**0.5, "one": 1.0, "half": 0.5}
    nodes = [
        helper.make_node("Div", ["x", "two"], ["a"]), helper.make_node("Erf", ["a"], ["b"]),
        helper.make_node("Add", ["b", "one"], ["c"]), helper.make_node("Mul", ["x", "c"], ["d"]),
        helper.make_node("Mul", ["d", "half"], ["y"]),
    ]  # fmt: skip
    model = model_of(nodes, {"x": [4, 3]}, ["y"], {key: numpy.float32(value) for key, value in scalars.items()})
    net, x = import_onnx(model), floats(4, 3)
    assert not net.parameters()
    numpy.testing.assert_allclose(net.predict(x), layers.GELU()(x), rtol=1e-5, atol=1e-6)


# ---------------------------------------------------------------------- what ships with ONNX

DATA = os.path.join(os.path.dirname(onnx.__file__), "backend", "test", "data")
CASES = sorted(glob.glob(os.path.join(DATA, "pytorch-*", "*", "model.onnx")))


def stored(folder, kind):
    for i in range(len(glob.glob(os.path.join(folder, f"{kind}_*.pb")))):
        tensor = TensorProto()
        with open(os.path.join(folder, f"{kind}_{i}.pb"), "rb") as file:
            tensor.ParseFromString(file.read())
        yield numpy_helper.to_array(tensor)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # powers and roots of negative numbers
def test_nets_that_pytorch_wrote_give_the_stored_outputs():
    compared, refused = 0, []
    for path in CASES:
        folder = os.path.join(os.path.dirname(path), "test_data_set_0")
        try:
            net = import_onnx(path)
        except OnnxError as error:
            refused.append(str(error))
            continue
        compare(outputs_of(net, list(stored(folder, "input"))), list(stored(folder, "output")), rtol=1e-4)
        compared += 1
    assert compared >= 100
    assert all("3 dimensions" in reason or "5 axes" in reason for reason in refused), refused


def torch_nets(nn):
    """{name: (module, shape of its input)}, as people write them."""

    class Viewed(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.out = nn.Conv2d(1, 4, 3, padding=1), nn.Linear(64, 5)

        def forward(self, x):
            h = self.conv(x).relu()
            return self.out(h.view(h.size(0), -1))

    class Last(nn.Module):
        def __init__(self):
            super().__init__()
            self.lstm, self.out = nn.LSTM(3, 4, 2, bidirectional=True, batch_first=True), nn.Linear(8, 2)

        def forward(self, x):
            return self.out(self.lstm(x)[0][:, -1])

    class Text(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.places = nn.Embedding(11, 8), nn.Embedding(16, 8)
            self.block = nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", batch_first=True, norm_first=True)

        def forward(self, ids):
            steps = ids.size(1)
            mask = nn.Transformer.generate_square_subsequent_mask(steps)
            return self.block(self.embed(ids) + self.places.weight[:steps], mask)

    dense = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.GELU(), nn.LayerNorm(7), nn.Linear(7, 3), nn.Softmax(-1))
    conv = [nn.Conv2d(1, 4, 3, stride=2, padding=1), nn.BatchNorm2d(4), nn.SiLU(), nn.MaxPool2d(2)]
    image = nn.Sequential(*conv, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    larger = nn.Sequential(nn.Upsample(scale_factor=2), nn.ConvTranspose2d(1, 2, 3, 2, 1, 1), nn.GroupNorm(2, 2))
    return {
        "dense": (dense, (4, 3, 4)), "image": (image, (2, 1, 16, 16)), "larger": (larger, (2, 1, 4, 4)),
        "view": (Viewed(), (2, 1, 4, 4)), "lstm": (Last(), (2, 5, 3)), "text": (Text(), (2, 6)),
    }  # fmt: skip


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # torch's exporter is deprecated, and warns of much else
@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("name", ["dense", "image", "larger", "view", "lstm", "text"])
def test_what_torch_writes_is_read_with_a_free_batch_too(name, free, tmp_path):
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    module, shape = torch_nets(torch.nn)[name]
    module.eval()
    options = {"dynamic_axes": {"x": {0: "n"}}} if free else {}
    path = str(tmp_path / "net.onnx")

    def example(n):
        return RNG.integers(0, 11, (n, *shape[1:])) if name == "text" else floats(n, *shape[1:])

    torch.onnx.export(module, (torch.from_numpy(example(shape[0])),), path, input_names=["x"], dynamo=False, **options)
    net = import_onnx(path)
    for n in (shape[0], *([5] if free else [])):
        x = example(n)
        wanted = module(torch.from_numpy(x)).detach().numpy()
        numpy.testing.assert_allclose(net.predict(x), wanted, rtol=1e-4, atol=1e-5)
    if name == "image":  # of two maxima that change places the difference quotient knows nothing
        return
    assert check_gradients(net.to(dtype="float64").eval(), example(shape[0])) < 1e-5


# ---------------------------------------------------------------------- what is refused


def test_all_nodes_that_cannot_be_computed_are_named_at_once(tmp_path):
    nodes = [
        helper.make_node("Hardmax", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Mystery", ["b"], ["c"], name="second", domain="some.where"),
        helper.make_node("MaxPool", ["x"], ["d"], kernel_shape=[1, 1, 1]),
        helper.make_node("Add", ["c", "d"], ["y"]),
    ]
    path = tmp_path / "odd.onnx"
    onnx.save(model_of(nodes, {"x": [2, 3, 4, 4]}, ["y"]), path)
    with pytest.raises(OnnxError, match="^odd.onnx: 3 nodes cannot be computed") as refusal:
        import_onnx(path)
    for text in ("Hardmax ('first')", "some.where.Mystery ('second')", "MaxPool ('d'): 3 dimensions"):
        assert text in str(refusal.value)


def test_a_file_that_is_not_there_or_no_model_is_an_error_of_its_kind(tmp_path):
    with pytest.raises(OSError, match="nowhere.onnx"):
        import_onnx(tmp_path / "nowhere.onnx")
    (tmp_path / "text.onnx").write_text("no protobuf")
    with pytest.raises(OnnxError, match="text.onnx is no ONNX model"):
        import_onnx(tmp_path / "text.onnx")
    (tmp_path / "empty.onnx").write_bytes(b"")
    with pytest.raises(OnnxError, match="empty.onnx"):
        import_onnx(tmp_path / "empty.onnx")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
def test_a_folder_a_pipe_and_a_device_are_no_files(tmp_path):
    os.mkfifo(tmp_path / "pipe.onnx")
    for path in (tmp_path, tmp_path / "pipe.onnx", "/dev/zero"):
        with pytest.raises(OnnxError, match="is no file"):
            import_onnx(path)


def test_graphs_within_graphs_without_end_are_refused_by_the_parser():
    def field(number, data):
        size, length = len(data), b""
        while size >= 128:
            length, size = length + bytes([size % 128 + 128]), size // 128
        return bytes([number * 8 + 2]) + length + bytes([size]) + data

    graph = b""
    for _ in range(3000):
        graph = field(1, field(5, field(6, graph)))  # a node with an attribute that is a graph
    with pytest.raises(OnnxError, match="no ONNX model"):
        import_onnx(field(7, graph))


def relu(**more):
    return model_of([helper.make_node("Relu", ["x"], ["y"])], {"x": [2, 3]}, ["y"], **more)


def with_tensor(**fields):
    """A model with one initializer of those fields."""
    model = model_of([helper.make_node("Add", ["x", "w"], ["y"])], {"x": [2, 3]}, ["y"])
    tensor = model.graph.initializer.add(name="w", data_type=FLOAT)
    for key, value in fields.items():
        if isinstance(value, list):
            getattr(tensor, key).extend(value)
        else:
            setattr(tensor, key, value)
    return model


def with_nodes(*nodes, **constants):
    return model_of(list(nodes), {"x": [2, 3]}, ["y"], constants)


def node(operator, inputs, outputs, **attributes):
    return helper.make_node(operator, inputs.split(), outputs.split(), **attributes)


def int64(*numbers):
    return numpy.array(numbers, "int64")


def nested(depth):
    """A node whose attribute is a graph, whose node has an attribute that is one, and so on."""
    graph = helper.make_graph([], "g", [], [])
    for _ in range(depth):
        graph = helper.make_graph([helper.make_node("If", ["c"], ["d"], then_branch=graph)], "g", [], [])
    return with_nodes(helper.make_node("If", ["x"], ["y"], then_branch=graph))


def doubled(times):
    nodes = [node("Concat", "w w", "w0", axis=0)]
    nodes += [node("Concat", f"w{i} w{i}", f"w{i + 1}", axis=0) for i in range(times)]
    return with_nodes(*nodes, node("Add", f"x w{times}", "y"), w=floats(1, 3))


HUGE = 2**40
EVIL = {
    "a tensor without its bytes": with_tensor(dims=[2, 3], raw_data=b"1234"),
    "a tensor of 2^80 entries": with_tensor(dims=[HUGE - 1, HUGE - 1], raw_data=b"1234"),
    "sizes that are too large": with_tensor(dims=[HUGE], raw_data=b""),
    "a negative size": with_tensor(dims=[-1, 3], raw_data=b"1234"),
    "more axes than arrays have": with_tensor(dims=[1] * 100, raw_data=b"1234"),
    "entries in another field": with_tensor(dims=[2], int32_data=[1, 2]),
    "an unknown data type": with_tensor(dims=[1], data_type=999, raw_data=b"1234"),
    "a text": with_tensor(dims=[1], data_type=8, string_data=[b"x"]),
    "a constant of a terabyte": with_nodes(
        node("ConstantOfShape", "s", "c"), node("Add", "x c", "y"), s=int64(HUGE, 3)
    ),
    "sizes whose product overflows": with_nodes(
        node("ConstantOfShape", "s", "c"), node("Add", "x c", "y"), s=int64(2**32, 2**32)
    ),
    "a negative constant": with_nodes(node("ConstantOfShape", "s", "c"), node("Add", "x c", "y"), s=int64(-3)),
    "an expansion": with_nodes(node("Expand", "w s", "c"), node("Add", "x c", "y"), w=floats(1), s=int64(HUGE)),
    "an expansion of the input": with_nodes(node("Expand", "x s", "y"), s=int64(HUGE, 2, 3)),
    "tiles": with_nodes(node("Tile", "x r", "y"), r=int64(2**40, 1)),
    "a padding": with_nodes(node("Pad", "x p", "y"), p=int64(0, 0, HUGE, 0)),
    "a range": with_nodes(
        node("Range", "a b c", "r"), node("Add", "x r", "y"), a=numpy.int64(0), b=numpy.int64(HUGE), c=numpy.int64(1)
    ),
    "many rows of one": with_nodes(
        node("ConstantOfShape", "s", "i"), node("Cast", "i", "j", to=INT64), node("Gather", "w j", "c"),
        node("Add", "x c", "y"), s=int64(2**22), w=floats(1, 100),
    ),
    "constants that double": doubled(60),
    "groups of declared channels": model_of(
        [helper.make_node("GroupNormalization", ["x", "w", "b"], ["y"], num_groups=1)], {"x": [1, HUGE - 1, 2]}, ["y"],
        {"w": floats(1), "b": floats(1)}, opset=18,
    ),
    "heads of declared numbers": model_of(
        [helper.make_node("Attention", ["x", "k", "k"], ["y"])], {"x": [1, 2**38, 1, 1], "k": [1, 1, 1, 1]}, ["y"],
        opset=24,
    ),
    "steps of declared numbers": model_of(
        [helper.make_node("Attention", ["x", "x", "x"], ["y"], is_causal=1)], {"x": [1, 1, 2**30, 1]}, ["y"], opset=24
    ),
    "an axis far out": with_nodes(node("Gather", "z i", "y", axis=2**50), node("Mystery", "x", "z"), i=int64(0)),
    "an axis that is none": with_nodes(node("Concat", "x x", "y", axis=-9)),
    "a cycle": with_nodes(node("Add", "x b", "a"), node("Relu", "a", "b"), node("Relu", "b", "y")),
    "nodes in the wrong order": with_nodes(node("Relu", "a", "y"), node("Relu", "x", "a")),
    "a node that reads itself": with_nodes(node("Add", "x y", "y")),
    "one name twice": with_nodes(node("Relu", "x", "y"), node("Tanh", "x", "y")),
    "an output from nowhere": model_of([node("Relu", "x", "a")], {"x": [2]}, ["y"]),
    "an input from nowhere": with_nodes(node("Add", "x ghost", "y")),
    "no output": model_of([node("Relu", "x", "a")], {"x": [2]}, []),
    "no input": model_of([node("Constant", "", "y", value_float=1.0)], {}, ["y"]),
    "an output that nobody computes": with_nodes(node("LayerNormalization", "x w", "a y"), w=floats(3)),
    "a missing input": with_nodes(node("Add", "x", "y")),
    "an attribute of another type": with_nodes(node("Elu", "x", "y", alpha="much")),
    "an axis that is a text": with_nodes(node("Concat", "x x", "y", axis="one")),
    "strides of 0": model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], strides=[0, 0])], {"x": [1, 1, 4, 4]}, ["y"],
        {"w": floats(1, 1, 2, 2)},
    ),
    "a kernel that is none": model_of(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[-1, 2])], {"x": [1, 1, 4, 4]}, ["y"]
    ),
    "a stride of 2^60": model_of(
        [helper.make_node("MaxPool", ["x"], ["y"], kernel_shape=[2, 2], strides=[2**60, 1])], {"x": [1, 1, 4, 4]}, ["y"]
    ),
    "groups that do not divide": model_of(
        [helper.make_node("Conv", ["x", "w"], ["y"], group=2**40)], {"x": [1, 1, 4, 4]}, ["y"],
        {"w": floats(1, 1, 2, 2)},
    ),
    "weights that do not fit": model_of(
        [helper.make_node("LSTM", ["x", "w", "r"], ["y"], hidden_size=3)], {"x": [1, 1, 4]}, ["y"],
        {"w": floats(1, 12, 4), "r": floats(1, 12, 4)},
    ),
    "not a number": with_nodes(node("LeakyRelu", "x", "y", alpha=float("nan"))),
    "graphs within graphs": nested(20),
    "a function of its own": relu(functions=[helper.make_function("d", "f", ["a"], ["b"], [], [])]),
    "data in another file": with_tensor(
        dims=[1], data_location=1, external_data=[onnx.StringStringEntryProto(key="location", value="w.bin")]
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", EVIL)
def test_a_file_that_means_harm_is_refused_before_it_costs_anything(kind, tmp_path):
    path = tmp_path / "evil.onnx"
    path.write_bytes(EVIL[kind].SerializeToString())
    import_onnx(relu())  # what is imported at the first use does not count
    tracemalloc.start()
    try:
        with pytest.raises(OnnxError, match="evil.onnx") as refusal:
            import_onnx(path)
        assert tracemalloc.get_traced_memory()[1] < 2**28
    finally:
        tracemalloc.stop()
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 1000


def test_names_of_a_file_cannot_write_to_the_terminal(tmp_path):
    name = "\x1b]0;owned\x07\x1b[2J\u202e" * 50
    for operator in ("Relu", name):
        nodes = [helper.make_node(operator, [name + "?"], ["y"], name=name)]
        path = tmp_path / "esc.onnx"
        path.write_bytes(model_of(nodes, {"x": [2]}, ["y"]).SerializeToString())
        with pytest.raises(OnnxError) as refusal:
            import_onnx(path)
        assert str(refusal.value).isascii() and str(refusal.value).isprintable() and len(str(refusal.value)) < 300
    model = model_of([helper.make_node("Add", ["x", name], ["y"])], {"x": [2, 3]}, ["y"], {name: floats(3)})
    assert all(key.isascii() and key.isprintable() for key in import_onnx(model).state_dict())


LOCATIONS = [
    "/etc/passwd",
    "../secret.bin",
    "a/../../secret.bin",
    "link.bin",
    "folder",
    "",
    "missing.bin",
    "w.bin\0x",
    "C:x",
]


@pytest.mark.parametrize("location", LOCATIONS, ids=repr)
def test_external_data_lies_in_the_folder_of_the_file_or_nowhere(location, tmp_path):
    folder = tmp_path / "models"
    (folder / "folder").mkdir(parents=True)
    (tmp_path / "secret.bin").write_bytes(bytes(12))
    (folder / "link.bin").symlink_to(tmp_path / "secret.bin")
    entry = onnx.StringStringEntryProto(key="location", value=location)
    model = with_tensor(dims=[3], data_location=1, external_data=[entry])
    (folder / "net.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(OnnxError, match="net.onnx"):
        import_onnx(folder / "net.onnx")


def test_external_data_beside_the_file_is_read_and_compared_with_its_size(tmp_path):
    weight = floats(4)
    (tmp_path / "w.bin").write_bytes(b"head" + weight.tobytes())

    def model(**entries):
        pairs = [onnx.StringStringEntryProto(key=key, value=value) for key, value in entries.items()]
        (tmp_path / "net.onnx").write_bytes(
            with_tensor(dims=[4], data_location=1, external_data=pairs).SerializeToString()
        )
        return import_onnx(tmp_path / "net.onnx")

    assert (model(location="w.bin", offset="4", length="16").parameters()["w"].value == weight).all()
    wrong = [{"offset": "5"}, {"offset": "-1"}, {"length": "17"}, {"length": "9" * 5000}, {"offset": str(2**70)}]
    for entries in wrong:
        with pytest.raises(OnnxError, match="net.onnx"):
            model(location="w.bin", **entries)


def test_a_long_chain_is_read_in_time_that_grows_with_its_length_and_each_weight_stays_apart():
    """A thousand rotations, each with a bias: no step looks through all that were before it."""
    nodes, constants, x = [], {}, floats(2, 2)
    wanted = x.astype("float64")
    for i in range(1000):
        c, s, bias = numpy.cos(0.01 * i), numpy.sin(0.01 * i), floats(2)
        turn = numpy.array([[c, s], [-s, c]], "float32")
        constants |= {f"w{i}": turn, f"b{i}": bias}
        nodes += [node("MatMul", f"{f'h{i}' if i else 'x'} w{i}", f"m{i}"), node("Add", f"m{i} b{i}", f"h{i + 1}")]
        wanted = wanted @ turn + bias
    net = import_onnx(model_of(nodes, {"x": [2, 2]}, ["h1000"], constants))
    numpy.testing.assert_allclose(net.predict(x), wanted, rtol=1e-3, atol=1e-3)


def test_norms_and_convolutions_without_names_of_their_own_stay_apart():
    nodes, constants, x = [], {}, floats(2, 3, 4)
    wanted = x
    for i in range(20):
        values = floats(3), floats(3)
        names = [f"c{i}", f"d{i}"]
        nodes += [
            helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            for name, value in zip(names, values, strict=True)
        ]
        nodes.append(node("InstanceNormalization", f"{f'h{i}' if i else 'x'} {names[0]} {names[1]}", f"h{i + 1}"))
        z = (wanted - wanted.mean(axis=2, keepdims=True)) / numpy.sqrt(wanted.var(axis=2, keepdims=True) + 1e-5)
        wanted = z * values[0][:, None] + values[1][:, None]
    net = import_onnx(model_of(nodes, {"x": [2, 3, 4]}, ["h20"], constants))
    numpy.testing.assert_allclose(net.predict(x), wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("source", [3, None, layers.Linear(2, 2)])
def test_what_is_no_file_is_named(source):
    with pytest.raises(TypeError, match="import_onnx expected a path, bytes or a ModelProto, got"):
        import_onnx(source)


def test_broken_files_are_errors_of_the_right_kind(tmp_path):
    """A few hundred mutations of three files: each is read, or refused with an error that names the file."""
    path, rng = tmp_path / "fuzz.onnx", numpy.random.default_rng(7)
    seeds = []
    image = [layers.Reshape((1, 4, 4)), layers.Conv2d(1, 2, 3, rng=0), layers.BatchNorm2d(2), layers.Flatten()]
    for net, x in (
        (Sequential([*image, layers.Linear(8, 2, rng=0)]), floats(2, 16)),
        (Sequential(layers.LSTM(3, 2, rng=0), layers.Slice(-1), layers.Softmax()), floats(3, 2, 3)),
        (layers.MultiHeadAttention(4, 2, causal=True, rng=0), floats(3, 2, 4)),
    ):
        export_onnx(net, path, x)
        seeds.append(path.read_bytes())
    outcomes = {"read": 0, "refused": 0}
    for number in range(300):
        data = bytearray(seeds[number % 3])
        for _ in range(int(rng.integers(1, 6))):
            place = int(rng.integers(len(data)))
            kind = number // 3 % 4
            if kind == 0:
                data[place] = int(rng.integers(256))
            elif kind == 1:
                data[place] ^= 1 << int(rng.integers(8))
            elif kind == 2:
                del data[place : place + int(rng.integers(1, 9))]
            else:
                data[place:place] = bytes(rng.integers(0, 256, int(rng.integers(1, 9))).astype("uint8"))
        path.write_bytes(data)
        try:
            import_onnx(path)
            outcomes["read"] += 1
        except OnnxError as error:
            assert "fuzz.onnx" in str(error) and str(error).isprintable(), error
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 10, outcomes
