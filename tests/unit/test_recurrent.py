"""Recurrent layers: the unrolled cells are their oracle, and every fault of the originals is a test."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy
import pytest
from harness import assert_same, run

from mtorch import Bidirectional, Graph, Input, Recurrent, Sequential, ShapeMismatchError, accelerate, fast, layers
from mtorch.fast import threads
from mtorch.fast.numpy import recurrence
from mtorch.layer import EMPTY, Layer
from mtorch.testing import check_gradients, strict

D, H, N = 3, 4, 2
KINDS = ["RNN", "GRU", "LSTM"]
LENGTHS = [1, 2, 5, 10, 50, 400]
every_kind = pytest.mark.parametrize("kind", KINDS)
accelerated = pytest.mark.skipif(not fast.ENABLED, reason="nothing is replaced")
every_length = pytest.mark.parametrize("steps", LENGTHS)


def normal(*shape, seed=0):
    return numpy.random.default_rng((seed, *shape)).standard_normal(shape)


def state_of(kind, *shape, seed=1):
    h, c = normal(*shape, seed=seed), normal(*shape, seed=seed + 1)
    return (h, c) if kind == "LSTM" else h


def parts(state):
    return state if isinstance(state, tuple) else (state,)


def fused(kind, in_dim=D, **options):
    return getattr(layers, kind)(in_dim, H, dtype="float64", rng=3, **options)


def unrolled(kind, values, suffix="_l0", in_dim=D):
    """Recurrent(cell) with the values of one layer and direction of a fused layer."""
    cell = getattr(layers, f"{kind}Cell")(in_dim, H, bias=f"bias_ih{suffix}" in values, dtype="float64")
    cell.load_state_dict({name: values[name + suffix] for name in cell.parameters()})
    return Recurrent(cell)


def grads_of(layer):
    return {name: p.grad.copy() for name, p in layer.parameters().items()}


# ---------------------------------------------------------------------- fused layers equal unrolled cells


@every_kind
@every_length
@pytest.mark.parametrize("bias", [True, False])
def test_the_fused_layer_equals_the_unrolled_cell_in_value_and_every_gradient(kind, steps, bias):
    ours = fused(kind, bias=bias)
    oracle = unrolled(kind, ours.state_dict())
    value = state_of(kind, N, H), normal(steps, N, D)
    y, dx, grads = run(ours, value)
    expected_y, expected_dx, expected = run(oracle, value)
    assert_same(y, expected_y, 1e-12)
    assert_same(dx, expected_dx, 1e-10)
    for name, grad in grads.items():
        assert_same(grad, expected["cell." + name.removesuffix("_l0")], 1e-10)


@every_kind
def test_layers_equal_a_chain_of_unrolled_cells(kind):
    ours = fused(kind, num_layers=3)
    values = ours.state_dict()
    chain = Sequential([unrolled(kind, values, f"_l{i}", D if i == 0 else H) for i in range(3)])
    y, dx, grads = run(ours, normal(6, N, D))
    expected_y, expected_dx, expected = run(chain, normal(6, N, D))
    assert_same(y, expected_y, 1e-12)
    assert_same(dx, expected_dx, 1e-12)
    for name, grad in grads.items():
        kind_of, _, layer = name.rpartition("_l")
        assert_same(grad, expected[f"{layer}.cell.{kind_of}"], 1e-12)


@every_kind
@every_length
def test_two_directions_equal_bidirectional_unrolled_cells(kind, steps):
    ours = fused(kind, bidirectional=True)
    values = ours.state_dict()
    oracle = Bidirectional(unrolled(kind, values), unrolled(kind, values, "_l0_reverse"))
    y, dx, grads = run(ours, normal(steps, N, D))
    expected_y, expected_dx, expected = run(oracle, normal(steps, N, D))
    assert_same(y, expected_y, 1e-12)
    assert_same(dx, expected_dx, 1e-10)
    for name, grad in grads.items():
        side = "b" if name.endswith("_reverse") else "a"
        assert_same(grad, expected[f"{side}.cell.{name.removesuffix('_reverse').removesuffix('_l0')}"], 1e-10)


@every_kind
def test_with_lengths_the_layer_equals_each_sequence_run_alone_through_the_cells(kind):
    lengths, steps = [3, 7, 1, 7], 7
    ours = fused(kind, bidirectional=True, return_state=True)
    values = ours.state_dict()
    oracle = Bidirectional(unrolled(kind, values), unrolled(kind, values, "_l0_reverse"))
    x, dy = normal(steps, 4, D), normal(steps, 4, 2 * H, seed=5)
    last, y = ours((None, x, numpy.array(lengths)))
    _, dx, _ = ours.backward((None, dy))
    for n, length in enumerate(lengths):
        assert_same(oracle(x[:length, n : n + 1]), y[:length, n : n + 1], 1e-12)
        for direction, side in enumerate((oracle.a, oracle.b)):
            for mine, alone in zip(parts(last), parts(side.final_state), strict=True):
                assert_same(mine[direction, n : n + 1], alone, 1e-12)
        assert_same(oracle.backward(dy[:length, n : n + 1]), dx[:length, n : n + 1], 1e-12)
        assert not y[length:, n].any() and not dx[length:, n].any()
    expected = grads_of(oracle)
    for name, grad in grads_of(ours).items():
        side = "b" if name.endswith("_reverse") else "a"
        assert_same(grad, expected[f"{side}.cell.{name.removesuffix('_reverse').removesuffix('_l0')}"], 1e-12)


@every_kind
def test_with_lengths_the_gradients_of_state_and_output_agree_with_finite_differences(kind):
    ours = getattr(layers, kind)(2, 2, bidirectional=True, return_state=True, rng=0)
    value = state_of(kind, 2, 3, 2), normal(5, 3, 2), numpy.array([3, 5, 1])
    assert check_gradients(ours, value, "longdouble") < 1e-10


@every_kind
def test_padding_gets_no_gradient_and_gives_none_whatever_stands_in_it(kind):
    ours, lengths = fused(kind, num_layers=2, bidirectional=True), numpy.array([2, 4, 1])
    x, dy = normal(4, 3, D), normal(4, 3, 2 * H)
    beyond = numpy.arange(4)[:, None] >= lengths
    y = ours((None, x, lengths))
    _, dx, _ = ours.backward(dy)
    expected = grads_of(ours)
    ours.zero_grad()
    x[beyond], dy[beyond] = numpy.nan, 1e300
    got_y = ours((None, x, lengths))
    _, got_dx, _ = ours.backward(dy)
    assert_same(got_y, y)
    assert_same(got_dx, dx)
    assert not y[beyond].any() and not dx[beyond].any()
    for name, grad in grads_of(ours).items():
        assert_same(grad, expected[name])


@every_kind
def test_full_lengths_change_nothing(kind):
    ours = fused(kind, num_layers=2, bidirectional=True)
    y, dx, grads = run(ours, normal(5, N, D))
    full_y, (no_state, full_dx, no_lengths), full = run(ours, (None, normal(5, N, D), numpy.full(N, 5)))
    assert no_state is None and no_lengths is None
    assert_same(full_y, y)
    assert_same(full_dx, dx)
    for name in grads:
        assert_same(full[name], grads[name])


@every_kind
@accelerated
@pytest.mark.parametrize("steps, batch, hidden", [(1, 1, 1), (7, 3, 4), (2, 40, 120), (30, 5, 30)])
def test_the_fast_bodies_equal_the_references(kind, steps, batch, hidden, monkeypatch):
    monkeypatch.setattr(recurrence, "BLOCK", 2 * batch * hidden)  # several blocks
    lengths = numpy.random.default_rng(0).integers(1, steps + 1, batch)
    nonlinear = [{"nonlinearity": "tanh"}, {"nonlinearity": "relu"}] if kind == "RNN" else [{}]
    for padded, both, given, bias, option in itertools.product(*[(True, False)] * 4, nonlinear):
        options = option | {"bidirectional": both, "bias": bias, "return_state": True}
        layer = getattr(layers, kind)(D, hidden, dtype="float64", rng=3, **options)
        state = state_of(kind, 1 + both, batch, hidden) if given else None
        value = (state, normal(steps, batch, D), lengths)[: 2 + padded]
        assert_fast_equals_reference(layer, value, 1e-10)


def assert_fast_equals_reference(layer, value, tolerance):
    found = run(layer, value)
    with fast.disabled():
        wanted = run(layer, value)
    assert_same(found[:2], wanted[:2], tolerance)
    for name, grad in found[2].items():
        assert_same(grad, wanted[2][name], tolerance)


# ---------------------------------------------------------------------- faults of the originals


@every_kind
@every_length
def test_the_gradient_of_h0_is_that_of_h0_and_not_of_h1(kind, steps):
    cell = getattr(layers, f"{kind}Cell")(D, H, dtype="float64", rng=3)
    ours = fused(kind)
    ours.load_state_dict({name + "_l0": value for name, value in cell.state_dict().items()})
    state, x, dy = state_of(kind, N, H), normal(steps, N, D), normal(steps, N, H, seed=4)
    ours((state, x))
    got, _ = ours.backward(dy)
    first, _ = cell((state, x[0]))
    after = tuple(numpy.zeros((N, H)) for _ in parts(first))
    if steps > 1:
        ours((first, x[1:]))
        after = parts(ours.backward(dy[1:])[0])
    expected, _ = cell.backward((after if kind == "LSTM" else after[0], dy[0]))
    for a, b, c in zip(parts(got), parts(expected), after, strict=True):
        assert_same(a, b, 1e-12)
        assert numpy.abs(a - c).max() > 1e-6


@every_kind
@every_length
def test_every_step_goes_back_with_its_own_cache(kind, steps):
    """The original reused the last step's: its weight gradient was off by 100 % at T = 5."""
    ours = fused(kind)
    x, dy = normal(steps, N, D), normal(steps, N, H, seed=4)
    ours(x)
    ours.backward(dy)
    h = 1e-5
    for name in ("weight_ih_l0", "weight_hh_l0"):
        parameter = getattr(ours, name)
        direction = normal(*parameter.value.shape, seed=9)
        slope = 0.0
        for sign in (1, -1):
            moved = fused(kind)
            getattr(moved, name).value += sign * h * direction
            slope += sign * float((moved.predict(x) * dy).sum()) / (2 * h)
        assert abs(float((parameter.grad * direction).sum()) - slope) <= 1e-6 * max(1.0, abs(slope))


