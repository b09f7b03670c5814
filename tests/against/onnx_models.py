"""Nets to write to ONNX and to read back: `mtorch.models`, which are those of the digit app, and the sine app's."""

import numpy

from apps.mnist.recipes import RECIPES
from apps.rnn_sin_cos.tasks import CELLS, TASKS
from mtorch import models

IMAGES = [name for name in dir(models) if name in RECIPES] + ["bilstm"]
MODELS = IMAGES + [f"{task} {cell}" for task in TASKS for cell in CELLS]


def build(name):
    """(net, an example of two or more samples)."""
    rng = numpy.random.default_rng(0)
    if name in RECIPES:
        return models.__dict__[name](rng=0), rng.standard_normal((2, 784)).astype("float32")
    if name == "bilstm":
        return models.bilstm(20, rng=0), rng.integers(0, 20, (5, 2))
    task, cell = name.rsplit(" ", 1)
    made = TASKS[task](numpy, rng)
    x = made.test[0]
    return made.build(cell, 8), x[:, :3]
