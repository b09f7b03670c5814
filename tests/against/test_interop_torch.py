"""To and from PyTorch: state dicts, optimizer states, whole nets and safetensors; a run goes on in either library."""

import copy
import pickle
import re
from pathlib import Path

import numpy
import pytest
from harness import final_classes

import mtorch
from mtorch import Input, Layer, Module, MSELoss, Sequential, interop, layers, models, optim
from mtorch.optim import schedules
from mtorch.testing import strict

torch = pytest.importorskip("torch")
nn = torch.nn


def on(dtype="float64", rng=0):
    return layers.on(numpy, dtype=dtype, rng=rng)


def tensors(value):
    if isinstance(value, tuple):
        return tuple(map(tensors, value))
    return None if value is None else torch.from_numpy(numpy.array(value))


def arrays(value):
    return tuple(map(arrays, value)) if isinstance(value, tuple) else value.detach().numpy()


def assert_close(ours, theirs, bound):
    if isinstance(ours, tuple):
        for a, b in zip(ours, theirs, strict=True):
            assert_close(a, b, bound)
        return
    assert ours.shape == theirs.shape
    numpy.testing.assert_allclose(ours, theirs, rtol=bound, atol=bound)


def assert_same_bits(a, b):
    a, b = a.state_dict(), b.state_dict()
    assert list(a) == list(b)
    for name in a:
        assert a[name].dtype == b[name].dtype and a[name].tobytes() == b[name].tobytes(), name


# ---------------------------------------------------------------------- state dicts


def mixed(dtype="float32"):
    make = on(dtype)
    return Sequential(
        make.Conv2d(1, 2, 3, bias=False), make.BatchNorm2d(2), make.ReLU(), make.Flatten(),
        Sequential(make.Linear(8, 6), make.LayerNorm(6)), make.Linear(6, 3),
    )  # fmt: skip


def mixed_torch():
    return nn.Sequential(
        nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(),
        nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6)), nn.Linear(6, 3),
    )  # fmt: skip


def test_a_state_dict_moves_both_ways_under_its_own_names():
    ours, theirs = mixed(), mixed_torch()
    theirs(torch.randn(4, 1, 4, 4, generator=torch.Generator().manual_seed(0)))  # renews the running statistics
    ours.load_state_dict(theirs.state_dict())
    assert ours.state_dict()["1.num_batches_tracked"] == 1
    other = mixed_torch()
    result = other.load_state_dict(interop.to_torch_state_dict(ours))
    assert not result.missing_keys and not result.unexpected_keys
    for name, tensor in theirs.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]) and tensor.dtype == other.state_dict()[name].dtype


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_tensors_of_any_dtype_that_need_a_gradient_become_arrays(dtype):
    net = nn.Linear(3, 2).to(getattr(torch, dtype))
    state = interop.from_torch_state_dict(dict(net.named_parameters()))
    layer = layers.Linear(3, 2, dtype="float64")
    layer.load_state_dict(state)
    numpy.testing.assert_array_equal(layer.weight.value, net.weight.detach().double().numpy())
    state["weight"][:] = 0
    assert net.weight.abs().min() > 0  # they are copies


def test_tensors_are_copies_and_a_shared_parameter_has_all_its_paths():
    layer = on().Linear(3, 3)
    net = Sequential(layer, on().Tanh(), layer)
    state = interop.to_torch_state_dict(net)
    assert list(state) == ["0.weight", "0.bias", "2.weight", "2.bias"]
    state["0.weight"].zero_()
    assert abs(layer.weight.value).max() > 0
    assert interop.to_torch_state_dict(on("longdouble").Linear(2, 2))["weight"].dtype == torch.float64


def test_a_wrong_state_dict_is_refused_with_all_its_names():
    with pytest.raises(ValueError, match=r"missing: 0.bias; unexpected: 1.weight; wrong shape: 0.weight has shape"):
        Sequential(on().Linear(3, 2)).load_state_dict(
            interop.from_torch_state_dict({"0.weight": torch.zeros(2, 4), "1.weight": torch.zeros(1)})
        )
    with pytest.raises(TypeError, match="expected a state dict of tensors"):
        interop.from_torch_state_dict(nn.Linear(2, 2))
    with pytest.raises(TypeError, match="expected a module or layer"):
        interop.to_torch_state_dict(nn.Linear(2, 2))


def test_attention_has_torchs_names():
    theirs, ours = nn.MultiheadAttention(6, 2).double(), on().MultiHeadAttention(6, 2)
    ours.load_state_dict(theirs.state_dict())
    theirs.load_state_dict(interop.to_torch_state_dict(ours))
    x = numpy.random.default_rng(0).standard_normal((5, 3, 6))
    assert_close(ours(x), arrays(theirs(*[tensors(x)] * 3)[0]), 1e-12)