def test_the_candidate_of_the_lstm_reads_h_and_its_gates_are_sigmoids():
    ours = fused("LSTM")
    (h, c), x = state_of("LSTM", N, H), normal(1, N, D)
    z = x[0] @ ours.weight_ih_l0.value.T + ours.bias_ih_l0.value + h @ ours.weight_hh_l0.value.T + ours.bias_hh_l0.value
    i, f, g, o = (z[:, k * H : (k + 1) * H] for k in range(4))

    def sigmoid(a):
        return 1 / (1 + numpy.exp(-a))

    new_c = sigmoid(f) * c + sigmoid(i) * numpy.tanh(g)
    assert_same(ours(((h, c), x))[0], sigmoid(o) * numpy.tanh(new_c), 1e-14)
    assert_same(ours.final_state[1], new_c, 1e-14)


def test_closed_gates_are_zero_and_not_minus_one():
    ours = fused("LSTM")
    ours.bias_ih_l0.value[: 2 * H] = -1e4  # input and forget gate closed: nothing is written, everything forgotten
    ours((state_of("LSTM", N, H), normal(3, N, D)))
    assert numpy.abs(ours.final_state[1]).max() < 1e-300
    unit = fused("GRU")
    unit.bias_ih_l0.value[H : 2 * H] = 1e4  # update gate open: the state stays
    h0 = normal(N, H)
    assert_same(unit((h0, normal(3, N, D)))[-1], h0, 1e-12)


