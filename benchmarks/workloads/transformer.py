"""One Transformer encoder block: attention and a 4E wide ReLU net, each normalised first and with a way around it."""

from functools import partial

from . import in_jax, products
from .common import Workload, divided, fill_ours, fill_torch, in_processes, normal

N, T, E, HEADS, LR = 16, 64, 128, 4, 0.01


def ours(wrap=lambda net: net):
    from mtorch import SGD, Module, MSELoss, Sequential, layers, models

    module = fill_ours(Module(wrap(Sequential(models.transformer_block(layers, E, HEADS, 4 * E)))))
    loss_func, optimizer = MSELoss(module), SGD(module, lr=LR)
    x, target = normal(T, N, E), normal(T, N, E, seed=1)

    def step():
        loss = loss_func(module(x), target)
        loss.backward()
        optimizer.step()
        return loss.value

    return step


def pytorch():
    import torch
    from torch import nn

    net = nn.TransformerEncoderLayer(E, HEADS, dim_feedforward=4 * E, dropout=0.0, norm_first=True)
    places = {
        "norm1": "0.body.0",
        "self_attn": "0.body.1",
        "norm2": "1.body.0",
        "linear1": "1.body.1",
        "linear2": "1.body.4",
    }

    def rename(name):
        layer, _, rest = name.partition(".")
        return f"{places[layer]}.{rest}"

    fill_torch(net, rename)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR)
    x, target = torch.from_numpy(normal(T, N, E)), torch.from_numpy(normal(T, N, E, seed=1))

    def step():
        optimizer.zero_grad()
        loss = nn.functional.mse_loss(net(x), target)
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


PRODUCTS = [*products.attention(T, N, E, HEADS), *products.linear(T * N, E, 4 * E), *products.linear(T * N, 4 * E, E)]
PASSES = [
    2 * (products.NORM + products.ADD) * T * N * E,
    products.RELU * T * N * 4 * E,
    products.NORM * N * HEADS * T * T,
    products.SGD * 12 * E * E,
]  # softmax passes over the scores as a norm

ROW = Workload(
    "transformer",
    f"Transformer encoder block, N={N} T={T} E={E}, {HEADS} heads, SGD",
    {
        "ours": ours,
        "torch": pytorch,
        "jax": partial(in_jax.transformer_block, N, T, E, HEADS, LR),
        "floor": partial(products.alone, PRODUCTS),
        "passes": partial(products.copies, PASSES),
    },
    {"torch": 1.0},
)
WORKLOADS = [ROW, in_processes(ROW, partial(ours, partial(divided, axis=1)))]  # of (T, N, E)
