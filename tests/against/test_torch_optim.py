"""Sixty steps of every optimizer, option by option, beside PyTorch's in float64."""

import numpy
import pytest

from mtorch import Module, MSELoss, Sequential, layers, optim
from mtorch.optim import schedules

torch = pytest.importorskip("torch")

STEPS = 60
ADAM = {"betas": (0.8, 0.99), "eps": 1e-6}
CASES = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 0.4, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "dampening": 1}),
    ("SGD", {"lr": 1e-3, "maximize": True}),
    ("SGD", {"lr": 1e-3, "maximize": True, "momentum": 0.5, "weight_decay": 0.1}),
    ("Adagrad", {"maximize": True, "weight_decay": 0.1}),
    ("RMSprop", {"maximize": True, "momentum": 0.5}),
    ("Adadelta", {"maximize": True}),
    ("Adam", {"maximize": True, "weight_decay": 0.1}),
    ("Adam", {"amsgrad": True}),
    ("Adam", {"lr": 0.01, "amsgrad": True, "weight_decay": 0.1, **ADAM}),
    ("AdamW", {"amsgrad": True, "maximize": True, **ADAM}),
    ("Adagrad", {}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-4, "weight_decay": 0.1}),
    ("RMSprop", {}),
    ("RMSprop", {"alpha": 0.9, "eps": 1e-4, "weight_decay": 0.1}),
    ("RMSprop", {"momentum": 0.9}),
    ("RMSprop", {"centered": True}),
    ("RMSprop", {"alpha": 0.8, "momentum": 0.5, "centered": True, "weight_decay": 0.01}),
    ("Adadelta", {}),
    ("Adadelta", {"lr": 0.5, "rho": 0.8, "eps": 1e-3, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.01, **ADAM}),
    ("Adam", {"lr": 0.01, "weight_decay": 0.1}),
    ("Adam", {"betas": (0.0, 0.5)}),
    ("AdamW", {}),
    ("AdamW", {"lr": 0.01, "weight_decay": 0.3, **ADAM}),
    ("AdamW", {"weight_decay": 0.0}),
]
EXTRAS = [{}, {"clip_norm": 0.3}, {"clip_value": 0.02}, {"scale": {"0.*": 0.1}}]
SCHEDULES = {
    "step": (schedules.StepLR(0.05, 10, 0.5), lambda o: torch.optim.lr_scheduler.StepLR(o, 10, 0.5)),
    "cosine": (schedules.CosineAnnealingLR(0.05, 20), lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 20)),
    "warm-up": (
        schedules.LinearWarmup(0.05, 15),
        lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1, (k + 1) / 15)),
    ),
}
BATCHES = numpy.random.default_rng(5).standard_normal((STEPS, 8, 4))
TARGETS = numpy.random.default_rng(6).standard_normal((STEPS, 8, 2))


def nets():
    nn = layers.on(numpy, dtype="float64", rng=0)
    ours = Module(Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 2)))
    theirs = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2)).double()
    theirs.load_state_dict({name: torch.from_numpy(value) for name, value in ours.state_dict().items()})
    return ours, theirs


def make_torch(name, net, options):
    """The same optimizer of torch's, and what to do with the gradients before each of its steps."""
    options = dict(options)
    norm, bound = options.pop("clip_norm", None), options.pop("clip_value", None)
    scale = options.pop("scale", {})

    def clip():
        if bound is not None:
            torch.nn.utils.clip_grad_value_(net.parameters(), bound)
        if norm is not None:
            torch.nn.utils.clip_grad_norm_(net.parameters(), norm)

    kind = getattr(torch.optim, name)
    if scale:
        lr = options.pop("lr", None) or kind(net.parameters()).defaults["lr"]
        groups = [{"params": net[0].parameters(), "lr": 0.1 * lr}, {"params": net[2].parameters()}]
        return kind(groups, lr, **options), clip
    return kind(net.parameters(), **options), clip


