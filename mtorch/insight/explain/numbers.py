"""The worked example of a page: the class runs on small numbers, and each statement is shown with what it computed."""

import inspect
from itertools import count
from typing import Any

import numpy

from mtorch import accelerate
from mtorch.arrays import map_value
from mtorch.insight.explain.blocks import Code, Heading, Numbers, Prose, Step, Table
from mtorch.insight.explain.code import files_of
from mtorch.insight.explain.examples import GRADIENT, Worked, cycle, worked
from mtorch.insight.explain.proof import schedules_of
from mtorch.insight.explain.trace import Trace, leaves_of
from mtorch.layer import Layer
from mtorch.layers.linear import Linear
from mtorch.losses.base import LossFunction
from mtorch.losses.mse import MSELoss
from mtorch.module import Module
from mtorch.optim.base import Optimizer


def numbers_of(cls: Any) -> tuple[list[Any], Trace]:
    """The blocks of the worked example, and the code of its file that ran."""
    with accelerate.disabled():
        if issubclass(cls, Layer):
            return layer_numbers(cls)
        if issubclass(cls, LossFunction):
            return loss_numbers(cls)
        return optimizer_numbers(cls) if issubclass(cls, Optimizer) else schedule_numbers(cls)


def layer_numbers(cls: Any) -> tuple[list[Any], Trace]:
    layer, example = worked(cls)
    text = inspect.getdoc(cls) or ""
    symbols = {name: symbol(name, text) for name in layer.parameters()}
    trace = Trace(layer, files_of(cls))
    forward, y = layer_forward(layer, example, symbols, trace)
    backward = layer_backward(layer, example, symbols, trace, y, forward)
    head = Code(f"layer = {example.source}")
    return [head, Heading("forward"), *forward, Heading("backward"), *backward], trace


def layer_forward(layer: Layer, example: Worked, symbols: dict[str, str], trace: Trace) -> tuple[list[Any], Any]:
    """The blocks of the forward, and y."""
    inputs = named(example.names, example.values)
    parameters = layer.parameters()
    weights = [Numbers(symbols[n], p.value.copy(), "" if symbols[n] == n else n) for n, p in parameters.items()]
    before = {name: b.value.copy() for name, b in layer.buffers().items()}
    known = {each.name: each.value for each in inputs} | {name: p.value for name, p in parameters.items()}
    y, steps = trace.run(lambda: layer(example.values), known)
    outputs = named(example.outputs if isinstance(y, tuple) == isinstance(example.outputs, tuple) else names_for(y), y)
    after = {name: b.value.copy() for name, b in layer.buffers().items()}
    changed = [name for name in after if not numpy.array_equal(after[name], before[name])]
    kept = [Numbers(name, value, "before" if name in changed else "") for name, value in before.items()]
    moved = [Numbers(name, after[name], "after") for name in changed]
    return [*inputs, *weights, *kept, *without(steps, outputs), *outputs, *moved], y


def layer_backward(
    layer: Layer, example: Worked, symbols: dict[str, str], trace: Trace, y: Any, forward: list[Any]
) -> list[Any]:
    """The blocks of the backward for an output gradient of small numbers, each output with others."""
    shifts = count()

    def gradient(part: Any) -> Any:
        shift = next(shifts) % len(GRADIENT)
        return cycle(GRADIENT[shift:] + GRADIENT[:shift], part.shape) if part.dtype.kind == "f" else None

    g = map_value(gradient, y)
    given = [Numbers(n.name, n.value, "the output gradient") for n in named(gradient_names(example.outputs, y), g)]
    known = {each.name: each.value for each in [*forward, *given] if isinstance(each, Numbers)}
    dx, steps = trace.run(lambda: layer.backward(g), known)
    found = [Numbers("d" + symbols[n], p.grad.copy()) for n, p in layer.parameters().items() if p.trainable]
    passed = named(map_value(lambda name: "d" + name, example.names), dx) if dx is not None else []
    passed = [each if each.value is not None else Numbers(each.name, "none: it is no float") for each in passed]
    return [*given, *without(steps, found + passed), *found, *passed]


def loss_numbers(cls: Any) -> tuple[list[Any], Trace]:
    loss_func, example = worked(cls)
    prediction, *target = example.values
    target = [part for part in target if part is not None]
    blocks: list[Any] = [Code(f"loss_func = {example.source}"), Heading("forward")]
    inputs = [each for each in named(example.names, example.values) if each.value is not None]
    trace = Trace(None, files_of(cls))
    loss, steps = trace.run(lambda: loss_func(prediction, *target), {each.name: each.value for each in inputs})
    steps = [each for each in steps if not isinstance(each, Step) or each.source]
    blocks += inputs + steps
    blocks.append(Numbers("L", float(loss.value), "loss.value"))
    blocks.append(Heading("backward"))
    first = example.names[0]
    text = "The derivative of L with respect to "
    text += "the prediction" if not isinstance(first, tuple) else "each of the predictions"
    blocks.append(
        Prose(f"{text}, which loss.backward() hands to the net; the reduction, {loss_func.reduction!r}, is in it.")
    )
    blocks += named(map_value(lambda name: f"dL/d{name}", first), loss.grad)
    return blocks, trace


