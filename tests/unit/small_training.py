"""A small net, data and training loop that run on any array module; for tests that compare two of them."""

from typing import Any

import numpy

from mtorch import Module, Residual, Sequential, SquareLoss, layers, optim
from mtorch.optim.base import Optimizer

IMAGES = numpy.random.default_rng(1).standard_normal((5, 8, 6)).astype("float32")  # five batches of eight
LABELS = numpy.random.default_rng(2).integers(0, 3, (5, 8))

RECIPES: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    name: (getattr(optim, name), {"lr": 1.0 if name == "Adadelta" else 0.01})
    for name in optim.__all__
    if isinstance(getattr(optim, name), type) and issubclass(getattr(optim, name), Optimizer) and name != "Optimizer"
} | {
    "SGD with everything": (
        optim.SGD,
        {"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 0.01, "clip_norm": 0.5, "scale": {"0.*": 0.1}},
    ),
    "SGD with clip_value": (optim.SGD, {"lr": 0.1, "clip_value": 0.05}),
}


def small_net(xp: Any, dtype: str = "float32") -> Module:
    nn = layers.on(xp, dtype=dtype, rng=0)
    body = Sequential(nn.Linear(5, 5), nn.Tanh())
    return Module(Sequential(nn.Linear(6, 5), nn.ReLU(), Residual(body), nn.Linear(5, 3), nn.Sigmoid()))


def train(module: Module, stepper: Optimizer, batches: range = range(5)) -> Any:
    """One step a batch; the last loss, not read."""
    loss_func = SquareLoss(module)
    for batch in batches:
        images = module.xp.asarray(IMAGES[batch])
        loss = loss_func(module(images), LABELS[batch], transform=True)
        loss.backward()
        stepper.step()
    return loss


def assert_equal_states(module: Module, twin: Module, tolerance: float = 1e-5) -> None:
    a, b = module.state_dict(), twin.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        numpy.testing.assert_allclose(a[name], b[name], rtol=0, atol=tolerance)
