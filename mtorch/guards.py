"""The checks around a call of a layer: what goes in, what comes out, the gradient that answers it, and predictions.

`Layer.__call__` runs `checked_forward`, and every backward begins with `Layer.cast_grad`, which runs `checked_grad`.
Within a chain a layer takes what its neighbour returned, so containers call `forward` and `backward` directly.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import numpy

from mtorch import arrays
from mtorch.arrays import Value
from mtorch.checks import shown
from mtorch.errors import ShapeMismatchError
from mtorch.operators import Operand
from mtorch.outputs import Outputs

if TYPE_CHECKING:
    from mtorch.layer import Layer


class _Empty:
    """What a memory holds when nothing is remembered."""

    def __repr__(self) -> str:
        return "EMPTY"

    def __reduce__(self) -> str:
        return "EMPTY"


EMPTY = _Empty()
NO_ARRAY = (tuple, type(None))
NO_VALUE = frozenset({type(None), bool, int, float, str, list, dict})  # what a forward may return by mistake


class Pass:
    """One call of `Layer.predict`: within it layers are in eval mode and remember nothing.

    It belongs to the context of the call (`contextvars`), as `numpy.errstate` does: other threads do not see it, but
    for those that a layer runs in a copy of its context.
    """


_pass: ContextVar[Pass | None] = ContextVar("pass", default=None)
passes: set[Pass] = set()  # those that run now, in all threads; most often none, which is cheap to ask


def current_pass() -> Pass | None:
    """The call of `Layer.predict` that this is within."""
    current = _pass.get()
    return current if current in passes else None


def in_predict() -> bool:
    """Whether this is within `Layer.predict`."""
    return _pass.get() in passes


def predicted(layer: "Layer", x: Value, new: Pass) -> Value:
    """`checked_forward` within that pass."""
    token = _pass.set(new)
    try:
        passes.add(new)
        return checked_forward(layer, x)
    finally:
        passes.discard(new)
        _pass.reset(token)


def has_operand(x: Any) -> bool:
    """Whether an expression, a parameter or a buffer is among the parts of x: then a call returns an expression."""
    try:
        return any(map(has_operand, x)) if isinstance(x, tuple) else isinstance(x, Operand)
    except RecursionError:  # `cast` says so
        return False


# ---------------------------------------------------------------------- forward


def cast(layer: "Layer", x: Any, takes: Any) -> Value:
    """Every array of x on the layer's array module, in the kind that `takes` says (see `Layer.takes`)."""
    if isinstance(takes, tuple):
        if isinstance(x, tuple):
            takes += ("floats",) * (len(x) - len(takes))
            return tuple(cast(layer, part, kind) for part, kind in zip(x, takes, strict=False))
        takes = "floats"
    try:
        return arrays.map_value(lambda leaf: _cast_leaf(layer, leaf, takes), x)
    except RecursionError:
        raise ShapeMismatchError(layer, "expected arrays, got tuples in tuples, too deep to follow") from None


def _cast_leaf(layer: "Layer", x: Any, kind: str) -> Any:
    if kind == "ids":
        return arrays.as_ids(layer.xp, x, layer)
    if kind == "any":
        if arrays.array_module(x, layer) in (None, numpy):  # integers and masks of the host may move to a device
            host = arrays.host_array(x, layer)
            x = host if host.dtype.kind == "f" else layer.xp.asarray(host)
        x = arrays.as_numeric(layer.xp, x, layer)
        if x.dtype.kind != "f":
            return x
    return arrays.as_float(layer.xp, layer.dtype, x, layer)


