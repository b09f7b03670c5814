"""Functions of several kinds of operands against PyTorch, as layers and within a formula: float64, 1e-9."""

import numpy
import pytest
from numpy.testing import assert_allclose

import mtorch
from mtorch import Graph, Input, layers

torch = pytest.importorskip("torch")

rng = numpy.random.default_rng(3)


def to_torch(value):
    if isinstance(value, tuple):
        return tuple(map(to_torch, value))
    tensor = torch.tensor(value)
    return tensor.requires_grad_() if tensor.is_floating_point() else tensor


def compare(layer, function, x, parameters=None):
    """Values, and the gradient of every float and of torch's `parameters` by name, for one output."""
    given = to_torch(x)
    y, expected = layer(x), function(given)
    assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-9)
    g = rng.standard_normal(y.shape)
    expected.backward(torch.tensor(g))
    dx = layer.backward(g)
    for mine, other in zip(dx, given, strict=True) if isinstance(x, tuple) else [(dx, given)]:
        assert (mine is None) == (other.grad is None)
        if mine is not None:
            assert_allclose(mine, other.grad.numpy(), rtol=1e-9, atol=1e-9)
    for name, parameter in layer.parameters().items():
        assert_allclose(parameter.grad, parameters[name].grad.numpy(), rtol=1e-9, atol=1e-9)


def signed(*shape):
    return rng.standard_normal(shape)


MASK = rng.random((4, 1)) < 0.5
CASES = {
    "sin": (layers.Sin, torch.sin, 5 * signed(2, 3)),
    "cos": (layers.Cos, torch.cos, 5 * signed(2, 3)),
    "clip": (lambda **k: layers.Clip(-0.5, 0.5, **k), lambda x: x.clip(-0.5, 0.5), signed(4, 3)),
    "clip at the bounds": (lambda **k: layers.Clip(0, 1, **k), lambda x: x.clip(0, 1), numpy.array([0.0, 1, 2, -1])),
    "clip from below": (lambda **k: layers.Clip(min=0.1, **k), lambda x: x.clip(min=0.1), signed(4, 3)),
    "clip from above": (lambda **k: layers.Clip(max=0.1, **k), lambda x: x.clip(max=0.1), signed(4, 3)),
    "clip crossed": (lambda **k: layers.Clip(1, -1, **k), lambda x: x.clip(1, -1), signed(4, 3)),
    "where": (layers.Where, lambda t: torch.where(*t), (MASK, signed(4, 3), signed(3))),
    "where of numbers": (layers.Where, lambda t: torch.where(*t), (MASK, signed(), signed(2, 1, 3))),
    "take": (layers.Take, lambda t: t[0][torch.arange(4), t[1]], (signed(4, 3), numpy.array([2, 0, 2, 1]))),
    "take several": (layers.Take, lambda t: t[0].gather(-1, t[1]), (signed(2, 2, 3), rng.integers(0, 3, (2, 2, 5)))),
    "take from more axes": (
        layers.Take, lambda t: t[0].gather(-1, t[1][..., None])[..., 0], (signed(2, 4, 3), rng.integers(0, 3, (2, 4))),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name):
    make, function, x = CASES[name]
    compare(make(dtype="float64"), function, x)


def test_nothing_that_where_leaves_out_reaches_a_gradient():
    x = numpy.array([numpy.nan, 2.0, numpy.inf]), numpy.array([1.0, numpy.nan, 3.0])
    compare(layers.Where(dtype="float64"), lambda t: torch.where(*t), (numpy.array([False, True, False]), *x))


@pytest.mark.parametrize("channels, shape", [(1, (4, 3)), (1, ()), (3, (4, 3)), (3, (2, 3, 5)), (3, (2, 3, 4, 2))])
def test_prelu_is_torchs(channels, shape):
    ours, theirs = layers.PReLU(channels, 0.3, dtype="float64"), torch.nn.PReLU(channels, 0.3).double()
    assert_allclose(ours.weight.value, theirs.weight.detach().numpy(), rtol=1e-7)
    ours.load_state_dict({"weight": signed(channels)})
    theirs.load_state_dict({"weight": torch.tensor(ours.weight.value)})
    x = signed(*shape)
    if x.ndim:
        x.reshape(-1)[0] = 0  # the kink
    compare(ours, theirs, x, dict(theirs.named_parameters()))


def test_a_formula_of_them_is_torchs():
    """Q-learning's target: the entry of each row that an action names, masked where the episode ended."""
    q, action, ended = Input("q"), Input("action"), Input("ended")
    graph = Graph.of(
        mtorch.sin(mtorch.where(ended, 0.0, mtorch.take(q, action))) * mtorch.cos(mtorch.clip(q, -0.5, 0.5)[:, 0]),
        dtype="float64",
    )
    x, ids, mask = signed(4, 3), numpy.array([2, 0, 1, 1]), numpy.array([True, False, False, True])
    y = graph((mask, x, ids) if graph.inputs[0] == "ended" else (x, ids, mask))
    given = to_torch(x)
    picked = torch.where(torch.tensor(mask), 0.0, given[torch.arange(4), torch.tensor(ids)])
    expected = torch.sin(picked) * torch.cos(given.clip(-0.5, 0.5)[:, 0])
    assert_allclose(y, expected.detach().numpy(), rtol=1e-9, atol=1e-9)
    g = signed(4)
    expected.backward(torch.tensor(g))
    dx = dict(zip(graph.inputs, graph.backward(g), strict=True))
    assert dx["action"] is None and dx["ended"] is None
    assert_allclose(dx["q"], given.grad.numpy(), rtol=1e-9, atol=1e-9)