@every_length
def test_each_step_of_the_lstm_goes_back_through_the_tanh_of_its_own_cell_state(steps):
    ours = fused("LSTM")
    ours.weight_hh_l0.value[...] = 0  # h then has no influence: dc runs through the forget gates alone
    (h, c), x, dy = state_of("LSTM", N, H), normal(steps, N, D), normal(steps, N, H, seed=4)
    ours(((h, c), x))
    (dh0, dc0), _ = ours.backward(dy)
    z = x @ ours.weight_ih_l0.value.T + ours.bias_ih_l0.value + ours.bias_hh_l0.value
    i, f, o = (1 / (1 + numpy.exp(-z[:, :, k * H : (k + 1) * H])) for k in (0, 1, 3))
    g, cells = numpy.tanh(z[:, :, 2 * H : 3 * H]), [c]
    for t in range(steps):
        cells.append(f[t] * cells[-1] + i[t] * g[t])
    expected = numpy.zeros((N, H))
    for t in range(steps - 1, -1, -1):
        expected = (expected + dy[t] * o[t] * (1 - numpy.tanh(cells[t + 1]) ** 2)) * f[t]
    assert_same(dc0, expected, 1e-12)
    assert not dh0.any()


@every_kind
@every_length
def test_caches_and_states_are_not_kept_from_call_to_call(kind, steps):
    ours, value = fused(kind, num_layers=2), normal(steps, N, D)
    first = run(ours, value)
    ours(normal(steps + 3, N, D, seed=7))  # a forward that is never answered
    ours.backward(normal(steps + 3, N, H))
    ours.zero_grad()
    assert ours._memory is EMPTY
    for again in (ours, ours):
        y = again(value)
        assert_same(y, first[0])
        again.discard()
    for one, other in zip(run(ours, value)[2].values(), first[2].values(), strict=True):
        assert_same(one, other)


