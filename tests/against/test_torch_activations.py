"""Activations against torch in float64: values and gradients under a random cotangent."""

import numpy
import pytest

from mtorch import layers

torch = pytest.importorskip("torch")

PAIRS = [
    (layers.ReLU, {}, torch.nn.ReLU()),
    (layers.LeakyReLU, {}, torch.nn.LeakyReLU()),
    (layers.LeakyReLU, {"negative_slope": 1.5}, torch.nn.LeakyReLU(1.5)),
    (layers.LeakyReLU, {"negative_slope": -0.5}, torch.nn.LeakyReLU(-0.5)),
    (layers.ELU, {}, torch.nn.ELU()),
    (layers.ELU, {"alpha": 0.7}, torch.nn.ELU(0.7)),
    (layers.GELU, {}, torch.nn.GELU()),
    (layers.GELU, {"approximate": "tanh"}, torch.nn.GELU("tanh")),
    (layers.SiLU, {}, torch.nn.SiLU()),
    (layers.Softplus, {}, torch.nn.Softplus(threshold=1000)),  # torch turns linear at 20, 2e-9 off
    (layers.Softplus, {"beta": 2.5, "threshold": 20}, torch.nn.Softplus(2.5)),
    (layers.Hardtanh, {}, torch.nn.Hardtanh()),
    (layers.Hardtanh, {"min_val": -0.1, "max_val": 2.5}, torch.nn.Hardtanh(-0.1, 2.5)),
    (layers.Sigmoid, {}, torch.nn.Sigmoid()),
    (layers.Tanh, {}, torch.nn.Tanh()),
    (layers.Softmax, {}, torch.nn.Softmax(-1)),
    (layers.Softmax, {"axis": 1}, torch.nn.Softmax(1)),
    (layers.Softmax, {"dim": 1}, torch.nn.Softmax(dim=1)),
    (layers.LogSoftmax, {"dim": 1}, torch.nn.LogSoftmax(dim=1)),
    (layers.LogSoftmax, {}, torch.nn.LogSoftmax(-1)),
    (layers.LogSoftmax, {"axis": 0}, torch.nn.LogSoftmax(0)),
]


@pytest.mark.parametrize("cls, options, theirs", PAIRS, ids=lambda value: getattr(value, "__name__", ""))
def test_values_and_gradients_are_torchs(cls, options, theirs):
    rng = numpy.random.default_rng(0)
    for scale in (0.3, 3.0, 30.0):
        x, g = scale * rng.standard_normal((6, 5, 7)), rng.standard_normal((6, 5, 7))
        x[0, 0, :3] = 0.0, 1.0, -1.0
        ours, given = cls(**options, dtype="float64"), torch.tensor(x, requires_grad=True)
        y = theirs(given)
        y.backward(torch.tensor(g))
        assert abs(ours(x) - y.detach().numpy()).max() <= 1e-9
        assert abs(ours.backward(g) - given.grad.numpy()).max() <= 1e-9
