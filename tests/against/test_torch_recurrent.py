"""RNN, GRU and LSTM against torch: values, all gradients, state dicts, for every option."""

import itertools

import numpy
import pytest

import mtorch
from mtorch import layers

torch = pytest.importorskip("torch")
T, N, D, H = 5, 3, 2, 4
KINDS = [("RNN", {}), ("RNN", {"nonlinearity": "relu"}), ("GRU", {}), ("LSTM", {})]
every_kind = pytest.mark.parametrize("kind, options", KINDS, ids=["tanh", "relu", "gru", "lstm"])


@pytest.fixture(autouse=True)
def _one_thread():
    """Tiny products: threads would only wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def pair(kind, **options):
    """Ours and theirs with the same values, by a state dict that needs no renaming."""
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, H, dtype=torch.float64, **options)
    ours = getattr(layers, kind)(D, H, dtype="float64", rng=0, **options)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.named_parameters()})
    return ours, theirs


def tensor(array):
    return torch.tensor(array, requires_grad=True)


def run_theirs(net, x, state, lengths, batch_first, dy, dstate):
    """(y, last state, dx, dstate, parameter gradients); dstate also cotangents for the last state."""
    x, state = tensor(x), [tensor(part) for part in state]
    fed = x
    if lengths is not None:
        fed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=batch_first, enforce_sorted=False
        )
    given = (state[0] if len(state) == 1 else tuple(state)) if state else None
    y, last = net(fed, given)
    if lengths is not None:
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(y, batch_first=batch_first, total_length=T)
    last = last if isinstance(last, tuple) else (last,)
    total = (y * torch.tensor(dy)).sum() + sum((s * torch.tensor(d)).sum() for s, d in zip(last, dstate, strict=True))
    total.backward()
    grads = {name: p.grad.numpy() for name, p in net.named_parameters()}
    numbers = [v.detach().numpy() for v in (y, *last)]
    return numbers[0], numbers[1:], x.grad.numpy(), [part.grad.numpy() for part in state], grads


def close(a, b):
    numpy.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def as_tuple(value):
    return value if isinstance(value, tuple) else (value,)


@every_kind
@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_parity_for_layers_directions_bias_given_state_and_lengths(kind, options, num_layers, bidirectional):
    rng = numpy.random.default_rng(1)
    cells, width = num_layers * (1 + bidirectional), H * (1 + bidirectional)
    arrays_in_state = 2 if kind == "LSTM" else 1
    for bias, given, lengths in itertools.product((True, False), (True, False), (None, [5, 2, 4], [3, 1, 2])):
        batch_first = given != bias
        more = options | {"num_layers": num_layers, "bidirectional": bidirectional, "bias": bias}
        ours, theirs = pair(kind, **more, batch_first=batch_first)
        lead = (N, T) if batch_first else (T, N)
        x, dy = rng.standard_normal((*lead, D)), rng.standard_normal((*lead, width))
        state = [rng.standard_normal((cells, N, H)) for _ in range(arrays_in_state * given)]
        dstate = [rng.standard_normal((cells, N, H)) for _ in range(arrays_in_state)]
        y, last, dx, dstart, grads = run_theirs(theirs, x, state, lengths, batch_first, dy, dstate)

        ours.return_state = True
        fed = (state[0] if len(state) == 1 else tuple(state)) if given else None
        answer = (fed, x) if lengths is None else (fed, x, numpy.array(lengths))
        got_last, got_y = ours(answer)
        got = ours.backward((dstate[0] if arrays_in_state == 1 else tuple(dstate), dy))
        close(got_y, y)
        for a, b in zip(as_tuple(got_last), last, strict=True):
            close(a, b)
        for a, b in zip(as_tuple(ours.final_state), last, strict=True):
            close(a, b)
        assert len(got) == len(answer) and (lengths is None or got[2] is None)
        close(got[1], dx)
        if given:
            for a, b in zip(as_tuple(got[0]), dstart, strict=True):
                close(a, b)
        else:
            assert got[0] is None
        assert ours.parameters().keys() == grads.keys()
        for name, parameter in ours.parameters().items():
            close(parameter.grad, grads[name])


@every_kind
def test_state_dicts_go_both_ways_without_renaming(kind, options):
    for more in ({}, {"num_layers": 2, "bidirectional": True}, {"num_layers": 3, "bias": False}):
        ours, theirs = pair(kind, **options, **more)
        assert list(ours.state_dict()) == list(theirs.state_dict())
        fresh = getattr(layers, kind)(D, H, dtype="float64", rng=5, **options, **more)
        theirs.load_state_dict({name: torch.from_numpy(value) for name, value in fresh.state_dict().items()})
        x = numpy.random.default_rng(0).standard_normal((T, N, D))
        close(fresh(x), theirs(torch.from_numpy(x))[0].detach().numpy())


@every_kind
def test_initial_values_are_drawn_as_torch_draws_them(kind, options):
    torch.manual_seed(0)
    ours = getattr(layers, kind)(30, 64, num_layers=2, rng=0, **options)
    theirs = getattr(torch.nn, kind)(30, 64, num_layers=2, **options)
    for name, p in theirs.named_parameters():
        value = ours.parameters()[name].value
        assert value.shape == tuple(p.shape) and numpy.abs(value).max() <= 1 / 8
        assert abs(value.std() - p.detach().numpy().std()) < 0.2 * value.std()


@pytest.mark.parametrize("kind", ["RNNCell", "GRUCell", "LSTMCell"])
@pytest.mark.parametrize("bias", [True, False])
def test_cells_equal_torchs_cells(kind, bias):
    rng = numpy.random.default_rng(0)
    theirs = getattr(torch.nn, kind)(D, H, bias=bias, dtype=torch.float64)
    ours = getattr(layers, kind)(D, H, bias=bias, dtype="float64")
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.named_parameters()})
    x, dy = rng.standard_normal((N, D)), rng.standard_normal((N, H))
    state = tuple(rng.standard_normal((N, H)) for _ in range(2 if kind == "LSTMCell" else 1))
    dstate = tuple(rng.standard_normal((N, H)) for _ in state)
    single = len(state) == 1
    new, y = ours((state[0] if single else state, x))
    got = ours.backward((dstate[0] if single else dstate, dy))

    tx, ts = tensor(x), [tensor(part) for part in state]
    out = as_tuple(theirs(tx, ts[0] if single else tuple(ts)))
    total = (out[0] * torch.tensor(dy)).sum() + sum(
        (s * torch.tensor(d)).sum() for s, d in zip(out, dstate, strict=True)
    )
    total.backward()
    close(y, out[0].detach().numpy())
    for a, b in zip(as_tuple(new), out, strict=True):
        close(a, b.detach().numpy())
    close(got[1], tx.grad.numpy())
    for a, b in zip(as_tuple(got[0]), ts, strict=True):
        close(a, b.grad.numpy())
    for name, p in theirs.named_parameters():
        close(ours.parameters()[name].grad, p.grad.numpy())


@every_kind
def test_float32_stays_close_to_torch_over_long_sequences(kind, options):
    torch.manual_seed(0)
    theirs = getattr(torch.nn, kind)(D, 16, **options)
    ours = getattr(layers, kind)(D, 16, rng=0, **options)
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.named_parameters()})
    x = numpy.random.default_rng(0).standard_normal((200, 8, D)).astype("float32")
    y = ours(x)
    expected = theirs(torch.from_numpy(x))[0]
    assert y.dtype == numpy.float32
    numpy.testing.assert_allclose(y, expected.detach().numpy(), rtol=0, atol=2e-5)
    expected.square().sum().backward()
    ours.backward(2 * y)
    for name, p in theirs.named_parameters():
        scale = float(p.grad.abs().max())
        numpy.testing.assert_allclose(ours.parameters()[name].grad / scale, p.grad.numpy() / scale, rtol=0, atol=2e-5)


def test_a_torch_sequential_of_the_same_layers_gives_its_state_dict():
    theirs = torch.nn.Sequential(torch.nn.LSTM(D, H, num_layers=2, bidirectional=True), torch.nn.Linear(2 * H, 1))
    ours = mtorch.Sequential([layers.LSTM(D, H, num_layers=2, bidirectional=True), layers.Linear(2 * H, 1)])
    ours.load_state_dict({name: value.detach().numpy() for name, value in theirs.state_dict().items()})
    x = numpy.random.default_rng(0).standard_normal((T, N, D)).astype("float32")
    expected = theirs[1](theirs[0](torch.from_numpy(x))[0]).detach().numpy()
    numpy.testing.assert_allclose(ours(x), expected, rtol=0, atol=1e-6)
