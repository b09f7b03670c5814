"""Hostile arguments and inputs for everything public: each must work, or be refused by a typed error that names it.

    python tools/bad_inputs.py [--count N] [--seed S] [--only TEXT] [--all] [--jobs N]

A case replaces one argument or one input of a call that works by a hostile value: None, text, NaN, infinities,
integers beyond 2**63 and beyond floats, empty and enormous tuples, arrays of other ranks, sizes and dtypes, masked and
object arrays, arrays of another module. The calls are the constructors of all layers and losses, as their `examples()`
make them, what these do with inputs, gradients and state dicts, and the optimizers, schedules, data sets, initializers,
functions, models and command lines.

Allowed: the call works, and so does what follows it (a forward and a backward whose results are arrays; finite ones
where the arguments and inputs are finite); or it raises TypeError, ValueError, MemoryError, BackwardError or an OSError
with a text of at most 2,000 characters that names the class or the function and, for an argument, the argument; and a
layer that refused an input takes a good one afterwards. Not allowed: any other exception, two seconds of computing, a
crash, more than 1 GiB of memory. The exit code is 1 if a case fails; each is printed with its number, which
`--only NUMBER` repeats.

It needs fork and the limits of a Unix system.
"""

import argparse
import copy
import gc
import inspect
import io
import itertools
import math
import os
import random
import re
import select
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr
from decimal import Decimal
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "conformance")]
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy  # noqa: E402

import mtorch  # noqa: E402
from mtorch import data, initializers, layers, models, optim, training  # noqa: E402
from mtorch.layer import Layer  # noqa: E402
from mtorch.losses.base import LossFunction  # noqa: E402
from mtorch.optim import schedules  # noqa: E402
from mtorch.testing import GradientError, check_gradients, make_value, strict  # noqa: E402

SECONDS = 2.0  # of computing for one case
PATIENCE = 60.0  # of waiting, for a case that sleeps
MEMORY = 1 << 30  # bytes for one worker beyond what it has at its start
LONGEST = 2000  # characters of an error
COUNT = 15_000
ALLOWED = (TypeError, ValueError, MemoryError, mtorch.BackwardError, OSError)
FORBIDDEN = (IndexError, UnicodeError)  # below ValueError, but not what a user should see
FLOAT = numpy.float32