@every_kind
@every_length
def test_sequences_of_a_batch_do_not_mix(kind, steps):
    """The state was averaged over the batch."""
    ours = fused(kind)
    x, state = normal(steps, 5, D), state_of(kind, 5, H)
    y = ours((state, x))
    dstate, dx = ours.backward(normal(steps, 5, H, seed=4))
    for n in range(5):
        own = slice(n, n + 1)
        start = tuple(part[own] for part in parts(state))
        assert_same(ours((start if kind == "LSTM" else start[0], x[:, own])), y[:, own], 1e-12)
        alone, alone_dx = ours.backward(normal(steps, 5, H, seed=4)[:, own])
        assert_same(alone_dx, dx[:, own], 1e-12)
        for a, b in zip(parts(alone), parts(dstate), strict=True):
            assert_same(a, b[own], 1e-12)


@every_kind
def test_400_steps_and_more_need_no_recursion(kind):
    steps, limit = 1500, sys.getrecursionlimit()
    ours = fused(kind)
    oracle = unrolled(kind, ours.state_dict())
    sys.setrecursionlimit(400)
    try:
        for layer in (ours, oracle):
            layer.backward(numpy.ones_like(layer(normal(steps, 1, D))))
    finally:
        sys.setrecursionlimit(limit)


# ---------------------------------------------------------------------- chunks


@every_kind
@every_length
def test_truncated_backpropagation_carries_the_state_on_without_its_gradient(kind, steps):
    ours, x = fused(kind), normal(3 * steps, N, D)
    whole = ours(x)
    ours.discard()
    ours.final_state = None
    for k in range(3):
        chunk = x[k * steps : (k + 1) * steps]
        state = ours.final_state
        y = ours(chunk if state is None else (state, chunk))
        assert_same(y, whole[k * steps : (k + 1) * steps], 1e-12)
        ours.backward(numpy.ones_like(y))  # ends at the chunk's first step
    total = grads_of(ours)
    ours.zero_grad()
    ours(x)
    ours.backward(numpy.ones_like(whole))
    assert any(numpy.abs(total[name] - p.grad).max() > 1e-6 for name, p in ours.parameters().items())


@every_kind
def test_a_state_gradient_handed_back_makes_chunks_exact(kind):
    ours, x, dy = fused(kind, num_layers=2, return_state=True), normal(9, N, D), normal(9, N, H, seed=4)
    ours(x)
    zero = tuple(numpy.zeros((2, N, H)) for _ in range(2))
    dx = ours.backward((zero if kind == "LSTM" else zero[0], dy))
    whole = grads_of(ours)
    ours.zero_grad()

    start, _ = ours(x[:4])
    ours((start, x[4:]))
    dstart, late = ours.backward((None, dy[4:]))
    ours(x[:4])
    early = ours.backward((dstart, dy[:4]))
    assert_same(numpy.concatenate((early, late)), dx, 1e-12)
    for name, grad in grads_of(ours).items():
        assert_same(grad, whole[name], 1e-12)


# ---------------------------------------------------------------------- forms, options, errors


@every_kind
def test_the_state_and_its_gradient_have_the_form_that_came(kind):
    x, ours = normal(4, N, D), fused(kind)
    for shape in ((N, H), (1, N, H)):
        y = ours((state_of(kind, *shape), x))
        dstate, dx = ours.backward(y)
        assert {part.shape for part in parts(dstate)} == {part.shape for part in parts(ours.final_state)} == {shape}
    ours(x)
    assert {part.shape for part in parts(ours.final_state)} == {(1, N, H)}
    dstate, dx = (ours((None, x)), ours.backward(y))[1]
    assert dstate is None and dx.shape == x.shape


@every_kind
def test_batch_first_swaps_x_and_y_but_not_the_state(kind):
    plain, swapped = fused(kind, num_layers=2), fused(kind, num_layers=2, batch_first=True)
    state, x, lengths = state_of(kind, 2, N, H), normal(5, N, D), [5, 2]
    y, (dstate, dx, _), grads = run(plain, (state, x, lengths))
    twin_y = swapped((state, x.transpose(1, 0, 2), lengths))
    twin_dstate, twin_dx, _ = swapped.backward(numpy.random.default_rng(2).standard_normal(y.shape).transpose(1, 0, 2))
    assert_same(twin_y.transpose(1, 0, 2), y)
    assert_same(twin_dx.transpose(1, 0, 2), dx)
    for a, b in zip(parts(twin_dstate), parts(dstate), strict=True):
        assert_same(a, b)
    for name, grad in grads_of(swapped).items():
        assert_same(grad, grads[name])


