"""Spread of every initializer against torch.nn.init on the same shapes."""

import pytest

from mtorch import initializers
from mtorch.initializers import as_generator, fans, gain

torch = pytest.importorskip("torch")

PAIRS = {
    "xavier_uniform": (initializers.xavier_uniform(0.7), lambda w: torch.nn.init.xavier_uniform_(w, 0.7)),
    "xavier_normal": (initializers.xavier_normal(), torch.nn.init.xavier_normal_),
    "kaiming_uniform": (initializers.kaiming_uniform(0.3), lambda w: torch.nn.init.kaiming_uniform_(w, 0.3)),
    "kaiming_normal": (
        initializers.kaiming_normal(mode="fan_out", nonlinearity="relu"),
        lambda w: torch.nn.init.kaiming_normal_(w, mode="fan_out", nonlinearity="relu"),
    ),
    "orthogonal": (initializers.orthogonal(2), lambda w: torch.nn.init.orthogonal_(w, 2)),
}


@pytest.mark.parametrize("shape", [(300, 200), (80, 40, 3, 3), (100, 90, 5)])
@pytest.mark.parametrize("name", PAIRS)
def test_spread_and_range_are_torchs(name, shape):
    torch.manual_seed(0)
    init, fill = PAIRS[name]
    ours, theirs = init(as_generator(0), shape, *fans(shape)), fill(torch.empty(shape, dtype=torch.float64)).numpy()
    assert ours.std() == pytest.approx(theirs.std(), rel=0.03)
    if "uniform" in name:
        assert abs(ours).max() == pytest.approx(abs(theirs).max(), rel=1e-3)


def test_gains_are_torchs():
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu"):
        assert gain(name) == pytest.approx(torch.nn.init.calculate_gain(name), rel=1e-15)