class Rude:
    """An object whose repr raises."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def nested(depth: int, kind: type) -> Any:
    value: Any = kind()
    for _ in range(depth):
        value = kind([value])
    return value


def endless() -> list:
    value: list = []
    value.append(value)
    return value


class Hostile(NamedTuple):
    """A value under the name that a report gives it."""

    name: str
    make: Callable[[], Any]
    finite: bool = True


def constants(*values: Any) -> list[Hostile]:
    return [Hostile(repr(value), lambda value=value: value) for value in values]


def named(finite: bool = True, **makers: Callable[[], Any]) -> list[Hostile]:
    return [Hostile(name, make, finite) for name, make in makers.items()]


ARGUMENTS = [
    *constants(None, True, False, "a", "", b"x", 1.5, 0.0, -0.0, -1, 0, 1, 2, 3, -0.5, 1j),
    *constants(2**31, 2**40, 2**62, 2**63, 2**64, -(2**63), -(2**63) - 1),
    *constants([], (), {}, (1, 1), (0, 0), (-1,), (2**64,), [1, [2]], ((1, 2), 3), {"a": 1}, {"*": "a"}, {1: 2}),
    *named(
        False, tiny=lambda: 5e-324, large=lambda: 1e300, minus_large=lambda: -1e300, nan=lambda: math.nan,
        inf=lambda: math.inf, minus_inf=lambda: -math.inf,
        numpy_nan=lambda: numpy.float32("nan"), decimal_nan=lambda: Decimal("nan"),
    ),
    *named(
        **{"10**400": lambda: 10**400, "-10**400": lambda: -(10**400), "10**5000": lambda: 10**5000},
        int64=lambda: numpy.int64(3), float16=lambda: numpy.float16(0.5), zero_d=lambda: numpy.array(3),
        zero_d_float=lambda: numpy.array(0.5), one_d=lambda: numpy.ones(3), two_d=lambda: numpy.ones((2, 2), FLOAT),
        objects=lambda: numpy.array([None, 1]), texts=lambda: numpy.array(["a"]), empty=lambda: numpy.zeros(0),
        masked=lambda: numpy.ma.masked_array([1.0, 2.0], [0, 1]), complex_array=lambda: numpy.ones(2, complex),
        big_tuple=lambda: tuple(range(100_000)), big_list=lambda: [1.0] * 100_000, long_text=lambda: "x" * 100_000,
        escapes=lambda: "\x1b[31mred\x07\n", surrogate=lambda: "\udcff", null=lambda: "a\0b",
        deep_tuple=lambda: nested(3000, tuple), deep_list=lambda: nested(3000, list), endless=endless,
        thing=object, rude=Rude, function=lambda: (lambda: 1), kind=lambda: int, module=lambda: math,
        numpy=lambda: numpy, generator=lambda: iter(()), a_set=lambda: {1, 2}, fraction=lambda: Fraction(1, 3),
        decimal=lambda: Decimal(1), date=lambda: numpy.datetime64("2020"), parameter=lambda: mtorch.Parameter(
            numpy.ones(2, FLOAT)), layer=lambda: layers.ReLU(), expression=lambda: mtorch.Input("x"),
        a_slice=lambda: slice(None), ellipsis=lambda: ..., huge_range=lambda: range(2**62),
    ),
]  # fmt: skip


def inputs_like(x: numpy.ndarray) -> list[Hostile]:
    """What may come in place of an array."""
    floats = x.dtype.kind == "f"
    found = named(
        more_axes=lambda: x[None], fewer_axes=lambda: x[0] if x.ndim and len(x) else x,
        no_axis=lambda: x.reshape(-1)[:1][0] if x.size else x,
        many_axes=lambda: x.reshape((1,) * (40 - x.ndim) + x.shape),
        empty=lambda: x[:0],
        last_empty=lambda: x[..., :0] if x.ndim else x, wider=lambda: numpy.concatenate([x, x], -1) if x.ndim else x,
        narrower=lambda: x[..., :1] if x.ndim else x, one=lambda: x[:1] if x.ndim else x,
        longer=lambda: numpy.concatenate([x, x], 0) if x.ndim else x, turned=lambda: x.T,
        integers=lambda: numpy.ones(x.shape, int), bools=lambda: numpy.ones(x.shape, bool),
        zeros=lambda: numpy.zeros(x.shape, x.dtype), minus=lambda: -numpy.ones(x.shape, x.dtype),
        objects=lambda: x.astype(object), nones=lambda: numpy.full(x.shape, None), texts=lambda: x.astype(str),
        complex=lambda: x.astype(complex), masked=lambda: numpy.ma.masked_array(x, numpy.ones(x.shape, bool)),
        swapped=lambda: x.astype(x.dtype.newbyteorder()), half=lambda: x.astype("f2"), long=lambda: x.astype("g"),
        double=lambda: x.astype("f8"), bytes_=lambda: numpy.ones(x.shape, "u1"),
        strided=lambda: x[::-1] if x.ndim else x,
        dates=lambda: numpy.zeros(x.shape, "M8[s]"), records=lambda: numpy.zeros(x.shape, "i4,f4"),
        as_list=lambda: x.tolist(), ragged=lambda: [[1.0], [1.0, 2.0]],
        strict_array=lambda: strict.asarray(x.astype("f4") if floats else x),
        pair=lambda: (x, x), triple=lambda: (x, x, x), nest=lambda: ((x,), x),
        read_only=lambda: numpy.broadcast_to(x, x.shape), matrix=lambda: numpy.atleast_2d(x).view(numpy.matrix),
    )  # fmt: skip
    found += named(
        False, nans=lambda: numpy.full(x.shape, math.nan, x.dtype if floats else FLOAT), infs=lambda: numpy.full(
            x.shape, math.inf, x.dtype if floats else FLOAT), large=lambda: numpy.full(x.shape, 3e38, FLOAT),
        most=lambda: numpy.full(x.shape, 2**63 - 1), most_unsigned=lambda: numpy.full(x.shape, 2**64 - 1, "u8"),
        least=lambda: numpy.full(x.shape, -(2**63)), lots=lambda: numpy.full(x.shape, 1e30, FLOAT),
    )  # fmt: skip
    wanted = (
        "None",
        "'a'",
        "''",
        "b'x'",
        "1.5",
        "-1",
        "0",
        "True",
        "1j",
        "[]",
        "()",
        "{}",
        "[1, [2]]",
        "{'a': 1}",
        str(2**64),
    )
    return found + [
        each for each in ARGUMENTS
        if each.name in wanted + ("10**400", "10**5000", "deep_tuple", "deep_list", "endless", "thing", "rude",
                                  "function", "kind", "module", "generator", "a_set", "parameter", "layer", "nan")
    ]  # fmt: skip


# ---------------------------------------------------------------------- cases


class Case(NamedTuple):
    """One call: `function(value)` with the hostile value at its place."""

    subject: str  # a name that an error must contain
    place: str  # the argument or input that is replaced
    value: Hostile
    function: Callable[[Any], Any]
    argument: bool  # whether an error must name the place, too

    def __str__(self) -> str:
        return f"{self.subject}: {self.place} = {self.value.name}"


def recorded(cls: type) -> Iterator[tuple[tuple, dict, Any]]:
    """How the examples of a class construct it, each with its input."""
    made: dict[int, tuple[tuple, dict]] = {}
    init = cls.__init__

    def remember(self: Any, *args: Any, **options: Any) -> None:
        if type(self) is cls:
            made.setdefault(id(self), (args, options))
        init(self, *args, **options)

    own = "__init__" in vars(cls)
    cls.__init__ = remember  # type: ignore
    try:
        examples = list(cls.examples(xp=numpy, dtype="float32", rng=numpy.random.default_rng(0)))
    finally:
        if own:
            cls.__init__ = init  # type: ignore
        else:
            del cls.__init__
    for subject, inputs in examples:
        if id(subject) in made:
            yield *made[id(subject)], inputs


def options_of(function: Callable) -> list[str]:
    """The names of all arguments, those that the classes above pass on included."""
    found: dict[str, None] = {}
    for each in [function] if not isinstance(function, type) else [vars(c).get("__init__") for c in function.__mro__]:
        if each is None or each is object.__init__:
            continue
        for name, parameter in inspect.signature(each).parameters.items():
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY) and name not in (
                "self",
                "title",
                "rng",
            ):
                found[name] = None
        if not any(p.kind is p.VAR_KEYWORD for p in inspect.signature(each).parameters.values()):
            break
    return [*found, "rng"] if "rng" in inspect.signature(function).parameters else list(found)


def bound(function: Callable, args: tuple, options: dict) -> dict[str, Any]:
    """All arguments by name, those of *args left out."""
    given = inspect.signature(function).bind_partial(*args, **options).arguments
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return given


def replaced(function: Callable, given: dict[str, Any], name: str, value: Any) -> Any:
    """function(**given) with another value for that argument."""
    signature = inspect.signature(function)
    star = next((n for n, p in signature.parameters.items() if p.kind is p.VAR_POSITIONAL), None)
    args = given.get(star, ()) if star else ()
    return function(*args, **{n: v for n, v in given.items() if n != star} | {name: value})


def arguments(function: Callable, given: dict[str, Any], then: Callable, values: list[Hostile] = ARGUMENTS,
              only: list[str] | None = None, subject: str = "") -> Iterator[Case]:  # fmt: skip
    """A case for each argument and value; `then(result, value)` uses what came."""
    for name in options_of(function) if only is None else only:
        for value in values:

            def call(hostile: Any, name: str = name, value: Hostile = value) -> None:
                made = replaced(function, copy.deepcopy(given, {id(numpy): numpy}), name, hostile)
                try:
                    then(made, value.finite)
                except Exception as error:
                    error.later = True  # type: ignore  # what was made says no more which argument it was made of
                    raise

            yield Case(subject or function.__name__, name, value, call, True)


def leaves_of(value: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    if isinstance(value, tuple):
        for i, part in enumerate(value):
            yield from leaves_of(part, (*path, i))
    elif value is not None:
        yield path, value


def put(value: Any, path: tuple, leaf: Any) -> Any:
    if not path:
        return leaf
    return tuple(put(part, path[1:], leaf) if i == path[0] else part for i, part in enumerate(value))


def check_arrays(value: Any, finite: bool, what: str) -> None:
    for _, leaf in leaves_of(value):
        assert hasattr(leaf, "dtype") and hasattr(leaf, "shape"), f"{what} is no array: {type(leaf).__name__}"
        if finite and leaf.dtype.kind == "f" and type(leaf) is numpy.ndarray:
            assert numpy.isfinite(leaf).all(), f"{what} is not finite"


DOMAINS = (
    "Power",
    "Pow",
    "Log",
    "Sqrt",
    "ConstantOperand",
)  # not finite where their functions are not


def train(layer: Layer, x: Any, finite: bool) -> None:
    """A forward, a backward and a prediction."""
    finite = finite and type(layer).__name__ not in DOMAINS
    y = layer(x)
    if isinstance(y, mtorch.operators.Operand):
        return
    check_arrays(y, finite, "the output")
    dx = layer.backward(
        mtorch.arrays.map_value(lambda a: numpy.ones(a.shape, a.dtype) if a.dtype.kind == "f" else None, y)
    )
    check_arrays(dx, finite, "the input gradient")
    layer.zero_grad()
    layer.predict(x)


def of_layer(cls: type) -> Iterator[Case]:
    rng = numpy.random.default_rng(1)
    for i, (args, options, inputs) in enumerate(recorded(cls)):
        x = make_value(inputs, numpy, "float32", rng)
        given = bound(cls, args, options)

        def used(layer: Any, finite: bool, x: Any = x) -> None:
            train(
                layer, mtorch.arrays.map_value(lambda a: a.astype(layer.dtype) if a.dtype.kind == "f" else a, x), finite
            )

        yield from arguments(cls, given, used)
        make = partial(_made, cls, args, options)
        parts = "|".join({type(layer).__name__ for _, layer in make().walk()})  # an error may name the part of a net
        for path, leaf in leaves_of(x):
            for value in inputs_like(numpy.asarray(leaf)):
                place = f"input{list(path) if path else ''}"
                yield Case(parts, place, value, partial(_called, make, x, path, value.finite), False)
        for verb in ("backward", "backward_parameters"):
            for value in inputs_like(numpy.ones((2, 3), FLOAT)):
                yield Case(parts, f"{verb}(output_grad)", value, partial(_answered, make, x, verb), False)
        if not i:
            yield from of_methods(cls, make)


def _made(cls: type, args: tuple, options: dict) -> Any:
    args, options = copy.deepcopy((args, options), {id(numpy): numpy})  # an array module is no value to copy
    return cls(*args, **options)


def _called(make: Callable, x: Any, path: tuple, finite: bool, hostile: Any) -> None:
    layer = make()
    try:
        train(layer, put(x, path, hostile), False)
    finally:
        layer.predict(x)
        check_arrays(layer(x), True, "the output of a good input afterwards")


def _answered(make: Callable, x: Any, verb: str, hostile: Any) -> None:
    layer = make()
    layer(x)
    getattr(layer, verb)(hostile)


STATES = ("load_state_dict", "to(dtype)", "to(xp)", "train", "step", "set_random_state", "initial_state")


def of_methods(cls: type, make: Callable) -> Iterator[Case]:
    for verb in STATES:
        if not hasattr(cls, verb.partition("(")[0]) or (verb == "set_random_state" and not make().random_state()):
            continue
        for value in ARGUMENTS:
            subject = {"step": "learning rate", "set_random_state": "random state"}.get(verb, cls.__name__)
            yield Case(subject, verb, value, partial(_method, make, verb), False)
    for name in make().state_dict():
        for value in ARGUMENTS + inputs_like(numpy.ones((2, 3), FLOAT)):
            yield Case(cls.__name__, f"state dict entry {name}", value, partial(_state, make, name), False)


def _method(make: Callable, verb: str, hostile: Any) -> None:
    layer = make()
    name, _, option = verb.partition("(")
    if option:
        getattr(layer, name)(**{option.rstrip(")"): hostile})
    else:
        getattr(layer, name)(hostile)


def _state(make: Callable, name: str, hostile: Any) -> None:
    layer = make()
    layer.load_state_dict(layer.state_dict() | {name: hostile})


def of_loss(cls: type) -> Iterator[Case]:
    rng = numpy.random.default_rng(1)
    for args, options, inputs in recorded(cls):
        x = make_value(inputs, numpy, "float32", rng)
        given = bound(cls, args, options)

        def used(loss: Any, finite: bool, x: Any = x) -> None:
            found = loss(*x)
            finite = finite and cls.__name__ != "KLDivLoss"  # the target of its examples may have no logarithm
            check_arrays((numpy.asarray(found.value), found.grad), finite, "the loss")

        yield from arguments(cls, given, used)
        make = partial(_made, cls, args, options)
        for path, leaf in leaves_of(x):
            for value in inputs_like(numpy.asarray(leaf)):
                yield Case(cls.__name__, f"input{list(path)}", value, partial(_lost, make, x, path), False)
        for value in inputs_like(numpy.ones(3, FLOAT)):
            yield Case(cls.__name__, "backward(weights)", value, partial(_driven, make, x), False)


def _lost(make: Callable, x: Any, path: tuple, hostile: Any) -> None:
    found = make()(*put(x, path, hostile))
    check_arrays((numpy.asarray(found.value), found.grad), False, "the loss")


def _driven(make: Callable, x: Any, hostile: Any) -> None:
    loss = make()
    loss.backward_func = lambda grad: None
    loss(*x).backward(hostile)


def net() -> Any:
    return mtorch.Module(mtorch.Sequential(layers.Linear(3, 4, rng=0), layers.ReLU(), layers.Linear(4, 2, rng=1)))


X = numpy.random.default_rng(0).standard_normal((4, 3)).astype(FLOAT)


def _trained(optimizer: Any, finite: bool) -> None:
    module = optimizer.module
    for _ in range(2):
        y = module(X)
        module.backward(numpy.ones_like(y))
        optimizer.step()
    rate = optimizer.rate
    if rate < 1e3 and finite:
        check_arrays(tuple(p.value for p in module.parameters().values()), finite, "a parameter")


def of_optimizers() -> Iterator[Case]:
    for cls in (optim.SGD, optim.Adam, optim.AdamW, optim.RMSprop, optim.Adagrad, optim.Adadelta):
        yield from arguments(cls, {"module": net(), "lr": 0.1}, _trained)
        yield from (
            arguments(cls, {"module": net(), "lr": 0.1, "momentum": 0.9}, _trained, only=["nesterov"])
            if cls is optim.SGD
            else ()
        )
        for value in ARGUMENTS:
            yield Case(
                cls.__name__, "load_state_dict", value, lambda v, cls=cls: cls(net(), 0.1).load_state_dict(v), False
            )
    for cls, given in (
        (schedules.StepLR, {"lr": 0.1, "step_size": 2}), (schedules.ExponentialLR, {"lr": 0.1, "gamma": 0.9}),
        (schedules.MultiStepLR, {"lr": 0.1, "milestones": [2, 4]}),
        (schedules.CosineAnnealingLR, {"lr": 0.1, "T_max": 9}),
        (schedules.LinearWarmup, {"lr": 0.1, "steps": 3}), (schedules.InverseSqrt, {"lr": 0.1}),
    ):  # fmt: skip
        yield from arguments(cls, given, lambda schedule, finite: [schedule(k) for k in (0, 1, 5, 1000)])


def of_data() -> Iterator[Case]:
    rows = numpy.ones((6, 2)), numpy.arange(6)

    def read(loader: Any, finite: bool) -> None:
        for batch in itertools.islice(loader, 3):
            check_arrays(batch, False, "a batch")

    def arrays_only(found: Any, finite: bool) -> None:
        check_arrays(tuple(found) if isinstance(found, tuple) else found, finite, "the data")

    yield from arguments(data.DataLoader, {"dataset": data.ArrayDataset(*rows), "shuffle": True, "rng": 0}, read)
    for value in ARGUMENTS + inputs_like(numpy.ones((2, 3), FLOAT)):
        yield Case("ArrayDataset", "data", value, lambda v: read(data.DataLoader(data.ArrayDataset(v)), False), False)
        yield Case("ArrayDataset", "second array", value, lambda v: data.ArrayDataset(rows[0], v), False)
        yield Case("as_mnist", "image", value, data.as_mnist, False)
        yield Case("standardise", "images", value, data.standardise, False)
    for value in ARGUMENTS:
        yield Case(
            "DataLoader",
            "load_state_dict",
            value,
            lambda v: data.DataLoader(data.ArrayDataset(*rows)).load_state_dict(v),
            False,
        )
        for key in data.DataLoader(data.ArrayDataset(*rows)).state_dict():
            yield Case("DataLoader", key, value, partial(_loader_state, rows, key), True)
    for function, given, only in (
        (data.sine_cosine, {}, None), (data.sample_times, {}, None), (data.noisy_sine, {}, None),
        (data.who_acts, {}, None),
        (data.digits, {}, None),
    ):  # fmt: skip
        yield from arguments(function, given, lambda found, finite: None, only=only)
    for value in ARGUMENTS:
        if value.name not in ("None", "huge_range", "rude", "deep_list", "deep_tuple", "10**5000", "long_text", "''"):
            for function in (data.read_idx, data.load_digits_data, data.mnist):
                yield Case(f"{function.__name__}|an IDX file", "path", value, function, False)
            yield Case("FileDataset|an IDX file", "path", value, lambda v: data.FileDataset(v, "labels"), False)


def _loader_state(rows: Any, key: str, hostile: Any) -> None:
    loader = data.DataLoader(data.ArrayDataset(*rows), shuffle=True, rng=0)
    next(iter(loader))
    state = loader.state_dict()
    loader.load_state_dict(state | {key: hostile})
    list(loader)


def of_initializers() -> Iterator[Case]:
    def used(init: Any, finite: bool) -> None:
        layer = layers.Linear(3, 2, init=init, rng=0)
        check_arrays(layer.weight.value, finite, "the weight")

    for name in ("normal", "uniform", "constant", "coe", "xavier_normal", "xavier_uniform",
                 "kaiming_normal", "kaiming_uniform", "orthogonal"):  # fmt: skip
        given = {"value": 1.0} if name == "constant" else {}
        yield from arguments(getattr(initializers, name), given, used)
    yield from arguments(initializers.gain, {"nonlinearity": "leaky_relu"}, lambda found, finite: None)
    for value in ARGUMENTS:
        yield Case("fans", "shape", value, initializers.fans, False)
        yield Case("seed", "n", value, mtorch.seed, False)
        yield Case("", "as_generator", value, initializers.as_generator, False)
        yield Case("on", "xp", value, layers.on, False)
        yield Case("on", "rng", value, lambda v: layers.on(rng=v), True)


TWO = ("add", "subtract", "multiply", "divide", "maximum", "minimum", "matmul", "power", "take")


def of_functions() -> Iterator[Case]:
    x = numpy.abs(numpy.random.default_rng(2).standard_normal((4, 4))).astype(FLOAT) + 0.5
    more = {
        "concat": {"axis": 0}, "split": {"sections": 2, "axis": 0}, "reshape": {"shape": (2, 2)},
        "transpose": {"axes": (1, 0)},
        "clip": {"min": 0.0, "max": 1.0}, "where": {"a": x, "b": x},
    }  # fmt: skip
    for name in sorted({*mtorch.graph.functions.__all__, "abs", "sum", "max", "min"}):
        function = getattr(mtorch, name)
        names = list(inspect.signature(function).parameters)
        first = {"concat": (x, x), "where": x > 1}.get(name, x)
        given = {names[0]: first} | more.get(name, {})
        if name in TWO:
            given[names[1]] = numpy.zeros(4, int) if name == "take" else x
        for argument in names:
            values = (
                inputs_like(numpy.asarray(given[argument]))
                if isinstance(given.get(argument), numpy.ndarray)
                else ARGUMENTS
            )
            for value in values:
                is_data = isinstance(given.get(argument), numpy.ndarray | tuple) and argument not in ("axes", "shape")
                call = partial(_function, function, given, argument)
                yield Case(
                    {"power": "power|Pow(|Pow expected", "concat": "concat|Input("}.get(name, name),
                    argument,
                    value,
                    call,
                    not is_data and argument != "exponent",
                )


def _function(function: Callable, given: dict, argument: str, hostile: Any) -> None:
    found = function(**given | {argument: hostile})
    if not isinstance(found, mtorch.operators.Operand):
        check_arrays(found, False, "the result")


def of_models() -> Iterator[Case]:
    for name, function in vars(models).items():
        if not inspect.isfunction(function) or function.__module__ != models.__name__ or name[0] == "_":
            continue
        if name in ("residual_block", "transformer_block", "side_of"):
            continue
        given: dict[str, Any] = {"vocabulary": 9} if name == "bilstm" else {"pixels": 64}
        names = [n for n, p in inspect.signature(function).parameters.items() if p.kind is not p.VAR_KEYWORD]
        values = [value for value in ARGUMENTS if value.name != str(2**40)]  # as pixels it fits, and is drawn for long
        yield from arguments(function, given, lambda model, finite: None, values, [*names, "dtype", "rng", "xp"])
    for value in ARGUMENTS:
        yield Case("side_of", "pixels", value, models.side_of, False)


def of_others() -> Iterator[Case]:
    linear = layers.Linear(3, 3, rng=0)
    for value in ARGUMENTS:
        for cls in (
            mtorch.Module,
            mtorch.Sequential,
            mtorch.Residual,
            mtorch.Fork,
            mtorch.Parallel,
            mtorch.Recurrent,
            mtorch.DataParallel,
        ):
            subject = "Sequential|Input(" if value.name == "expression" else cls.__name__
            yield Case(subject, "layer", value, cls, False)
            if cls not in (mtorch.Module, mtorch.Recurrent):
                yield Case(cls.__name__, "second", value, lambda v, cls=cls: cls(linear, v), False)
        yield Case("Bidirectional", "layer", value, lambda v: mtorch.Bidirectional(v, linear), False)
        yield Case("Parameter", "value", value, mtorch.Parameter, False)
        yield Case("Buffer", "value", value, mtorch.Buffer, False)
        yield Case("summary", "layer", value, mtorch.summary, False)
        if value.name not in ("rude", "deep_list", "deep_tuple", "10**5000", "long_text"):
            yield Case("save", "path", value, _saved, False)
            yield Case("load", "path", value, lambda v: mtorch.load(v, linear), False)
        yield Case("save", "module", value, lambda v: mtorch.save("x.npz", v), False)
        yield Case("Graph", "inputs", value, lambda v: mtorch.Graph(v, {"y": (linear, "x")}, "y"), False)
        yield Case("Graph", "nodes", value, lambda v: mtorch.Graph("x", v, "y"), False)
        yield Case("Graph", "outputs", value, lambda v: mtorch.Graph("x", {"y": (linear, "x")}, v), False)
        yield Case("Graph", "node", value, lambda v: mtorch.Graph("x", {"y": v}, "y"), False)
        yield Case("Graph", "of", value, mtorch.Graph.of, False)
    given = {"layer_or_loss": linear, "inputs": (2, 3)}
    only = ["layer_or_loss", "dtype", "tolerance", "seed"]
    yield from arguments(check_gradients, given, lambda found, finite: None, only=only)
    yield from arguments(
        mtorch.DataParallel, {"net": linear, "workers": 1}, lambda found, finite: train(found, X, finite)
    )
    yield from arguments(training.number, {"kind": int, "least": 0}, lambda found, finite: None, only=[])


def _saved(hostile: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        mtorch.save(hostile, layers.Linear(3, 3))


TEXTS = ("", "a", "nan", "inf", "-1", "-inf", "0x10", "1.5.1", "\x1b[31m", "1_0_", "1e400", "1" + "0" * 400, "-" * 5000)
INTEGERS = ("1.5", str(2**63), str(2**64), "1" + "0" * 5000, "\u0663" * 30)


def of_command_lines() -> Iterator[Case]:
    from apps.mnist.__main__ import main as mnist
    from apps.rnn_sin_cos.__main__ import main as sine

    for main, more, integers, numbers in (
        (mnist, ("--data", "digits"), ("epochs", "batch-size", "seed", "workers"), ("lr", "gamma")),
        (sine, (), ("steps", "seed"), ("lr",)),
    ):
        for option in integers + numbers:
            for text in TEXTS + INTEGERS * (option in integers):
                value = Hostile(ascii(text)[:40], lambda text=text: text)
                yield Case("", f"--{option}", value, partial(_line, main, more, option), False)


def _line(main: Callable, more: tuple[str, ...], option: str, text: str) -> None:
    """The command refuses it: with exit code 2 and one short line."""
    said = io.StringIO()
    with tempfile.TemporaryDirectory() as folder, redirect_stderr(said):
        try:
            code: Any = main([f"--{option}={text}", "--out", folder, *more])
        except SystemExit as stop:
            code = stop.code
    line = said.getvalue()
    assert code == 2, f"exit code {code}"
    assert len(line.splitlines()) == 1 and len(line) < 500 and f"--{option}" in line, f"said {line!r}"
    assert line.rstrip("\n").isprintable(), f"said {line!r}"


def final(base: type) -> list[type]:
    from harness import final_classes

    return final_classes(base)


def all_cases() -> list[Case]:
    found = [case for cls in final(Layer) for case in of_layer(cls)]
    found += [case for cls in final(LossFunction) for case in of_loss(cls)]
    for make in (of_optimizers, of_data, of_initializers, of_functions, of_models, of_others, of_command_lines):
        found += list(make())
    return found


# ---------------------------------------------------------------------- verdicts


def plain(text: str) -> str:
    return re.sub(r"[^a-z0-9*(]", "", text.lower())


SYNONYMS = {
    "rng": ("seed",), "lr": ("learningrate",), "layer_or_loss": ("layer",), "a": ("gain", "layer"), "b": ("layer",),
    "axis": ("axes", "dim"), "net": ("layer", "part"), "dim": ("axis", "size"), "backward_func": ("amodule",),
    "module": ("layer",), "shortcut": ("layer",), "body": ("layer",), "cell": ("layer",), "layers": ("layer",),
    "outputs": ("output", "node"), "sections": ("multiple",), "axes": ("axis",), "min_val": ("max_val",),
    "low": ("high",), "left": ("right",), "num_embeddings": ("padding_idx",), "nodes": ("node",),
    "inputs": ("input", "node", "array", "numbers"),
}  # fmt: skip


def verdict(case: Case) -> str:
    """What came of it, one word; a text that begins with "FAILED" for what is not allowed."""
    try:
        value = case.value.make()
    except Exception:
        return "skipped"
    try:
        case.function(value)
    except GradientError:
        return "refused"
    except AssertionError as error:
        return f"FAILED accepted, but {error}"
    except ALLOWED as error:
        return judged(case, value, error)
    except BaseException as error:
        return f"FAILED {type(error).__name__}: {str(error)[:200]}"
    return "accepted"


def judged(case: Case, value: Any, error: BaseException) -> str:
    kind = type(error).__name__
    if isinstance(error, FORBIDDEN):
        return f"FAILED {kind}: {str(error)[:200]}"
    text = str(error)
    if len(text) > LONGEST:
        return f"FAILED {kind} with {len(text):,} characters: {text[:150]}"
    told = plain(text + " ".join(getattr(error, "__notes__", ())))
    by_path = (
        isinstance(error, OSError | ValueError)
        and isinstance(value, str)
        and (value[:20] in text or case.place == "path")
    )
    if not any(plain(name) in told for name in case.subject.split("|")) and not by_path:
        return f"FAILED {kind} does not name {case.subject}: {text[:200]}"
    names = [case.place, *SYNONYMS.get(case.place, ())]
    if case.argument and not hasattr(error, "later") and not any(plain(name) in told for name in names):
        return f"FAILED {kind} does not name {case.place}: {text[:200]}"
    return "refused" if not isinstance(error, MemoryError) else "too large"


# ---------------------------------------------------------------------- processes


def work(cases: list[Case], numbers: list[int], pipe: int) -> None:
    """A worker: it tells the number of each case, then what came of it."""
    import resource

    signal.signal(signal.SIGINT, signal.SIG_DFL)
    with open("/proc/self/statm") as file:
        size = int(file.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    data.mnist_files.MIRRORS[:] = []  # no case asks the network
    warnings.simplefilter("ignore")
    numpy.seterr(all="ignore")
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        for number in numbers:
            os.write(pipe, f"{number}\t\n".encode())
            if number % 5 == 0 and "DataParallel" in cases[number].subject:
                gc.collect()  # nets that are still waiting for a backward have processes and memory
            signal.setitimer(signal.ITIMER_PROF, SECONDS)  # its signal ends this process
            outcome = verdict(cases[number])
            signal.setitimer(signal.ITIMER_PROF, 0)
            os.chdir(folder)
            line = ascii(outcome)[1:-1]
            os.write(pipe, f"{number}\t{line[:3000]}\n".encode())


class Worker:
    def __init__(self, cases: list[Case], numbers: list[int]):
        self.cases, self.numbers, self.begun, self.rest = cases, numbers, time.monotonic(), ""
        self.current: int | None = None
        self.pipe, write = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            os.close(self.pipe)
            code = 1
            try:
                work(cases, numbers, write)
                code = 0
            finally:
                os._exit(code)
        os.close(write)

    def read(self) -> Iterator[tuple[int, str]]:
        """What it has told since; when it has ended, the case that ended it."""
        piece = os.read(self.pipe, 1 << 16)
        *lines, self.rest = (self.rest + piece.decode()).split("\n")
        for line in lines:
            number, outcome = line.split("\t")
            self.begun = time.monotonic()
            self.current = None if outcome else int(number)
            if outcome:
                yield int(number), outcome
        if not piece:
            _, status = os.waitpid(self.pid, 0)
            os.close(self.pipe)
            if self.current is not None:
                signals = {signal.SIGPROF: f"computed for {SECONDS:g} s", signal.SIGKILL: f"waited for {PATIENCE:g} s"}
                sign = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
                yield self.current, f"FAILED {signals.get(sign, f'ended its process, status {status}')}"
            self.pid = 0


def run(cases: list[Case], numbers: list[int], jobs: int) -> Iterator[tuple[int, str]]:
    workers = [Worker(cases, numbers[i::jobs]) for i in range(jobs)]
    while workers:
        ready, _, _ = select.select([worker.pipe for worker in workers], [], [], 1.0)
        for worker in list(workers):
            if worker.pipe in ready:
                yield from worker.read()
                if not worker.pid:
                    workers.remove(worker)
                    if worker.current is not None:
                        left = worker.numbers[worker.numbers.index(worker.current) + 1 :]
                        workers += [Worker(cases, left)] if left else []
            elif time.monotonic() - worker.begun > PATIENCE:
                os.kill(worker.pid, signal.SIGKILL)


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=COUNT, help="cases, chosen by the seed (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose description contains this, or the number of one")
    parser.add_argument("--all", action="store_true", help="every case")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args(argv)
    if not hasattr(os, "fork") or not os.path.exists("/proc/self/statm"):
        print("left out: this system has no fork with limits of time and memory")
        return 0
    begin = time.monotonic()
    cases = all_cases()
    numbers = list(range(len(cases)))
    if args.only.isdigit():
        numbers = [int(args.only)]
    elif args.only:
        numbers = [n for n in numbers if args.only in str(cases[n])]
    elif not args.all:
        numbers = random.Random(args.seed).sample(numbers, min(args.count, len(numbers)))
    outcomes: Counter = Counter()
    for number, outcome in run(cases, numbers, max(1, min(args.jobs, len(numbers)))):
        outcomes[outcome.partition(" ")[0] if outcome[:6] == "FAILED" else outcome] += 1
        if outcome[:6] == "FAILED":
            print(f"{number} {ascii(str(cases[number]))[1:-1][:150]}: {outcome[7:]}", flush=True)
    done = ", ".join(f"{outcomes[word]:,} {word}" for word in ("accepted", "refused", "too large", "skipped", "FAILED"))
    print(f"{sum(outcomes.values()):,} of {len(cases):,} cases in {time.monotonic() - begin:.0f} s: {done}")
    return int(outcomes["FAILED"] > 0 or sum(outcomes.values()) != len(numbers))


if __name__ == "__main__":
    sys.exit(main())