@every_kind
@pytest.mark.parametrize("dtype", ["float32", "float64", "longdouble"])
def test_nothing_overflows_at_ten_thousand(kind, dtype):
    ours = getattr(layers, kind)(D, H, dtype=dtype, rng=0)
    y = ours(1e4 * normal(5, N, D))
    dx = ours.backward(y)
    assert numpy.isfinite(y).all() and numpy.isfinite(dx).all() and numpy.abs(y).max() <= 1


def test_a_state_that_is_only_kept_may_be_any_number():
    layer = layers.RNN(2, 3, bidirectional=True, rng=0)  # backwards the first state is kept through the padding
    x = numpy.random.default_rng(0).standard_normal((4, 2, 2)).astype("float32")
    h0 = numpy.full((2, 2, 3), 1e30, "float32")
    y = layer((h0, x, [2, 4]))
    dh0, dx, _ = layer.backward(numpy.ones_like(y))
    assert numpy.isfinite(y).all() and numpy.isfinite(dx).all() and not dx[2:, 0].any()
    assert all(numpy.isfinite(parameter.grad).all() for parameter in layer.parameters().values())


@every_kind
def test_dropout_acts_between_layers_in_training_only(kind):
    ours, x = fused(kind, num_layers=2, dropout=0.5), normal(6, N, D)
    plain = fused(kind, num_layers=2)
    assert_same(ours.predict(x), plain.predict(x))
    first, *others = (ours(x) for _ in range(3))
    for one, other in itertools.combinations((first, *others), 2):
        assert numpy.abs(one - other).max() > 1e-3
    ours.set_random_state(ours.random_state() | {"counter": 0})
    assert_same(ours(x), first)
    one, alone = fused(kind, num_layers=2, dropout=1), fused(kind, num_layers=2)
    alone.weight_ih_l1.value[...] = 0
    assert_same(one(x), alone(x))
    single = fused(kind, dropout=0.9)
    assert_same(single(x), fused(kind)(x))


def test_dropout_between_layers_scales_what_it_keeps_and_each_layer_has_a_mask_of_its_own():
    ours = layers.RNN(H, H, num_layers=3, bias=False, dropout=0.25, nonlinearity="relu", dtype="float64", rng=0)
    for name, parameter in ours.parameters().items():
        parameter.value = numpy.eye(H) * name.startswith("weight_ih")
    x = numpy.ones((8, 16, H))
    y = ours(x)
    kept = y > 0
    numpy.testing.assert_allclose(y, kept / 0.75**2)
    assert abs(kept.mean() - 0.75**2) < 0.1
    numpy.testing.assert_allclose(ours.backward(x), kept / 0.75**2)


@every_kind
def test_initial_values_fill_the_interval_of_one_over_the_root_of_the_units(kind):
    for layer in (getattr(layers, kind)(9, 64, rng=0), getattr(layers, f"{kind}Cell")(9, 64, rng=0)):
        values = numpy.concatenate([p.value.ravel() for p in layer.parameters().values()])
        assert 0.999 / 8 < values.max() <= 1 / 8 and -1 / 8 <= values.min() < -0.999 / 8


@every_kind
def test_predict_leaves_the_final_state_alone(kind):
    ours = fused(kind)
    oracle = unrolled(kind, ours.state_dict())
    for layer in (ours, oracle):
        layer(normal(4, N, D))
        before = layer.final_state
        layer.predict(normal(6, N, D))
        with pytest.raises(RuntimeError, match="predict"):
            layer.final_state  # noqa: B018
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(getattr, layer, "final_state").result() is before


@every_kind
def test_an_empty_batch_gives_an_empty_result(kind):
    ours = fused(kind, num_layers=2, bidirectional=True)
    y = ours(numpy.zeros((3, 0, D)))
    assert y.shape == (3, 0, 2 * H) and ours.backward(y).shape == (3, 0, D)
    assert not ours.weight_hh_l0.grad.any()


