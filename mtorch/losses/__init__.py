"""Loss functions: value and gradient together."""

from mtorch.losses.base import Loss, LossFunction
from mtorch.losses.bce import BCELoss
from mtorch.losses.bce_with_logits import BCEWithLogitsLoss
from mtorch.losses.cross_entropy import CrossEntropyLoss
from mtorch.losses.huber import HuberLoss
from mtorch.losses.l1 import L1Loss
from mtorch.losses.mse import MSELoss
from mtorch.losses.nll import NLLLoss
from mtorch.losses.square import SquareLoss

__all__ = [
    "BCELoss", "BCEWithLogitsLoss", "CrossEntropyLoss", "HuberLoss", "L1Loss", "Loss", "LossFunction", "MSELoss",
    "NLLLoss", "SquareLoss",
]  # fmt: skip
