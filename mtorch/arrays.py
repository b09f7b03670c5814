"""What differs between array modules, in one place: where an array lives, how it reaches the host, what a value is.

A *value* is an array or a tuple of values; the helpers named `..._value` walk that structure.
Outside `fast/` this and `devices.py` are the only files that branch on the array module, and none imports CuPy.
"""

import importlib
import math
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy

from mtorch.checks import name_of, shown
from mtorch.devices import module_for as module_for

Array = Any  # numpy.ndarray, cupy.ndarray, or the strict fake's array
Value = Any  # Array | tuple[Value, ...]

FLOAT32 = numpy.dtype("float32")
DEEPEST = 64  # axes of an array
BLOCK = 16384  # elements that several passes can share while they stay in cache
ACCIDENTS = (FloatingPointError, RuntimeWarning)  # what NumPy raises where its warnings are errors

quiet = numpy.errstate(over="ignore", invalid="ignore")  # for functions that answer infinities with a limit or NaN


def is_numpy(xp: ModuleType) -> bool:
    """Whether this is NumPy."""
    return xp is numpy


def is_array(x: object, who: object = None) -> bool:
    """True for an array of any array module. TypeError for a masked array."""
    return array_module(x, who) is not None


def array_module(x: object, who: object = None) -> ModuleType | None:
    """The module an array belongs to (None for what is no array). TypeError for a masked array."""
    if x.__class__ is numpy.ndarray:
        return numpy
    if isinstance(x, numpy.ndarray | numpy.generic):
        refuse_masked(x, who)
        return numpy
    kind = type(x)
    module = sys.modules.get("cupy" if kind.__module__.startswith("cupy") else kind.__module__)
    return module if getattr(module, "ndarray", None) is kind else None


def refuse_masked(x: object, who: object, depth: int = 0) -> None:
    """TypeError for a masked array, also one in a list: its mask would be lost without a word."""
    masked: Any = getattr(sys.modules.get("numpy.ma"), "MaskedArray", None)
    if masked is None:  # nobody has imported numpy.ma
        return
    if isinstance(x, masked):
        text = "expected an array without a mask, got a masked array: fill it first, a.filled(0)"
        if hasattr(who, "ignore_index"):
            text += ", or labels with a.filled(-100) and ignore_index=-100"
        raise TypeError(text if who is None else f"{name_of(who)} {text}")
    if isinstance(x, list | tuple):
        if depth > DEEPEST:
            raise ValueError(f"{name_of(who)} expected an array, got lists in lists, more than {DEEPEST} deep")
        for part in x:
            if isinstance(part, list | tuple | masked):
                refuse_masked(part, who, depth + 1)


def module_named(name: str) -> ModuleType:
    """The array module of that name; the inverse of `xp.__name__` in pickles and checkpoints."""
    return importlib.import_module(name)


def as_numpy(x: Array) -> numpy.ndarray:
    """The array on the host (a NumPy array itself, a copy of any other)."""
    return numpy.asarray(x) if array_module(x) in (numpy, None) else x.get()


def float_dtype(xp: ModuleType, dtype: Any) -> numpy.dtype:
    """The native real floating dtype of that name; ValueError for any other, TypeError for what names no dtype."""
    try:
        found = numpy.dtype(dtype)
    except Exception as error:  # of whatever kind a foreign object raises
        raise ValueError(f"dtype must name a floating type such as 'float32', got {shown(dtype)}") from error
    if found.kind != "f" or dtype is None:
        raise ValueError(f"dtype must be a real floating type such as 'float32', got {shown(dtype)}")
    if not is_numpy(xp) and found.itemsize > 8:
        raise ValueError(f"dtype {found} exists on NumPy only, not on {xp.__name__}")
    return numpy.dtype(found.type)  # the native one, and the one object that all arrays of it share


def host_array(x: object, who: object) -> numpy.ndarray:
    """Array data given as a list, a number or an array, as a NumPy array of numbers, of no subclass."""
    array = as_data(x, who)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name_of(who)} expected real numbers, got an array of dtype {array.dtype}")
    return array


def as_data(x: object, who: object) -> numpy.ndarray:
    """Array data given as a list, a number or an array, as a NumPy array of whatever kind, of no subclass."""
    refuse_masked(x, who)
    try:
        return as_numpy(x)
    except ValueError as error:
        raise ValueError(f"{name_of(who)} expected an array, got a ragged list: {error}") from error
    except (MemoryError, OverflowError) as error:
        raise ValueError(f"{name_of(who)} expected an array, got {shown(x)}: {error}") from error


def as_numeric(xp: ModuleType, x: Any, who: object) -> Array:
    """`x` as a numeric array of `xp`, its kind kept; TypeError when it lives on another array module."""
    home = array_module(x, who)
    if home is xp and x.__class__ is xp.ndarray:
        if x.dtype.kind not in "fiub":
            raise TypeError(f"{name_of(who)} expected real numbers, got an array of dtype {x.dtype}")
        return x
    if home is None or home is xp:
        return xp.asarray(host_array(x, who))
    fix = "x.get()" if is_numpy(xp) else f"{xp.__name__}.asarray(x)"
    raise TypeError(f"{name_of(who)} lives on {xp.__name__}, got an array of {home.__name__}: convert it with {fix}")


