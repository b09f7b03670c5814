"""Convolutional nets on (64, 1, 28, 28), cross-entropy, SGD: a CNN, LeNet-5 and the ResNet-like net of the app.

The hand-written versions are a first draft as one writes it down: unroll, one product, scatter back by kernel offset.
"""

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from . import in_jax, in_pydynet, products
from .common import Workload, divided, fill, fill_ours, fill_torch, in_processes, labels, normal

BATCH, LR = 64, 1e-3


def cnn(layers):
    """conv 1->32 3x3, conv 32->64 3x3, pool, 9216->128->10: PyTorch's MNIST example without dropout."""
    return [
        layers.Conv2d(1, 32, 3),
        layers.ReLU(),
        layers.Conv2d(32, 64, 3),
        layers.ReLU(),
        layers.MaxPool2d(2),
        layers.Flatten(),
        layers.Linear(9216, 128),
        layers.ReLU(),
        layers.Linear(128, 10),
    ]


def our_cnn():
    from mtorch import Sequential, layers

    return Sequential(cnn(layers))


def our_model(name):
    """The net of that name of the digit app; it takes images as rows."""
    from mtorch import models

    return getattr(models, name)()


def torch_cnn():
    from torch import nn

    return nn.Sequential(*cnn(nn))


def torch_lenet():
    """`models.lenet` in PyTorch's words: LeNet-5 with ReLU and max pooling."""
    from torch import nn

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        nn.Conv2d(1, 6, 5, padding=2),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(400, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, 10),
    )


