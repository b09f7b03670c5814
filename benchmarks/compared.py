"""The same two tasks in each of the libraries that `compare_libraries.py` sets side by side.

    python benchmarks/compared.py LIBRARY step      # seconds of a step of the digit net
    python benchmarks/compared.py LIBRARY read      # what a reader of Linear and LSTM reads, by running both

It runs in the library's own environment and prints one line of JSON. `step` trains 784-16-16-10 with ReLU, ReLU and
sigmoid on batches of 20 by SGD on half the squared error. `read` runs forward and backward of an LSTM and a Linear
after it, and notes every Python function of the library that runs the third time, when everything is made.
"""

import ast
import importlib
import io
import json
import os
import random
import sys
import threading
import time
import tokenize
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

BATCH, SIZES, RATE = 20, (784, 16, 16, 10), 0.1
T, N, D, H, K = 5, 4, 3, 6, 2  # of the LSTM: steps, sequences, features, units; and of the Linear: outputs
SKIPPED = (tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER)
FUNCTIONS = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda


def digits() -> tuple[Any, Any]:
    """Images (20, 784) and their one-hot labels (20, 10)."""
    import numpy

    images = numpy.random.default_rng(0).standard_normal((BATCH, SIZES[0])).astype("float32")
    return images, numpy.eye(SIZES[-1], dtype="float32")[numpy.arange(BATCH) % SIZES[-1]]


def sequences() -> tuple[Any, Any]:
    """x (T, N, D) and an output gradient (T, N, K)."""
    import numpy

    rng = numpy.random.default_rng(0)
    return rng.standard_normal((T, N, D)).astype("float32"), rng.standard_normal((T, N, K)).astype("float32")


# ---------------------------------------------------------------------- mtorch


def mtorch_step() -> Callable[[], Any]:
    from mtorch import SGD, Module, Sequential, SquareLoss, layers

    layers_of_net: list[Any] = []
    for a, b in zip(SIZES, SIZES[1:], strict=False):
        layers_of_net += [layers.Linear(a, b), layers.ReLU()]
    module = Module(Sequential([*layers_of_net[:-1], layers.Sigmoid()]))
    loss_func, optimizer = SquareLoss(module), SGD(module, lr=RATE)
    x, t = digits()

    def step() -> None:
        loss_func(module(x), t).backward()
        optimizer.step()

    return step


def mtorch_read() -> Callable[[], Any]:
    from mtorch import Sequential, layers

    net, (x, g) = Sequential(layers.LSTM(D, H), layers.Linear(H, K)), sequences()

    def run() -> None:
        net(x)
        net.backward(g)

    return run


# ---------------------------------------------------------------------- PyTorch


def torch_step() -> Callable[[], Any]:
    import torch
    from torch import nn

    layers_of_net: list[Any] = []
    for a, b in zip(SIZES, SIZES[1:], strict=False):
        layers_of_net += [nn.Linear(a, b), nn.ReLU()]
    net = nn.Sequential(*layers_of_net[:-1], nn.Sigmoid())
    optimizer = torch.optim.SGD(net.parameters(), lr=RATE)
    x = torch.randn(BATCH, SIZES[0])
    t = torch.eye(SIZES[-1])[torch.arange(BATCH) % SIZES[-1]]

    def step() -> None:
        optimizer.zero_grad()
        (SIZES[-1] / 2 * nn.functional.mse_loss(net(x), t)).backward()
        optimizer.step()

    return step


def torch_read() -> Callable[[], Any]:
    import torch
    from torch import nn

    lstm, linear = nn.LSTM(D, H), nn.Linear(H, K)
    x, g = torch.randn(T, N, D, requires_grad=True), torch.randn(T, N, K)
    return lambda: linear(lstm(x)[0]).backward(g)


# ---------------------------------------------------------------------- TinyTorch


def tinytorch_step() -> Callable[[], Any]:
    from tinytorch import SGD, Linear, MSELoss, ReLU, Sigmoid, Tensor

    layers_of_net: list[Any] = []
    for a, b in zip(SIZES, SIZES[1:], strict=False):
        layers_of_net += [Linear(a, b), ReLU()]
    layers_of_net[-1] = Sigmoid()
    parameters = [p for layer in layers_of_net for p in layer.parameters()]
    for parameter in parameters:
        parameter.requires_grad = True
    optimizer, loss_func = SGD(parameters, lr=RATE), MSELoss()
    images, labels = digits()
    x, t = Tensor(images), Tensor(labels)

    def step() -> None:
        y = x
        for layer in layers_of_net:
            y = layer(y)
        optimizer.zero_grad()
        loss_func(y, t).backward()
        optimizer.step()

    return step


# ---------------------------------------------------------------------- micrograd


