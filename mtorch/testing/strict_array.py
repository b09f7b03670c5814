"""The array of `mtorch.testing.strict`: NumPy values behind the walls that CuPy has.

What CuPy lets through by accident is refused here as well, because a leak that works on one machine is still a leak:
`np.exp(x)`, host arrays as indices, integer indices out of range (CuPy wraps them silently), duplicate indices in
`a[i] = v` (CuPy leaves open which value stays), and arrays of another device than the current one.
"""

import operator
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy

DTYPES = "?bBhHiIlLqQefdFD"  # CuPy has no others: no longdouble, no objects, no text
SCALARS = (bool, int, float, complex, numpy.generic)
HERE = __file__.rpartition("strict_array")[0] + "strict"  # the files whose frames are not the user's


# ---------------------------------------------------------------------- host synchronisations


class Synchronisations:
    """How often the host has waited for the device, and who is listening."""

    total = 0
    listeners: list[list[str]] = []


def synchronise(what: str) -> None:
    """Counts one wait of the host, and tells listeners where in the caller's code it was."""
    Synchronisations.total += 1
    if Synchronisations.listeners:
        frame = sys._getframe(1)
        while frame.f_back is not None and frame.f_code.co_filename.startswith(HERE):
            frame = frame.f_back
        place = f"{what} at {frame.f_code.co_filename}:{frame.f_lineno} in {frame.f_code.co_name}"
        for places in Synchronisations.listeners:
            places.append(place)


# ---------------------------------------------------------------------- devices


class Device:
    """cupy.cuda.Device: `with strict.cuda.Device(1):`. There are two, and every thread begins on device 0.

    Arrays are made on the current device, and only those of the current device compute: CuPy goes on where one device
    can read the memory of another, slowly and with a warning, and fails where it cannot.
    """

    count = 2
    _thread = threading.local()

    def __init__(self, device: "int | Device | None" = None):
        self.id = Device.current() if device is None else int(device)
        if not 0 <= self.id < Device.count:
            raise ValueError(f"there is no device {self.id}: the strict module has {Device.count}")
        self._before: list[int] = []

    @classmethod
    def current(cls) -> int:
        return getattr(cls._thread, "id", 0)

    def use(self) -> None:
        Device._thread.id = self.id

    def synchronize(self) -> None:
        synchronise("Device.synchronize")

    def __enter__(self) -> "Device":
        self._before.append(Device.current())
        self.use()
        return self

    def __exit__(self, *error: Any) -> None:
        Device._thread.id = self._before.pop()

    def __int__(self) -> int:
        return self.id

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __repr__(self) -> str:
        return f"<strict Device {self.id}>"


# ---------------------------------------------------------------------- in and out of the fake


