"""Normalisation against torch in float64: values, gradients and running statistics over several batches."""

import numpy
import pytest

from mtorch import layers

torch = pytest.importorskip("torch")

CASES = [
    ("BatchNorm1d", (3,), {}, (6, 3)),
    ("BatchNorm1d", (3,), {"eps": 0.1, "momentum": 0.3}, (6, 3, 4)),
    ("BatchNorm1d", (3,), {"affine": False}, (6, 3, 4)),
    ("BatchNorm2d", (3,), {}, (6, 3, 4, 5)),
    ("BatchNorm2d", (2,), {"eps": 1e-3, "momentum": 1.0}, (2, 2, 1, 1)),
    ("BatchNorm1d", (3,), {"momentum": None}, (6, 3)),
    ("BatchNorm2d", (3,), {"momentum": None, "affine": False}, (6, 3, 4, 5)),
    ("InstanceNorm1d", (3,), {}, (6, 3, 4)),
    ("InstanceNorm1d", (3,), {"eps": 0.1, "affine": True}, (2, 3, 5)),
    ("InstanceNorm1d", (3, 1e-3, 0.3, False, True), {}, (4, 3, 5)),
    ("InstanceNorm2d", (3,), {"affine": True, "track_running_stats": True}, (4, 3, 4, 5)),
    ("InstanceNorm2d", (2,), {"momentum": 1.0, "track_running_stats": True}, (1, 2, 2, 1)),
    ("InstanceNorm2d", (2,), {}, (3, 2, 1, 2)),
    ("LayerNorm", (7,), {}, (4, 5, 7)),
    ("LayerNorm", ((5, 7),), {"eps": 0.1}, (4, 5, 7)),
    ("LayerNorm", (7,), {"bias": False}, (4, 7)),
    ("LayerNorm", (7,), {"elementwise_affine": False}, (4, 7)),
    ("RMSNorm", (7,), {}, (4, 5, 7)),
    ("RMSNorm", ((5, 7),), {"eps": 0.1}, (4, 5, 7)),
    ("RMSNorm", (7,), {"elementwise_affine": False}, (7,)),
    ("GroupNorm", (2, 6), {}, (4, 6)),
    ("GroupNorm", (3, 6), {"eps": 0.1}, (4, 6, 5)),
    ("GroupNorm", (1, 6), {}, (4, 6, 5, 2)),
    ("GroupNorm", (6, 6), {"affine": False}, (4, 6, 5, 2)),
]


@pytest.mark.parametrize("name, sizes, options, shape", CASES)
def test_float16_is_torchs_to_within_its_rounding(name, sizes, options, shape):
    """torch makes the statistics of half precision in float32 too; here the squares leave the range of float16."""
    rng = numpy.random.default_rng(0)
    ours = getattr(layers, name)(*sizes, **options, dtype="float16")
    theirs = getattr(torch.nn, name)(*sizes, **options, dtype=torch.float16)
    x, g = (5 + 300 * rng.standard_normal(shape)).astype("float16"), rng.standard_normal(shape).astype("float16")
    given = torch.tensor(x, requires_grad=True)
    y = theirs(given)
    y.backward(torch.tensor(g))
    pairs = [(ours(x), y.detach()), (ours.backward(g), given.grad)]
    pairs += [(ours.parameters()[key].grad, parameter.grad) for key, parameter in theirs.named_parameters()]
    pairs += [(ours.state_dict()[key], value) for key, value in theirs.state_dict().items() if "running" in key]
    for mine, other in pairs:
        exact = other.numpy().astype("float64")
        assert mine.dtype == numpy.float16
        inside = numpy.isfinite(exact)  # a variance may leave the range of float16, in both
        assert (mine[~inside] == exact[~inside]).all()
        mine, exact = mine[inside], exact[inside]
        assert not exact.size or abs(mine - exact).max() <= 2.0**-8 * abs(exact).max() + 1e-4


@pytest.mark.parametrize("name, sizes, options, shape", CASES)
def test_values_gradients_and_statistics_are_torchs(name, sizes, options, shape):
    rng = numpy.random.default_rng(0)
    ours = getattr(layers, name)(*sizes, **options, dtype="float64")
    theirs = getattr(torch.nn, name)(*sizes, **options, dtype=torch.float64)
    for _, parameter in theirs.named_parameters():
        parameter.data.copy_(torch.tensor(rng.standard_normal(parameter.shape)))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict({key: value.numpy() for key, value in theirs.state_dict().items()})
    for training in (True, True, False, True, False):
        ours.train(training), theirs.train(training)
        x, g = 2 + 3 * rng.standard_normal(shape), rng.standard_normal(shape)
        given = torch.tensor(x, requires_grad=True)
        theirs.zero_grad()
        y = theirs(given)
        y.backward(torch.tensor(g))
        assert abs(ours(x) - y.detach().numpy()).max() <= 1e-9
        ours.zero_grad()
        assert abs(ours.backward(g) - given.grad.numpy()).max() <= 1e-9
        for key, parameter in theirs.named_parameters():
            assert abs(ours.parameters()[key].grad - parameter.grad.numpy()).max() <= 1e-9
        for key, value in theirs.state_dict().items():
            assert abs(ours.state_dict()[key] - value.numpy()).max() <= 1e-9