def compare(ours, theirs, optimizer, rival, clip=lambda: None, scheduler=None):
    loss_func, torch_loss = MSELoss(ours), torch.nn.MSELoss()
    for x, t in zip(BATCHES, TARGETS, strict=True):
        loss_func(ours(x), t).backward()
        optimizer.step()
        rival.zero_grad()
        torch_loss(theirs(torch.from_numpy(x)), torch.from_numpy(t)).backward()
        clip()
        rival.step()
        if scheduler is not None:
            scheduler.step()
        for name, value in theirs.state_dict().items():
            numpy.testing.assert_allclose(ours.parameters()[name].value, value.numpy(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("extra", EXTRAS, ids=lambda extra: next(iter(extra), "plain"))
@pytest.mark.parametrize("name, options", CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_sixty_steps_are_torchs(name, options, extra):
    if extra and len(options) == 0:
        pytest.skip("the defaults are compared once")
    ours, theirs = nets()
    options = options | extra
    before = ours.state_dict()
    optimizer = getattr(optim, name)(ours, **({"lr": 0.1} if name == "SGD" else {}) | options)
    compare(ours, theirs, optimizer, *make_torch(name, theirs, options))
    assert all(abs(ours.parameters()[path].value - before[path]).max() > 1e-4 for path in before)


@pytest.mark.parametrize("huge", [1e19, 3e37, 3e38])
@pytest.mark.parametrize(
    "name, options",
    [("Adagrad", {}), ("RMSprop", {}), ("RMSprop", {"momentum": 0.9}), ("RMSprop", {"centered": True}), ("Adam", {})],
)
def test_gradients_whose_squares_overflow_move_as_far_as_torchs(name, options, huge):
    if name == "Adam" and huge > 1e38:
        pytest.skip("the sum of gradients overflows as well")
    layer = layers.Linear(1, 1, bias=False, init=lambda *_: numpy.ones((1, 1)))
    value = torch.nn.Parameter(torch.ones(1, 1))
    ours = getattr(optim, name)(layer, lr=0.125, **options)
    theirs = getattr(torch.optim, name)([value], lr=0.125, **options)
    for factor in (1, 1, 0.5, 1e-18):
        layer.weight.accumulate(numpy.full((1, 1), factor * huge, "float32"))
        value.grad = torch.full((1, 1), factor * huge)
        ours.step()
        theirs.step()
        numpy.testing.assert_allclose(layer.weight.value, value.detach().numpy(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name, options", [("SGD", {"momentum": 0.9}), ("Adam", {}), ("AdamW", {}), ("RMSprop", {})])
def test_sixty_steps_with_a_schedule_are_torchs(name, options, schedule):
    ours, theirs = nets()
    lr, make = SCHEDULES[schedule]
    rival = getattr(torch.optim, name)(theirs.parameters(), lr=0.05, **options)
    compare(ours, theirs, getattr(optim, name)(ours, lr, **options), rival, scheduler=make(rival))


def test_clipping_by_both_is_by_value_and_then_by_norm():
    ours, theirs = nets()
    options = {"lr": 0.1, "clip_norm": 0.1, "clip_value": 0.05}
    compare(ours, theirs, optim.SGD(ours, **options), *make_torch("SGD", theirs, options))


@pytest.mark.parametrize("name, options", CASES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(CASES)])
def test_large_parameters_move_in_blocks_as_torchs_do(name, options):
    nn = layers.on(numpy, dtype="float64", rng=0)
    ours, theirs = Module(nn.Linear(301, 251)), torch.nn.Linear(301, 251).double()
    theirs.load_state_dict({path: torch.from_numpy(value) for path, value in ours.state_dict().items()})
    optimizer = getattr(optim, name)(ours, **({"lr": 0.1} if name == "SGD" else {}) | options)
    rival, _ = make_torch(name, theirs, options)
    rng = numpy.random.default_rng(0)
    for _ in range(3):
        grads = {path: rng.standard_normal(p.value.shape) for path, p in ours.parameters().items()}
        for path, parameter in ours.parameters().items():
            parameter.accumulate(grads[path])
        for path, parameter in theirs.named_parameters():
            parameter.grad = torch.from_numpy(grads[path])
        optimizer.step()
        rival.step()
    for path, value in theirs.state_dict().items():
        numpy.testing.assert_allclose(ours.parameters()[path].value, value.numpy(), rtol=0, atol=1e-12)