# ---------------------------------------------------------------------- optimizers

OPTIMIZERS = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 1e-3, "momentum": 0.9, "dampening": 0.4, "maximize": True}),
    ("Adam", {"lr": 0.02}),
    ("Adam", {"lr": 0.02, "betas": (0.8, 0.99), "eps": 1e-6, "amsgrad": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.02, "weight_decay": 0.3}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "alpha": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("Adagrad", {"lr": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3}),
]
STEPS = 7
DATA = numpy.random.default_rng(1)
BATCHES = list(zip(DATA.standard_normal((4 * STEPS, 6, 4)), DATA.standard_normal((4 * STEPS, 6, 2)), strict=True))


def small():
    make = on()
    return Sequential(make.Linear(4, 5), make.Tanh(), make.Linear(5, 5, bias=False), make.Linear(5, 2))


def step_ours(net, optimizer, batches):
    for x, target in batches:
        MSELoss(net)(net(x), target).backward()
        optimizer.step()


def step_torch(net, optimizer, batches, scheduler=None):
    for x, target in batches:
        optimizer.zero_grad()
        nn.functional.mse_loss(net(tensors(x)), tensors(target)).backward()
        optimizer.step()
        if scheduler is not None:
            scheduler.step()


def assert_same_net(ours, theirs, bound=1e-12):
    for name, value in theirs.state_dict().items():
        numpy.testing.assert_allclose(ours.state_dict()[name], value.numpy(), rtol=0, atol=bound, err_msg=name)


def plain(options):
    """Without the rate and what both libraries share: a torch optimizer gets its options from the state."""
    return {"lr": options["lr"]}


@pytest.mark.parametrize("frozen", [False, True], ids=["all", "frozen"])
@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(OPTIMIZERS)])
def test_a_run_goes_on_in_the_other_library_and_comes_back(name, options, frozen):
    ours = small()
    ours[2].trainable = not frozen
    optimizer = getattr(optim, name)(ours, **options)
    step_ours(ours, optimizer, BATCHES[:STEPS])
    theirs = interop.to_torch(ours)
    assert theirs[2].weight.requires_grad is not frozen
    rival = getattr(torch.optim, name)(theirs.parameters(), **plain(options))
    rival.load_state_dict(interop.to_torch_optimizer_state(optimizer))
    step_ours(ours, optimizer, BATCHES[STEPS : 2 * STEPS])
    step_torch(theirs, rival, BATCHES[STEPS : 2 * STEPS])
    assert_same_net(ours, theirs)
    back = interop.from_torch(theirs)
    resumed = getattr(optim, name)(back, **options)
    interop.from_torch_optimizer_state(resumed, rival.state_dict())
    assert name == "SGD" or resumed.steps == 2 * STEPS
    step_ours(back, resumed, BATCHES[2 * STEPS :])
    step_torch(theirs, rival, BATCHES[2 * STEPS :])
    assert_same_net(back, theirs)


@pytest.mark.parametrize("name, options", OPTIMIZERS, ids=[f"{name}-{i}" for i, (name, _) in enumerate(OPTIMIZERS)])
def test_before_the_first_step_there_is_little_to_take_along(name, options):
    ours = small()
    optimizer = getattr(optim, name)(ours, **options)
    theirs = interop.to_torch(ours)
    rival = getattr(torch.optim, name)(theirs.parameters(), **plain(options))
    rival.load_state_dict(interop.to_torch_optimizer_state(optimizer))
    again = getattr(optim, name)(ours, **options)
    interop.from_torch_optimizer_state(again, rival.state_dict())
    step_ours(ours, again, BATCHES[:STEPS])
    step_torch(theirs, rival, BATCHES[:STEPS])
    assert_same_net(ours, theirs)


@pytest.mark.parametrize("name", ["SGD", "Adam"])
def test_parameters_that_came_later_have_their_own_count(name):
    ours = small()
    options = {"lr": 0.05, "momentum": 0.9, "dampening": 0.5} if name == "SGD" else {"lr": 0.05}
    optimizer = getattr(optim, name)(ours, **options)
    ours[0].trainable = False
    step_ours(ours, optimizer, BATCHES[:STEPS])
    ours[0].trainable = True
    theirs = interop.to_torch(ours)
    rival = getattr(torch.optim, name)(theirs.parameters(), **plain(options))
    rival.load_state_dict(interop.to_torch_optimizer_state(optimizer))
    back = interop.from_torch(theirs)
    resumed = getattr(optim, name)(back, **options)
    interop.from_torch_optimizer_state(resumed, rival.state_dict(), steps=STEPS)
    assert resumed.steps == STEPS
    for net, each in ((ours, optimizer), (back, resumed)):
        step_ours(net, each, BATCHES[STEPS:])
    step_torch(theirs, rival, BATCHES[STEPS:])
    assert_same_net(ours, theirs)
    assert_same_bits(ours, back)


