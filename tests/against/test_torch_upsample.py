"""Upsample against PyTorch in float64: values and gradients, every mode, up and down."""

import numpy
import pytest

from mtorch import layers

torch = pytest.importorskip("torch")

CASES = [
    (options | mode, shape)
    for mode, shape in (
        ({}, (2, 3, 5, 4)), ({}, (2, 3, 5)), ({"mode": "linear"}, (2, 3, 5)), ({"mode": "bilinear"}, (2, 3, 5, 4)),
        ({"mode": "linear", "align_corners": True}, (2, 3, 5)),
        ({"mode": "bilinear", "align_corners": True}, (2, 3, 5, 4)), ({"mode": "bilinear"}, (1, 1, 1, 1)),
    )
    for options in (
        {"scale_factor": 2}, {"scale_factor": 3.0}, {"scale_factor": 1.3}, {"size": 1}, {"size": 5}, {"size": 12},
        *([{"size": (3, 9)}, {"scale_factor": (2.5, 1)}] if len(shape) == 4 else [{"size": (9,)}]),
    )
]  # fmt: skip


@pytest.mark.parametrize("options, shape", CASES, ids=str)
def test_values_and_gradients_are_torchs(options, shape):
    rng = numpy.random.default_rng(0)
    x = rng.standard_normal(shape)
    given = torch.tensor(x, requires_grad=True)
    expected = torch.nn.Upsample(**options)(given)
    ours = layers.Upsample(**options, dtype="float64")
    numpy.testing.assert_allclose(ours(x), expected.detach().numpy(), rtol=0, atol=1e-9)
    g = rng.standard_normal(tuple(expected.shape))
    expected.backward(torch.tensor(g))
    numpy.testing.assert_allclose(ours.backward(g), given.grad.numpy(), rtol=0, atol=1e-9)
