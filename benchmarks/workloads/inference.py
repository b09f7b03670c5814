"""The answer for one image: our `predict` beside PyTorch's eval-mode forward under inference_mode."""

from functools import partial

import numpy as np

from .common import Workload, fill, fill_ours, fill_torch, normal
from .images import our_model, torch_lenet


def digit(layers):
    return [
        layers.Linear(784, 16),
        layers.ReLU(),
        layers.Linear(16, 16),
        layers.ReLU(),
        layers.Linear(16, 10),
        layers.Sigmoid(),
    ]


def our_digit():
    from mtorch import Sequential, layers

    return Sequential(digit(layers))


def torch_digit():
    from torch import nn

    return nn.Sequential(*digit(nn))


def ours(make):
    from mtorch import Module

    module = fill_ours(Module(make())).eval()
    x = normal(1, 784)
    return lambda: module.predict(x)


def pytorch(make):
    import torch

    net = fill_torch(make()).eval()
    x = torch.from_numpy(normal(1, 784))

    def step():
        with torch.inference_mode():
            return net(x).numpy()

    return step


def digit_by_hand():
    w = fill(
        {
            "0.weight": (16, 784),
            "0.bias": (16,),
            "2.weight": (16, 16),
            "2.bias": (16,),
            "4.weight": (10, 16),
            "4.bias": (10,),
        }
    )
    w1, b1, w2, b2, w3, b3 = w.values()
    x = normal(1, 784)

    def step():
        a = np.maximum(x @ w1.T + b1, 0)
        a = np.maximum(a @ w2.T + b2, 0)
        return 1 / (1 + np.exp(-(a @ w3.T + b3)))

    return step


def digit_bare():
    """The NumPy calls that there is no way around, on vectors, without a guard against overflow."""
    w = fill(
        {
            "0.weight": (16, 784),
            "0.bias": (16,),
            "2.weight": (16, 16),
            "2.bias": (16,),
            "4.weight": (10, 16),
            "4.bias": (10,),
        }
    )
    w1, b1, w2, b2, w3, b3 = w.values()
    x, zero, one = normal(784), np.zeros((), np.float32), np.ones((), np.float32)

    def step():
        a = w1.dot(x)
        a += b1
        np.maximum(a, zero, a)
        a = w2.dot(a)
        a += b2
        np.maximum(a, zero, a)
        a = w3.dot(a)
        a += b3
        np.negative(a, a)
        np.exp(a, a)
        a += one
        return np.reciprocal(a, a)

    return step


WORKLOADS = [
    Workload(
        "predict-digit",
        "one image, digit net",
        {
            "ours": partial(ours, our_digit),
            "torch": partial(pytorch, torch_digit),
            "numpy": digit_by_hand,
            "floor": digit_bare,
        },
        {"torch": 0.15},
    ),
    Workload(
        "predict-lenet",
        "one image, LeNet-5",
        {"ours": partial(ours, partial(our_model, "lenet")), "torch": partial(pytorch, torch_lenet)},
        {"torch": 0.7},
    ),
]