def torch_resnet():
    """`models.resnet` in PyTorch's words: 16 channels, then blocks of 32, 32, 64 and 64, global average pool."""
    from torch import nn

    class Residual(nn.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body, self.shortcut = body, shortcut

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    def conv(a, b, size, stride=1):
        return nn.Conv2d(a, b, size, stride=stride, padding=size // 2, bias=False), nn.BatchNorm2d(b)

    def block(a, b, stride):
        body = nn.Sequential(*conv(a, b, 3, stride), nn.ReLU(), *conv(b, b, 3))
        return Residual(body, nn.Identity() if stride == 1 else nn.Sequential(*conv(a, b, 1, stride))), nn.ReLU()

    return nn.Sequential(
        nn.Unflatten(1, (1, 28, 28)),
        *conv(1, 16, 3),
        nn.ReLU(),
        *block(16, 32, 2),
        *block(32, 32, 1),
        *block(32, 64, 2),
        *block(64, 64, 1),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def ours(make, shape, wrap=lambda net: net):
    from mtorch import SGD, CrossEntropyLoss, Module

    module = fill_ours(Module(wrap(make())))
    loss_func, optimizer = CrossEntropyLoss(module), SGD(module, lr=LR)
    x, y = normal(BATCH, *shape), labels(BATCH)

    def step():
        loss = loss_func(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch(make, shape):
    import torch

    net = fill_torch(make())
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, y = torch.from_numpy(normal(BATCH, *shape)), torch.from_numpy(labels(BATCH))

    def step():
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


class Conv:
    """Images stay (N, C, H, W) in shape but (N, H, W, C) in memory, the order that the product leaves."""

    def __init__(self, values, padding=0):
        self.weight, self.bias = values
        self.padding = padding

    def forward(self, x):
        p, k = self.padding, self.weight.shape[-1]
        x = x.transpose(0, 2, 3, 1)
        x = np.pad(x, ((0, 0), (p, p), (p, p), (0, 0))) if p else x
        windows = sliding_window_view(x, (k, k), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)  # (N, H, W, k, k, C)
        self.matrix = self.weight.transpose(0, 2, 3, 1).reshape(len(self.weight), -1)
        self.columns = windows.reshape(-1, self.matrix.shape[1])
        y = self.columns @ self.matrix.T
        y += self.bias
        return y.reshape(*windows.shape[:3], -1).transpose(0, 3, 1, 2)

    def backward(self, g, first):
        n, o, h, w = g.shape
        _, c, k, _ = self.weight.shape
        g = g.transpose(0, 2, 3, 1).reshape(-1, o)
        self.grads = (g.T @ self.columns).reshape(o, k, k, c).transpose(0, 3, 1, 2), g.sum(axis=0)
        if first:
            return None
        d = (g @ self.matrix).reshape(n, h, w, k, k, c)
        dx = np.zeros((n, h + k - 1, w + k - 1, c), np.float32)
        for i in range(k):
            for j in range(k):
                dx[:, i : i + h, j : j + w] += d[:, :, :, i, j]
        p = self.padding
        return (dx[:, p:-p, p:-p] if p else dx).transpose(0, 3, 1, 2)


class Linear:
    def __init__(self, values):
        self.weight, self.bias = values

    def forward(self, x):
        self.shape, self.x = x.shape, x.reshape(len(x), -1)
        y = self.x @ self.weight.T
        y += self.bias
        return y

    def backward(self, g, first):
        self.grads = g.T @ self.x, g.sum(axis=0)
        return (g @ self.weight).reshape(self.shape)


class ReLU:
    def forward(self, x):
        self.y = np.maximum(x, 0)
        return self.y

    def backward(self, g, first):
        return g * (self.y > 0)


class Pool:
    def forward(self, x):
        self.x = x
        self.y = np.maximum(
            np.maximum(x[:, :, ::2, ::2], x[:, :, ::2, 1::2]), np.maximum(x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2])
        )
        return self.y

    def backward(self, g, first):  # every winner of a tie gets g, but ties are zeros, which the ReLU before stops
        dx = np.empty_like(self.x)
        for i in range(2):
            for j in range(2):
                np.multiply(self.x[:, :, i::2, j::2] == self.y, g, out=dx[:, :, i::2, j::2])
        return dx


def cnn_by_hand():
    v = list(
        fill(
            {
                "0.weight": (32, 1, 3, 3),
                "0.bias": (32,),
                "2.weight": (64, 32, 3, 3),
                "2.bias": (64,),
                "6.weight": (128, 9216),
                "6.bias": (128,),
                "8.weight": (10, 128),
                "8.bias": (10,),
            }
        ).values()
    )
    return by_hand([Conv(v[:2]), ReLU(), Conv(v[2:4]), ReLU(), Pool(), Linear(v[4:6]), ReLU(), Linear(v[6:])])


def lenet_by_hand():
    v = list(
        fill(
            {
                "1.weight": (6, 1, 5, 5),
                "1.bias": (6,),
                "4.weight": (16, 6, 5, 5),
                "4.bias": (16,),
                "8.weight": (120, 400),
                "8.bias": (120,),
                "10.weight": (84, 120),
                "10.bias": (84,),
                "12.weight": (10, 84),
                "12.bias": (10,),
            }
        ).values()
    )
    return by_hand(
        [
            Conv(v[:2], padding=2),
            ReLU(),
            Pool(),
            Conv(v[2:4]),
            ReLU(),
            Pool(),
            Linear(v[4:6]),
            ReLU(),
            Linear(v[6:8]),
            ReLU(),
            Linear(v[8:]),
        ]
    )


def by_hand(net):
    x, y, rows = normal(BATCH, 784).reshape(-1, 1, 28, 28), labels(BATCH), np.arange(BATCH)

    def step():
        z = x
        for layer in net:
            z = layer.forward(z)

        z -= z.max(axis=1, keepdims=True)
        g = np.exp(z)
        total = g.sum(axis=1)
        loss = float(np.mean(np.log(total) - z[rows, y]))
        g /= total[:, None]
        g[rows, y] -= 1
        g /= BATCH

        for layer in reversed(net):
            g = layer.backward(g, layer is net[0])
        for layer in net:
            if isinstance(layer, (Conv, Linear)):
                for value, grad in zip((layer.weight, layer.bias), layer.grads, strict=True):
                    grad *= LR
                    value -= grad
        return loss

    return step


IMAGES, ROWS = (1, 28, 28), (784,)
RELU, POOL, NORM, ADD, SGD = products.RELU, products.POOL, products.NORM, products.ADD, products.SGD
CNN = [
    *products.conv(BATCH, 1, 32, 3, 26, False),
    *products.conv(BATCH, 32, 64, 3, 24),
    *products.chain(BATCH, (9216, 128, 10), True),
]
CNN_PASSES = [
    *products.conv_passes(BATCH, 1, 3, 28, False),
    *products.conv_passes(BATCH, 32, 3, 26),
    RELU * BATCH * 32 * 26**2,
    (RELU + POOL) * BATCH * 64 * 24**2,
    SGD * 1_199_882,
]
LENET = [
    *products.conv(BATCH, 1, 6, 5, 28, False),
    *products.conv(BATCH, 6, 16, 5, 10),
    *products.chain(BATCH, (400, 120, 84, 10), True),
]
LENET_PASSES = [
    *products.conv_passes(BATCH, 1, 5, 28, False),
    *products.conv_passes(BATCH, 6, 5, 14),
    (POOL + RELU / 4) * BATCH * 6 * 28**2,
    (POOL + RELU / 4) * BATCH * 16 * 10**2,
    SGD * 61_706,
]
RESNET = [*products.conv(BATCH, 1, 16, 3, 28, False), *products.chain(BATCH, (64, 10), True)]
RESNET_PASSES = [*products.conv_passes(BATCH, 1, 3, 28, False), (NORM + RELU) * BATCH * 16 * 28**2]
for a, b, side, stride in ((16, 32, 14, 2), (32, 32, 14, 1), (32, 64, 7, 2), (64, 64, 7, 1)):
    RESNET += [*products.conv(BATCH, a, b, 3, side), *products.conv(BATCH, b, b, 3, side)]
    RESNET += products.conv(BATCH, a, b, 1, side) if stride > 1 else []
    entries = BATCH * b * side**2
    RESNET_PASSES += [
        *products.conv_passes(BATCH, a, 3, side * stride),
        *products.conv_passes(BATCH, b, 3, side),
        2 * (NORM + RELU) * entries,
        (ADD + (NORM if stride > 1 else 0)) * entries,
    ]

CNN_ROW = Workload(
    "cnn",
    "CNN 1-32-64, 3x3, pool, 9216-128-10, batch 64, SGD",
    {
        "ours": partial(ours, our_cnn, IMAGES),
        "torch": partial(pytorch, torch_cnn, IMAGES),
        "numpy": cnn_by_hand,
        "jax": partial(in_jax.cnn, BATCH, LR),
        "floor": partial(products.alone, CNN),
        "passes": partial(products.copies, CNN_PASSES),
    },
    {"torch": 1.0},
)
LENET_ROW = Workload(
    "lenet",
    "LeNet-5, batch 64, SGD",
    {
        "ours": partial(ours, partial(our_model, "lenet"), ROWS),
        "torch": partial(pytorch, torch_lenet, ROWS),
        "numpy": lenet_by_hand,
        "jax": partial(in_jax.lenet, BATCH, LR),
        "pydynet": partial(in_pydynet.lenet, BATCH, LR),
        "floor": partial(products.alone, LENET),
        "passes": partial(products.copies, LENET_PASSES),
    },
    {"torch": 1.0},
)
RESNET_ROW = Workload(
    "resnet",
    "ResNet of 10 layers for 28x28, batch 64, SGD",
    {
        "ours": partial(ours, partial(our_model, "resnet"), ROWS),
        "torch": partial(pytorch, torch_resnet, ROWS),
        "jax": partial(in_jax.resnet, BATCH, LR),
        "floor": partial(products.alone, RESNET),
        "passes": partial(products.copies, RESNET_PASSES),
    },
    {"torch": 1.3},
)

WORKLOADS = [
    CNN_ROW,
    in_processes(CNN_ROW, partial(ours, our_cnn, IMAGES, divided)),
    LENET_ROW,
    in_processes(LENET_ROW, partial(ours, partial(our_model, "lenet"), ROWS, divided)),
    RESNET_ROW,
    in_processes(RESNET_ROW, partial(ours, partial(our_model, "resnet"), ROWS, divided), equal=False),
]