@every_kind
@pytest.mark.parametrize(
    "lengths, error",
    [([5, 4, 1], ValueError), ([4, 0, 1], ValueError), ([4, -1, 1], ValueError), ([4, 4], ShapeMismatchError),
     ([4.0, 2.0, 1.0], TypeError), ([[4, 2, 1]], ShapeMismatchError), ([True, True, True], TypeError)],
)  # fmt: skip
def test_lengths_that_fit_no_sequence_are_refused_by_a_call_and_by_forward(kind, lengths, error):
    ours, x = fused(kind), normal(4, 3, D)
    for call in (lambda: ours((None, x, lengths)), lambda: ours.forward((None, x, numpy.array(lengths)))):
        with pytest.raises(error, match=kind):
            call()
        assert ours._memory is EMPTY


@every_kind
def test_inputs_that_do_not_fit_are_refused(kind):
    ours, x = fused(kind, num_layers=2), normal(4, N, D)
    for bad in (x[0], normal(4, N, D + 1), x[:0], (x,), (None, x, None, None), (None, None), (None, (x, x))):
        with pytest.raises(ShapeMismatchError, match=kind):
            ours(bad)
    good = state_of(kind, 2, N, H)
    wrong = [state_of(kind, *shape) for shape in ((N, H), (1, N, H), (2, N + 1, H), (2, N, H + 1))]
    form = r"a state \(h, c\) of two arrays of shape" if kind == "LSTM" else "expected a state of shape"
    for state in (*wrong, (good,), (good, good, good)):
        with pytest.raises(ShapeMismatchError, match=form):
            ours((state, x))
    with pytest.raises(ShapeMismatchError, match="state"):
        ours((normal(2, N, H) if kind == "LSTM" else (good, good), x))


@every_kind
@pytest.mark.parametrize(
    "options, error",
    [({"out_dim": 0}, ValueError), ({"in_dim": 0}, ValueError), ({"out_dim": 2.5}, TypeError),
     ({"num_layers": 0}, ValueError), ({"dropout": 1.1}, ValueError), ({"dropout": -0.1}, ValueError),
     ({"dropout": float("nan")}, ValueError), ({"dtype": "int32"}, ValueError)],
)  # fmt: skip
def test_options_that_make_no_sense_are_refused(kind, options, error):
    with pytest.raises(error):
        getattr(layers, kind)(**({"in_dim": 2, "out_dim": 3} | options))


def test_an_unknown_nonlinearity_is_refused():
    for make in (layers.RNN, layers.RNNCell):
        with pytest.raises(ValueError, match="nonlinearity"):
            make(2, 3, nonlinearity="sigmoid")


def test_sequential_finds_sizes_that_do_not_fit():
    Sequential([layers.LSTM(3, 4, bidirectional=True), layers.Linear(8, 1)])
    Sequential([Bidirectional(layers.GRU(3, 4), Recurrent(layers.GRUCell(3, 2))), layers.Linear(6, 1)])
    for net in ([layers.LSTM(3, 4), layers.Linear(3, 1)], [layers.Linear(2, 2), Recurrent(layers.RNNCell(3, 1))]):
        with pytest.raises(ShapeMismatchError):
            Sequential(net)


# ---------------------------------------------------------------------- cells and containers


class Doubling(Layer):
    """A cell of one's own: (s, x) -> (2 s + x, s)."""

    def forward(self, value):
        s, x = value
        self.remember(True)
        return 2 * s + x, s + 0

    def backward(self, output_grad):
        self.recall()
        return 2 * output_grad[0] + output_grad[1], output_grad[0]


def test_recurrent_unrolls_any_layer_from_state_and_x_to_state_and_y():
    net, x = Recurrent(Doubling(dtype="float64")), normal(5, N, H)
    assert check_gradients(net, (normal(N, H), x)) < 1e-6
    with pytest.raises(ShapeMismatchError, match="no initial state"):
        net(x)
    with pytest.raises(ShapeMismatchError, match="state, y"):
        Recurrent(layers.Add())((normal(N, H), x))


def test_a_state_that_is_left_out_is_not_given_to_the_cell_to_cast():
    class Picky(Doubling):
        def cast_input(self, value):
            return value[0] + 0.0, value[1] + 0.0

    with pytest.raises(ShapeMismatchError, match="because the cell has no initial state"):
        Recurrent(Picky(dtype="float64"))((None, normal(4, N, D)))


