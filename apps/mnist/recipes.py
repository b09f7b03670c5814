"""Which models the recogniser offers, and the settings each trains well with."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy

from mtorch import losses, models, optim
from mtorch.data import DigitData, standardise


@dataclass(frozen=True)
class Recipe:
    """A model and its defaults. `epochs` is for MNIST, `small_epochs` for the built-in digits."""

    build: Callable[..., Any]
    loss: str = "cross_entropy"
    optimizer: str = "adam"
    batch_size: int = 64
    epochs: int = 5
    small_epochs: int = 30
    pixels: str = "standardise"  # or "scale": divided by the largest value
    scans: bool = False  # reads the built-in digits as raw 8 x 8 scans

    def inputs(self, images: numpy.ndarray) -> numpy.ndarray:
        """Images (N, H, W) as the rows (N, H * W) of float32 that the model reads."""
        if self.pixels == "standardise":
            return standardise(images)
        largest = 16 if images.shape[-1] == 8 else 255
        return (images.reshape(len(images), -1) / numpy.float32(largest)).astype(numpy.float32)

    def default_epochs(self, data: DigitData) -> int:
        return self.epochs if len(data.train_labels) > 10_000 else self.small_epochs


RECIPES = {
    "mlp": Recipe(models.mlp, loss="square", optimizer="sgd", batch_size=20, epochs=10, small_epochs=60),
    "linear": Recipe(models.linear),
    "deep": Recipe(models.deep, batch_size=128),
}

LOSSES = {"square": losses.SquareLoss, "cross_entropy": losses.CrossEntropyLoss}


def make_loss(name: str, module: Any) -> Callable[..., Any]:
    """loss_func(prediction, labels) for integer labels."""
    loss_func = LOSSES[name](module)
    if name == "square":
        return lambda prediction, labels: loss_func(prediction, labels, transform=True)
    return loss_func


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


def make_optimizer(name: str, module: Any, lr: float | None) -> Any:
    """The optimizer of that name; its own default rate where none is given."""
    cls, default, options = OPTIMIZERS[name]
    return cls(module, lr=default if lr is None else lr, **options)
