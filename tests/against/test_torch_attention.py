"""Attention and embedding against PyTorch, in float64."""

import numpy
import pytest

torch = pytest.importorskip("torch")

from mtorch import Residual, Sequential, layers  # noqa: E402

RNG = numpy.random.default_rng(0)


def tensor(x):
    return torch.tensor(x, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("mask", [None, "bool", "float", "heads"])
@pytest.mark.parametrize("own", [True, False])
def test_attention_equals_torchs(bias, mask, own):
    ours = layers.MultiHeadAttention(6, 3, bias=bias, keep_weights=True, dtype="float64", rng=0)
    theirs = torch.nn.MultiheadAttention(6, 3, bias=bias, dtype=torch.float64)
    theirs.load_state_dict({name: torch.tensor(value) for name, value in ours.state_dict().items()})
    arrays = [RNG.standard_normal((4, 2, 6))] if own else [RNG.standard_normal((n, 2, 6)) for n in (4, 5, 5)]
    tensors = [tensor(a) for a in arrays]
    keys = arrays[-1].shape[0]
    hidden = {
        None: None,
        "bool": RNG.random((4, keys)) < 0.3,
        "float": RNG.standard_normal((4, keys)),
        "heads": RNG.standard_normal((6, 4, keys)),
    }[mask]
    given = arrays[0] if own else tuple(arrays)
    if hidden is not None:
        given = (*(arrays * 3 if own else arrays), hidden)
    y = ours(given)
    target = None if hidden is None else torch.tensor(hidden)
    given = tensors * 3 if own else tensors
    expected, weights = theirs(*given, attn_mask=target, average_attn_weights=False)
    numpy.testing.assert_allclose(y, expected.detach(), rtol=1e-9, atol=1e-12)
    numpy.testing.assert_allclose(ours.attention_weights, weights.detach(), rtol=1e-9, atol=1e-12)
    grad = RNG.standard_normal(y.shape)
    got = ours.backward(grad)
    expected.backward(torch.tensor(grad))
    if own:
        total = got if hidden is None else got[0] + got[1] + got[2]
        numpy.testing.assert_allclose(total, tensors[0].grad, rtol=1e-9, atol=1e-12)
    else:
        for mine, other in zip(got, tensors, strict=False):
            numpy.testing.assert_allclose(mine, other.grad, rtol=1e-9, atol=1e-12)
    for name, parameter in theirs.named_parameters():
        numpy.testing.assert_allclose(ours.parameters()[name].grad, parameter.grad, rtol=1e-9, atol=1e-12)


def test_embedding_equals_torchs():
    ours = layers.Embedding(7, 3, padding_idx=2, dtype="float64", rng=0)
    theirs = torch.nn.Embedding(7, 3, padding_idx=2, dtype=torch.float64)
    theirs.load_state_dict({"weight": torch.tensor(ours.state_dict()["weight"])})
    ids, grad = RNG.integers(0, 7, (4, 5)), RNG.standard_normal((4, 5, 3))
    expected = theirs(torch.tensor(ids))
    numpy.testing.assert_array_equal(ours(ids), expected.detach())
    ours.backward(grad)
    expected.backward(torch.tensor(grad))
    numpy.testing.assert_allclose(ours.weight.grad, theirs.weight.grad, rtol=1e-12)


def test_a_transformer_block_of_our_parts_equals_torchs():
    nn = layers.on(dtype="float64", rng=0)
    attention, one, two = nn.MultiHeadAttention(8, 2), nn.Linear(8, 16), nn.Linear(16, 8)
    ours = Sequential(
        Residual(Sequential(nn.LayerNorm(8), attention)),
        Residual(Sequential(nn.LayerNorm(8), one, nn.GELU(), two)),
    )
    theirs = torch.nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", norm_first=True, dtype=torch.float64)
    parts = {"self_attn": attention, "linear1": one, "linear2": two}
    state = theirs.state_dict()
    for prefix, part in parts.items():
        state |= {f"{prefix}.{name}": torch.tensor(value) for name, value in part.state_dict().items()}
    theirs.load_state_dict(state)
    x, grad = RNG.standard_normal((5, 3, 8)), RNG.standard_normal((5, 3, 8))
    given = tensor(x)
    expected = theirs(given)
    numpy.testing.assert_allclose(ours(x), expected.detach(), rtol=1e-9, atol=1e-12)
    expected.backward(torch.tensor(grad))
    numpy.testing.assert_allclose(ours.backward(grad), given.grad, rtol=1e-9, atol=1e-12)
    named = dict(theirs.named_parameters())
    for prefix, part in parts.items():
        for name, parameter in part.parameters().items():
            numpy.testing.assert_allclose(parameter.grad, named[f"{prefix}.{name}"].grad, rtol=1e-9, atol=1e-12)
