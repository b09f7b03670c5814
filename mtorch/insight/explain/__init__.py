"""`python -m mtorch explain NAME`: equation, shapes, derivation, numbers, code and proof of a class.

All of it is read from the class: its docstring, its code, and its `examples()`; so it cannot drift from them. A page is
made once, as sections of blocks, and written as text, as Markdown or as HTML.
"""

import inspect
import sys
from pathlib import Path
from typing import Any

import numpy

import mtorch
from mtorch import accelerate, arrays
from mtorch.insight.explain import docstring
from mtorch.insight.explain.blocks import Code, Formula, Heading, Numbers, Page, Prose, Section, Step, Table
from mtorch.insight.explain.examples import GRADIENT, cycle, worked
from mtorch.insight.explain.names import example_of, find
from mtorch.insight.explain.proof import prove, schedules_of
from mtorch.insight.explain.trace import Trace, leaves_of, one_line
from mtorch.layer import Layer
from mtorch.layers.linear import Linear
from mtorch.losses.base import LossFunction
from mtorch.losses.mse import MSELoss
from mtorch.module import Module
from mtorch.optim.base import Optimizer
from mtorch.optim.schedules import Schedule

VERBS = {"forward": 0, "backward": 1, "backward_parameters": 2, "terms": 0, "rule": 0, "__call__": 0}
PACKAGE = Path(mtorch.__file__).parent


def explain(name: str) -> Page:
    """The page of a class by its name; LookupError, which names the nearest, for an unknown one."""
    cls: Any = find(name)
    shown: Any = example_of(cls)
    said = docstring.sections(cls)
    page = Page(cls.__name__, signature(cls), file_of(cls), [])
    add = page.sections.append
    add(Section("equation", said.get("equation", [Prose("It has no docstring.")])))
    if shown is not cls:
        text = f"{cls.__name__} is what others extend; numbers, code and proof are those of {shown.__name__}."
        page.sections[0].blocks.append(Prose(text))
    add(Section("shapes", [*said.get("shapes", []), *shapes(shown)]))
    derivation = said.get("derivation", [])
    if not derivation and shown is not cls:
        derivation = [Prose(f"Of {shown.__name__}:"), *docstring.sections(shown).get("derivation", [])]
    if not derivation and issubclass(shown, Schedule):
        derivation = [Prose("A rate is a number that no gradient passes through: there is nothing to derive.")]
    if not derivation and issubclass(shown, Optimizer):
        derivation = [Prose(OPTIMIZER)]
    add(Section("derivation", derivation))
    for title in ("errors", "notes"):
        if title in said:
            add(Section(title, said[title]))
    try:
        example, trace = numbers_of(shown)
    except Exception as error:  # a class that is broken still gets its page, and its proof fails
        example, trace = (
            [Prose(f"It does not run: {type(error).__name__}: {error}".partition("\n")[0])],
            Trace(None, set()),
        )
    add(Section("worked example", example))
    add(Section("code", code_blocks(shown, trace)))
    if "literature" in said:
        add(Section("literature", said["literature"]))
    add(proof_section(shown, page))
    return page


def page(name: str) -> str:
    """The page of a class as Markdown, for the documentation."""
    from mtorch.insight.explain.render import markdown

    return markdown(explain(name))


OPTIMIZER = (
    "An optimizer derives nothing: backward has collected the gradient g of each parameter, the equations above make a "
    "direction d of it, and step does w := w - lr d. With d = g this moves w against the slope of the loss, which to "
    "first order falls by lr |g|^2."
)


def signature(cls: Any) -> str:
    """Name(arguments), without type hints and without what every layer takes."""
    parameters = [p for p in inspect.signature(cls).parameters.values() if p.name not in ("xp", "dtype", "rng")]
    while parameters and parameters[-1].kind is inspect.Parameter.VAR_KEYWORD and parameters[-1].name != "options":
        parameters.pop()
    text = str(inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters]))
    return cls.__name__ + text.replace("<function ", "").replace(", *)", ")").replace("(*)", "()")


def file_of(cls: Any) -> str:
    return str(Path(inspect.getfile(cls)).relative_to(PACKAGE.parent)).replace("\\", "/")