def optimizer_numbers(cls: Any) -> tuple[list[Any], Trace]:
    net = Linear(2, 1, bias=False, dtype="float64")
    net.weight.value[...] = [[1.0, -1.0]]
    module = Module(net)
    loss_func = MSELoss(module)
    optimizer = cls(module, lr=0.05)
    x, t = numpy.array([[1.0, 2.0]]), numpy.array([[1.0]])
    source = "module = Module(Linear(2, 1, bias=False))\nloss_func = MSELoss(module)\n"
    source += f"optimizer = {cls.__name__}(module, lr=0.05)"
    y = module(x)
    loss = loss_func(y, t)
    before = net.weight.value.copy()
    blocks: list[Any] = [
        Code(source), Heading("forward"), Prose("y = x W^T and L = (y - t)^2."), Numbers("x", x), Numbers("W", before),
        Numbers("y", y), Numbers("t", t, "the target"), Numbers("L", float(loss.value)),
        Heading("backward"), Prose("dL/dy = 2 (y - t) and g = dW = (dL/dy)^T x."), Numbers("dL/dy", loss.grad.copy()),
    ]  # fmt: skip
    loss.backward()
    gradient = net.weight.grad.copy()
    trace = Trace(None, files_of(cls))
    _, steps = trace.run(optimizer.step, {})
    moved = net.weight.value.copy()
    blocks += [Numbers("g", gradient, "= dW"), Heading("update"), *[each for each in steps if isinstance(each, Step)]]
    direction = (before - moved) / 0.05
    blocks += [Numbers("d", direction, "the direction"), Prose("W := W - lr d with lr = 0.05:"), Numbers("W", moved)]
    rows = [["0", *numbers_in(before), f"{loss.value:.4f}"]]
    for step in range(1, 6):
        loss = loss_func(module(x), t)
        rows.append([str(step), *numbers_in(net.weight.value), f"{loss.value:.4f}"])
        loss.backward()
        optimizer.step()
    blocks += [Prose("The first five steps on the same sample:"), Table(["steps", "W_1", "W_2", "L"], rows)]
    return blocks, trace


def numbers_in(array: numpy.ndarray) -> list[str]:
    return [f"{float(entry):.4f}" for entry in array.reshape(-1)]


def schedule_numbers(cls: Any) -> tuple[list[Any], Trace]:
    schedule = schedules_of(cls)[0]
    trace = Trace(None, {inspect.getfile(cls)})
    trace.run(lambda: schedule(1), {})
    rates = [schedule(k) for k in range(12)]
    rows = [[str(k), f"{rate:.4f}", "#" * round(40 * rate / max(rates))] for k, rate in enumerate(rates)]
    blocks = [
        Code(f"schedule = {schedule!r}\noptimizer = SGD(module, lr=schedule)"),
        Heading("forward"), Prose("The rate of each step k, which is schedule(k):"),
        Table(["k", "rate", ""], rows),
        Heading("backward"),
        Prose("No gradient passes through a rate. The optimizer multiplies it with its direction, w := w - rate d: "
              f"with w = 1.00 and d = 1.00 the first step gives w = 1.00 - {rates[0]:.2f} = {1 - rates[0]:.2f}."),
    ]  # fmt: skip
    return blocks, trace


def symbol(name: str, text: str) -> str:
    """What the docstring calls a parameter: W for weight, b for bias, W_ih for weight_ih_l0, else its name."""
    path, _, last = name.rpartition(".")
    short = last.removesuffix("_l0")
    for word, letter in (("weight", "W"), ("bias", "b")):
        plain = path == "" and f"{word} *" not in text and f" {word} " not in text.partition("Shapes")[0]
        if short.startswith(word) and (letter + short.removeprefix(word)) in text.replace(" ", "") and plain:
            return letter + short.removeprefix(word)
    return name


def names_for(value: Any) -> Any:
    return tuple(f"y_{i + 1}" for i in range(len(value))) if isinstance(value, tuple) else "y"


def gradient_names(outputs: Any, y: Any) -> Any:
    """g for one output, g_1, g_2 for several, or d of their names where they have some."""
    if not isinstance(y, tuple):
        return "g"
    names = outputs if isinstance(outputs, tuple) else names_for(y)
    return map_value(lambda name: name.replace("y_", "g_") if name.startswith("y_") else f"d{name}", names)


def named(names: Any, value: Any) -> list[Numbers]:
    """The leaves of a value under their names."""
    parts, labels = leaves_of(value), leaves_of(names)
    if len(parts) != len(labels):
        labels = [f"{labels[0]}_{i + 1}" for i in range(len(parts))] if len(parts) > 1 else labels[:1]
    return [Numbers(label, part) for label, part in zip(labels, parts, strict=True)]


def without(steps: list[Any], results: list[Numbers]) -> list[Any]:
    """The steps but for those that only repeat a result under its own name."""
    kept = []
    for step in steps:
        if isinstance(step, Step):
            values = [
                v for v in step.values
                if not any(v.name == r.name and numpy.array_equal(v.value, r.value) for r in results)
            ]  # fmt: skip
            if not values and step.values and not step.source:
                continue
            step = Step(step.source, values, step.place)
        kept.append(step)
    return kept