def micrograd_step() -> Callable[[], Any]:
    """Without the sigmoid, which micrograd has not."""
    from micrograd.nn import MLP

    net = MLP(SIZES[0], list(SIZES[1:]))
    rows = [[random.gauss(0, 1) for _ in range(SIZES[0])] for _ in range(BATCH)]
    targets = [[float(k == n % SIZES[-1]) for k in range(SIZES[-1])] for n in range(BATCH)]

    def step() -> None:
        outputs = [net(row) for row in rows]
        errors = [(y - t) ** 2 for ys, ts in zip(outputs, targets, strict=True) for y, t in zip(ys, ts, strict=True)]
        loss = sum(errors) * (0.5 / BATCH)
        net.zero_grad()
        loss.backward()
        for p in net.parameters():
            p.data -= RATE * p.grad

    return step


# ---------------------------------------------------------------------- PyDyNet


def pydynet_step() -> Callable[[], Any]:
    import pydynet
    from pydynet import nn, optim

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second, self.third = (nn.Linear(a, b) for a, b in zip(SIZES, SIZES[1:], strict=False))

        def forward(self, x: Any) -> Any:
            h = nn.functional.relu(self.first(x))
            return nn.functional.sigmoid(self.third(nn.functional.relu(self.second(h))))

    net, (images, labels) = Net(), digits()
    optimizer, loss_func = optim.SGD(net.parameters(), lr=RATE), nn.MSELoss()
    x, t = pydynet.Tensor(images), pydynet.Tensor(labels)

    def step() -> None:
        loss = loss_func(net(x), t)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def pydynet_read() -> Callable[[], Any]:
    import pydynet
    from pydynet import nn

    lstm, linear = nn.LSTM(D, H), nn.Linear(H, K)
    x, g = (pydynet.Tensor(each) for each in sequences())
    return lambda: (linear(lstm(x)[0]) * g).sum().backward()


# ---------------------------------------------------------------------- thinc


def thinc_step() -> Callable[[], Any]:
    from thinc.api import SGD, Relu, Sigmoid, chain

    net, (x, t) = chain(Relu(SIZES[1]), Relu(SIZES[2]), Sigmoid(SIZES[3])), digits()
    net.initialize(X=x, Y=t)
    optimizer = SGD(RATE, L2=0, grad_clip=0)

    def step() -> None:
        y, backprop = net.begin_update(x)
        backprop((y - t) / BATCH)
        net.finish_update(optimizer)

    return step


def thinc_read() -> Callable[[], Any]:
    from thinc.api import LSTM, Linear, chain, with_array2d

    x, g = sequences()
    net = chain(LSTM(H, D), with_array2d(Linear(K, H)))
    given, grads = (net.ops.list2padded([each[:, n] for n in range(N)]) for each in (x, g))
    net.initialize(X=given, Y=grads)

    def run() -> None:
        _, backprop = net.begin_update(given)
        backprop(grads)

    return run


# ---------------------------------------------------------------------- the two measures


def seconds_of(step: Callable[[], Any]) -> float:
    """The mean over a third of a second, after two steps to warm up; the first step where that takes over a second."""
    for _ in range(2):
        start = time.perf_counter()
        step()
        once = time.perf_counter() - start
        if once > 1:
            return once
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < 0.35:
        step()
        count += 1
    return (time.perf_counter() - start) / count


def code_that_runs(run: Callable[[], Any], package: Path) -> set[CodeType]:
    """The code of every Python function of the package that runs."""
    seen: set[CodeType] = set()

    def note(frame: FrameType, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(f"{package}{os.sep}"):
            seen.add(frame.f_code)

    sys.setprofile(note)
    threading.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    return seen


def code_lines(text: str) -> set[int]:
    """The lines that hold code: no blank lines, comments and docstrings."""
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in SKIPPED:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.difference_update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def reading(codes: set[CodeType]) -> dict[str, int]:
    """How many lines of code these functions have, how many they are, and in how many files they stand."""
    total, functions, files = 0, 0, set()
    for name in {code.co_filename for code in codes}:
        text = Path(name).read_text()
        first = {code.co_firstlineno for code in codes if code.co_filename == name}
        lines: set[int] = set()
        for node in ast.walk(ast.parse(text)):
            start = (
                min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", ()))])
                if isinstance(node, FUNCTIONS)
                else 0
            )
            if isinstance(node, FUNCTIONS) and start in first:
                lines.update(range(start, (node.end_lineno or start) + 1))
                functions += 1
        lines &= code_lines(text)
        total += len(lines)
        files.add(name)
    return {"lines": total, "functions": functions, "files": len(files)}


def main() -> None:
    library, task = sys.argv[1:]
    make = globals().get(f"{library}_{task}")
    if make is None:
        answer: Any = None
    elif task == "step":
        answer = seconds_of(make())
    else:
        run, package = make(), Path(str(importlib.import_module(library).__file__)).parent
        run()
        run()
        answer = reading(code_that_runs(run, package))
    print(json.dumps(answer))


if __name__ == "__main__":
    sys.setrecursionlimit(10**6)  # micrograd sorts its graph by recursion
    threading.stack_size(512 << 20)
    worker = threading.Thread(target=main)
    worker.start()
    worker.join()
