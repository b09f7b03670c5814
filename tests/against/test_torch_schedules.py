"""Schedules against torch.optim.lr_scheduler, 60 steps each."""

import pytest

from mtorch.optim import schedules

torch = pytest.importorskip("torch")

MILESTONES = [5, 30, 30, 45]
PAIRS = {
    "step": (schedules.StepLR(0.1, 7, 0.5), lambda o, s: s.StepLR(o, 7, 0.5)),
    "multi-step": (schedules.MultiStepLR(0.1, MILESTONES, 0.3), lambda o, s: s.MultiStepLR(o, MILESTONES, 0.3)),
    "exponential": (schedules.ExponentialLR(0.1, 0.93), lambda o, s: s.ExponentialLR(o, 0.93)),
    "cosine": (schedules.CosineAnnealingLR(0.1, 50, 0.01), lambda o, s: s.CosineAnnealingLR(o, 50, 0.01)),
    "short cosine": (schedules.CosineAnnealingLR(0.1, 9), lambda o, s: s.CosineAnnealingLR(o, 9)),
    "warm-up": (schedules.LinearWarmup(0.1, 20), lambda o, s: s.LinearLR(o, 1 / 20, 1, 19)),
    "inverse root": (schedules.InverseSqrt(0.1), lambda o, s: s.LambdaLR(o, lambda k: (k + 1) ** -0.5)),
}


@pytest.mark.parametrize("name", PAIRS)
def test_rates_are_torchs_for_60_steps(name):
    ours, make = PAIRS[name]
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make(optimizer, torch.optim.lr_scheduler)
    for k in range(60):
        assert ours(k) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-9, abs=1e-15)
        optimizer.step()
        scheduler.step()