def test_recurrent_unrolls_a_graph_that_reads_ids():
    state, ids = Input(), Input()
    nn = layers.on(dtype="float64", rng=0)
    new, y = nn.GRUCell(D, H)((state, nn.Embedding(7, D)(ids)))
    net = Recurrent(Graph.of((new, nn.Linear(H, 2)(y)), inputs=(state, ids)))
    ids = numpy.array([[1, 2], [6, 1], [0, 0]])
    assert net((normal(N, H), ids)).shape == (3, N, 2)
    net.discard()
    assert check_gradients(net, (normal(N, H), ids)) < 1e-6
    with pytest.raises(ValueError, match="ids in"):
        net((normal(N, H), ids + 1))


@every_kind
def test_recurrent_takes_what_rnn_takes(kind):
    net = unrolled(kind, fused(kind).state_dict())
    x, state = normal(4, N, D), state_of(kind, 1, N, H)
    y = net((state, x))
    dstate, dx = net.backward(y)
    assert {part.shape for part in parts(dstate)} == {part.shape for part in parts(net.final_state)} == {(1, N, H)}
    net((None, x))
    assert net.backward(y)[0] is None
    with pytest.raises(ShapeMismatchError, match="expected x"):
        net(normal(0, N, D))
    with pytest.raises(ShapeMismatchError, match="Cell"):
        net((state_of(kind, N, H + 1), x))


@every_kind
def test_cells_start_from_zeros_and_refuse_other_shapes(kind):
    cell = getattr(layers, f"{kind}Cell")(D, H)
    state, _ = cell((cell.initial_state(N), normal(N, D)))
    assert [part.shape for part in parts(state)] == [(N, H)] * len(parts(cell.initial_state(N)))
    assert not any(part.any() for part in parts(cell.initial_state(N)))
    cell.discard()
    x, start = normal(N, D), cell.initial_state(N)
    for bad in (x, (start, normal(N, H)), (cell.initial_state(3), x), (start, x, x), (None, None), (None, x)):
        with pytest.raises(ShapeMismatchError, match="Cell"):
            cell(bad)


@every_kind
def test_the_output_of_a_cell_and_its_state_are_two_arrays(kind):
    cell = getattr(layers, f"{kind}Cell")(D, H, dtype="float64", rng=0)
    state, y = cell((cell.initial_state(N), normal(N, D)))
    for part in parts(state):
        assert not numpy.shares_memory(part, y)


def test_bidirectional_really_reverses():
    net = Bidirectional(fused("RNN"), fused("RNN"))
    x = normal(5, N, D)
    y = net(x)
    late = x.copy()
    late[-1] += 1
    moved = net(late)
    assert_same(moved[:-1, :, :H], y[:-1, :, :H])  # what reads forwards does not see the last step before it comes
    assert (numpy.abs(moved - y)[:, :, H:] > 0).all()  # what reads backwards carries it to all steps
    with pytest.raises(ShapeMismatchError, match="Bidirectional"):
        net((x, x))


def test_bidirectional_takes_a_sequence_of_single_rows():
    a, b = (layers.Linear(D, H, dtype="float64", rng=i) for i in (0, 1))
    x = normal(5, D)
    assert_same(Bidirectional(a, b)(x), numpy.concatenate((a(x), b(x)), axis=1))
    with pytest.raises(ShapeMismatchError, match="expected input of shape"):
        Bidirectional(a, b)(x[0])


@every_kind
def test_wrong_lengths_on_a_device_are_raised_at_the_next_host_read(kind):
    ours = getattr(layers, kind)(D, H, xp=strict, rng=0)
    x = strict.asarray(normal(4, 2, D), dtype="float32")
    with strict.count_synchronisations() as places:
        ours((None, x, strict.asarray([4, 5])))
    assert places == []
    with pytest.raises(ValueError, match="lengths from 1 to 4"):
        ours.state_dict()
    with pytest.raises(ValueError, match="lengths from 1 to 4"):
        ours((None, x, [4, 5]))


