"""A fake array module as strict as CuPy, and stricter: `Linear(784, 16, xp=mtorch.testing.strict)`.

NumPy computes inside, so a machine without a GPU can prove that code written for CuPy runs there:

* arrays of this module meet their own kind and numbers only, host arrays are a TypeError everywhere, and so are
  `numpy.exp(x)` (CuPy would let it through) and `numpy.asarray(x)`;
* names, keywords and dtypes that CuPy lacks are refused, as listed in `cupy_api_14.2.json` (which
  `tools/make_cupy_api.py` writes from an installed CuPy);
* integer indices out of range and duplicate ones in `a[i] = v` are an IndexError, where CuPy goes on silently;
* fresh memory from `empty` holds NaN, and the smallest integer, so that nothing reads it unnoticed;
* new arrays are C-ordered in memory where CuPy's are, also where NumPy would follow the order of the arguments;
* an array knows its device, of two (`with strict.cuda.Device(1):`), and computes on that one only;
* every wait of the host for the device is counted: `synchronisations`, and

      with strict.count_synchronisations() as places:
          ...
      assert places == []  # else one line for each, with its place in the code

* `with strict.read_only(x, y):` makes arrays read-only, `with strict.frozen():` everything that layers remember
  between a forward and its backward.

Random numbers are not here: the library draws on the host.
"""

import inspect as _inspect
import json as _json
from collections.abc import Iterator as _Iterator
from contextlib import contextmanager as _contextmanager
from pathlib import Path as _Path
from typing import Any as _Any

import numpy as _numpy

from mtorch.testing import strict_array as _array
from mtorch.testing.strict_array import ndarray
from mtorch.testing.strict_array import read_only as read_only

_TABLE = _json.loads(_Path(__file__).with_name("cupy_api_14.2.json").read_text())
_NAMES: dict[str, _Any] = _TABLE["names"]

# constants and helpers that CuPy takes from NumPy
_CONSTANTS = {"e", "euler_gamma", "inf", "nan", "newaxis", "pi", "index_exp", "s_", "exceptions"}
# functions that give plain Python results, not arrays
_HOST_RESULTS = set(
    "base_repr binary_repr broadcast_shapes can_cast get_printoptions iscomplexobj isdtype isfortran isrealobj "
    "isscalar issubdtype iterable may_share_memory mintypecode ndim ndindex printoptions promote_types result_type "
    "set_printoptions shape shares_memory typename".split()
)
# what CuPy has and this module does not provide: files, Python callbacks, printing
_LEFT_OUT = set(
    "DataSource apply_along_axis apply_over_axes array2string array_repr array_str byte_bounds disp format_parser "
    "format_float_positional format_float_scientific frombuffer fromfile fromfunction fromiter fromstring genfromtxt "
    "get_array_wrap get_default_memory_pool get_default_pinned_memory_pool is_available load loadtxt piecewise require "
    "safe_eval save savetxt savez savez_compressed show_config vectorize who".split()
)
# functions whose result has a size that depends on values, or that look at values: CuPy asks the device and waits
_SYNCHRONISING = set(
    "argwhere bincount choose compress delete extract flatnonzero histogram histogram2d histogramdd intersect1d "
    "linalg.cholesky linalg.cond linalg.det linalg.eig linalg.eigh linalg.eigvals linalg.eigvalsh linalg.inv "
    "linalg.lstsq linalg.matrix_rank linalg.pinv linalg.qr linalg.slogdet linalg.solve linalg.svd linalg.tensorinv "
    "linalg.tensorsolve nanmax nanmin nonzero place ravel_multi_index setdiff1d setxor1d trim_zeros union1d unique "
    "unique_all unique_counts unique_inverse unique_values unravel_index".split()
)
# functions whose results have the memory order of their arguments in CuPy too; the others' results are C-ordered
_KEEP_ORDER = set("copy full_like imag nan_to_num ones_like pad real roll zeros_like einsum".split())
# functions that write into their first argument
_WRITING = {"copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask"}
# arguments that CuPy takes as arrays only, sequences of such, and the exceptions
_ARRAYS = set("a a1 a2 ar ar1 ar2 arr arr1 arr2 array ary b c condition dst element f filt m p prototype v x".split())
_SEQUENCES = {"args", "arrays", "arrays_and_dtypes", "arys", "operands", "tup", "xi"}
# arguments that are plain numbers, tuples and names, never arrays
_PLAIN = set("axis axes dtype k keepdims M N newshape num order pad_width reps shape start step stop".split())
_NUMBERS_TOO = {
    ("allclose", "b"), ("append", "arr"), ("broadcast_to", "array"), ("digitize", "x"), ("full_like", "b"),
    ("isclose", "a"), ("isclose", "b"), ("put", "v"), ("searchsorted", "v"), ("where", "x"),
}  # fmt: skip
_FREE_KEYWORDS = {
    "einsum": {"dtype", "optimize"},
    "meshgrid": {"copy", "indexing", "sparse"},
    "pad": {"constant_values", "end_values", "reflect_type", "stat_length"},
}
_REQUIRED = {"clip": 3, "take_along_axis": 3, "put_along_axis": 4}  # arguments that are optional in NumPy only
_SCATTERS = {  # what `ufunc.at` can do, and with which dtypes
    "add": "iIlLqQefd", "subtract": "iI", "maximum": "iIlLqQfd", "minimum": "iIlLqQfd",
    "bitwise_and": "iIlLqQ", "bitwise_or": "iIlLqQ", "bitwise_xor": "iIlLqQ",
}  # fmt: skip
_found: dict[str, _Any] = {}


