"""The old place of the logistic function, until its last user has moved on."""

from mtorch.math.logistic import sigmoid

__all__ = ["sigmoid"]