def shapes(cls: Any) -> list[Any]:
    """The shapes of the examples as they run, in a table."""
    if issubclass(cls, Optimizer):
        return [Prose("A direction d and each state have the shape of their parameter.")]
    if issubclass(cls, Schedule):
        return [Prose("schedule(k) takes the number of a step, counted from 0, and returns a float.")]
    rows = []
    try:
        from mtorch.testing.gradients import make_value

        for subject, inputs in cls.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
            value = make_value(inputs, numpy, numpy.dtype("float64"), numpy.random.default_rng(1))
            if isinstance(subject, LossFunction):
                result: Any = numpy.asarray(subject(*value).value)
            else:
                result = subject.predict(value)
            rows.append([repr(subject), str(arrays.shape_value(value)), str(arrays.shape_value(result))])
            if len(rows) == 3:
                break
    except Exception as error:
        rows.append(["fails", f"{type(error).__name__}", ""])
    return [Table(["for example", "takes", "returns"], rows)]


# ---------------------------------------------------------------------- the worked example


def numbers_of(cls: Any) -> tuple[list[Any], Trace]:
    """The blocks of the worked example, and the code of its file that ran."""
    with accelerate.disabled():
        if issubclass(cls, Layer):
            return layer_numbers(cls)
        if issubclass(cls, LossFunction):
            return loss_numbers(cls)
        return optimizer_numbers(cls) if issubclass(cls, Optimizer) else schedule_numbers(cls)


def files_of(cls: Any) -> set[str]:
    verbs: list[Any] = [getattr(cls, name, None) for name in VERBS]
    own = {inspect.unwrap(verb).__code__.co_filename for verb in verbs if hasattr(verb, "__code__")}
    return {inspect.getfile(cls)} | {file for file in own if file not in SHARED}


SHARED = {str(PACKAGE / name) for name in ("layer.py", "container.py", "losses/base.py", "optim/base.py")}


def layer_numbers(cls: Any) -> tuple[list[Any], Trace]:
    layer, example = worked(cls)
    text, x = docstring_of(cls), example.values
    blocks: list[Any] = [Code(f"layer = {example.source}"), Heading("forward")]
    inputs = named(example.names, x)
    parameters = {name: symbol(name, text) for name in layer.parameters()}
    weights = [
        Numbers(parameters[name], p.value.copy(), "" if parameters[name] == name else name)
        for name, p in layer.parameters().items()
    ]
    buffers = {name: b.value.copy() for name, b in layer.buffers().items()}
    kept = [Numbers(name, value) for name, value in buffers.items()]
    blocks += inputs + weights + kept
    trace = Trace(layer, files_of(cls))
    known = {each.name: each.value for each in inputs}
    y, steps = trace.run(lambda: layer(x), known | {n: p.value for n, p in layer.parameters().items()})
    outputs = named(example.outputs if isinstance(y, tuple) == isinstance(example.outputs, tuple) else names_for(y), y)
    blocks += without(steps, outputs) + outputs
    after = {name: b.value for name, b in layer.buffers().items()}
    changed = [n for n in after if not numpy.array_equal(after[n], buffers[n])]
    for each in kept:
        each.note = "before" if each.name in changed else ""
    blocks += [Numbers(name, after[name].copy(), "after") for name in changed]
    blocks.append(Heading("backward"))
    count = iter(range(99))

    def gradient(part: Any) -> Any:
        shift = next(count)
        shift %= len(GRADIENT)
        values = GRADIENT[shift:] + GRADIENT[:shift]
        return cycle(values, part.shape) if part.dtype.kind == "f" else None

    g = arrays.map_value(gradient, y)
    given = named(gradient_names(example.outputs, y), g)
    blocks += [Numbers(each.name, each.value, "the output gradient") for each in given]
    known = {each.name: each.value for each in [*inputs, *weights, *outputs, *given]}
    dx, steps = trace.run(lambda: layer.backward(g), known)
    found = [Numbers("d" + parameters[n], p.grad.copy()) for n, p in layer.parameters().items() if p.trainable]
    passed = named(tuple_map(lambda name: "d" + name, example.names), dx) if dx is not None else []
    passed = [each if each.value is not None else Numbers(each.name, "none: it is no float") for each in passed]
    blocks += without(steps, found + passed) + found + passed
    return blocks, trace


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
    blocks += named(tuple_map(lambda name: f"dL/d{name}", first), loss.grad)
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


