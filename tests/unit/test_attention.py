"""Embedding, positions and attention beyond what the conformance suite shows."""

import numpy
import pytest

from mtorch import ShapeMismatchError, initializers, layers
from mtorch.arrays import as_numpy
from mtorch.layers.attention import forbidden
from mtorch.testing import strict

RNG = numpy.random.default_rng(0)
X = RNG.standard_normal((5, 2, 8))


def attention(**options):
    return layers.MultiHeadAttention(8, 2, dtype="float64", rng=0, **options)


def test_repeated_ids_accumulate():
    layer = layers.Embedding(4, 2, dtype="float64")
    layer(numpy.array([1, 1, 3, 1]))
    layer.backward(numpy.arange(8.0).reshape(4, 2))
    numpy.testing.assert_array_equal(layer.weight.grad, [[0, 0], [8, 11], [0, 0], [4, 5]])


def test_the_padding_row_is_read_but_has_no_gradient():
    layer = layers.Embedding(4, 2, padding_idx=-3)
    assert layer.padding_idx == 1 and not layer.weight.value[1].any()
    layer.weight.value[1] = 5
    assert (layer([1, 2])[0] == 5).all()
    layer.backward(numpy.ones((2, 2)))
    layer([1, 2])
    layer.backward(numpy.ones((2, 2)))
    numpy.testing.assert_array_equal(layer.weight.grad, [[0, 0], [0, 0], [2, 2], [0, 0]])


def test_an_embedding_starts_with_what_init_draws():
    table = numpy.arange(8.0).reshape(4, 2)
    layer = layers.Embedding(4, 2, 1, init=lambda *_: table)
    assert layer.weight.value.tolist() == [[0, 1], [0, 0], [4, 5], [6, 7]]  # the padding row starts at zero
    assert table[1].tolist() == [2, 3]  # and that of whoever drew it stays
    seen = []
    layers.Embedding(30, 5, init=lambda rng, *more: seen.append(more) or rng.standard_normal(more[0]))
    assert seen == [((30, 5), 5, 30)]
    uniform = layers.Embedding(30, 5, init=initializers.uniform(-0.1, 0.1), rng=0).weight.value
    assert 0.05 < abs(uniform).max() <= 0.1
    with pytest.raises(TypeError, match="Embedding expected a function from mtorch.initializers as init, got 'normal'"):
        layers.Embedding(4, 2, init="normal")
    with pytest.raises(ValueError, match=r"Embedding expected init to return an array of shape \(4, 2\), got float64"):
        layers.Embedding(4, 2, init=lambda *_: numpy.zeros(2))


@pytest.mark.parametrize("ids", [[0, 4], [-1], numpy.array([200], "uint8"), numpy.array([[4]], "int16")])
def test_an_id_out_of_range_is_an_error_that_names_the_layer(ids):
    for layer in (layers.Embedding(4, 2), layers.Embedding(4, 2, xp=strict)):
        with pytest.raises(ValueError, match=r"Embedding\(4, 2\) expected ids in \[0, 4\), got"):
            layer(ids)


@pytest.mark.parametrize("ids", [[0, 4], [-1]])
def test_an_id_out_of_range_is_refused_in_the_middle_of_a_net_too(ids):
    layer = layers.Embedding(4, 2)
    with pytest.raises(ValueError, match=r"expected ids in \[0, 4\), got"):
        layer.forward(numpy.array(ids))


def test_an_id_out_of_range_on_a_device_is_raised_at_the_next_host_read():
    layer = layers.Embedding(4, 2, xp=strict)
    with strict.count_synchronisations() as places:
        y = layer(strict.asarray(numpy.array([1, 4])))
    assert places == [] and numpy.isnan(y.get()[1]).all() and not numpy.isnan(y.get()[0]).any()
    with pytest.raises(ValueError, match=r"Embedding\(4, 2\) expected ids in \[0, 4\)"):
        layer.state_dict()
    layer.state_dict()


@pytest.mark.parametrize("ids", [[0.0, 1.0], numpy.array([True]), ["a"], numpy.array([1 + 0j])])
def test_ids_that_are_no_integers_are_a_type_error(ids):
    with pytest.raises(TypeError, match="Embedding"):
        layers.Embedding(4, 2)(ids)


