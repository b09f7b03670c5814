"""Convolutional nets on (64, 1, 28, 28), cross-entropy, SGD: a CNN, LeNet-5 and the ResNet-like net of the app.

The hand-written versions are a first draft as one writes it down: unroll, one product, scatter back by kernel offset.
"""

from functools import partial

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from .common import Workload, fill, fill_ours, fill_torch, labels, normal

BATCH, LR = 64, 1e-3


def cnn(layers):
    """conv 1->32 3x3, conv 32->64 3x3, pool, 9216->128->10: PyTorch's MNIST example without dropout."""
    return [
        layers.Conv2d(1, 32, 3), layers.ReLU(), layers.Conv2d(32, 64, 3), layers.ReLU(), layers.MaxPool2d(2),
        layers.Flatten(), layers.Linear(9216, 128), layers.ReLU(), layers.Linear(128, 10),
    ]


def lenet(layers):
    """LeNet-5: two 5x5 convolutions with pools, 400->120->84->10."""
    return [
        layers.Conv2d(1, 6, 5, padding=2), layers.ReLU(), layers.MaxPool2d(2),
        layers.Conv2d(6, 16, 5), layers.ReLU(), layers.MaxPool2d(2), layers.Flatten(),
        layers.Linear(400, 120), layers.ReLU(), layers.Linear(120, 84), layers.ReLU(), layers.Linear(84, 10),
    ]


def resnet(layers, residual):
    """A ResNet for 28x28: 16, 32 and 64 channels, one residual block each, global average pool."""

    def conv(a, b, size, stride=1):
        pad = size // 2
        return [layers.Conv2d(a, b, size, stride=stride, padding=pad, bias=False), layers.BatchNorm2d(b)]

    def block(a, b, stride):
        body = [*conv(a, b, 3, stride), layers.ReLU(), *conv(b, b, 3)]
        return [residual(body, conv(a, b, 1, stride) if stride > 1 else None), layers.ReLU()]

    return [*conv(1, 16, 3), layers.ReLU(), *block(16, 16, 1), *block(16, 32, 2), *block(32, 64, 2),
            layers.AdaptiveAvgPool2d(1), layers.Flatten(), layers.Linear(64, 10)]


def our_resnet(layers):
    from mtorch import Residual, Sequential

    def residual(body, shortcut):
        return Residual(Sequential(body), Sequential(shortcut) if shortcut else None)

    return resnet(layers, residual)


def torch_resnet(layers):
    class Residual(layers.Module):
        def __init__(self, body, shortcut):
            super().__init__()
            self.body = layers.Sequential(*body)
            self.shortcut = layers.Sequential(*shortcut) if shortcut else layers.Identity()

        def forward(self, x):
            return self.body(x) + self.shortcut(x)

    return resnet(layers, Residual)


def ours(chain, batch=BATCH):
    from mtorch import SGD, CrossEntropyLoss, Module, Sequential, layers

    module = fill_ours(Module(Sequential(chain(layers))))
    loss_func, optimizer = CrossEntropyLoss(module), SGD(module, lr=LR)
    x, y = normal(batch, 1, 28, 28), labels(batch)

    def step():
        loss = loss_func(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch(chain, batch=BATCH):
    import torch
    from torch import nn

    net = fill_torch(nn.Sequential(*chain(nn)))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, y = torch.from_numpy(normal(batch, 1, 28, 28)), torch.from_numpy(labels(batch))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
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
        windows = sliding_window_view(x, (k, k), axis=(1, 2)).transpose(0, 1, 2, 4, 5, 3)   # (N, H, W, k, k, C)
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
                dx[:, i:i + h, j:j + w] += d[:, :, :, i, j]
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
        self.y = np.maximum(np.maximum(x[:, :, ::2, ::2], x[:, :, ::2, 1::2]),
                            np.maximum(x[:, :, 1::2, ::2], x[:, :, 1::2, 1::2]))
        return self.y

    def backward(self, g, first):   # every winner of a tie gets g, but ties are zeros, which the ReLU before stops
        dx = np.empty_like(self.x)
        for i in range(2):
            for j in range(2):
                np.multiply(self.x[:, :, i::2, j::2] == self.y, g, out=dx[:, :, i::2, j::2])
        return dx


def cnn_by_hand(batch=BATCH):
    v = list(fill({"0.weight": (32, 1, 3, 3), "0.bias": (32,), "2.weight": (64, 32, 3, 3), "2.bias": (64,),
                   "6.weight": (128, 9216), "6.bias": (128,), "8.weight": (10, 128), "8.bias": (10,)}).values())
    return by_hand([Conv(v[:2]), ReLU(), Conv(v[2:4]), ReLU(), Pool(), Linear(v[4:6]), ReLU(), Linear(v[6:])], batch)


def lenet_by_hand(batch=BATCH):
    v = list(fill({"0.weight": (6, 1, 5, 5), "0.bias": (6,), "3.weight": (16, 6, 5, 5), "3.bias": (16,),
                   "7.weight": (120, 400), "7.bias": (120,), "9.weight": (84, 120), "9.bias": (84,),
                   "11.weight": (10, 84), "11.bias": (10,)}).values())
    return by_hand([Conv(v[:2], padding=2), ReLU(), Pool(), Conv(v[2:4]), ReLU(), Pool(),
                    Linear(v[4:6]), ReLU(), Linear(v[6:8]), ReLU(), Linear(v[8:])], batch)


def by_hand(net, batch):
    x, y, rows = normal(batch, 1, 28, 28), labels(batch), np.arange(batch)

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
        g /= batch

        for layer in reversed(net):
            g = layer.backward(g, layer is net[0])
        for layer in net:
            if isinstance(layer, (Conv, Linear)):
                for value, grad in zip((layer.weight, layer.bias), layer.grads, strict=True):
                    grad *= LR
                    value -= grad
        return loss

    return step


WORKLOADS = [
    Workload("cnn", "CNN 1-32-64, 3x3, pool, 9216-128-10, batch 64, SGD",
             {"ours": partial(ours, cnn), "torch": partial(pytorch, cnn), "numpy": cnn_by_hand}, {"torch": 1.0}),
    Workload("lenet", "LeNet-5, batch 64, SGD",
             {"ours": partial(ours, lenet), "torch": partial(pytorch, lenet), "numpy": lenet_by_hand}, {"torch": 1.0}),
    Workload("resnet", "ResNet 16-32-64 for 28x28, batch 64, SGD",
             {"ours": partial(ours, our_resnet), "torch": partial(pytorch, torch_resnet)}, {"torch": 1.1}),
]