def test_only_the_trainable_parameters_may_be_torchs():
    ours = small()
    ours[0].trainable = False
    optimizer = optim.Adam(ours, 0.05)
    step_ours(ours, optimizer, BATCHES[:STEPS])
    theirs = interop.to_torch(ours)
    rival = torch.optim.Adam([p for p in theirs.parameters() if p.requires_grad], 0.05)
    rival.load_state_dict(interop.to_torch_optimizer_state(optimizer, trainable_only=True))
    step_torch(theirs, rival, BATCHES[STEPS:])
    back = interop.from_torch(theirs)
    resumed = optim.Adam(back, 0.05)
    interop.from_torch_optimizer_state(resumed, rival.state_dict())
    assert resumed.state["2.weight"].steps == len(BATCHES)
    assert "0.weight" not in resumed.state


def test_patterns_are_groups():
    ours = small()
    options = {"lr": 0.05, "weight_decay": {"*": 0.1, "*.bias": 0}, "scale": {"0.*": 0.1}}
    optimizer = optim.AdamW(ours, **options)
    step_ours(ours, optimizer, BATCHES[:STEPS])
    theirs = interop.to_torch(ours)
    state = interop.to_torch_optimizer_state(optimizer)
    parameters = list(theirs.parameters())
    groups = [{"params": [parameters[i] for i in group["params"]]} for group in state["param_groups"]]
    assert len(groups) == 4
    rival = torch.optim.AdamW(groups)
    rival.load_state_dict(state)
    step_ours(ours, optimizer, BATCHES[STEPS:])
    step_torch(theirs, rival, BATCHES[STEPS:])
    assert_same_net(ours, theirs)
    resumed = optim.AdamW(interop.from_torch(theirs), **options)
    interop.from_torch_optimizer_state(resumed, rival.state_dict())
    numpy.testing.assert_allclose(
        resumed.state["3.bias"].arrays.exp_avg, optimizer.state["3.bias"].arrays.exp_avg, rtol=0, atol=1e-12
    )


def test_names_decide_where_torch_was_given_names():
    ours = small()
    theirs = interop.to_torch(ours)
    rival = torch.optim.Adam(list(theirs.named_parameters())[::-1], 0.05)
    step_torch(theirs, rival, BATCHES[:STEPS])
    optimizer = optim.Adam(ours, 0.05)
    ours.load_state_dict(theirs.state_dict())
    interop.from_torch_optimizer_state(optimizer, rival.state_dict())
    step_ours(ours, optimizer, BATCHES[STEPS:])
    step_torch(theirs, rival, BATCHES[STEPS:])
    assert_same_net(ours, theirs)


@pytest.mark.parametrize(
    "ours, theirs",
    [
        (schedules.StepLR(0.05, 5, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 5, 0.5)),
        (schedules.CosineAnnealingLR(0.05, 20), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20)),
        (
            schedules.LinearWarmup(0.05, 15),
            lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1, (k + 1) / 15)),
        ),
    ],
    ids=["step", "cosine", "warm-up"],
)
def test_a_schedule_goes_on(ours, theirs):
    net = small()
    optimizer = optim.Adam(net, ours)
    step_ours(net, optimizer, BATCHES[:STEPS])
    twin = interop.to_torch(net)
    rival = torch.optim.Adam(twin.parameters(), lr=0.05)
    scheduler = theirs(rival)
    rival.load_state_dict(interop.to_torch_optimizer_state(optimizer))
    scheduler.last_epoch = optimizer.steps
    step_torch(twin, rival, BATCHES[STEPS : 3 * STEPS], scheduler)
    back = interop.from_torch(twin)
    resumed = optim.Adam(back, ours)
    interop.from_torch_optimizer_state(resumed, rival.state_dict())
    step_ours(net, optimizer, BATCHES[STEPS:])
    step_ours(back, resumed, BATCHES[3 * STEPS :])
    for name, value in net.state_dict().items():
        numpy.testing.assert_allclose(back.state_dict()[name], value, rtol=0, atol=1e-12)


def test_options_that_differ_are_refused_all_at_once_and_nothing_is_changed():
    net = small()
    theirs = interop.to_torch(net)
    decay = {"weight_decay": 0.1, "decoupled_weight_decay": True}
    rival = torch.optim.Adam(theirs.parameters(), 0.05, betas=(0.8, 0.9), eps=1e-5, amsgrad=True, **decay)
    step_torch(theirs, rival, BATCHES[:1])
    optimizer = optim.Adam(net)
    text = r"betas is \(0.8, 0.9\) there and \(0.9, 0.999\) here; eps .*; amsgrad .*; decoupled_.*; weight_decay is"
    with pytest.raises(ValueError, match=text):
        interop.from_torch_optimizer_state(optimizer, rival.state_dict())
    assert optimizer.steps == 0 and not optimizer.state