def docstring_of(cls: Any) -> str:
    return inspect.getdoc(cls) or ""


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
    return tuple_map(lambda name: name.replace("y_", "g_") if name.startswith("y_") else f"d{name}", names)


def tuple_map(function: Any, value: Any) -> Any:
    return tuple(tuple_map(function, part) for part in value) if isinstance(value, tuple) else function(value)


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


# ---------------------------------------------------------------------- code and proof


def code_blocks(shown: Any, trace: Trace) -> list[Any]:
    """The reference code that ran in the example, forward and backward first, then what they call."""
    ran = list(trace.ran)
    sources: dict[str, tuple[int, str]] = {}
    if issubclass(shown, Schedule):
        names: list[str] = ["__call__"]
    else:
        names = [name for name in VERBS if name != "__call__" or issubclass(shown, LossFunction)]
    for name in names:
        verb: Any = getattr(shown, name, None)
        code = getattr(inspect.unwrap(verb), "__code__", None) if verb is not None else None
        if code is not None and code.co_filename not in SHARED and code.co_filename.startswith(str(PACKAGE)):
            ran = [code, *ran]
    order = {code: number for number, code in enumerate(dict.fromkeys(ran))}
    for code in order:
        try:
            source = inspect.getsource(code)
        except OSError:
            source = f"# the source of {code.co_name} is not available\n"
        where = "/".join(Path(code.co_filename).parts[-2:])
        if code.co_name not in ("__init__", "check", "check_size", "details", "__repr__", "<lambda>"):
            sources[f"{where}:{code.co_qualname}"] = (code.co_firstlineno, inspect.cleandoc("\n" + source))
    if not sources:
        sources = {file_of(shown): (0, inspect.getsource(shown))}
    verbs = sorted(sources.items(), key=lambda item: (VERBS.get(item[0].rpartition(".")[2], 3), item[1][0]))
    blocks: list[Any] = [Code(source, name) for name, (_, source) in verbs]
    return blocks + ([Prose(f"It calls {', '.join(map(one_line, trace.called))}.")] if trace.called else [])


def proof_section(cls: Any, into: Page) -> Section:
    """Runs the proof; its last line goes into the page, too."""
    proof = prove(cls)
    rows = [[check.subject, f"{check.error:.1e}"] for check in proof.checks]
    blocks: list[Any] = [Prose(proof.method), Table(["example", "error"], rows)]
    blocks += [Prose(f"{check.subject}: {check.fault}") for check in proof.checks if check.fault]
    if proof.left:
        blocks.append(Prose(f"{proof.left} more examples were left out, to end in time; the tests run them all."))
    blocks.append(Prose(f"Allowed: {proof.tolerance:.0e}. It {'holds' if proof.holds else 'FAILS'}."))
    into.proof, into.proved = f"proof: largest error {proof.error:.0e}", proof.holds
    return Section("proof", blocks)


def listing() -> str:
    """All names by family."""
    from mtorch.insight.explain.names import families
    from mtorch.insight.explain.render import wrapped

    lines = ["python -m mtorch explain NAME explains one of these:", ""]
    for family, classes in families().items():
        lines += [family, *wrapped("  ".join(classes), "    ", "    "), ""]
    return "\n".join(lines).rstrip()


def main(name: str | None, html: str | None = None) -> int:
    """Prints the page of a class, or writes it as HTML; 0, or 1 where the proof fails, or 2 for an unknown name."""
    from mtorch.insight.explain import render

    if name is None:
        print(listing())
        return 0
    try:
        found = explain(name)
    except LookupError as error:
        print(error.args[0], file=sys.stderr)
        return 2
    if html is None:
        print(render.text(found))
    elif html == "-":
        print(render.html(found))
    else:
        try:
            Path(html).write_text(render.html(found), encoding="utf-8")
        except OSError as error:
            print(f"cannot write {html}: {error.strerror}", file=sys.stderr)
            return 2
        print(f"{html}\n{found.proof}")
    return 0 if found.proved else 1


__all__ = ["Formula", "explain", "listing", "main", "page"]
