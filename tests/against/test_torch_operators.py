"""Operators and Graph against PyTorch: values and gradients in float64 to 1e-9."""

import numpy
import pytest
from numpy.testing import assert_allclose

import mtorch
from mtorch import Graph, Input, Module, Parameter, layers

torch = pytest.importorskip("torch")

rng = numpy.random.default_rng(7)


def signed(*shape):
    return rng.standard_normal(shape)


def positive(*shape):
    return rng.uniform(0.4, 2.0, shape)


@pytest.mark.parametrize("kind", ["max", "min"])
def test_nan_is_the_extremum_of_a_row_as_in_torch(kind):
    x = numpy.array([[1.0, numpy.nan, 3.0, numpy.nan], [2.0, 0.0, 2.0, 1.0], [numpy.nan] * 4])
    leaf = torch.tensor(x, requires_grad=True)
    values = getattr(leaf, kind)(dim=1).values
    values.backward(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64))
    layer = getattr(layers, kind.title())(1, dtype="float64")
    numpy.testing.assert_array_equal(layer(x), values.detach().numpy())
    mine, theirs = layer.backward(numpy.array([1.0, 2.0, 3.0])), leaf.grad.numpy()
    numpy.testing.assert_array_equal(mine[[0, 2]], theirs[[0, 2]])  # a tie of numbers is torch's own choice


CASES = {
    "add": (layers.Add, lambda t: t[0] + t[1], (signed(2, 3, 1), signed(4))),
    "subtract": (layers.Subtract, lambda t: t[0] - t[1], (signed(3), signed(2, 1, 3))),
    "multiply": (layers.Multiply, lambda t: t[0] * t[1], (signed(2, 3), signed())),
    "divide": (layers.Divide, lambda t: t[0] / t[1], (signed(2, 3), positive(1, 3))),
    "maximum": (layers.Maximum, lambda t: torch.maximum(*t), (signed(2, 3), signed(3))),
    "minimum": (layers.Minimum, lambda t: torch.minimum(*t), (signed(2, 3), signed(2, 1))),
    "pow": (layers.Pow, lambda t: t[0] ** t[1], (positive(2, 3), signed(3))),
    "matmul": (layers.MatMul, lambda t: t[0] @ t[1], (signed(2, 1, 4, 3), signed(5, 3, 2))),
    "matmul rows": (layers.MatMul, lambda t: t[0] @ t[1], (signed(2, 4, 3), signed(3, 2))),
    "matmul vector matrix": (layers.MatMul, lambda t: t[0] @ t[1], (signed(3), signed(2, 3, 4))),
    "matmul matrix vector": (layers.MatMul, lambda t: t[0] @ t[1], (signed(2, 4, 3), signed(3))),
    "dot": (layers.MatMul, lambda t: t[0] @ t[1], (signed(3), signed(3))),
    "concat": (lambda **k: layers.Concat(1, **k), lambda t: torch.cat(t, 1), (signed(2, 3), signed(2, 1))),
    "split": (lambda **k: layers.Split(3, -1, **k), lambda t: torch.chunk(t, 3, -1), signed(2, 6)),
    "power": (lambda **k: layers.Power(2.5, **k), lambda t: t**2.5, positive(2, 3)),
    "cube": (lambda **k: layers.Power(3, **k), lambda t: t**3, signed(2, 3)),
    "fourth power": (lambda **k: layers.Power(4, **k), lambda t: t**4, signed(2, 3)),
    "inverse": (lambda **k: layers.Power(-2, **k), lambda t: t**-2, signed(2, 3)),
    "exp": (layers.Exp, torch.exp, signed(2, 3)),
    "log": (layers.Log, torch.log, positive(2, 3)),
    "sqrt": (layers.Sqrt, torch.sqrt, positive(2, 3)),
    "square": (layers.Square, torch.square, signed(2, 3)),
    "abs": (layers.Abs, torch.abs, signed(2, 3)),
    "abs at the kink": (layers.Abs, torch.abs, numpy.zeros(3)),
    "negative": (layers.Negative, torch.neg, signed(2, 3)),
    "sum": (layers.Sum, torch.sum, signed(2, 3, 4)),
    "sum over axes": (lambda **k: layers.Sum((0, -1), True, **k), lambda t: t.sum((0, -1), True), signed(2, 3, 4)),
    "mean": (lambda **k: layers.Mean((1, 2), **k), lambda t: t.mean((1, 2)), signed(2, 3, 4)),
    "max": (lambda **k: layers.Max(1, **k), lambda t: t.max(1).values, signed(2, 3, 4)),
    "min": (lambda **k: layers.Min(-1, True, **k), lambda t: t.min(-1, True).values, signed(2, 3, 4)),
    "max of all": (layers.Max, torch.max, signed(2, 3, 4)),
    "transpose": (lambda **k: layers.Transpose((2, 0, 1), **k), lambda t: t.permute(2, 0, 1), signed(2, 3, 4)),
    "slice": (lambda **k: layers.Slice((..., slice(1, 3)), **k), lambda t: t[..., 1:3], signed(2, 3, 4)),
    "gather": (lambda **k: layers.Slice((slice(None), [2, 0, 2]), **k), lambda t: t[:, [2, 0, 2]], signed(2, 3, 4)),
    "points": (lambda **k: layers.Slice(([0, 1, 0], [2, 1, 2]), **k), lambda t: t[[0, 1, 0], [2, 1, 2]], signed(2, 3)),
    "times": (
        lambda **k: layers.ConstantOperand(layers.Multiply(**k), right=[1, -2]), lambda t: t * T([1, -2]), signed(3, 2),
    ),
    "constant power": (lambda **k: layers.ConstantOperand(layers.Pow(**k), left=2.5), lambda t: 2.5**t, signed(3, 2)),
}  # fmt: skip