def test_states_that_do_not_fit_are_refused():
    net = small()
    rival = torch.optim.Adam(nn.Linear(4, 5).parameters())
    with pytest.raises(ValueError, match=r"expected groups of \[5\] parameters, got \[2\]"):
        interop.from_torch_optimizer_state(optim.Adam(net), rival.state_dict())
    named = torch.optim.Adam([("0.weight", nn.Linear(2, 2).weight), ("other", nn.Linear(2, 2).weight)])
    with pytest.raises(ValueError, match="has no parameters other"):
        interop.from_torch_optimizer_state(optim.Adam(net), named.state_dict())
    with pytest.raises(TypeError, match=r"expected the state_dict\(\) of torch's Adam"):
        interop.from_torch_optimizer_state(optim.Adam(net), rival)

    class Mine(optim.SGD):
        pass

    for function in (interop.to_torch_optimizer_state, lambda o: interop.from_torch_optimizer_state(o, {})):
        with pytest.raises(TypeError, match="expected an optimizer that torch has too"):
            function(Mine(net, 0.1))


@pytest.mark.parametrize("steps", [0, 2])
@pytest.mark.parametrize("theirs", dict.fromkeys(name for name, _ in OPTIMIZERS))
def test_the_state_of_another_optimizer_is_refused(theirs, steps):
    net = small()
    module = interop.to_torch(net)
    rival = getattr(torch.optim, theirs)(module.parameters(), 0.1)
    step_torch(module, rival, BATCHES[:steps])
    for ours in dict.fromkeys(name for name, _ in OPTIMIZERS):
        if ours != theirs:
            optimizer = getattr(optim, ours)(net, 0.1)
            with pytest.raises((TypeError, ValueError), match=f"{ours} expected"):
                interop.from_torch_optimizer_state(optimizer, rival.state_dict())
            assert optimizer.steps == 0 and not optimizer.state


def test_zero_eps_is_ours_made_safe():
    net = small()
    theirs = interop.to_torch(net)
    for name in ("Adam", "RMSprop", "Adagrad", "Adadelta"):
        rival = getattr(torch.optim, name)(theirs.parameters(), eps=0)
        interop.from_torch_optimizer_state(getattr(optim, name)(net, eps=0), rival.state_dict())


# ---------------------------------------------------------------------- nets from torch


def rows(*shape):
    return numpy.random.default_rng(2).standard_normal(shape)