def as_float(xp: ModuleType, dtype: numpy.dtype, x: object, who: object) -> Array:
    """`x` as an array of `xp` in a floating dtype (cast once when it has another)."""
    array = as_numeric(xp, x, who)
    return array if array.dtype == dtype and array.dtype.isnative else array.astype(dtype)


def as_ids(xp: ModuleType, x: Any, who: object, what: str = "integer ids") -> Array:
    """`x` as integers of any width on `xp`. Host integers are the one kind of host array that a device accepts."""
    home = array_module(x, who)
    array = x if home is xp and x.__class__ is xp.ndarray else None
    if array is None:
        array = host_array(x, who) if home in (None, numpy) else as_numeric(xp, x, who)
    if array.dtype.kind not in "iu":
        raise TypeError(f"{name_of(who)} expected {what}, got dtype {array.dtype}")
    return array if home is xp else xp.asarray(array)


def wide(dtype: numpy.dtype) -> numpy.dtype:
    """The dtype in which sums and statistics are made: float32 for float16, any other one itself."""
    return FLOAT32 if dtype.char == "e" else dtype


def widened(x: Array) -> Array:
    """x, as float32 where it is float16."""
    return x.astype(FLOAT32) if x.dtype.char == "e" else x


def leaves(value: Value) -> Iterator[Array]:
    """The arrays of a value in order, None left out; however deep they lie."""
    left = [value]
    while left:
        part = left.pop()
        if isinstance(part, tuple):
            left.extend(reversed(part))
        elif part is not None:
            yield part


def depth(value: Value) -> int:
    """How many tuples lie in one another."""
    level, found = [value], 0
    while level := [part for parts in level if isinstance(parts, tuple) for part in parts]:
        found += 1
    return found


def map_value(function: Callable[[Array], Any], value: Value) -> Value:
    """The same structure with `function` applied to every array (None stays None)."""
    if isinstance(value, tuple):
        return tuple(map_value(function, part) for part in value)
    return None if value is None else function(value)


def shape_value(value: Value) -> Any:
    """The shapes of a value, for error texts."""
    if isinstance(value, tuple) and depth(value) > DEEPEST:
        return "tuples in tuples"
    return map_value(lambda array: tuple(getattr(array, "shape", ("?",))), value)


def add_values(a: Value, b: Value) -> Value:
    """The sum of two gradients of one value, as new arrays; None counts as zero."""
    if a is None or b is None:
        return b if a is None else a
    if isinstance(a, tuple):
        return tuple(add_values(x, y) for x, y in zip(a, b, strict=True))
    return a + b


def flat_rows(x: Array) -> Array:
    """(..., D) as (M, D) without a copy where strides allow."""
    return x if x.ndim == 2 else x.reshape(math.prod(x.shape[:-1]), x.shape[-1])


def device_of(array: Array) -> Any:
    """The number of the device on which an array lives; "cpu" on the host. A key for caches of arrays."""
    return "cpu" if array.__class__ is numpy.ndarray else getattr(array.device, "id", "cpu")


def on_device(xp: ModuleType, device: Any) -> AbstractContextManager:
    """Within this context new arrays are made on that device."""
    return nullcontext() if device == "cpu" else xp.cuda.Device(device)


@lru_cache(maxsize=64)
def ones(xp: ModuleType, n: int, dtype: numpy.dtype, device: Any = "cpu") -> Array:
    """A vector of ones that nobody writes into: `ones(...).dot(g)` sums the rows of g faster than a reduction does.

    device: `device_of(g)`.
    """
    with on_device(xp, device):
        return xp.ones(n, dtype)


@lru_cache(maxsize=256)
def constant(xp: ModuleType | None, number: float, dtype: numpy.dtype) -> Any:
    """The number as what an operation with an array of that dtype takes fastest; on NumPy that is a 0-d array."""
    return numpy.array(number, dtype) if xp is numpy else number


def may_be_true(xp: ModuleType, mask: Array) -> bool:
    """Whether any entry is true; on a device True at once, for the answer would take waiting."""
    return not is_numpy(xp) or bool(mask.any())


def as_array(xp: ModuleType, x: Any) -> Array:
    """The result as an array: NumPy gives a scalar where no axis is left."""
    return x if x.ndim else xp.asarray(x)


def unbroadcast(grad: Array, shape: tuple[int, ...]) -> Array:
    """The adjoint of broadcasting: sums `grad` down to `shape`."""
    if grad.shape == shape:
        return grad
    lead = grad.ndim - len(shape)
    axes = tuple(range(lead)) + tuple(lead + i for i, n in enumerate(shape) if n == 1 and grad.shape[lead + i] != 1)
    return widened(grad).sum(axis=axes, keepdims=True).reshape(shape).astype(grad.dtype, copy=False)


def scatter_add(xp: ModuleType, target: Array, index: Any, values: Array) -> None:
    """target[index] += values with repeated indices accumulating."""
    total = widened(target)
    xp.add.at(total, index, values)
    if total is not target:
        target[...] = total