def T(data):
    return torch.tensor(data, dtype=torch.float64)


def to_torch(value):
    return tuple(map(to_torch, value)) if isinstance(value, tuple) else torch.tensor(value, requires_grad=True)


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_torchs(name):
    make, theirs, x = CASES[name]
    layer, given = make(dtype="float64"), to_torch(x)
    y, expected = layer(x), theirs(given)
    several = isinstance(y, tuple)
    pairs = list(zip(y, expected, strict=True)) if several else [(y, expected)]
    grads = [numpy.random.default_rng(3).standard_normal(part.shape) for part, _ in pairs]
    for mine, other in pairs:
        assert_allclose(mine, other.detach().numpy(), rtol=1e-9, atol=1e-9)
    torch.autograd.backward([other for _, other in pairs], [torch.tensor(g) for g in grads])
    dx = layer.backward(tuple(grads) if several else grads[0])
    for mine, other in zip(dx, given, strict=True) if isinstance(x, tuple) else [(dx, given)]:
        assert_allclose(mine, other.grad.numpy(), rtol=1e-9, atol=1e-9)


def formula(f, x, y, weight, scale, table):
    """One expression for both: `f` is mtorch or torch."""
    h = f.tanh(x @ weight) * scale + 1.5
    k = (2.0 - h) / (h * h + 0.5) - 3 * y**2 + h[:, [0, 0, 1]] * (-y)[:, :1]
    m = f.exp(k * 0.3) @ table + 2.0 ** (y[..., -1:] * 0.5)
    return f.log(m * m + 1.0) - abs(h)[:, 1:2], k[1], (h - h) * k + h


def test_a_formula_with_every_operator_is_torchs():
    x, y = signed(4, 5), positive(4, 3)
    weight, scale, table = Parameter(signed(5, 3)), Parameter(positive(3)), signed(3, 2)
    a, b = Input("a"), Input("b")
    graph = Graph.of(formula(mtorch, a, b, weight, scale, table))
    given = [to_torch(each) for each in (x, y, weight.value, scale.value)]
    ours, theirs = graph((x, y)), formula(torch, *given, torch.tensor(table))
    grads = [signed(*part.shape) for part in ours]
    for mine, other in zip(ours, theirs, strict=True):
        assert_allclose(mine, other.detach().numpy(), rtol=1e-9, atol=1e-9)
    torch.autograd.backward(theirs, [torch.tensor(g) for g in grads])
    dx, dy = graph.backward(tuple(grads))
    for mine, other in zip((dx, dy, weight.grad, scale.grad), given, strict=True):
        assert_allclose(mine, other.grad.numpy(), rtol=1e-9, atol=1e-9)


class Ours(Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = layers.Linear(6, 8, dtype="float64"), layers.Linear(8, 6, dtype="float64")
        self.heads = [layers.Linear(6, 3, dtype="float64") for _ in range(2)]
        self.scale = Parameter(numpy.ones(6))

    def forward(self, x):
        x = x * self.scale + self.fc2(mtorch.relu(self.fc1(x)))
        return tuple(mtorch.softmax(head(x), axis=-1) for head in self.heads)


class Theirs(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc1, self.fc2 = torch.nn.Linear(6, 8), torch.nn.Linear(8, 6)
        self.heads = torch.nn.ModuleList(torch.nn.Linear(6, 3) for _ in range(2))
        self.scale = torch.nn.Parameter(torch.ones(6))

    def forward(self, x):
        x = x * self.scale + self.fc2(torch.relu(self.fc1(x)))
        return tuple(torch.softmax(head(x), dim=-1) for head in self.heads)


def test_a_module_with_a_forward_takes_torchs_weights_and_trains_as_torch_does():
    torch.manual_seed(0)
    ours, theirs = Ours(), Theirs().double()
    assert sorted(ours.state_dict()) == sorted(theirs.state_dict())
    ours.load_state_dict({name: value.numpy() for name, value in theirs.state_dict().items()})
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.3)
    for _ in range(5):
        x, grads = signed(4, 6), (signed(4, 3), signed(4, 3))
        expected = theirs(torch.tensor(x))
        for mine, other in zip(ours(x), expected, strict=True):
            assert_allclose(mine, other.detach().numpy(), rtol=1e-9, atol=1e-9)
        optimizer.zero_grad()
        torch.autograd.backward(expected, [torch.tensor(g) for g in grads])
        ours.backward(grads)
        optimizer.step()
        ours.step(0.3)
    for name, value in theirs.state_dict().items():
        assert_allclose(ours.state_dict()[name], value.numpy(), rtol=1e-9, atol=1e-9)
