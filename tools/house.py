"""Counts what the layout of the package promises: how short a step is, and where the arithmetic of a class runs.

    python tools/house.py [--json]        # prints the three counts, with what exceeds them

The counts are made by running. `MTORCH_FAST=0` is set before mtorch is imported, so that the references alone run.
"""

import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mtorch"

# The order of the reading path, where docs/reading.md does not stand yet.
PATH = """
    parameter layer layers/tanh layers/softmax layers/linear container sequential losses/base losses/mse optim/base
    optim/sgd module layers/lstm testing/gradients
""".split()

# Files in which the arithmetic of any class may run: the protocol, shapes, and mathematics that layers share.
SHARED = {
    "layer.py", "guards.py", "container.py", "parameter.py", "arrays.py", "deferred.py", "checks.py",
    "layers/geometry.py", "layers/sequences.py", "losses/labels.py",
}  # fmt: skip
INLINED = {"<listcomp>", "<setcomp>", "<dictcomp>"}  # functions of their own before Python 3.12 only
VERBS = {"forward", "backward", "backward_parameters", "terms", "rule", "step", "__call__"}


def without_fast_bodies() -> None:
    """Must come before the first import of mtorch; RuntimeError where that is too late."""
    if "mtorch" in sys.modules:
        accelerate = sys.modules.get("mtorch.accelerate")
        if accelerate is None or accelerate.ENABLED:
            raise RuntimeError("mtorch is imported already, with its fast bodies")
    os.environ["MTORCH_FAST"] = "0"
    sys.path.insert(0, str(ROOT))