def wrap(result: Any, device: int | None = None) -> Any:
    """A NumPy result as this module's arrays, on that device or the current one; tuples and lists part by part."""
    if isinstance(result, numpy.ndarray | numpy.generic):
        if result.dtype.char not in DTYPES or not result.dtype.isnative:
            raise TypeError(f"CuPy has no arrays of dtype {result.dtype}")
        array = object.__new__(ndarray)
        array._values = result if isinstance(result, numpy.ndarray) else numpy.array(result)
        array._device = Device.current() if device is None else device
        array._original = None
        return array
    if isinstance(result, tuple):
        parts = [wrap(part, device) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else tuple(parts)
    if isinstance(result, list):
        return [wrap(part, device) for part in result]
    return result


def computed(result: Any) -> Any:
    """A new result as this module's arrays. In memory it has the order C, whatever the order of the arguments was:
    so CuPy's elementwise functions, reductions, gathers and joins have it, where NumPy follows the arguments.
    """
    if isinstance(result, tuple | list):
        parts = [computed(part) for part in result]
        return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
    fresh = isinstance(result, numpy.ndarray) and result.base is None
    return wrap(numpy.asarray(result, order="C") if fresh else result)


def here(array: "ndarray", what: str) -> Any:
    """The NumPy side of an array that is to compute; ValueError when it lives on another than the current device."""
    if array._device != (current := Device.current()):
        raise ValueError(f"{what} on device {current} got an array of device {array._device}")
    return array._values


def unwrap(argument: Any, what: str) -> Any:
    """The NumPy side of an argument; host arrays, alone or in a tuple or list, are refused."""
    if argument.__class__ is ndarray:
        return here(argument, what)
    if isinstance(argument, numpy.ndarray):
        raise TypeError(f"{what} got a NumPy array of shape {argument.shape}: convert it with asarray first")
    if argument.__class__ in (tuple, list):
        return type(argument)(unwrap(part, what) for part in argument)
    return argument


def operand(argument: Any, what: str) -> Any:
    """The NumPy side of an operand: an array of this module or a number; NotImplemented for anything else."""
    if argument.__class__ is ndarray:
        return here(argument, what)
    if isinstance(argument, numpy.ndarray):
        return unwrap(argument, what)
    return argument if isinstance(argument, SCALARS) else NotImplemented


def needs_array(argument: Any, what: str) -> numpy.ndarray:
    """The NumPy side of an argument that CuPy takes as an array only, not as a number or a list."""
    if argument.__class__ is not ndarray:
        unwrap(argument, what)
        raise TypeError(f"{what} takes arrays of the module, got {type(argument).__name__}")
    return here(argument, what)


# ---------------------------------------------------------------------- read-only memory

_held: dict[int, list[weakref.ref]] = {}  # by the id of the owner of the memory; a held view keeps its owner alive


def _owner(values: Any) -> Any:
    while (base := getattr(values, "base", None)) is not None:
        values = base
    return values


def hold(array: "ndarray") -> "ndarray":
    """A view of the array; while the view lives and is not released, writing to its memory is a ValueError."""
    view = wrap(array._values.view(), array._device)
    view._original = array
    key = id(_owner(array._values))

    def forget(reference: weakref.ref) -> None:
        left = [each for each in _held.get(key, ()) if each is not reference]
        _held.update({key: left}) if left else _held.pop(key, None)

    _held.setdefault(key, []).append(weakref.ref(view, forget))
    return view


def release(view: "ndarray") -> "ndarray":
    """Ends what `hold` began and gives back the array that was held (an array that is not held, unchanged)."""
    if view._original is None:
        return view
    key = id(_owner(view._values))
    left = [each for each in _held.get(key, ()) if each() is not view]
    _held.update({key: left}) if left else _held.pop(key, None)
    original, view._original = view._original, None
    return original


def target(array: Any, what: str) -> numpy.ndarray:
    """The NumPy side of an array that is about to be written to; ValueError when it is held."""
    values = needs_array(array, what)
    check_writable(values, what)
    return values


def check_writable(values: numpy.ndarray, what: str) -> None:
    if any(_holds(reference, values) for reference in _held.get(id(_owner(values)), ())):
        raise ValueError(f"{what} would write into an array that is read-only for now")


def _holds(reference: weakref.ref, values: numpy.ndarray) -> bool:
    view = reference()
    return view is not None and overlap(view._values, values)


def overlap(a: numpy.ndarray, b: numpy.ndarray) -> bool:
    """True when the arrays have an entry in common, or when that is too hard to tell."""
    try:
        return numpy.shares_memory(a, b, max_work=10_000)  # type: ignore[arg-type]  # the stubs know -1 and 0 only
    except numpy.exceptions.TooHardError:
        return True


@contextmanager
def read_only(*values: Any) -> Iterator[None]:
    """Within the block, writing into any of these arrays (or tuples of arrays) is a ValueError."""

    views: list[ndarray] = []
    stack = list(values)
    while stack:
        value = stack.pop()
        if isinstance(value, tuple | list):
            stack.extend(value)
        elif value.__class__ is ndarray:
            views.append(hold(value))
    try:
        yield
    finally:
        for view in views:
            release(view)


# ---------------------------------------------------------------------- indices


def host_index(index: Any) -> tuple[tuple, bool]:
    """The NumPy side of an index as a tuple, and whether arrays or lists are in it."""
    parts = list(index) if isinstance(index, tuple) else [index]
    gathers = False
    for i, part in enumerate(parts):
        if part.__class__ is ndarray:
            parts[i] = part = here(part, "an index")
            if part.dtype.kind not in "iub":
                raise IndexError(f"an index array holds integers or booleans, got dtype {part.dtype}")
            if part.dtype.kind == "b":
                synchronise("a boolean mask as index")
            gathers = True
        elif isinstance(part, numpy.ndarray):
            unwrap(part, "an index")
        elif isinstance(part, list):
            parts[i] = numpy.array(unwrap_numbers(part), dtype=None if part else "int32")
            gathers = True
        elif isinstance(part, bool | numpy.bool):
            raise TypeError("a single bool as index is not supported by the strict module")
    if sum(getattr(getattr(part, "dtype", None), "kind", "") == "b" for part in parts) > 1:
        raise IndexError("CuPy does not support an index of more than one boolean array")
    return tuple(parts), gathers


def unwrap_numbers(part: Any) -> Any:
    if isinstance(part, list | tuple):
        return [unwrap_numbers(each) for each in part]
    if not isinstance(part, int | numpy.integer):
        raise TypeError(f"a list as index holds integers or booleans, got {type(part).__name__}")
    return part


def refuse_duplicates(values: numpy.ndarray, index: tuple) -> None:
    """IndexError when the index names an entry twice: on CuPy it is undefined which of the new values stays."""
    places = numpy.arange(values.size).reshape(values.shape)[index]
    if numpy.unique(places).size != numpy.size(places):
        raise IndexError("duplicate indices in a[i] = v leave open on CuPy which value stays: use xp.add.at")


# ---------------------------------------------------------------------- the array


class Flags:
    """CuPy's flags: there is no `writeable`."""

    def __init__(self, flags: Any):
        self.c_contiguous = flags.c_contiguous
        self.f_contiguous = flags.f_contiguous
        self.owndata = flags.owndata
        self.fnc = flags.fnc
        self.forc = flags.forc

    def __getitem__(self, name: str) -> bool:
        return {"C_CONTIGUOUS": self.c_contiguous, "F_CONTIGUOUS": self.f_contiguous, "OWNDATA": self.owndata}[name]


class ndarray:
    """An array that meets only its own kind and numbers. It has CuPy's attributes, operators and methods."""

    __slots__ = ("__weakref__", "_device", "_original", "_values")
    __module__ = "mtorch.testing.strict"
    __array_priority__ = 100

    def __init__(self, shape: Any, dtype: Any = float, memptr: None = None, strides: None = None, order: str = "C"):
        if memptr is not None or strides is not None:
            raise TypeError("the strict module has no device pointers")
        fresh = _call("empty", shape, dtype, order)
        self._values, self._device, self._original = fresh._values, fresh._device, None

    # what NumPy would use to get at the values

    def __array__(self, dtype: Any = None, copy: Any = None) -> None:
        raise TypeError("implicit conversion to a NumPy array is not allowed: use x.get()")

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> None:
        raise TypeError(f"numpy.{function.__name__} was called on an array of another module: use xp.")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        scalar_operator = method == "__call__" and len(inputs) == 2 and isinstance(inputs[0], numpy.generic)
        if scalar_operator and not kwargs and ufunc in OPERATORS:  # numpy.float32(2) * x
            return computed(ufunc(inputs[0], operand(inputs[1], ufunc.__name__)))
        raise TypeError(f"numpy.{ufunc.__name__} met an array of another module: use xp., and convert host arrays")

    # attributes

    shape = property(lambda self: self._values.shape)
    dtype = property(lambda self: self._values.dtype)
    ndim = property(lambda self: self._values.ndim)
    size = property(lambda self: self._values.size)
    itemsize = property(lambda self: self._values.itemsize)
    nbytes = property(lambda self: self._values.nbytes)
    strides = property(lambda self: self._values.strides)
    flags = property(lambda self: Flags(self._values.flags))
    device = property(lambda self: Device(self._device))
    base = property(lambda self: self._view(self._values.base) if self._values.base is not None else None)
    T = property(lambda self: self._view(self._values.T))
    mT = property(lambda self: self._view(self._values.mT))
    real = property(lambda self: self._view(self._values.real))
    imag = property(lambda self: self._view(self._values.imag))

    def _view(self, values: numpy.ndarray) -> Any:
        return wrap(values, self._device)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"CuPy's ndarray has no {name!r}, or the strict module does not provide it")

    def __len__(self) -> int:
        return len(self._values)

    def __iter__(self) -> Iterator["ndarray"]:
        if not self.ndim:
            raise TypeError("iteration over a 0-d array")
        return (self[i] for i in range(len(self)))

    # indices

    def __getitem__(self, index: Any) -> "ndarray":
        parts, gathers = host_index(index)
        if gathers:
            return wrap(numpy.array(here(self, "a[i]")[parts], order="C"))
        return self._view(self._values[parts if Ellipsis in parts else (*parts, Ellipsis)])

    def __setitem__(self, index: Any, value: Any) -> None:
        new = operand(value, "a[i] = v")
        if new is NotImplemented:
            raise TypeError(f"a[i] = v takes arrays of the module and numbers, got {type(value).__name__}")
        parts, gathers = host_index(index)
        values = here(self, "a[i] = v")
        check_writable(values if gathers else values[parts if Ellipsis in parts else (*parts, Ellipsis)], "a[i] = v")
        if gathers and numpy.size(new) > 1:
            refuse_duplicates(values, parts)
        values[parts] = new

    # the host reads

    def get(self, stream: Any = None, order: Any = "C", out: Any = None, blocking: bool = True) -> numpy.ndarray:
        synchronise("get")
        if out is None:
            return numpy.array(self._values, order=order)
        if out.dtype != self.dtype or out.shape != self.shape:
            raise TypeError(f"get expected out of shape {self.shape} and {self.dtype}, got {out.shape} and {out.dtype}")
        out[...] = self._values
        return out

    def item(self) -> Any:
        synchronise("item")
        return self._values.item()

    def tolist(self) -> Any:
        synchronise("tolist")
        return self._values.tolist()

    def tobytes(self, order: str = "C") -> bytes:
        synchronise("tobytes")
        return self._values.tobytes(order)

    def __bool__(self) -> bool:
        synchronise("bool")
        return bool(self._values)

    def __int__(self) -> int:
        synchronise("int")
        return int(self._values)

    def __float__(self) -> float:
        synchronise("float")
        return float(self._values)

    def __complex__(self) -> complex:
        synchronise("complex")
        return complex(self._values)

    def __repr__(self) -> str:
        synchronise("repr")
        return repr(self._values)

    def __str__(self) -> str:
        synchronise("str")
        return str(self._values)

    def __format__(self, specification: str) -> str:
        synchronise("format")
        return format(self._values, specification)

    def __reduce__(self) -> tuple:
        return _function("array"), (self.get(order="A"),)

    # copies, casts and shapes

    def __copy__(self) -> "ndarray":
        return self._view(self._values.copy())

    def __deepcopy__(self, memo: dict) -> "ndarray":
        return self._view(self._values.copy())

    def copy(self, order: str = "C") -> "ndarray":
        """A copy on the current device, wherever the array lives."""
        return wrap(self._values.copy(order))

    def astype(self, dtype: Any, order: str = "K", casting: None = None, subok: None = None, copy: bool = True) -> Any:
        if casting is not None or subok is not None:
            raise TypeError("CuPy's astype supports neither casting nor subok")
        cast = here(self, "astype").astype(dtype, order=order, copy=bool(copy))
        return self if cast is self._values else wrap(cast)

    def view(self, dtype: Any = None) -> "ndarray":
        return self._view(self._values.view() if dtype is None or dtype is ndarray else self._values.view(dtype))

    def reshape(self, *shape: Any, order: str = "C", copy: bool | None = None) -> "ndarray":
        return self._view(self._values.reshape(*shape, order=order, copy=copy))

    def transpose(self, *axes: Any) -> "ndarray":
        return self._view(self._values.transpose(*axes))

    def flatten(self, order: str = "C") -> "ndarray":
        return self._view(self._values.flatten(order))

    def clip(self, min: Any = None, max: Any = None, out: "ndarray | None" = None) -> "ndarray":
        return _call("clip", self, min, max, out)

    def compress(self, condition: Any, axis: int | None = None, out: "ndarray | None" = None) -> "ndarray":
        return _call("compress", condition, self, axis, out)

    # in place

    def fill(self, value: Any) -> None:
        self[...] = value

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        target(self, "sort").sort(axis, kind)

    def partition(self, kth: Any, axis: int = -1) -> None:
        target(self, "partition").partition(kth, axis)

    def put(self, indices: Any, values: Any) -> None:
        _call("put", self, indices, values)

    def set(self, arr: numpy.ndarray, stream: Any = None) -> None:
        """The one way in for a host array: a copy of it (same shape and dtype)."""
        if not isinstance(arr, numpy.ndarray) or arr.dtype != self.dtype or arr.shape != self.shape:
            raise TypeError(f"set expected a NumPy array of shape {self.shape} and dtype {self.dtype}")
        target(self, "set")[...] = arr