def __getattr__(name: str) -> _Any:
    if name == "synchronisations":
        return _array.Synchronisations.total
    if name.startswith("_"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name not in _found:  # not put into the module: its own code uses Python's min, any, bool
        _found[name] = _find(name)
    return _found[name]


def _find(path: str) -> _Any:
    """What `cupy.<path>` stands for here; AttributeError when CuPy, NumPy or this module has no such name."""
    if path not in _NAMES:
        raise AttributeError(f"CuPy {_TABLE['cupy']} has no {path!r}")
    if path == "random":
        raise AttributeError("the strict module has no random numbers: the library draws them on the host")
    if path in ("linalg", "fft", "lib"):
        return _Namespace(path)
    if path == "cuda":
        return _Cuda(path)
    host: _Any = _numpy
    for part in path.split("."):
        host = getattr(host, part, None)
    described = _NAMES[path]
    if host is None or path in _LEFT_OUT or (described is None and path not in _CONSTANTS):
        raise AttributeError(f"{path!r} is in CuPy, but {'the strict module' if host else 'NumPy'} does not provide it")
    if described is None or isinstance(host, type):
        return host
    if described == "ufunc":
        if not isinstance(host, _numpy.ufunc):
            return _Function(path, host, ["x", "out"])
        return ufunc(host) if host.__name__ == path else __getattr__(host.__name__)
    return _Function(path, host, described)


class _Namespace:
    """A submodule: `linalg`, `fft`, `lib.stride_tricks`."""

    def __init__(self, path: str):
        self.__name__ = path

    def __getattr__(self, name: str) -> _Any:
        path = f"{self.__name__}.{name}"
        found = _StrideTricks(path) if path == "lib.stride_tricks" else _find(path)
        setattr(self, name, found)
        return found


class _Cuda(_Namespace):
    """`cuda`, of which there is the choice of a device."""

    Device = _array.Device

    def __getattr__(self, name: str) -> _Any:
        raise AttributeError(f"the strict module does not provide cuda.{name}")


class _Named:
    """A callable under its public name, by which it is pickled."""

    def __init__(self, name: str):
        self.__name__ = self.__qualname__ = name
        self.__module__ = __name__

    def __reduce__(self) -> str:
        return self.__name__


class _Function(_Named):
    """A function of NumPy that takes the arguments that CuPy's takes."""

    def __init__(self, path: str, host: _Any, names: list[str]):
        super().__init__(path)
        self._path, self._host, self._names = path, host, names
        self._what = f"cupy.{path}"
        self._keywords = (set(names) | _FREE_KEYWORDS.get(path, set())) - {"args", "kwargs"}
        self._many = bool(names) and names[0] in _SEQUENCES - {"tup"}  # all positions are one argument
        try:
            found = _inspect.signature(host).parameters.values()
            self._positions = [p.name for p in found if p.kind <= p.POSITIONAL_OR_KEYWORD]
        except ValueError:
            self._positions = names

    def __call__(self, *args: _Any, **kwargs: _Any) -> _Any:
        plain, named, out = self._bind(args, kwargs)
        if self._waits(args, kwargs):
            _array.synchronise(self._path)
        if out is not None and self._path not in ("clip", "around", "round"):
            _refuse_overlap(self._what, named["out"], [*plain, *(v for k, v in named.items() if k != "out")])
        if self._path in ("put", "put_along_axis"):
            _refuse_duplicates(self._path, *plain, **named)
        result = self._host(*plain, **named)
        if out is not None:
            return out
        if self._path in _HOST_RESULTS:
            return result
        new = not (self._path in _KEEP_ORDER or any(result is each for each in (*plain, *named.values())))
        result = _numpy.asarray(result) if isinstance(result, bool | int) else result
        return _array.computed(result) if new else _array.wrap(result)

    def _bind(self, args: tuple, kwargs: dict[str, _Any]) -> tuple[list, dict[str, _Any], _Any]:
        """The arguments on the NumPy side, by position and by name, and the array given as `out`."""
        names, what = self._names, self._what
        for name in kwargs:
            if name not in self._keywords:
                raise TypeError(f"{what} has no argument {name!r}: it takes {', '.join(sorted(self._keywords))}")
        if not self._many and len(args) > len(names):
            raise TypeError(f"{what} takes {len(names)} arguments, got {len(args)}")
        if len(args) + len(kwargs) < _REQUIRED.get(self._path, 0):
            raise TypeError(f"{what} takes {_REQUIRED[self._path]} arguments, got {len(args) + len(kwargs)}")
        if self._many:
            plain, pairs = [self._convert_one_of_many(argument) for argument in args], []
        else:
            shift = next((i for i, name in enumerate(names) if i >= 2 and self._positions[i : i + 1] != [name]), None)
            shift = min([len(args)] if shift is None else [shift, len(args)])  # from here on NumPy has another order
            shift = min(shift, names.index("out")) if "out" in names else shift
            plain = [self._convert(name, argument) for name, argument in zip(names, args[:shift], strict=False)]
            pairs = list(zip(names[shift:], args[shift:], strict=False))
        pairs = [(name, each) for name, each in (*pairs, *kwargs.items()) if name != "out" or each is not None]
        return plain, {name: self._convert(name, each) for name, each in pairs}, dict(pairs).get("out")

    def _convert_one_of_many(self, argument: _Any) -> _Any:
        if self._path in _HOST_RESULTS or (self._path == "einsum" and isinstance(argument, str)):
            return _array.unwrap(argument, self._what)
        return _array.needs_array(argument, self._what)

    def _convert(self, name: str, argument: _Any) -> _Any:
        if name in ("out", "dst") or (self._path in _WRITING and name == self._names[0]):
            return _array.target(argument, self._what)
        if name in _PLAIN and argument.__class__ is ndarray:
            raise TypeError(f"{self._what} takes {name} from the host, got an array")
        if name in _SEQUENCES:
            parts = [argument] if argument.__class__ is ndarray else argument
            parts = [_array.needs_array(part, self._what) for part in parts]
            return parts[0] if argument.__class__ is ndarray else parts
        if name in _ARRAYS and (self._path, name) not in _NUMBERS_TOO and self._path not in _HOST_RESULTS:
            return _array.needs_array(argument, self._what)
        return _array.unwrap(argument, self._what)

    def _waits(self, args: tuple, kwargs: dict[str, _Any]) -> bool:
        """Whether CuPy asks the device in the middle of this call, and waits for the answer."""
        if self._path == "where":
            return len(args) + len(kwargs) == 1
        if self._path == "average":
            return len(args) > 2 or kwargs.get("weights") is not None
        if self._path == "repeat":
            return any(each.__class__ is ndarray for each in (*args[1:2], kwargs.get("repeats")))
        return self._path in _SYNCHRONISING


def _refuse_overlap(what: str, out: _Any, arguments: list[_Any]) -> None:
    """ValueError when a product or a reduction writes over what it still reads."""
    for argument in arguments:
        for each in argument if isinstance(argument, list | tuple) else [argument]:
            if isinstance(each, _numpy.ndarray) and _array.overlap(out, each):
                raise ValueError(f"{what} would write into one of its own arguments")


def _refuse_duplicates(path: str, a: _Any, indices: _Any, values: _Any, axis: int | None = None, **rest: _Any) -> None:
    if _numpy.size(values) == 1:
        return
    if path == "put":
        _array.refuse_duplicates(a.reshape(-1), (_numpy.asarray(indices),))
        return
    places = _numpy.take_along_axis(_numpy.arange(a.size).reshape(a.shape), indices, axis)
    if _numpy.unique(places).size != places.size:
        raise IndexError("duplicate indices in put_along_axis leave open on CuPy which value stays")


class ufunc(_Named):
    """An elementwise function as CuPy has them: `out=`, `dtype=` and `casting=`, but no `where=`; few reductions."""

    def __init__(self, host: _numpy.ufunc):
        super().__init__(host.__name__)
        self._host = host
        self.nin, self.nout, self.nargs, self.types = host.nin, host.nout, host.nargs, host.types
        self.name = f"cupy_{host.__name__}"

    def __call__(self, *args: _Any, out: _Any = None, dtype: _Any = None, casting: str | None = None) -> _Any:
        what = f"cupy.{self.__name__}"
        if not self.nin <= len(args) <= self.nargs:
            raise TypeError(f"{what} takes {self.nin} to {self.nargs} arguments, got {len(args)}")
        if out is not None and len(args) > self.nin:
            raise ValueError(f"{what} got out both by position and by name")
        outs = args[self.nin :] or (out if isinstance(out, tuple) else (out,) * self.nout if out is None else (out,))
        if len(outs) != self.nout:
            raise ValueError(f"{what} has {self.nout} outputs, got {len(outs)} for out")
        inputs = [self._operand(argument) for argument in args[: self.nin]]
        options = {"dtype": dtype, "casting": casting}
        options = {name: option for name, option in options.items() if option is not None}
        targets = tuple(None if each is None else _array.target(each, what) for each in outs)
        result = self._host(*inputs, out=targets, **options)
        results = result if isinstance(result, tuple) else (result,)
        given = tuple(_array.computed(new) if each is None else each for new, each in zip(results, outs, strict=True))
        return given if self.nout > 1 else given[0]

    def _operand(self, argument: _Any) -> _Any:
        found = _array.operand(argument, f"cupy.{self.__name__}")
        if found is NotImplemented:
            kind = type(argument).__name__
            raise TypeError(f"cupy.{self.__name__} takes arrays of the module and numbers, got {kind}")
        return found

    def at(self, a: _Any, indices: _Any, b: _Any = None) -> None:
        dtypes = _SCATTERS.get(self.__name__, "")
        values = _array.target(a, f"cupy.{self.__name__}.at")
        if values.dtype.char not in dtypes:
            raise TypeError(f"cupy.{self.__name__}.at does not support dtype {values.dtype}")
        self._host.at(values, _array.host_index(indices)[0], self._operand(b))

    def outer(self, A: _Any, B: _Any, **kwargs: _Any) -> _Any:
        a, b = _array.wrap(_array.needs_array(A, "outer")), _array.wrap(_array.needs_array(B, "outer"))
        return self(a.reshape(a.shape + (1,) * b.ndim), b, **kwargs)

    def reduce(self, array: _Any, axis: _Any = 0, dtype: _Any = None, out: _Any = None, keepdims: bool = False) -> _Any:
        return self._only({"add": "sum", "multiply": "prod"}, "reduce")(array, axis, dtype, out, keepdims)

    def accumulate(self, array: _Any, axis: int = 0, dtype: _Any = None, out: _Any = None) -> _Any:
        return self._only({"add": "cumsum", "multiply": "cumprod"}, "accumulate")(array, axis, dtype, out)

    def reduceat(self, array: _Any, indices: _Any, axis: int = 0, dtype: _Any = None) -> _Any:
        self._only({"add": "sum"}, "reduceat")
        host = _array.needs_array(array, "reduceat"), _array.unwrap(indices, "reduceat")
        return _array.computed(self._host.reduceat(*host, axis, dtype))

    def _only(self, having: dict[str, str], method: str) -> _Any:
        if self.__name__ not in having:
            raise NotImplementedError(f"cupy.{self.__name__}.{method} is not supported")
        return __getattr__(having[self.__name__])

    def __repr__(self) -> str:
        return f"<ufunc {self.name!r}>"


# ---------------------------------------------------------------------- what differs from NumPy by more than arguments


def array(
    obj: _Any, dtype: _Any = None, copy: bool | None = True, order: _Any = "K", subok: bool = False,
    ndmin: int = 0, blocking: bool = False,
) -> ndarray:  # fmt: skip
    """cupy.array: the way from the host, and from another device. What comes from there is copied, always."""
    if subok:
        raise NotImplementedError("CuPy's array has no subclasses")
    if obj.__class__ is ndarray:
        copy = copy if obj.device == _array.Device() else True
        made = _numpy.array(obj._values, dtype, copy=copy, order=order or "K", ndmin=ndmin)
        return obj if made is obj._values else _array.wrap(made)
    nested = _nested(obj)
    made = _numpy.array(obj if nested is None else nested, dtype, copy=True, order=order or "K", ndmin=ndmin)
    return _array.wrap(made.astype(made.dtype.newbyteorder("="), copy=False))


def _nested(obj: _Any) -> _Any:
    """A list of arrays of this module with the NumPy sides in it; None when there are none in it."""
    if not isinstance(obj, list | tuple):
        return None
    flat, stack = [], list(obj)
    while stack:
        part = stack.pop()
        if isinstance(part, list | tuple):
            stack.extend(part)
        else:
            flat.append(part.__class__ is ndarray)
    if not any(flat):
        return None
    if not all(flat):
        raise TypeError("cupy.array got a list that mixes arrays of the module with other things")
    return _array.unwrap(obj, "cupy.array")


def asarray(a: _Any, dtype: _Any = None, order: _Any = None, *, copy: bool | None = None, blocking: bool = False):
    """cupy.asarray: as `array`, but an array of this module stays what it is."""
    return array(a, dtype, copy, order or "K")


def asanyarray(a: _Any, dtype: _Any = None, order: _Any = None, *, copy: bool | None = None, blocking: bool = False):
    return array(a, dtype, copy, order or "K")


def asnumpy(a: _Any, stream: _Any = None, order: _Any = "C", out: _Any = None, *, blocking: bool = True) -> _Any:
    """cupy.asnumpy: the way to the host, a synchronisation."""
    return a.get(stream, order, out, blocking) if a.__class__ is ndarray else _numpy.asarray(a, order=order)


def ascontiguousarray(a: ndarray, dtype: _Any = None) -> ndarray:
    _array.needs_array(a, "cupy.ascontiguousarray")
    return array(a, dtype, None, "C")


def asfortranarray(a: ndarray, dtype: _Any = None) -> ndarray:
    _array.needs_array(a, "cupy.asfortranarray")
    return array(a, dtype, None, "F")


def empty(shape: _Any, dtype: _Any = float, order: _Any = "C") -> ndarray:
    """cupy.empty, filled with what nobody can use unnoticed."""
    return _marked_invalid(_numpy.empty(shape, dtype, order))


def empty_like(
    prototype: ndarray, dtype: _Any = None, order: _Any = "K", subok: None = None, shape: _Any = None
) -> ndarray:
    return _marked_invalid(
        _numpy.empty_like(_array.needs_array(prototype, "cupy.empty_like"), dtype, order or "K", shape=shape)
    )


def _marked_invalid(fresh: _numpy.ndarray) -> ndarray:
    if fresh.dtype.kind in "fc":
        fresh.fill(_numpy.nan)
    elif fresh.dtype.kind in "iu":
        fresh.fill(_numpy.iinfo(fresh.dtype).min)
    return _array.wrap(fresh)


def matmul(*args: _Any, out: ndarray | None = None) -> ndarray:
    """cupy.matmul(a, b, out=None); its other options are not provided."""
    if not 2 <= len(args) <= 3 or (len(args) == 3 and out is not None):
        raise TypeError("cupy.matmul takes two arrays and out=")
    a, b = (_array.needs_array(each, "cupy.matmul") for each in args[:2])
    out = args[2] if len(args) == 3 else out
    if out is None:
        return _array.computed(_numpy.matmul(a, b))
    values = _array.target(out, "cupy.matmul")
    _refuse_overlap("cupy.matmul", values, [a, b])
    _numpy.matmul(a, b, out=values)
    return out


def dot(a: ndarray, b: ndarray, out: ndarray | None = None) -> ndarray:
    """cupy.dot; out= must be C-contiguous and have the dtype of the result."""
    host = _array.needs_array(a, "cupy.dot"), _array.needs_array(b, "cupy.dot")
    if out is None:
        return _array.computed(_numpy.dot(*host))
    values = _array.target(out, "cupy.dot")
    _refuse_overlap("cupy.dot", values, list(host))
    _numpy.dot(*host, out=values)
    return out


def get_array_module(*args: _Any) -> _Any:
    """cupy.get_array_module: this module when one of the arguments is its array, else numpy."""
    import sys

    return sys.modules[__name__] if any(each.__class__ is ndarray for each in args) else _numpy


def size(a: _Any, axis: int | None = None) -> int:
    return a.size if axis is None else a.shape[axis]


class _StrideTricks(_Namespace):
    """`lib.stride_tricks`."""

    def as_strided(self, x: ndarray, shape: _Any = None, strides: _Any = None) -> ndarray:
        """cupy.lib.stride_tricks.as_strided; a view that leaves the memory is a ValueError here."""
        values = _array.needs_array(x, "as_strided")
        view = _numpy.lib.stride_tricks.as_strided(values, shape, strides)
        low, high = _numpy.lib.array_utils.byte_bounds(view)
        first, last = _numpy.lib.array_utils.byte_bounds(_array._owner(values))
        if view.size and (low < first or high > last):
            raise ValueError(f"as_strided would leave the memory of its array: shape {shape}, strides {strides}")
        return _array.wrap(view)


# ---------------------------------------------------------------------- for tests


@_contextmanager
def count_synchronisations() -> _Iterator[list[str]]:
    """Gives a list that gains a line, with the place in the code, for each wait of the host in the block."""
    places: list[str] = []
    before = _array.Synchronisations.listeners
    _array.Synchronisations.listeners = [*before, places]
    try:
        yield places
    finally:
        _array.Synchronisations.listeners = before


@_contextmanager
def frozen() -> _Iterator[None]:
    """Within the block, what layers remember in a forward is read-only until it is recalled (or forgotten).

    Layers remember views, and get the arrays themselves back; outside of the block `Layer` is as it was.
    """
    import weakref

    from mtorch.layer import Layer

    remember, recall = Layer.remember, Layer.recall
    made: list[weakref.ref] = []

    def held(value: _Any) -> _Any:
        if value.__class__ in (tuple, list):
            return type(value)(held(part) for part in value)
        if value.__class__ is not ndarray:
            return value
        view = _array.hold(value)
        made.append(weakref.ref(view))
        return view

    def released(value: _Any) -> _Any:
        if value.__class__ in (tuple, list):
            return type(value)(released(part) for part in value)
        return _array.release(value) if value.__class__ is ndarray else value

    def remember_held(self: Layer, *values: _Any) -> None:
        remember(self, *(held(value) for value in values))

    def recall_released(self: Layer) -> _Any:
        return released(recall(self))

    def use(remember: _Any, recall: _Any) -> None:
        for name, method in (("remember", remember), ("recall", recall)):
            setattr(Layer, name, method)

    use(remember_held, recall_released)
    try:
        yield
    finally:
        use(remember, recall)
        for view in (reference() for reference in made):
            if view is not None:
                _array.release(view)