def checked_forward(layer: "Layer", x: Value) -> Value:
    """layer.forward(x). When it raises, nothing is remembered at or below the layer, and buffers are as before."""
    keeps = not (passes and in_predict())
    below = layer.buffers_below if layer.has_tape or not keeps else layer.buffers().values()
    buffers = [(buffer, buffer.value) for buffer in below] if below and keeps else ()
    try:
        if x.__class__ in NO_ARRAY and layer.array_only:
            refuse_value(layer, x)
        y = layer.forward(x)
        if y.__class__ is not layer.xp.ndarray:
            y = as_value(layer, y)
            if y.__class__ is tuple and not in_predict():
                layer._outputs = Outputs(y)
        return y if layer.has_tape else layer.returns(y)
    except BaseException as error:
        for buffer, value in buffers:
            buffer.value = value
        if keeps:
            layer.forget()
        if type(layer).__name__ not in str(error) and not hasattr(error, "__notes__"):
            error.add_note(f"in {layer!r}")
        raise


def refuse_value(layer: "Layer", x: tuple | None) -> None:
    """Raises the error of a layer that takes one array, for several and for none."""
    if x is None:
        raise TypeError(f"{layer!r} expected an array, got None")
    raise ShapeMismatchError(layer, f"expected one array, got a tuple of {len(x)}")


def as_value(layer: "Layer", y: Any, gaps: bool = False) -> Value:
    """What forward returned, with arrays for the scalars that NumPy gives where no axis is left; TypeError for what is
    no value. gaps: whether None may be among it.
    """
    if isinstance(y, tuple):
        return tuple([as_value(layer, part, gaps) for part in y])
    if hasattr(y, "shape") or (y is None and gaps):
        return numpy.asarray(y) if isinstance(y, numpy.generic) else y
    raise TypeError(f"{layer!r} expected its forward to return an array or a tuple of arrays, got {shown(y)}")


# ---------------------------------------------------------------------- backward


def signature(value: Value) -> Any:
    """(shape, dtype) of an array, a list of signatures for a tuple."""
    if isinstance(value, tuple):
        return [signature(part) for part in value]
    return None if value is None else (value.shape, value.dtype)


def checked_grad(layer: "Layer", grad: Any, returned: Any) -> Value:
    """The output gradient in the structure and dtypes of the output; raises when structure or a shape differs."""
    if isinstance(returned, list):
        if not isinstance(grad, tuple) or len(grad) != len(returned):
            got = f"a tuple of {len(grad)}" if isinstance(grad, tuple) else type(grad).__name__
            wanted = f"an output gradient that is a tuple of {len(returned)}"
            raise ShapeMismatchError(layer, f"expected {wanted}, got {got}")
        if all(part is None for part in grad):
            raise ShapeMismatchError(layer, "expected an output gradient for at least one of its outputs, got None")
        return tuple(
            _zeros(layer, part) if g is None else checked_grad(layer, g, part)
            for g, part in zip(grad, returned, strict=True)
        )
    if returned is None or returned[1].kind != "f":
        return None
    shape, dtype = returned
    if grad is None or isinstance(grad, tuple):
        got = "None" if grad is None else f"a tuple of {len(grad)}"
        raise ShapeMismatchError(layer, f"expected an output gradient of shape {shape}, got {got}")
    grad = arrays.as_float(layer.xp, dtype, grad, layer)
    if grad.shape != shape:
        raise ShapeMismatchError(layer, f"expected an output gradient of shape {shape}, got {grad.shape}")
    return grad


def _zeros(layer: "Layer", returned: Any) -> Value:
    """What stands for an output gradient that was not given: zeros, and None for integers."""
    if isinstance(returned, list):
        return tuple(_zeros(layer, part) for part in returned)
    return layer.xp.zeros(*returned) if returned is not None and returned[1].kind == "f" else None


def as_grad(grad: Any) -> Value:
    """What backward returned, with arrays for the scalars that NumPy gives where no axis is left."""
    return arrays.map_value(lambda g: numpy.asarray(g) if isinstance(g, numpy.generic) else g, grad)


def discard(layer: "Layer", error: BaseException) -> None:
    """After an error in the middle of a backward: drops all memories and gradients of the subtree and says so."""
    layer.discard()
    notes = getattr(error, "__notes__", [])
    notes[:] = [note for note in notes if not note.endswith("were discarded")]
    error.add_note(f"the gradients and memories of {layer!r} were discarded")
