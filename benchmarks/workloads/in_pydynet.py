"""The steps in PyDyNet, a library with PyTorch's words that also computes with NumPy. Weights are (in, out)."""

from itertools import pairwise

import numpy as np

from .common import fill, fill_recurrent, labels, normal


def empty_graph():
    """Drops the parameters of earlier nets from the graph, which keeps them and walks over all of them in each step."""
    from pydynet.core.tensor import Graph

    Graph.node_list.clear()
    Graph.size = 0


def stepping(forward, loss_of, x, target, optimizers):
    def step():
        for optimizer in optimizers:
            optimizer.zero_grad()
        loss = loss_of(forward(x), target)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        return loss.item()

    return step


def plain_sgd(parameters, lr):
    from pydynet import optim

    return optim.SGD(parameters, lr=lr, momentum=0, nesterov=False)


def copy(parameter, value):
    parameter.data[...] = value.reshape(parameter.shape)


def linear(name, a, b):
    from pydynet import nn

    layer = nn.Linear(a, b, dtype=np.float32)
    weight, bias = fill({f"{name}.weight": (b, a), f"{name}.bias": (b,)}).values()
    copy(layer.weight, weight.T)
    copy(layer.bias, bias)
    return layer


def conv(name, a, b, size, padding=0):
    from pydynet import nn

    layer = nn.Conv2d(a, b, size, padding=padding, dtype=np.float32)
    weight, bias = fill({f"{name}.weight": (b, a, size, size), f"{name}.bias": (b,)}).values()
    copy(layer.weight, weight)
    copy(layer.bias, bias)
    return layer


def dense(widths, first=0):
    """Linear layers with ReLU between; `first`: the number of the first one in the other sides' net."""
    from pydynet import nn

    layers = []
    for i, (a, b) in enumerate(pairwise(widths)):
        layers += [linear(f"{first + 2 * i}", a, b), nn.ReLU()]
    return layers[:-1]


def digit_net(widths, batch, lr):
    from pydynet import Tensor, nn

    empty_graph()
    net = nn.Sequential(*dense(widths), nn.Sigmoid())
    x = Tensor(normal(batch, widths[0]))
    target = Tensor(np.eye(widths[-1], dtype=np.float32)[labels(batch)])
    half = widths[-1] / 2  # half the sum over 10 outputs is 5 times their mean
    return stepping(net, lambda y, t: half * nn.functional.mse_loss(y, t), x, target, [plain_sgd(net.parameters(), lr)])


def mlp(widths, batch, lr, optimizer="SGD"):
    from pydynet import Tensor, nn, optim

    empty_graph()
    net, x = nn.Sequential(*dense(widths)), Tensor(normal(batch, widths[0]))
    update = optim.Adam(net.parameters(), lr=lr) if optimizer == "Adam" else plain_sgd(net.parameters(), lr)
    return stepping(net, nn.CrossEntropyLoss(), x, labels(batch), [update])


def lenet(batch, lr):
    from pydynet import Tensor, nn

    empty_graph()

    class LeNet(nn.Module):
        def __init__(self):
            super().__init__()
            self.images = nn.Sequential(
                conv("1", 1, 6, 5, padding=2),
                nn.MaxPool2d(2, 2, 0),
                nn.ReLU(),
                conv("4", 6, 16, 5),
                nn.MaxPool2d(2, 2, 0),
                nn.ReLU(),
            )
            self.dense = nn.Sequential(*dense((400, 120, 84, 10), first=8))

        def forward(self, x):
            return self.dense(self.images(x).reshape(batch, 400))

    net, x = LeNet(), Tensor(normal(batch, 784).reshape(batch, 1, 28, 28))
    return stepping(net, nn.CrossEntropyLoss(), x, labels(batch), [plain_sgd(net.parameters(), lr)])


def recurrent(kind, size, lr):
    """Its gates have one bias where the other sides' have two, so that one moves twice as far.

    Its GRU is another one: the reset gate acts on the state before the product, as in the paper; the others' acts
    on the product.
    """
    from pydynet import Tensor, nn

    empty_graph()
    t, n, d, h = size
    layer, last = getattr(nn, kind)(d, h, dtype=np.float32), linear("1", h, d)
    w, u, b, b_h, *_ = fill_recurrent(kind, size)
    cell = getattr(layer, f"{kind}Cells")[0]
    for (wx, wh, bias), rows in places(kind, cell, h):
        for parameter, value in ((wx, w.T), (wh, u.T), (bias, b + b_h)):
            copy(parameter, rows(value))

    biases = [p for p in cell.parameters() if p.ndim == 1]
    others = [*(p for p in cell.parameters() if p.ndim > 1), *last.parameters()]
    updates = [plain_sgd(others, lr), plain_sgd(biases, 2 * lr)]
    x, target = Tensor(normal(t, n, d)), Tensor(normal(t, n, d, seed=1).reshape(t * n, d))

    def forward(x):  # its Linear gets the gradient of a weight (H, 1) wrong for an input (T, N, H)
        return last(layer(x)[0].reshape(t * n, h))

    return stepping(forward, nn.functional.mse_loss, x, target, updates)


def places(kind, cell, h):
    """Parameters of the cell, and how their columns come from those of the other sides."""
    if kind == "RNN":
        return [((cell.Wx, cell.Wh, cell.bias), lambda value: value)]
    if kind == "LSTM":  # forget, input, output, new; elsewhere input, forget, new, output
        order = [1, 0, 3, 2]
        return [
            (
                (cell.Wx, cell.Wh, cell.bias),
                lambda value: np.concatenate([value[..., k * h : (k + 1) * h] for k in order], axis=-1),
            )
        ]
    return [  # update, reset; elsewhere reset, update, where the update gate says how much of the old state stays
        (
            (cell.Wx1, cell.Wh1, cell.bias1),
            lambda value: np.concatenate([-value[..., h : 2 * h], value[..., :h]], axis=-1),
        ),
        ((cell.Wx2, cell.Wh2, cell.bias2), lambda value: value[..., 2 * h :]),
    ]
