"""The digit net 784-16-16-10, batch 20, SquareLoss on labels, SGD."""

from functools import partial

import numpy as np

from . import in_jax, in_pydynet, products
from .common import Workload, fill, fill_ours, fill_torch, labels, normal

BATCH, WIDTHS, LR = 20, (784, 16, 16, 10), 0.1


def ours():
    from mtorch import SGD, Module, Sequential, SquareLoss, layers

    module = fill_ours(
        Module(
            Sequential(
                [
                    layers.Linear(784, 16),
                    layers.ReLU(),
                    layers.Linear(16, 16),
                    layers.ReLU(),
                    layers.Linear(16, 10),
                    layers.Sigmoid(),
                ]
            )
        )
    )
    loss_func = SquareLoss(module)
    optimizer = SGD(module, lr=LR)
    x, y = normal(BATCH, 784), labels(BATCH)

    def step():
        loss = loss_func(module(x), y, transform=True)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch():
    import torch
    from torch import nn

    net = fill_torch(
        nn.Sequential(
            nn.Linear(784, 16),
            nn.ReLU(),
            nn.Linear(16, 16),
            nn.ReLU(),
            nn.Linear(16, 10),
            nn.Sigmoid(),
        )
    )
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, y, eye = torch.from_numpy(normal(BATCH, 784)), torch.from_numpy(labels(BATCH)), torch.eye(10)

    def step():
        optimizer.zero_grad()
        loss = 5 * nn.functional.mse_loss(net(x), eye[y])  # half the sum over 10 outputs is 5 times their mean
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def by_hand():
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
    x, y, eye = normal(BATCH, 784), labels(BATCH), np.eye(10, dtype=np.float32)

    def step():
        a1 = x @ w1.T
        a1 += b1
        np.maximum(a1, 0, out=a1)
        a2 = a1 @ w2.T
        a2 += b2
        np.maximum(a2, 0, out=a2)
        a3 = a2 @ w3.T
        a3 += b3
        p = 1 / (1 + np.exp(-a3))

        d = p - eye[y]
        loss = 0.5 / BATCH * float(np.vdot(d, d))

        g3 = d * p * (1 - p)
        g3 /= BATCH
        g2 = g3 @ w3
        g2 *= a2 > 0
        g1 = g2 @ w2
        g1 *= a1 > 0

        for value, grad in (
            (w3, g3.T @ a2),
            (b3, g3.sum(axis=0)),
            (w2, g2.T @ a1),
            (b2, g2.sum(axis=0)),
            (w1, g1.T @ x),
            (b1, g1.sum(axis=0)),
        ):
            value -= LR * grad
        return loss

    return step


WORKLOADS = [
    Workload(
        "digit",
        "digit net 784-16-16-10, batch 20, SquareLoss, SGD",
        {
            "ours": ours,
            "torch": pytorch,
            "numpy": by_hand,
            "jax": partial(in_jax.digit_net, WIDTHS, BATCH, LR),
            "pydynet": partial(in_pydynet.digit_net, WIDTHS, BATCH, LR),
            "floor": partial(products.alone, products.chain(BATCH, WIDTHS)),
        },
        {"torch": 0.20, "numpy": 1.25},
    )
]