@pytest.mark.parametrize("padding", [4, -5])
def test_a_padding_index_out_of_range_is_refused(padding):
    with pytest.raises(ValueError, match="padding_idx"):
        layers.Embedding(4, 2, padding_idx=padding)


def test_self_attention_is_attention_to_itself():
    layer = attention()
    numpy.testing.assert_allclose(layer(X), layer((X, X, X)), rtol=1e-12)


def test_tokens_are_mixed():
    """An original's attention mixed none."""
    layer, moved = attention(), X.copy()
    moved[3] += 1
    assert (abs(layer(moved)[0] - layer(X)[0]) > 1e-6).all()


def test_causal_attention_does_not_see_the_future():
    layer, moved = attention(causal=True), X.copy()
    moved[3:] += 1
    numpy.testing.assert_array_equal(layer(moved)[:3], layer(X)[:3])
    assert (layer(moved)[3] != layer(X)[3]).all()
    future = numpy.triu(numpy.ones((5, 5), bool), 1)
    numpy.testing.assert_allclose(attention()((X, X, X, future)), layer(X), rtol=1e-12)


def test_masks_of_booleans_and_numbers_and_of_every_shape_agree():
    layer = attention()
    hidden = RNG.random((2, 1, 5)) < 0.4
    hidden[:, :, 0] = False
    expected = layer((X, X, X, hidden))
    full = numpy.broadcast_to(hidden, (2, 5, 5))
    for mask in (full, numpy.where(hidden, -numpy.inf, 0.0), numpy.repeat(full, 2, axis=0)):
        numpy.testing.assert_allclose(layer((X, X, X, mask)), expected, rtol=1e-12)


def by_hand(layer, query, key, value, bias):
    """One product, one softmax and one mean after the other; bias (N, H, L, S) is added to the scores."""
    e, heads = layer.embed_dim, layer.num_heads
    w, b, d = layer.in_proj_weight.value, layer.in_proj_bias.value, e // heads
    q, k, v = (x @ w[i * e : (i + 1) * e].T + b[i * e : (i + 1) * e] for i, x in enumerate((query, key, value)))
    context = numpy.empty_like(query)
    for n in range(query.shape[1]):
        for h in range(heads):
            mine = slice(h * d, (h + 1) * d)
            scores = numpy.exp(q[:, n, mine] @ k[:, n, mine].T / d**0.5 + bias[n, h])
            context[:, n, mine] = scores / scores.sum(axis=1, keepdims=True) @ v[:, n, mine]
    return layer.out_proj(context)


@pytest.mark.parametrize("causal", [False, True])
def test_every_mask_is_that_of_its_sample_and_head(causal):
    rng, (n, heads, length, size) = numpy.random.default_rng(3), (3, 2, 4, 5)
    layer = attention(causal=causal)
    for parameter in layer.parameters().values():
        parameter.value[...] = rng.standard_normal(parameter.value.shape)
    query, key, value = (rng.standard_normal((t, n, 8)) for t in (length, size, size))
    future = numpy.triu(numpy.full((length, size), -numpy.inf), 1) if causal else 0
    for shape in ((length, size), (n, length, size), (n, 1, size), (n * heads, length, size)):
        mask = rng.standard_normal(shape)
        mask[rng.random(shape) < 0.3] = -numpy.inf
        mask[..., 0] = 1.0
        given = mask.reshape(n, heads, length, size) if len(mask) == n * heads else mask
        full = numpy.broadcast_to(given if given.ndim != 3 else given[:, None], (n, heads, length, size))
        expected = by_hand(layer, query, key, value, full + future)
        numpy.testing.assert_allclose(layer((query, key, value, mask)), expected, rtol=1e-10, atol=1e-12)