FROM_TORCH = [
    (lambda: nn.Linear(4, 3), (5, 4)),
    (lambda: nn.Linear(4, 3, bias=False), (5, 4)),
    (
        lambda: nn.Sequential(
            nn.ReLU(), nn.LeakyReLU(0.2), nn.ELU(0.7), nn.SiLU(), nn.Sigmoid(), nn.Tanh(), nn.Identity()
        ),
        (3, 4),
    ),
    (lambda: nn.Sequential(nn.GELU(), nn.GELU("tanh"), nn.Softplus(), nn.Softplus(2, 1), nn.PReLU()), (3, 4)),
    (lambda: nn.Sequential(nn.PReLU(4, 0.1), nn.Hardtanh(-0.5, 0.7), nn.ReLU6(), nn.LogSoftmax(-1)), (3, 4)),
    (lambda: nn.Sequential(nn.Softmax(1), nn.Softmax(dim=-1), nn.Dropout(0.4)), (3, 4, 2)),
    (lambda: nn.Conv1d(4, 6, 3, stride=2, padding=1, dilation=2, groups=2), (2, 4, 9)),
    (lambda: nn.Conv1d(4, 6, 3, padding="same", padding_mode="circular", bias=False), (2, 4, 9)),
    (lambda: nn.Conv2d(2, 4, (3, 2), (1, 2), (1, 0), padding_mode="reflect"), (2, 2, 7, 6)),
    (lambda: nn.ConvTranspose1d(4, 2, 3, 2, 1, 1, 2, False), (2, 4, 5)),
    (lambda: nn.ConvTranspose2d(4, 2, (3, 2), (2, 1), 1, (1, 0)), (2, 4, 5, 4)),
    (lambda: nn.Sequential(nn.MaxPool1d(3, 2, 1), nn.AvgPool1d(2, 1, 1, True, False)), (2, 3, 9)),
    (lambda: nn.MaxPool2d((3, 2), ceil_mode=True), (2, 3, 8, 7)),
    (lambda: nn.AvgPool2d(3, 2, (1, 1), ceil_mode=True, count_include_pad=False), (2, 3, 8, 7)),
    (lambda: nn.AdaptiveAvgPool2d((3, 2)), (2, 3, 8, 7)),
    (lambda: nn.Sequential(nn.Upsample(scale_factor=2), nn.Upsample((5, 7), mode="bilinear")), (2, 3, 4, 3)),
    (lambda: nn.Upsample(scale_factor=(1.5, 2), mode="bilinear", align_corners=True), (2, 3, 4, 3)),
    (lambda: nn.Sequential(nn.UpsamplingNearest2d(scale_factor=2), nn.UpsamplingBilinear2d((5, 7))), (2, 3, 4, 3)),
    (lambda: nn.Upsample(7, mode="linear"), (2, 3, 4)),
    (lambda: nn.Sequential(nn.BatchNorm1d(4), nn.BatchNorm1d(4, 1e-3, 0.3, affine=False)), (6, 4)),
    (lambda: nn.Sequential(nn.BatchNorm2d(4, momentum=None), nn.InstanceNorm2d(4, affine=True)), (6, 4, 3, 2)),
    (lambda: nn.InstanceNorm1d(4, eps=0.1, track_running_stats=True), (6, 4, 3)),
    (lambda: nn.Sequential(nn.LayerNorm((3, 4), 1e-3), nn.LayerNorm(4, bias=False)), (2, 3, 4)),
    (lambda: nn.Sequential(nn.LayerNorm(4, elementwise_affine=False), nn.RMSNorm(4), nn.RMSNorm((3, 4), 1)), (2, 3, 4)),
    (lambda: nn.GroupNorm(2, 4, affine=False), (3, 4, 2)),
    (lambda: nn.Sequential(nn.Flatten(), nn.Unflatten(1, (2, 6)), nn.Flatten(1, 2)), (2, 3, 4)),
    (lambda: nn.Sequential(nn.Sequential(nn.Linear(4, 4), nn.Sequential(nn.Tanh())), nn.Sequential()), (2, 4)),
]  # fmt: skip


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("number", range(len(FROM_TORCH)))
def test_a_net_of_torchs_gives_what_it_gave(number, dtype, training):
    make, shape = FROM_TORCH[number]
    torch.manual_seed(number)
    theirs = make().to(getattr(torch, dtype)).train(training)
    for module in theirs.modules():
        if isinstance(module, nn.Dropout):
            module.eval()  # the libraries draw other numbers
        if isinstance(module, nn.modules.batchnorm._NormBase) and module.running_mean is not None:
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 1.5)
    ours = interop.from_torch(theirs, dtype=dtype)
    assert ours.dtype == dtype
    x = rows(*shape).astype(dtype)
    bound = 1e-10 if dtype == "float64" else 1e-5
    assert_close(ours(x), arrays(theirs(tensors(x))), bound)
    assert [layer.training for _, layer in ours.walk()] == [m.training for m in theirs.modules()]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.RNN(3, 4, nonlinearity="relu"),
        lambda: nn.RNN(3, 4, 2, bias=False, batch_first=True),
        lambda: nn.GRU(3, 4, 2, dropout=0.3, bidirectional=True),
        lambda: nn.LSTM(3, 4, 2, bidirectional=True),
    ],
)
def test_recurrent_modules_return_y(make, dtype):
    theirs = make().to(getattr(torch, dtype)).eval()
    ours = interop.from_torch(theirs)
    x = rows(5, 2, 3).astype(dtype)
    assert_close(ours(x), arrays(theirs(tensors(x))[0]), 1e-10 if dtype == "float64" else 1e-5)
    assert not ours.training


def test_cells_attention_and_ids_come_over():
    x, h = rows(2, 3), rows(2, 4)
    for theirs in (nn.RNNCell(3, 4), nn.RNNCell(3, 4, nonlinearity="relu"), nn.GRUCell(3, 4, bias=False)):
        theirs = theirs.double()
        assert_close(interop.from_torch(theirs)((h, x))[1], arrays(theirs(tensors(x), tensors(h))), 1e-10)
    cell = nn.LSTMCell(3, 4).double()
    assert_close(interop.from_torch(cell)(((h, -h), x))[0], arrays(cell(tensors(x), (tensors(h), tensors(-h)))), 1e-10)
    attention = nn.MultiheadAttention(4, 2, dropout=0.2, bias=False).double().eval()
    q, k, v = rows(3, 2, 4), rows(5, 2, 4), rows(5, 2, 4)
    assert_close(interop.from_torch(attention)((q, k, v)), arrays(attention(*map(tensors, (q, k, v)))[0]), 1e-10)
    table = nn.Sequential(nn.Embedding(5, 3, padding_idx=0), nn.Linear(3, 2)).double()
    ids = numpy.array([[0, 4], [2, 2]])
    ours = interop.from_torch(table)
    assert_close(ours(ids), arrays(table(tensors(ids))), 1e-10)
    assert ours.layers[0].padding_idx == 0


