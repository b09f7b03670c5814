"""Loss functions: value and gradient together."""

from mtorch.losses.base import Loss
from mtorch.losses.square import SquareLoss

__all__ = ["Loss", "SquareLoss"]