def _function(name: str) -> Callable[..., Any]:
    from mtorch.testing import strict

    return getattr(strict, name)


def _call(name: str, *args: Any, **kwargs: Any) -> Any:
    return _function(name)(*args, **kwargs)


def _method(name: str) -> Callable[..., Any]:
    def method(self: ndarray, *args: Any, **kwargs: Any) -> Any:
        return _call(name, self, *args, **kwargs)

    return method


# methods that are the functions of the same name with the array first
FUNCTION_METHODS = (
    "all any argmax argmin argpartition argsort choose conj conjugate cumprod cumsum diagonal dot max mean min nonzero "
    "prod ptp ravel repeat round searchsorted squeeze std sum swapaxes take trace var"
).split()
for _name in FUNCTION_METHODS:
    setattr(ndarray, _name, _method(_name))


# ---------------------------------------------------------------------- operators, with Python's own on the NumPy side


def _forward(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any, *modulo: Any) -> Any:
        y = operand(other, what)
        return NotImplemented if y is NotImplemented else computed(function(here(self, what), y))

    return method


def _reflected(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any, *modulo: Any) -> Any:
        x = operand(other, what)
        return NotImplemented if x is NotImplemented else computed(function(x, here(self, what)))

    return method


def _in_place(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> Any:
        y = operand(other, what)
        if y is NotImplemented:
            raise TypeError(f"{what} takes arrays of the module and numbers, got {type(other).__name__}")
        function(target(self, what), y)
        return self

    return method


def _compared(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    def method(self: ndarray, other: Any) -> Any:
        y = operand(other, what)
        if y is NotImplemented:
            raise TypeError(f"{what} takes arrays of the module and numbers, got {type(other).__name__}")
        return computed(function(here(self, what), y))

    return method


def _unary(function: Callable[..., Any], what: str) -> Callable[..., Any]:
    return lambda self: computed(function(here(self, what)))


BINARY = "add sub mul truediv floordiv mod pow lshift rshift and or xor matmul"
for _name in BINARY.split():
    _function_of = getattr(operator, f"__{_name}__")
    setattr(ndarray, f"__{_name}__", _forward(_function_of, _name))
    setattr(ndarray, f"__r{_name}__", _reflected(_function_of, _name))
    if _name != "matmul":  # CuPy has no @= in place
        setattr(ndarray, f"__i{_name}__", _in_place(getattr(operator, f"__i{_name}__"), f"{_name} in place"))
for _name, _value in (
    ("divmod", _forward(divmod, "divmod")),
    ("rdivmod", _reflected(divmod, "divmod")),
    ("hash", None),
):
    setattr(ndarray, f"__{_name}__", _value)
for _name in ("lt", "le", "gt", "ge", "eq", "ne"):
    setattr(ndarray, f"__{_name}__", _compared(getattr(operator, f"__{_name}__"), _name))
for _name in ("neg", "pos", "abs", "invert"):
    setattr(ndarray, f"__{_name}__", _unary(getattr(operator, f"__{_name}__"), _name))

OPERATORS = {  # what `numpy.float32(2) * x` and the like call
    getattr(numpy, name)
    for name in "add subtract multiply divide floor_divide remainder power less less_equal greater greater_equal equal "
    "not_equal left_shift right_shift bitwise_and bitwise_or bitwise_xor".split()
}