def test_what_mtorch_has_not_is_named_all_at_once():
    class Mine(nn.Linear):
        pass

    hooked = nn.Linear(2, 2)
    hooked.register_forward_hook(lambda *_: None)
    net = nn.Sequential(
        nn.Hardswish(),
        nn.Sequential(nn.LSTM(3, 4, proj_size=2), nn.Linear(2, 2), nn.MaxPool2d(2, return_indices=True)),
        Mine(2, 2), nn.Softmax(), hooked, nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)),
        nn.BatchNorm1d(3, track_running_stats=False), nn.MultiheadAttention(4, 2, batch_first=True),
        nn.Unflatten(2, (1, 2)), nn.ConvTranspose1d(1, 1, 3, output_padding=1, dilation=2), nn.LazyLinear(3),
        nn.MultiheadAttention(4, 2, kdim=3), nn.GroupNorm(1, 2),
    )  # fmt: skip
    with pytest.raises(ValueError) as caught:
        interop.from_torch(net)
    text = str(caught.value)
    assert text.startswith("from_torch cannot build 13 of these modules: 0 (Hardswish): mtorch has no such layer; ")
    for part in (
        "1.0 (LSTM): mtorch has no proj_size=2", "1.2 (MaxPool2d): mtorch has no return_indices=True",
        "2 (Mine): no class of torch.nn", "3 (Softmax): mtorch has no dim=None", "4 (Linear): mtorch has no hooks",
        "5 (ParametrizedLinear): no class of torch.nn", "6 (BatchNorm1d): mtorch has no track_running_stats=False",
        "7 (MultiheadAttention): mtorch has no batch_first=True", "8 (Unflatten): mtorch has Reshape",
        "9 (ConvTranspose1d): ConvTranspose1d expected output_padding < stride", "10 (LazyLinear): ",
        "11 (MultiheadAttention): mtorch has no _qkv_same_embed_dim=False",
    ):  # fmt: skip
        assert part in text
    with pytest.raises(TypeError, match="expected a module of torch.nn, got OrderedDict"):
        interop.from_torch(nn.Linear(2, 2).state_dict())
    with pytest.raises(ValueError, match="parameters of one dtype, got float32, float64"):
        interop.from_torch(nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).double()))


def test_a_class_that_only_names_a_chain_is_that_chain():
    class Net(nn.Sequential):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    class Other(Net):
        def forward(self, x):
            return -super().forward(x)

    x, net = rows(4, 3).astype("float32"), Net()
    ours = interop.from_torch(net)
    assert_close(ours(x), arrays(net(tensors(x))), 1e-6)
    rival = torch.optim.Adam(net.named_parameters(), 0.1)
    net(tensors(x)).sum().backward()
    rival.step()
    optimizer = optim.Adam(ours, 0.1)
    interop.from_torch_optimizer_state(optimizer, rival.state_dict())
    assert list(optimizer.state) == ["0.weight", "0.bias", "1.weight", "1.bias"]
    with pytest.raises(ValueError, match=r"the module \(Other\): no class of torch.nn"):
        interop.from_torch(Other())


def test_shared_modules_and_parameters_stay_shared():
    layer = nn.Linear(3, 3)
    tied = nn.Linear(3, 3)
    tied.weight = layer.weight
    ours = interop.from_torch(nn.Sequential(layer, nn.Tanh(), layer, tied))
    assert list(ours.parameters()) == ["0.weight", "0.bias", "3.bias"]
    assert ours[0] is ours[2] and ours[3].weight is ours[0].weight
    theirs = interop.to_torch(ours)
    assert theirs[0] is theirs[2] and theirs[3].weight is theirs[0].weight
    x = rows(4, 3).astype("float32")
    assert_close(ours(x), arrays(theirs(tensors(x))), 1e-6)
    ours.backward(numpy.ones((4, 3), "float32"))
    theirs(tensors(x)).backward(torch.ones(4, 3))
    for parameter, tensor in zip(ours.parameters().values(), theirs.parameters(), strict=True):
        assert_close(parameter.grad, tensor.grad.numpy(), 1e-5)


def test_frozen_parameters_stay_frozen_and_bfloat16_becomes_float32():
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)).bfloat16()
    net[0].bias.requires_grad_(False)
    ours = interop.from_torch(net)
    assert ours.dtype == "float32" and [p.trainable for p in ours.parameters().values()] == [True, False, True, True]
    numpy.testing.assert_array_equal(ours[0].weight.value, net[0].weight.detach().float().numpy())
    assert [p.requires_grad for p in interop.to_torch(ours).parameters()] == [True, False, True, True]