@every_kind
@accelerated
@pytest.mark.parametrize(("rows", "there", "back"), [(20, 64, 64), (50, 64, 32), (200, 32, None)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_products_that_blas_does_not_pack_equal_the_references(monkeypatch, kind, rows, there, back, bidirectional):
    """The weights lie as (G / B, K, B) for products of at most a million multiplications."""
    monkeypatch.setattr(recurrence, "has_small_kernels", lambda: True)
    hidden, size = (256 if kind == "RNN" else 128), 20
    bias = rows != 50  # without a bias there are less columns
    layer = getattr(layers, kind)(size, hidden, bias=bias, bidirectional=bidirectional, dtype="float64", rng=0)
    if kind == "LSTM":
        joined = numpy.zeros((hidden + 1 + size, 4 * hidden))
        for matrix, width in ((joined, there), (layer.weight_hh_l0.value, back)):
            copy, _ = recurrence.right_factor(matrix, rows)
            assert copy.shape[2:] == (() if width is None else (width,))
            assert width is None or rows * copy[0].size <= 1_000_000
    x, state = normal(3, rows, size), state_of(kind, layer.directions, rows, hidden)
    for value in ((state, x), (state, x, numpy.random.default_rng(0).integers(1, 4, rows))):
        assert_fast_equals_reference(layer, value, 1e-9)


def test_products_are_cut_only_where_that_pays(monkeypatch):
    def cut(matrix, rows):
        return recurrence.right_factor(matrix, rows)[0].ndim == 3

    large = numpy.zeros((135, 512))
    monkeypatch.setattr(recurrence, "has_small_kernels", lambda: True)
    assert cut(large, 100)
    assert not cut(large, 10)  # BLAS takes it whole
    assert not cut(large, 10_000)  # many rows
    assert not cut(numpy.zeros((135, 408)), 100)  # widths that do not divide
    assert not cut(numpy.zeros((35, 128)), 1000)  # a small matrix
    monkeypatch.setattr(recurrence, "has_small_kernels", lambda: False)
    assert not cut(large, 100)


def in_turn(function, count, operations):
    """`threads.in_threads` with three threads, one after the other."""
    bounds = [count * i // 3 for i in range(4)]
    return [function(range(low, high)) for low, high in itertools.pairwise(bounds) if low < high]


@every_kind
@accelerated
@pytest.mark.parametrize(
    "options",
    [{}, {"bidirectional": True, "num_layers": 2, "bias": False}, {"batch_first": True, "return_state": True}],
)
@pytest.mark.parametrize("batch", [3, 4, 6, 7, 13])
def test_a_batch_that_threads_divide_gives_the_same(monkeypatch, kind, options, batch):
    layer = fused(kind, **options)
    x = normal(*((batch, 4) if layer.batch_first else (4, batch)), D)
    state = state_of(kind, layer.num_layers * layer.directions, batch, H)
    values = x, (state, x), (None, x, numpy.arange(batch) % 4 + 1)
    whole = [run(layer, value) for value in values]
    parts_of = []
    monkeypatch.setattr(recurrence, "WIDE", H)
    monkeypatch.setattr(recurrence, "SHARE", 2)
    monkeypatch.setattr(recurrence.threads, "count", lambda: 2)
    monkeypatch.setattr(recurrence.threads, "in_threads", lambda *args: parts_of.append(args[1]) or in_turn(*args))
    for value, expected in zip(values, whole, strict=True):
        assert_same(run(layer, value)[:2], expected[:2], 1e-13)
        for name, grad in run(layer, value)[2].items():
            assert_same(grad, expected[2][name], 1e-13)
    assert set(parts_of) == ({batch // 2} | {min(3, batch // 2)} if batch > 3 else set())


@every_kind
@accelerated
def test_threads_divide_only_long_steps_on_the_host(monkeypatch, kind):
    divided = []
    monkeypatch.setattr(recurrence.threads, "count", lambda: 2)
    monkeypatch.setattr(recurrence.threads, "in_threads", lambda *args: divided.append(args[1:]) or in_turn(*args))
    wide, narrow = (getattr(layers, kind)(2, size, rng=0) for size in (recurrence.WIDE, recurrence.WIDE - 1))
    assert accelerate.multithreaded(wide) and accelerate.multithreaded(narrow)  # BLAS has one thread in every step
    share = recurrence.SHARE
    multiplications = 3 * 2 * share * (wide.weight_ih_l0.value.size + wide.weight_hh_l0.value.size)
    for layer, batch, parts in ((wide, 2 * share, [2]), (wide, 2 * share - 1, []), (narrow, 9 * share, [])):
        divided.clear()
        y = layer(numpy.zeros((3, batch, 2), "float32"))
        layer.backward(y)
        assert divided == [(count, multiplications) for count in parts] * 2
    with threads.one_thread():
        monkeypatch.undo()
        assert threads.count() == 1


@every_kind
def test_the_threads_of_this_machine_give_the_same_as_one(kind):
    layer = getattr(layers, kind)(5, recurrence.WIDE, dtype="float64", rng=0)
    x = normal(6, 3 * recurrence.SHARE + 1, 5)
    found = run(layer, x)
    with threads.one_thread():
        wanted = run(layer, x)
    assert_same(found[:2], wanted[:2], 1e-12)
    for name, grad in found[2].items():
        assert_same(grad, wanted[2][name], 1e-12)