def test_weights_begin_as_torchs_do():
    """in_proj uniform within sqrt(6 / (E + 3E)), out_proj within 1 / sqrt(E)."""
    layer = layers.MultiHeadAttention(64, 4, rng=0)
    bounds = ((layer.in_proj_weight, (6 / 256) ** 0.5, 0.9999), (layer.out_proj.weight, 64**-0.5, 0.9996))
    for weight, bound, nearly in bounds:
        assert nearly * bound < abs(weight.value).max() <= bound


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "longdouble"])
def test_what_is_forbidden_is_far_below_every_score_and_finite(dtype):
    low = numpy.dtype(dtype).type(forbidden(numpy.dtype(dtype)))
    assert numpy.isfinite(low) and low / 2 < -1e4 and numpy.exp(low / 2) == 0


def test_a_query_that_may_see_nothing_gives_zeros_not_nan():
    layer, mask = attention(), numpy.zeros((5, 5), bool)
    mask[2] = True
    y = layer((X, X, X, mask))
    numpy.testing.assert_array_equal(y[2], numpy.broadcast_to(layer.out_proj.bias.value, (2, 8)))
    dq, dk, dv, nothing = layer.backward(numpy.ones_like(y))
    assert nothing is None and not dq[2].any() and numpy.isfinite(dk).all() and numpy.isfinite(dv).all()


@pytest.mark.parametrize("xp", [numpy, strict])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_large_scores_are_a_certain_choice(dtype, xp):
    layer = layers.MultiHeadAttention(8, 2, xp=xp, dtype=dtype, rng=0)
    x = xp.asarray(1e4 * X, dtype=dtype)
    with numpy.errstate(over="raise", invalid="raise", divide="raise"):
        y, dx = layer(x), layer.backward(x)
    assert numpy.isfinite(as_numpy(y)).all() and numpy.isfinite(as_numpy(dx)).all()


@pytest.mark.parametrize("scale", [1, 1e4, 1e18])
def test_where_the_choice_is_certain_scores_have_no_gradient(scale):
    """One key: dq and dk are 0 and not what roundings leave, which Adam would take for a direction."""
    layer = layers.MultiHeadAttention(16, 4, rng=0)
    rng = numpy.random.default_rng(0)
    query, key = ((scale * rng.standard_normal(shape)).astype("float32") for shape in ((5, 2, 16), (1, 2, 16)))
    layer((query, key, key))
    layer.backward(rng.standard_normal((5, 2, 16)).astype("float32"))
    assert not layer.in_proj_weight.grad[:32].any() and layer.in_proj_weight.grad[32:].any()


def test_what_does_not_fit_is_refused():
    layer = attention()
    mask = numpy.zeros((4, 5), bool)
    for wrong in (X[0], X[..., :7], (X, X), (X, X[:3], X), (X, X[:, :1], X[:, :1]), (X, X, X, mask)):
        with pytest.raises(ShapeMismatchError, match=r"MultiHeadAttention\(8, 2\)"):
            layer(wrong)
    with pytest.raises(TypeError, match="mask"):
        layer((X, X, X, numpy.zeros((5, 5), int)))
    with pytest.raises(ValueError, match="divide"):
        layers.MultiHeadAttention(8, 3)


def test_a_sequence_longer_than_the_table_is_refused():
    with pytest.raises(ShapeMismatchError, match="T <= 4"):
        layers.PositionalEmbedding(4, 8)(X)


def test_fixed_positions_are_sines_and_cosines():
    y = layers.PositionalEmbedding(9, 8, learned=False, dtype="float64")(numpy.zeros((5, 1, 8)))[:, 0]
    assert y[3, 0] == numpy.sin(3.0) and y[3, 1] == numpy.cos(3.0)
    numpy.testing.assert_allclose((y**2).sum(axis=1), 4)
    for pair, rate in enumerate((1, 0.1, 0.01, 0.001)):
        numpy.testing.assert_allclose(y[3, 2 * pair : 2 * pair + 2], [numpy.sin(3 * rate), numpy.cos(3 * rate)])


def test_the_repr_shows_what_was_chosen():
    assert repr(layers.MultiHeadAttention(4, 2)) == "MultiHeadAttention(4, 2)"
    chosen = layers.MultiHeadAttention(4, 2, dropout=0.1, causal=True)
    assert repr(chosen) == "MultiHeadAttention(4, 2, dropout=0.1, causal=True)"
