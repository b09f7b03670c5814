"""Which models the recogniser offers, and the settings each trains well with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from mtorch import losses, models, optim
from mtorch.data import DigitData, standardise
from mtorch.optim import schedules


@dataclass(frozen=True)
class Recipe:
    """A model and its defaults. `epochs` is for MNIST, `small_epochs` for the built-in digits.

    lr: the rate with the recipe's own optimizer, None for that optimizer's default.
    gamma: what the rate is multiplied by after each epoch on MNIST.
    scans: the model reads the built-in digits as raw 8 x 8 scans.
    """

    build: Callable[..., Any]
    loss: str = "cross_entropy"
    optimizer: str = "adam"
    lr: float | None = None
    gamma: float = 1.0
    batch_size: int = 64
    epochs: int = 5
    small_epochs: int = 30
    pixels: str = "standardise"  # or "scale": divided by the largest value
    scans: bool = False

    def inputs(self, images: numpy.ndarray) -> numpy.ndarray:
        """Images (N, H, W) as the rows (N, H * W) of float32 that the model reads."""
        if self.pixels == "standardise":
            return standardise(images)
        largest = 16 if images.shape[-1] == 8 else 255
        return images.reshape(len(images), -1) / numpy.float32(largest)

    def default_epochs(self, data: DigitData) -> int:
        return self.epochs if len(data.train_labels) > 10_000 else self.small_epochs

    def default_gamma(self, data: DigitData) -> float:
        """The rate falls by as much in a default run on few digits as in one on MNIST."""
        return self.gamma ** (self.epochs / self.default_epochs(data))


RECIPES = {
    "mlp": Recipe(models.mlp, loss="square", optimizer="sgd", gamma=0.95, batch_size=20, epochs=10, small_epochs=60),
    "linear": Recipe(models.linear),
    "deep": Recipe(models.deep, gamma=0.6, batch_size=128),
    "dropout": Recipe(models.dropout, gamma=0.6, batch_size=128),
    "batchnorm": Recipe(models.batchnorm, gamma=0.6, batch_size=128),
    "residual": Recipe(models.residual, lr=5e-3, gamma=0.6, batch_size=256, epochs=8),
    "conv1d": Recipe(models.conv1d, gamma=0.7),
    "scn": Recipe(models.scn, lr=2e-3, gamma=0.7),
    "lenet": Recipe(models.lenet, lr=2e-3, gamma=0.7),
    "lenet_large": Recipe(models.lenet_large, lr=5e-4, gamma=0.7),
    "cnn": Recipe(models.cnn, gamma=0.7, epochs=8),
    "resnet_simple": Recipe(models.resnet_simple, lr=3e-3, gamma=0.7),
    "resnet": Recipe(models.resnet, lr=3e-3, gamma=0.5),
    "rnn": Recipe(models.rnn, lr=2e-3, gamma=0.65, batch_size=32, small_epochs=60, pixels="scale", scans=True),
    "gru": Recipe(models.gru, lr=8e-3, gamma=0.65, batch_size=32, small_epochs=60, pixels="scale", scans=True),
    "lstm": Recipe(models.lstm, lr=8e-3, gamma=0.65, batch_size=32, small_epochs=60, pixels="scale", scans=True),
    "transformer": Recipe(models.transformer, lr=2e-3, gamma=0.8),
}

LOSSES = {"square": losses.SquareLoss, "cross_entropy": losses.CrossEntropyLoss}


def make_loss(name: str, module: Any) -> Callable[..., Any]:
    """loss_func(prediction, labels) for integer labels."""
    return losses.SquareLoss(module, transform=True) if name == "square" else LOSSES[name](module)


def are_settings(settings: Any) -> bool:
    """Whether these are settings of a checkpoint that name a model, the loss and the side of its images."""
    if not isinstance(settings, dict):
        return False
    model, loss, side = (settings.get(name) for name in ("model", "loss", "side"))
    named = isinstance(model, str) and model in RECIPES and isinstance(loss, str) and loss in LOSSES
    return named and type(side) is int and side in (8, 28)


# name: (optimizer, its default learning rate here, further options)
OPTIMIZERS: dict[str, tuple[Callable[..., Any], float, dict[str, Any]]] = {
    "sgd": (optim.SGD, 0.1, {}),
    "momentum": (optim.SGD, 0.02, {"momentum": 0.9}),
    "nesterov": (optim.SGD, 0.02, {"momentum": 0.9, "nesterov": True}),
    "adagrad": (optim.Adagrad, 0.01, {}),
    "rmsprop": (optim.RMSprop, 0.001, {}),
    "adadelta": (optim.Adadelta, 1.0, {}),
    "adam": (optim.Adam, 0.001, {}),
    "adamw": (optim.AdamW, 0.001, {}),
}


def make_optimizer(name: str, module: Any, lr: float, gamma: float, steps_per_epoch: int) -> Any:
    """The optimizer of that name; its rate is multiplied by `gamma` after each epoch."""
    cls, _, options = OPTIMIZERS[name]
    return cls(module, lr=lr if gamma == 1 else schedules.StepLR(lr, steps_per_epoch, gamma), **options)