def functions_run(call: Callable[[], Any], package: Path = PACKAGE) -> set[tuple[str, str]]:
    """(file, qualified name) of every function of the package that runs during the call."""
    seen, top = set(), f"{package}{os.sep}"

    def note(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(top) and code.co_name not in INLINED:
            seen.add((code.co_filename[len(top) :].replace(os.sep, "/"), code.co_qualname))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return seen


def lines_of(files: Any) -> int:
    return sum(len((PACKAGE / name).read_text().splitlines()) for name in files)


# ---------------------------------------------------------------------- a step, and the reading path


def digit_step() -> set[tuple[str, str]]:
    """What a warm step of the digit net runs: SquareLoss, SGD, a batch of 20."""
    import numpy

    from mtorch import SGD, Module, Sequential, SquareLoss, layers

    class DigitModule(Module):
        def __init__(self):
            super().__init__(
                Sequential([
                    layers.Linear(in_dim=784, out_dim=16, coe=2), layers.ReLU(),
                    layers.Linear(in_dim=16, out_dim=16, coe=2), layers.ReLU(),
                    layers.Linear(in_dim=16, out_dim=10, coe=1), layers.Sigmoid(),
                ])
            )  # fmt: skip

    module = DigitModule()
    loss_func = SquareLoss(backward_func=module.backward)
    optimizer = SGD(module, lr=0.1)
    images = numpy.random.default_rng(0).standard_normal((20, 784)).astype("float32")
    labels = numpy.arange(20) % 10

    def step() -> None:
        loss = loss_func(module(images), labels, transform=True)
        loss.backward()
        optimizer.step()

    step()
    step()
    return functions_run(step)


def reading_path() -> list[str]:
    """The files of the package that docs/reading.md links to, in the order of their first mention."""
    page = ROOT / "docs" / "reading.md"
    if not page.exists():
        return [f"{name}.py" for name in PATH]
    return list(dict.fromkeys(re.findall(r"\]\(\.\./mtorch/([\w/]+\.py)\)", page.read_text())))


# ---------------------------------------------------------------------- where a class computes


def file_of(cls: type) -> str:
    return sys.modules[cls.__module__].__file__.removeprefix(f"{PACKAGE}{os.sep}").replace(os.sep, "/")


def files_of(cls: type) -> set[str]:
    """The file of a class, and those of its bases in the package."""
    return {file_of(base) for base in cls.__mro__ if base.__module__.split(".")[0] == "mtorch"}


def strangers(cls: type, runs: set[tuple[str, str]], parts: list[Any]) -> set[str]:
    """Functions that ran in files which are neither the class's own nor shared; empty for a class that keeps house.

    parts: the layers that the class is made of, or drives.
    """
    allowed = SHARED | files_of(cls) | {file for part in parts for file in files_of(type(part))}
    return {f"{file}: {name}" for file, name in runs if file not in allowed and not file.startswith("math/")}


def classes() -> Iterator[tuple[type, Callable[[], tuple[set[tuple[str, str]], list[Any]]]]]:
    """Every final layer, loss and optimizer of the package, with a function that runs its examples."""
    sys.path[:0] = [str(ROOT / "tests" / "conformance")]
    from harness import final_classes

    from mtorch.layer import Layer
    from mtorch.losses.base import LossFunction
    from mtorch.optim.base import Optimizer

    for cls in final_classes(Layer):
        yield cls, lambda cls=cls: run_layer(cls)
    for cls in final_classes(LossFunction):
        yield cls, lambda cls=cls: run_loss(cls)
    for cls in final_classes(Optimizer):
        yield cls, lambda cls=cls: run_optimizer(cls)


def _values(value: Any, function: Callable[[Any], Any]) -> Any:
    if isinstance(value, tuple):
        return tuple(_values(part, function) for part in value)
    return None if value is None else function(value)


def run_layer(cls: type) -> tuple[set[tuple[str, str]], list[Any]]:
    import numpy

    from mtorch.testing import make_value

    rng, dtype = numpy.random.default_rng(0), numpy.dtype("float32")
    runs: set[tuple[str, str]] = set()
    parts: list[Any] = []
    for layer, inputs in cls.examples(xp=numpy, dtype=dtype, rng=rng):
        x = make_value(inputs, numpy, dtype, rng)
        layer(x)  # warm; what it remembers is replaced by the next forward

        def both(layer: Any = layer, x: Any = x) -> None:
            y = layer.forward(x)
            layer.backward(_values(y, lambda part: numpy.ones_like(part) if part.dtype.kind == "f" else None))

        runs |= functions_run(both)
        parts += [below for _, below in layer.walk()]
    return runs, parts


def run_loss(cls: type) -> tuple[set[tuple[str, str]], list[Any]]:
    import numpy

    from mtorch.testing import make_value

    rng, dtype = numpy.random.default_rng(0), numpy.dtype("float32")
    runs: set[tuple[str, str]] = set()
    for loss, inputs in cls.examples(xp=numpy, dtype=dtype, rng=rng):
        values = make_value(inputs, numpy, dtype, rng)
        runs |= functions_run(lambda loss=loss, values=values: loss(*values))
    return runs, []


def run_optimizer(cls: type) -> tuple[set[tuple[str, str]], list[Any]]:
    import numpy

    from mtorch import Module, Sequential, layers

    runs: set[tuple[str, str]] = set()
    parts: list[Any] = []
    for options in cls.examples():
        module = Module(Sequential(layers.Linear(4, 3), layers.Linear(3, 2)))
        optimizer = cls(module, **options)
        for _ in range(2):
            module(numpy.ones((5, 4), "float32"))
            module.backward(numpy.ones((5, 2), "float32"))
            runs |= functions_run(optimizer.step)
        parts += [below for _, below in module.walk()]
    return runs, parts


def own_arithmetic() -> dict[str, set[str]]:
    """{class: functions elsewhere that its examples ran}; a class that computes nothing by itself has them all."""
    found = {}
    for cls, run in classes():
        runs, parts = run()
        elsewhere = strangers(cls, runs, parts)
        if not any(file in files_of(cls) and name.rpartition(".")[2] in VERBS for file, name in runs):
            elsewhere |= {f"{file}: {name}" for file, name in runs}
        found[f"{cls.__module__}.{cls.__qualname__}"] = elsewhere
    return found


def counts() -> dict[str, Any]:
    step, path = digit_step(), reading_path()
    return {
        "step": sorted(step),
        "path": {name: lines_of([name]) if (PACKAGE / name).exists() else None for name in path},
        "elsewhere": {name: sorted(found) for name, found in own_arithmetic().items()},
    }


def main() -> int:
    without_fast_bodies()
    found = counts()
    if "--json" in sys.argv[1:]:
        print(json.dumps(found))
        return 0
    step, path, elsewhere = found["step"], found["path"], found["elsewhere"]
    files = sorted({file for file, _ in step})
    print(f"step of the digit net: {len(files)} files, {len(step)} functions, {lines_of(files)} lines")
    for file in files:
        names = sorted(name.rpartition(".")[2] for each, name in step if each == file)
        print(f"    {file} ({lines_of([file])}): {', '.join(names)}")
    print(f"reading path: {len(path)} files, {sum(filter(None, path.values()))} lines")
    print("    " + ", ".join(f"{name} {lines or 'missing'}" for name, lines in path.items()))
    print(f"arithmetic in their own file: {sum(not each for each in elsewhere.values())} of {len(elsewhere)} classes")
    for name, functions in elsewhere.items():
        if functions:
            other = Counter(each.partition(":")[0] for each in functions)
            print(f"    {name}: {', '.join(f'{file} ({count})' for file, count in sorted(other.items()))}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
