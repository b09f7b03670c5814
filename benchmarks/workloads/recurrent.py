"""RNN, GRU and LSTM with a Linear on every step, mean squared error, SGD: (T, N, D) sequences in and out."""

from functools import partial

import numpy as np

from . import calls, in_jax, in_pydynet, products
from .common import GATES, Workload, divided, fill_ours, fill_recurrent, fill_torch, in_processes, normal

LR = 0.01
SMALL, LARGE = (50, 32, 1, 32), (64, 64, 64, 256)  # T, N, D, H


def ours(kind, size, wrap=lambda net: net):
    from mtorch import SGD, Module, MSELoss, Sequential, layers

    t, n, d, h = size
    module = fill_ours(Module(wrap(Sequential([getattr(layers, kind)(d, h), layers.Linear(h, d)]))))
    loss_func, optimizer = MSELoss(module), SGD(module, lr=LR)
    x, target = normal(t, n, d), normal(t, n, d, seed=1)

    def step():
        loss = loss_func(module(x), target)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch(kind, size):
    import torch
    from torch import nn

    t, n, d, h = size
    net = fill_torch(nn.Sequential(getattr(nn, kind)(d, h), nn.Linear(h, d)))
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, target = torch.from_numpy(normal(t, n, d)), torch.from_numpy(normal(t, n, d, seed=1))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net[1](net[0](x)[0]), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def rnn_by_hand(size):
    t, n, d, h = size
    values = fill_recurrent("RNN", size)
    w, u, b, b2, v, c = values
    x, target = normal(t, n, d), normal(t, n, d, seed=1)
    states = np.zeros((t + 1, n, h), np.float32)  # states[0] is h0

    def step():
        pre = x.reshape(-1, d) @ w.T
        pre += b + b2
        pre = pre.reshape(t, n, h)
        transposed = u.T.copy()
        for i in range(t):
            a = states[i] @ transposed
            a += pre[i]
            np.tanh(a, out=states[i + 1])
        y = states[1:].reshape(-1, h)
        g = y @ v.T
        g += c
        g -= target.reshape(-1, d)
        loss = float(np.vdot(g, g)) / g.size

        g *= 2 / g.size
        dv, dc = g.T @ y, g.sum(axis=0)
        slopes = y * y
        np.subtract(1, slopes, out=slopes)
        slopes = slopes.reshape(t, n, h)
        dpre = (g @ v).reshape(t, n, h)
        dpre[-1] *= slopes[-1]
        for i in range(t - 2, -1, -1):
            dpre[i] += dpre[i + 1] @ u
            dpre[i] *= slopes[i]
        dpre = dpre.reshape(-1, h)
        db = dpre.sum(axis=0)
        grads = dpre.T @ x.reshape(-1, d), dpre.T @ states[:-1].reshape(-1, h), db, db, dv, dc
        for value, grad in zip(values, grads, strict=True):
            value -= LR * grad
        return loss

    return step


OTHER_GRU = "PyDyNet's GRU resets the state before its product with the weights, the others' reset the product"


def rows(kind, small, large, by_hand=None):
    """`small` and `large` are goals."""
    for name, size, goals in (("small", SMALL, small), ("large", LARGE, large)):
        sides = {
            "ours": partial(ours, kind, size),
            "torch": partial(pytorch, kind, size),
            "jax": partial(in_jax.recurrent, kind, size, LR),
            "floor": partial(products.alone, products.recurrent(GATES[kind], *size)),
            "passes": partial(products.copies, products.recurrent_passes(GATES[kind], *size)),
        }
        if by_hand:
            sides["numpy"] = partial(by_hand, size)
        if name == "small":
            sides["pydynet"] = partial(in_pydynet.recurrent, kind, size, LR)
            if kind in calls.KINDS:
                sides["calls"] = partial(calls.recurrent, kind, size)
        differs = {"pydynet": OTHER_GRU} if kind == "GRU" and name == "small" else {}
        t, n, d, h = size
        yield Workload(f"{kind.lower()}-{name}", f"{kind}, T={t} N={n} D={d} H={h}, SGD", sides, goals, differs=differs)


WORKLOADS = [
    *rows("RNN", {"torch": 0.50, "numpy": 1.2}, {"torch": 1.0}, rnn_by_hand),
    *rows("GRU", {"torch": 0.35, "jax": 1.0}, {"torch": 0.85}),
    *rows("LSTM", {"torch": 0.90, "jax": 1.0}, {"torch": 0.90}),
]
WORKLOADS.sort(key=lambda workload: workload.name.endswith("large"))
WORKLOADS.append(in_processes(WORKLOADS[-1], partial(ours, "LSTM", LARGE, partial(divided, axis=1))))  # (T, N, D)
