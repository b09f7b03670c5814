"""The answer for one image: our `predict` beside PyTorch's eval-mode forward under inference_mode."""

from functools import partial

import numpy as np

from .common import Workload, fill, fill_ours, fill_torch, normal
from .images import lenet


def digit(layers):
    return [layers.Linear(784, 16), layers.ReLU(), layers.Linear(16, 16), layers.ReLU(),
            layers.Linear(16, 10), layers.Sigmoid()]


def ours(chain, shape):
    from mtorch import Module, Sequential, layers

    module = fill_ours(Module(Sequential(chain(layers)))).eval()
    x = normal(*shape)
    return lambda: module.predict(x)


def pytorch(chain, shape):
    import torch
    from torch import nn

    net = fill_torch(nn.Sequential(*chain(nn))).eval()
    x = torch.from_numpy(normal(*shape))

    def step():
        with torch.inference_mode():
            return net(x).numpy()

    return step


def digit_by_hand():
    w = fill({"0.weight": (16, 784), "0.bias": (16,), "2.weight": (16, 16), "2.bias": (16,),
              "4.weight": (10, 16), "4.bias": (10,)})
    w1, b1, w2, b2, w3, b3 = w.values()
    x = normal(1, 784)

    def step():
        a = np.maximum(x @ w1.T + b1, 0)
        a = np.maximum(a @ w2.T + b2, 0)
        return 1 / (1 + np.exp(-(a @ w3.T + b3)))

    return step


WORKLOADS = [
    Workload("predict-digit", "one image, digit net",
             {"ours": partial(ours, digit, (1, 784)), "torch": partial(pytorch, digit, (1, 784)),
              "numpy": digit_by_hand}, {"torch": 0.15}),
    Workload("predict-lenet", "one image, LeNet-5",
             {"ours": partial(ours, lenet, (1, 1, 28, 28)), "torch": partial(pytorch, lenet, (1, 1, 28, 28))},
             {"torch": 0.7}),
]
