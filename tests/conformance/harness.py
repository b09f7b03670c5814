"""Finds every final layer and loss of the package and its examples; the walk that all shared tests use."""

import copy
import importlib
import pkgutil
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy
import pytest

import mtorch
from mtorch import arrays
from mtorch.layer import EMPTY, Layer
from mtorch.losses.base import LossFunction
from mtorch.testing import make_value

for _info in pkgutil.walk_packages(mtorch.__path__, "mtorch."):
    if not _info.name.endswith("__main__"):
        importlib.import_module(_info.name)


def final_classes(base: type) -> list[type]:
    """The classes of the package below `base` that nothing extends: a class is abstract or final."""
    found, stack = [], [base]
    while stack:
        cls = stack.pop()
        subclasses = [sub for sub in cls.__subclasses__() if sub.__module__.startswith("mtorch.")]
        stack.extend(subclasses)
        if not subclasses and cls is not base:
            found.append(cls)
    return sorted(set(found), key=lambda cls: cls.__name__)


def examples(cls: type, xp: Any = numpy, dtype: Any = "float64") -> Iterator[tuple[Any, Any]]:
    return cls.examples(xp=xp, dtype=dtype, rng=numpy.random.default_rng(0))


def cases(base: type) -> list:
    return [
        pytest.param(cls, index, id=f"{cls.__name__}-{index}")
        for cls in final_classes(base)
        for index, _ in enumerate(examples(cls))
    ]


def example(cls: type, index: int, xp: Any = numpy, dtype: Any = "float64") -> tuple[Any, Any]:
    """(layer or loss, input value) of that example, always the same one."""
    subject, inputs = list(examples(cls, xp, dtype))[index]
    return subject, make_value(inputs, xp, dtype, numpy.random.default_rng(1))


LAYERS, LOSSES = cases(Layer), cases(LossFunction)


def leaves(value: Any) -> list:
    return [leaf for part in value for leaf in leaves(part)] if isinstance(value, tuple) else [value]


def cotangent(y: Any, seed: int = 2) -> Any:
    """A random gradient for a value (None for integers)."""
    rng = numpy.random.default_rng(seed)
    return arrays.map_value(
        lambda a: (
            arrays.array_module(a).asarray(rng.standard_normal(a.shape), dtype=a.dtype) if a.dtype.kind == "f" else None
        ),
        y,
    )


def run(layer: Layer, x: Any, grad: Any = None) -> tuple[Any, Any, dict]:
    """Forward and backward on a copy: output, input gradient, parameter gradients, all on the host."""
    twin = copy.deepcopy(layer)
    y = twin(x)
    dx = twin.backward(cotangent(y) if grad is None else grad)
    return host(y), host(dx), {name: arrays.as_numpy(p.grad).copy() for name, p in twin.parameters().items()}


def host(value: Any) -> Any:
    return arrays.map_value(lambda a: numpy.array(arrays.as_numpy(a)), value)


def assert_same(a: Any, b: Any, tolerance: float = 0.0) -> None:
    """Equal structure and shapes, and entries within the tolerance (relative to the largest)."""
    assert isinstance(a, tuple) == isinstance(b, tuple), (a, b)
    if isinstance(a, tuple):
        assert len(a) == len(b)
        for x, y in zip(a, b, strict=True):
            assert_same(x, y, tolerance)
    elif a is None or b is None:
        assert a is b
    else:
        assert a.shape == b.shape
        if a.size:
            scale = max(1.0, float(numpy.nanmax(numpy.abs(b.astype(float)))))
            numpy.testing.assert_allclose(a.astype(float), b.astype(float), rtol=0, atol=tolerance * scale)


# ---------------------------------------------------------------------- threads


def in_threads(*functions: Callable[[], Any]) -> list[Any]:
    """What each returns, run at once in a thread of its own."""
    barrier = threading.Barrier(len(functions))

    def wait_and(function: Callable[[], Any]) -> Any:
        barrier.wait()
        return function()

    with ThreadPoolExecutor(len(functions)) as pool:
        return [each.result() for each in [pool.submit(wait_and, function) for function in functions]]


def without_momentum(layer: Layer) -> Layer:
    """So that training does not move what predict reads: running = 1 running + 0 new."""
    for _, each in layer.walk():
        if hasattr(each, "momentum"):
            each.momentum = 0.0
    return layer


def attributes(layer: Layer) -> tuple[dict, dict]:
    """Every attribute of every layer, Parameter and Buffer below, arrays by their bytes too."""
    items = [
        item for _, each in layer.walk() for item in (each, *layer.parameters().values(), *layer.buffers().values())
    ]
    found = {(id(item), name): value for item in items for name, value in state_of(item).items()}
    return found, {key: value.tobytes() for key, value in found.items() if isinstance(value, numpy.ndarray)}


def state_of(item: Any) -> dict[str, Any]:
    return vars(item) if hasattr(item, "__dict__") else {name: getattr(item, name) for name in item.__slots__}


def unchanged(before: tuple[dict, dict], after: tuple[dict, dict]) -> bool:
    (old, old_bytes), (new, new_bytes) = before, after
    return old.keys() == new.keys() and all(old[key] is new[key] for key in old) and old_bytes == new_bytes


def trained(layer: Layer, x: Any, steps: int = 2) -> tuple[tuple, Any]:
    """What some steps return and leave, without moving the parameters."""
    found = []
    for _ in range(steps):
        y = layer(x)
        found += [host(y), host(layer.backward(cotangent(y)))]
    return tuple(found), left_by_training(layer)


def left_by_training(layer: Layer) -> Any:
    layer_states = [(each.training, each.random_state(), each._memory is EMPTY) for _, each in layer.walk()]
    values = [b.value.tobytes() for b in layer.buffers().values()]
    return layer_states, values, {name: p.grad.tobytes() for name, p in layer.parameters().items()}


def threads_take_turns_often() -> Iterator[None]:
    """For a fixture: the interpreter goes from thread to thread as often as it can, so that a race is met."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)
