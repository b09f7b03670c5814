"""One Transformer encoder block (attention and a 4E wide ReLU net, each with residual and LayerNorm after it)."""

from .common import Workload, fill_ours, fill_torch, normal

N, T, E, HEADS, LR = 16, 64, 128, 4, 0.01


def ours():
    from mtorch import SGD, Module, MSELoss, Residual, Sequential, layers

    module = fill_ours(Module(Sequential([
        Residual(layers.MultiHeadAttention(E, HEADS)), layers.LayerNorm(E),
        Residual(Sequential([layers.Linear(E, 4 * E), layers.ReLU(), layers.Linear(4 * E, E)])), layers.LayerNorm(E),
    ])))
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

    net = nn.TransformerEncoderLayer(E, HEADS, dim_feedforward=4 * E, dropout=0.0)
    places = {"self_attn": "0.body", "norm1": "1", "linear1": "2.body.0", "linear2": "2.body.2", "norm2": "3"}

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


WORKLOADS = [Workload(
    "transformer", f"Transformer encoder block, N={N} T={T} E={E}, {HEADS} heads, SGD",
    {"ours": ours, "torch": pytorch}, {"torch": 1.0},
)]
