"""784-512-512-10 with ReLU and cross-entropy, batch 128: SGD and Adam. The same code in other sizes is the scaling."""

from functools import partial
from itertools import pairwise

import numpy as np

from . import in_jax, in_pydynet, in_sklearn, products
from .common import Workload, fill, fill_ours, fill_torch, labels, normal

WIDTHS, BATCH = (784, 512, 512, 10), 128
LR = {"SGD": 0.1, "Adam": 1e-3}


def ours(widths=WIDTHS, batch=BATCH, optimizer="SGD", lr=LR["SGD"]):
    import mtorch
    from mtorch import CrossEntropyLoss, Module, Sequential, layers

    chain = []
    for a, b in pairwise(widths):
        chain += [layers.Linear(a, b), layers.ReLU()]
    module = fill_ours(Module(Sequential(chain[:-1])))
    loss_func = CrossEntropyLoss(module)
    optimizer = getattr(mtorch, optimizer)(module, lr=lr)
    x, y = normal(batch, widths[0]), labels(batch)

    def step():
        loss = loss_func(module(x), y)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch(widths=WIDTHS, batch=BATCH, optimizer="SGD", lr=LR["SGD"], **options):
    import torch
    from torch import nn

    chain = []
    for a, b in pairwise(widths):
        chain += [nn.Linear(a, b), nn.ReLU()]
    net = fill_torch(nn.Sequential(*chain[:-1]))
    optimizer = getattr(torch.optim, optimizer)(net.parameters(), lr=lr, **options)
    x, y = torch.from_numpy(normal(batch, widths[0])), torch.from_numpy(labels(batch))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(x), y)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def by_hand(widths=WIDTHS, batch=BATCH, optimizer="SGD", lr=LR["SGD"]):
    shapes = {}
    for i, (a, b) in enumerate(pairwise(widths)):
        shapes |= {f"{2 * i}.weight": (b, a), f"{2 * i}.bias": (b,)}
    values = list(fill(shapes).values())
    weights, biases = values[::2], values[1::2]
    update = {"SGD": sgd, "Adam": adam}[optimizer](values, lr)
    x, y, rows = normal(batch, widths[0]), labels(batch), np.arange(batch)

    def step():
        inputs = [x]
        for w, b in zip(weights[:-1], biases[:-1], strict=True):
            a = inputs[-1] @ w.T
            a += b
            np.maximum(a, 0, out=a)
            inputs.append(a)
        z = inputs[-1] @ weights[-1].T
        z += biases[-1]

        z -= z.max(axis=1, keepdims=True)
        g = np.exp(z)
        total = g.sum(axis=1)
        loss = float(np.mean(np.log(total) - z[rows, y]))
        g /= total[:, None]
        g[rows, y] -= 1
        g /= batch

        grads = []
        for w, a in zip(reversed(weights), reversed(inputs), strict=True):
            grads += [g.sum(axis=0), g.T @ a]
            if a is not x:
                g = g @ w
                g *= a > 0
        update(reversed(grads))
        return loss

    return step


def sgd(values, lr):
    def update(grads):
        for value, grad in zip(values, grads, strict=True):
            grad *= lr
            value -= grad

    return update


def adam(values, lr, beta1=0.9, beta2=0.999, eps=1e-8):
    means, squares = [np.zeros_like(v) for v in values], [np.zeros_like(v) for v in values]
    steps = 0

    def update(grads):
        nonlocal steps
        steps += 1
        rate, root = lr / (1 - beta1**steps), (1 - beta2**steps) ** 0.5
        for value, grad, m, v in zip(values, grads, means, squares, strict=True):
            m *= beta1
            m += (1 - beta1) * grad
            grad *= grad
            grad *= 1 - beta2
            v *= beta2
            v += grad
            np.sqrt(v, out=grad)
            grad /= root
            grad += eps
            np.divide(m, grad, out=grad)
            grad *= rate
            value -= grad

    return update


def sides(**sizes):
    return {"ours": partial(ours, **sizes), "torch": partial(pytorch, **sizes), "numpy": partial(by_hand, **sizes)}


def table_sides(optimizer="SGD"):
    size = sum((a + 1) * b for a, b in zip(WIDTHS, WIDTHS[1:], strict=False))
    passes = [products.RELU * BATCH * width for width in WIDTHS[1:-1]]
    passes.append((products.ADAM if optimizer == "Adam" else products.SGD) * size)
    same = {"widths": WIDTHS, "batch": BATCH, "lr": LR[optimizer], "optimizer": optimizer}
    return sides(optimizer=optimizer, lr=LR[optimizer]) | {
        "jax": partial(in_jax.mlp, **same),
        "sklearn": partial(in_sklearn.mlp, **same),
        "pydynet": partial(in_pydynet.mlp, **same),
        "floor": partial(products.alone, products.chain(BATCH, WIDTHS)),
        "passes": partial(products.copies, passes),
    }


ADAM = table_sides("Adam")
FUSED = {side: ADAM[side] for side in ("ours", "torch", "numpy", "floor", "passes")}
FUSED["torch"] = partial(pytorch, optimizer="Adam", lr=LR["Adam"], fused=True)

WORKLOADS = [
    Workload("mlp", "784-512-512-10, batch 128, cross-entropy, SGD", table_sides(), {"torch": 0.85, "numpy": 1.10}),
    Workload("mlp-adam", "the same, Adam", ADAM, {"torch": 0.70, "numpy": 1.05}),
    Workload("mlp-adam-fused", "the same, Adam, PyTorch's with fused=True", FUSED, {"torch": 1.0}),
]

SCALING = {
    axis: [(size, Workload(f"scaling/{axis}-{size}", f"{axis} {size}", sides(**make(size)))) for size in sizes]
    for axis, sizes, make in (
        ("batch", [2**k for k in range(11)], lambda n: {"batch": n}),
        ("width", [2**k for k in range(4, 12)], lambda n: {"widths": (784, n, n, 10)}),
        # at 0.1 nets of 32 and 64 layers diverge, and infinities would be timed
        ("depth", [2**k for k in range(1, 8)], lambda n: {"widths": (784, *[64] * (n - 1), 10), "lr": 1e-3}),
    )
}