def test_a_net_may_come_to_another_array_module():
    theirs = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 3)).double()
    ours, x = interop.from_torch(theirs, xp=strict), rows(2, 1, 4, 4)
    optimizer = optim.Adam(ours, 0.1)
    y = ours(strict.asarray(x))
    assert_close(y.get(), arrays(theirs(tensors(x))), 1e-10)
    ours.backward(strict.asarray(numpy.ones((2, 3))))
    optimizer.step()
    back = interop.to_torch(ours)
    assert_same_bits(interop.from_torch(back), ours)
    resumed = torch.optim.Adam(back.parameters())
    resumed.load_state_dict(interop.to_torch_optimizer_state(optimizer))
    again = optim.Adam(ours, 0.1)
    interop.from_torch_optimizer_state(again, resumed.state_dict())
    assert again.state["0.weight"].steps == 1
    for name, value in optimizer.state_dict().items():
        numpy.testing.assert_array_equal(again.state_dict()[name], value)


# ---------------------------------------------------------------------- nets to torch and back


def value_of(given, rng):
    if callable(given):
        return given(numpy, rng)
    if any(part is None or isinstance(part, tuple) for part in given):
        return tuple(None if part is None else value_of(part, rng) for part in given)
    return rng.standard_normal(given)


EXAMPLES = [
    cls
    for cls in final_classes(Layer)
    if cls.__module__.startswith("mtorch.")
    and not cls.__module__.startswith("mtorch.interop")  # those that only nets read from ONNX have
    and cls is not mtorch.DataParallel
]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@pytest.mark.parametrize("cls", EXAMPLES, ids=lambda cls: cls.__name__)
def test_every_layer_goes_to_torch_and_comes_back(cls):
    for layer, given in cls.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
        layer.eval()
        theirs = interop.to_torch(layer)
        assert list(theirs.state_dict()) == list(layer.state_dict())
        back = interop.from_torch(theirs, dtype="float64")
        assert_same_bits(layer, back)
        x = value_of(given, numpy.random.default_rng(1))
        if cls is layers.Flatten and x.ndim == 1:
            continue  # torch has no axis 1 there
        y = layer(x)
        assert_close(arrays(theirs(tensors(x))), y, 1e-10)
        assert_close(back(x), y, 1e-12)


def test_softplus_without_a_threshold_is_exact_in_torch_too():
    x = numpy.array([[-50.0, -1.0, 19.0, 25.0, 35.0, 45.0]])
    for beta in (1, 2):
        layer = on().Softplus(beta)
        assert_close(arrays(interop.to_torch(layer)(tensors(x))), layer(x), 1e-15)
    assert interop.to_torch(on().Softplus(2, 1)).threshold == 1


MODELS = {
    "linear": (16,), "mlp": (16,), "deep": (16,), "dropout": (16,), "batchnorm": (16,), "residual": (16,),
    "conv1d": (64,), "scn": (64,), "lenet": (144,), "lenet_large": (256,), "cnn": (64,), "resnet_simple": (64,),
    "resnet": (64,), "rnn": (64,), "gru": (64,), "lstm": (64,), "bilstm": (9,), "transformer": (64,),
}  # fmt: skip


@pytest.mark.parametrize("name", MODELS)
def test_every_model_goes_to_torch_and_comes_back_with_equal_bits(name):
    small = {"deep": 8, "dropout": 8, "batchnorm": 8, "residual": 8}
    options = {"hidden": small[name]} if name in small else {}
    model = getattr(models, name)(*MODELS[name], rng=3, **options)
    theirs = interop.to_torch(model)
    assert type(theirs) is nn.Sequential
    back = interop.from_torch(theirs)
    assert_same_bits(model, back)
    rng = numpy.random.default_rng(4)
    x = rng.integers(0, 9, (5, 3)) if name == "bilstm" else rng.standard_normal((3, *MODELS[name])).astype("float32")
    assert_close(model.predict(x), arrays(theirs.eval()(tensors(x))), 1e-5)
    numpy.testing.assert_array_equal(back.predict(x), model.predict(x))


def test_every_model_of_the_models_file_is_tested():
    public = {
        name
        for name, item in vars(models).items()
        if callable(item) and getattr(item, "__module__", "") == models.__name__
    }
    helpers = {"residual_block", "transformer_block", "side_of"}
    assert {name for name in public if name[0] != "_"} - helpers == set(MODELS)


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_the_nets_of_the_sine_app_come_back(cell):
    from apps.rnn_sin_cos.tasks import TASKS

    for make in TASKS.values():
        net = Module(make(numpy, numpy.random.default_rng(0)).build(cell, 6))
        theirs = interop.to_torch(net)
        assert list(theirs.state_dict()) == list(net.state_dict())
        assert_same_bits(net, interop.from_torch(theirs))
        x = rows(4, 3, 1).astype("float32")
        assert_close(net.predict(x), arrays(theirs(tensors(x))), 1e-5)


def test_gradients_are_the_same_there():
    net = models.transformer(64, 10, rng=0, dtype="float64")
    theirs, x = interop.to_torch(net), rows(3, 64)
    y, t = net(x), theirs(tensors(x))
    g = rows(*y.shape)
    net.backward_parameters(g)
    t.backward(tensors(g))
    for (name, parameter), tensor in zip(net.parameters().items(), theirs.parameters(), strict=True):
        numpy.testing.assert_allclose(parameter.grad, tensor.grad.numpy(), rtol=1e-9, atol=1e-9, err_msg=name)


def test_a_module_with_a_forward_of_its_own_becomes_a_graph():
    class Skip(Module):
        def __init__(self):
            super().__init__()
            make = on()
            self.first, self.blocks = make.Linear(3, 3), [make.Linear(3, 3), make.Linear(3, 2)]
            self.scale = mtorch.Parameter(numpy.array([2.0, 3.0]))

        def forward(self, x, y):
            h = mtorch.tanh(self.first(x)) + x
            return self.blocks[1](self.first(self.blocks[0](h))) * self.scale + y / 2, h

    net = Skip()
    theirs = interop.to_torch(net)
    assert list(theirs.state_dict()) == list(net.state_dict())
    back = interop.from_torch(theirs)
    assert_same_bits(net, back)
    x = (rows(4, 3), rows(4, 2))
    assert_close(arrays(theirs(tensors(x))), net(x), 1e-12)
    assert_close(back(x), net(x), 1e-12)
    shared = interop.to_torch(mtorch.Graph.of(mtorch.exp(Input("x")) * 2.0, dtype="float64"))
    assert_close(arrays(shared(tensors(x[0]))), numpy.exp(x[0]) * 2, 1e-12)


def test_what_torch_cannot_say_is_named_all_at_once():
    class Mine(layers.Linear):
        pass

    net = Sequential(
        on().Linear(2, 2), Mine(2, 2, dtype="float64"), Sequential(mtorch.DataParallel(on().Linear(2, 2), 1))
    )
    text = r"to_torch cannot say 2 of these modules: 1 \(Mine\): no class of mtorch; 2.0 \(DataParallel\): torch has no"
    with pytest.raises(ValueError, match=text):
        interop.to_torch(net)
    with pytest.raises(TypeError, match="expected a module or layer"):
        interop.to_torch(nn.Linear(2, 2))


def test_a_net_in_torch_prints_its_layers_and_is_copied_and_pickled():
    theirs = interop.to_torch(models.resnet_simple(64, channels=2))
    assert "Residual(" in repr(theirs) and "Reshape(shape=(1, 8, 8))" in repr(theirs)
    for net in (theirs, interop.to_torch(models.lstm(64, hidden=2)), interop.to_torch(models.transformer(64, width=4))):
        for twin in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
            assert_same_bits(interop.from_torch(twin), interop.from_torch(net))


# ---------------------------------------------------------------------- safetensors


def test_safetensors_files_are_read_by_both(tmp_path):
    safetensors = pytest.importorskip("safetensors.torch")
    ours, theirs = mixed(), mixed_torch()
    mtorch.save(tmp_path / "ours.safetensors", ours, optim.Adam(ours))
    read = safetensors.load_file(tmp_path / "ours.safetensors")
    theirs.load_state_dict({name: tensor for name, tensor in read.items() if name in ours.state_dict()})
    assert_same_net(ours, theirs, 0)
    net = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        safetensors.save_file(net.to(dtype).state_dict(), tmp_path / "theirs.safetensors")
        other = Sequential(layers.Linear(3, 2), layers.BatchNorm1d(2))
        mtorch.load(tmp_path / "theirs.safetensors", other)
        numpy.testing.assert_array_equal(other[0].weight.value, net[0].weight.detach().float().numpy())


# ---------------------------------------------------------------------- the page


def test_the_code_on_the_page_runs(capsys):
    page = (Path(__file__).parents[2] / "docs" / "interop_torch.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", page, re.S)
    names: dict = {}
    assert len(blocks) == 4
    for block in blocks:
        if "import keras" not in block:  # tests/against/test_interop_keras.py
            exec(block, names)
    error, *shown = capsys.readouterr().out.splitlines()
    assert float(error) < 1e-6 and shown[0] == "Sequential("
