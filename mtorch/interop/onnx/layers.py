"""Layers that only a net read from an ONNX file needs."""

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch import arrays
from mtorch.arrays import Array, Value, as_array, unbroadcast
from mtorch.checks import check_choice, check_flag, check_integer, check_number, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.elementwise import Elementwise
from mtorch.losses import CrossEntropyLoss, NLLLoss
from mtorch.losses.label_loss import LabelLoss
from mtorch.math.erf import erf

COMPARISONS = {
    "Greater": lambda a, b: a > b,
    "GreaterOrEqual": lambda a, b: a >= b,
    "Less": lambda a, b: a < b,
    "LessOrEqual": lambda a, b: a <= b,
    "Equal": lambda a, b: a == b,
}
MOST_AXES = 64  # of a NumPy array
PAD_MODES = ("constant", "reflect", "edge", "wrap")


def several(who: str, name: str, values: Any) -> tuple[Any, ...]:
    """The argument as a tuple; TypeError if it is neither a tuple nor a list."""
    if not isinstance(values, tuple | list):
        raise TypeError(f"{who} expected {name} to be a tuple, got {shown(values)}")
    if len(values) > MOST_AXES:
        raise ValueError(f"{who} expected {name} to have at most {MOST_AXES} entries, got {shown(values)}")
    return tuple(values)


def integers(who: str, name: str, values: Any, least: float = -math.inf) -> tuple[int, ...]:
    """The argument as a tuple of integers."""
    return tuple(check_integer(who, name, value, least) for value in several(who, name, values))


class OnnxReshape(Layer):
    """All entries in another shape, the batch axis included: ONNX's Reshape.

    shape: sizes, where 0 keeps the size of the input's axis at that place and one -1 takes what is left.

    Shapes: any -> `shape`.  Backward: the same entries in the shape they came in, dx = output_grad.
    """

    moves_data = True
    array_only = True

    def __init__(self, shape: tuple[int, ...], *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.shape = integers("OnnxReshape", "shape", shape)
        if min(self.shape, default=0) < -1 or self.shape.count(-1) > 1:
            raise ValueError(f"OnnxReshape expected a shape of sizes >= 0 and at most one -1, got {shown(self.shape)}")

    def forward(self, x: Array) -> Array:
        sizes = [x.shape[i] if n == 0 and i < x.ndim else n for i, n in enumerate(self.shape)]
        known = math.prod(n for n in sizes if n != -1)
        if -1 in sizes and known:
            sizes[sizes.index(-1)] = x.size // known
        if -1 in sizes or math.prod(sizes) != x.size:
            raise ShapeMismatchError(self, f"expected as many entries as in {self.shape}, got shape {x.shape}")
        self.remember(x.shape)
        return x.reshape(tuple(sizes))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        return g.reshape(self.recall())

    def details(self) -> str:
        return str(self.shape)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls((0, 0, 2, -1), xp=xp, dtype=dtype), (2, 3, 4)
        yield cls((-1, 4), xp=xp, dtype=dtype), (2, 3, 4)
        yield cls((), xp=xp, dtype=dtype), (1, 1)


class OnnxPad(Layer):
    """More entries before and behind each axis: a constant, or entries of x as `mtorch/math/padding.py` has them.

    widths: (before, behind) for each axis; a negative one cuts entries off. mode: "constant", "reflect", "edge" or
    "wrap".

    Shapes: (n_0, n_1, ...) -> (before_0 + n_0 + behind_0, ...).

    Backward: each entry of x gets the sum of output_grad over all places that show it.
    """

    array_only = True

    def __init__(
        self,
        widths: tuple[tuple[int, int], ...],
        mode: str = "constant",
        value: float = 0.0,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.mode = check_choice("OnnxPad", "mode", mode, PAD_MODES)
        self.value = check_number("OnnxPad", "value", value)
        self.widths = tuple(integers("OnnxPad", "widths", pair) for pair in several("OnnxPad", "widths", widths))
        if not all(len(pair) == 2 for pair in self.widths):
            raise ValueError(f"OnnxPad expected widths to be pairs, got {shown(widths)}")

    def forward(self, x: Array) -> Array:
        if x.ndim != len(self.widths):
            raise ShapeMismatchError(self, f"expected {len(self.widths)} axes, got shape {x.shape}")
        y = x
        for axis, (n, (before, behind)) in enumerate(zip(x.shape, self.widths, strict=True)):
            if before or behind:
                index = self.visible(n, before, behind)
                if not n:  # there is nothing to take: all that is seen is the constant
                    y = self.xp.zeros((*y.shape[:axis], 1, *y.shape[axis + 1 :]), y.dtype)
                y = y.take(self.xp.asarray(numpy.maximum(index, 0)), axis=axis)
                if (index < 0).any():
                    outside = self.xp.asarray(index < 0).reshape(-1, *[1] * (x.ndim - 1 - axis))
                    y = self.xp.where(outside, self.xp.asarray(self.value, self.dtype), y)
        self.remember(x.shape)
        return y if y is not x else x.copy()

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape = self.recall()
        for axis in reversed(range(len(shape))):
            before, behind = self.widths[axis]
            if before or behind:
                index = self.visible(shape[axis], before, behind)
                places = numpy.nonzero(index >= 0)[0]
                dx = self.xp.zeros((*g.shape[:axis], shape[axis], *g.shape[axis + 1 :]), g.dtype)
                head = (slice(None),) * axis
                for place in places.tolist():
                    dx[(*head, int(index[place]))] += g[(*head, place)]  # in forward this was y[place] = x[index]
                g = dx
        return g

    def visible(self, n: int, before: int, behind: int) -> numpy.ndarray:
        """For each place along an axis the entry of x that it shows, -1 for the constant."""
        least = {"constant": 0, "reflect": max(before, behind) + 1, "edge": 1, "wrap": max(before, behind)}[self.mode]
        if n < least or n + before + behind < 0:
            raise ShapeMismatchError(self, f"expected at least {least} entries along each axis that it pads, got {n}")
        i = numpy.arange(-before, n + behind)
        if self.mode == "constant":
            return numpy.where((i < 0) | (i >= n), -1, i)
        if self.mode == "reflect":
            return numpy.where(i < 0, -i, numpy.where(i >= n, 2 * (n - 1) - i, i))
        return numpy.clip(i, 0, n - 1) if self.mode == "edge" else i % n

    def details(self) -> str:
        return f"{self.widths}, {self.mode}" + (f", {self.value:g}" if self.mode == "constant" else "")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(((0, 0), (1, 2)), value=0.5, xp=xp, dtype=dtype), (2, 3)
        yield cls(((0, 0), (-1, 1), (2, -1)), xp=xp, dtype=dtype), (2, 3, 4)
        for mode in ("reflect", "edge", "wrap"):
            yield cls(((0, 0), (2, 1), (0, 1)), mode, xp=xp, dtype=dtype), (2, 3, 2)


class OnnxTile(Layer):
    """x several times along each axis. repeats: how often, for each axis.

    Shapes: (n_0, n_1, ...) -> (n_0 r_0, n_1 r_1, ...).  Backward: dx is the sum of output_grad over the copies.
    """

    array_only = True

    def __init__(self, repeats: tuple[int, ...], *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.repeats = integers("OnnxTile", "repeats", repeats, least=1)

    def forward(self, x: Array) -> Array:
        if x.ndim != len(self.repeats):
            raise ShapeMismatchError(self, f"expected {len(self.repeats)} axes, got shape {x.shape}")
        self.remember(x.shape)
        return as_array(self.xp, self.xp.tile(x, self.repeats))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        shape = self.recall()
        pairs = tuple(n for pair in zip(self.repeats, shape, strict=True) for n in pair)
        return as_array(self.xp, g.reshape(pairs).sum(axis=tuple(range(0, len(pairs), 2))))

    def details(self) -> str:
        return str(self.repeats)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls((2, 1, 3), xp=xp, dtype=dtype), (2, 3, 4)


class OnnxSized(Layer):
    """x in sizes that other arrays have at run time: (x, like_0, like_1, ...) -> y.

    sizes: for each axis a number, (k, axis) for the size of like_k along that axis, or ("*", ...) for a product of
        these.
    operation: "reshape" gives x that shape, as `OnnxReshape` does; "expand" stretches x to it; "head" takes the first
    entries of x, that many along each of its first axes, where -1 leaves an axis as it is.

    Backward: dx is output_grad in the shape of x, summed over what was stretched, 0 where nothing was taken. The other
    arrays move y by nothing: their gradients are 0.
    """

    takes = ("floats", *["any"] * 8)

    def __init__(
        self, operation: str, sizes: tuple[Any, ...], *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.operation = check_choice("OnnxSized", "operation", operation, ("reshape", "expand", "head"))
        self.sizes = tuple(size_at_run_time(size) for size in several("OnnxSized", "sizes", sizes))

    def forward(self, x: tuple[Array, ...]) -> Array:
        if x.__class__ is not tuple or any(part is None or part.__class__ is tuple for part in x):
            raise ShapeMismatchError(self, f"expected a tuple of arrays, got {arrays.shape_value(x)}")
        first, *likes = x
        try:
            shape = tuple(resolved(n, likes) for n in self.sizes)
            if self.operation == "reshape":
                shape = tuple(first.shape[i] if n == 0 else n for i, n in enumerate(shape))
                y = first.reshape(shape)
            elif self.operation == "expand":
                y = self.xp.broadcast_to(first, numpy.broadcast_shapes(first.shape, shape)).copy()
            else:
                y = first[tuple(slice(None if n == -1 else n) for n in shape)]
        except (ValueError, IndexError, RuntimeError):  # the last where there are too many axes
            raise ShapeMismatchError(
                self, f"expected shapes that fit each other, got {arrays.shape_value(x)}"
            ) from None
        self.remember(first.shape, [(like.shape, like.dtype) for like in likes])
        return y

    def backward(self, output_grad: Array) -> tuple[Array | None, ...]:
        g = self.cast_grad(output_grad)
        shape, likes = self.recall()
        if self.operation == "reshape":
            dx = g.reshape(shape)
        elif self.operation == "expand":
            dx = as_array(self.xp, unbroadcast(g, shape))
        else:
            dx = self.xp.zeros(shape, g.dtype)
            dx[tuple(slice(n) for n in g.shape)] = g  # in forward this was y = x[:n]
        still = [self.xp.zeros(s, d) if d.kind == "f" else None for s, d in likes]
        return (dx, *still)

    def details(self) -> str:
        return f"{self.operation}, {self.sizes}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls("reshape", ((0, 0), -1), xp=xp, dtype=dtype), ((6, 2), (3, 2))
        yield cls("reshape", (("*", (0, 0), 2), -1), xp=xp, dtype=dtype), ((6, 2), (3, 2))
        yield cls("expand", ((0, 1), (1, 0), 2), xp=xp, dtype=dtype), ((1, 2), (2, 3), (4,))
        yield cls("head", (-1, (0, 0)), xp=xp, dtype=dtype), ((2, 5, 3), (3, 1))


def size_at_run_time(size: Any) -> Any:
    """One of the sizes of `OnnxSized`, checked."""
    if isinstance(size, tuple | list) and size and isinstance(size[0], str) and size[0] == "*":
        return ("*", *(size_at_run_time(factor) for factor in size[1:]))
    if not isinstance(size, tuple | list):
        return check_integer("OnnxSized", "sizes", size)
    if len(size) != 2:
        raise ValueError(f"OnnxSized expected sizes of a number, (k, axis) or ('*', ...), got {shown(size)}")
    return integers("OnnxSized", "sizes", size)


def resolved(size: Any, likes: list[Array]) -> int:
    """The number that a size of `OnnxSized` stands for."""
    if isinstance(size, int):
        return size
    if size[0] == "*":
        return math.prod(resolved(factor, likes) for factor in size[1:])
    return likes[size[0]].shape[size[1]]


class OnnxTriangle(Layer):
    """The entries on and above a diagonal of the last two axes, or on and below it; 0 elsewhere.

    k: how far the diagonal is to the right. upper: which of both.

    Shapes: (..., N, M) -> the same.  Backward: dx is output_grad where x is seen, 0 elsewhere.
    """

    array_only = True

    def __init__(
        self, k: int = 0, upper: bool = True, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None
    ):
        super().__init__(xp=xp, dtype=dtype)
        self.k, self.upper = check_integer("OnnxTriangle", "k", k), check_flag("OnnxTriangle", "upper", upper)

    def seen(self, x: Array) -> Array:
        if x.ndim < 2:
            raise ShapeMismatchError(self, f"expected input of shape (..., N, M), got {x.shape}")
        distance = self.xp.arange(x.shape[-1]) - self.xp.arange(x.shape[-2])[:, None]
        return distance >= self.k if self.upper else distance <= self.k

    def forward(self, x: Array) -> Array:
        self.remember()
        return self.xp.where(self.seen(x), x, 0)

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        self.recall()
        return self.xp.where(self.seen(g), g, 0)

    def details(self) -> str:
        return f"k={self.k}, {'upper' if self.upper else 'lower'}"

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        yield cls(1, xp=xp, dtype=dtype), (3, 4)
        yield cls(-1, False, xp=xp, dtype=dtype), (2, 3, 3)


class OnnxChoose(Layer):
    """y = c where a > b (or another comparison), d elsewhere, of a tuple (a, b, c, d), whose shapes broadcast.

    comparison: "Greater", "GreaterOrEqual", "Less", "LessOrEqual" or "Equal".

    Shapes: A, B, C, D -> what they broadcast to.

    Backward: dc = g where the comparison holds, dd = g elsewhere, summed over the axes on which the operand was
    stretched; a and b move y only by jumps, so that their gradients are 0.
    """

    def __init__(self, comparison: str, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        self.comparison = check_choice("OnnxChoose", "comparison", comparison, COMPARISONS)

    def forward(self, x: tuple[Array, ...]) -> Array:
        if x.__class__ is not tuple or len(x) != 4 or any(part is None or part.__class__ is tuple for part in x):
            raise ShapeMismatchError(self, f"expected a tuple of four arrays, got {arrays.shape_value(x)}")
        a, b, c, d = x
        holds = COMPARISONS[self.comparison](a, b)
        self.remember(holds, [part.shape for part in x])
        return as_array(self.xp, self.xp.where(holds, c, d))

    def backward(self, output_grad: Array) -> tuple[Array, ...]:
        g = self.cast_grad(output_grad)
        holds, shapes = self.recall()
        still = [self.xp.zeros(shape, g.dtype) for shape in shapes[:2]]
        parts = self.xp.where(holds, g, 0), self.xp.where(holds, 0, g)
        moved = [as_array(self.xp, unbroadcast(d, s)) for d, s in zip(parts, shapes[2:], strict=True)]
        return (*still, *moved)

    def details(self) -> str:
        return self.comparison

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        def value(xp: ModuleType, rng: Any) -> Value:
            a, c, d = (xp.asarray(rng.standard_normal(shape)) for shape in ((4, 1), (4, 3), (3,)))
            return a, a + xp.asarray(rng.choice([-1.0, 1.0], (4, 3))), c, d

        for comparison in ("Greater", "LessOrEqual"):
            yield cls(comparison, xp=xp, dtype=dtype), value


class OnnxErf(Elementwise):
    """y = erf(x) = 2 / sqrt(pi) times the integral of exp(-t^2) from 0 to x.  Remembers x.

    Backward: dx = g 2 / sqrt(pi) exp(-x^2).
    """

    def forward(self, x: Array) -> Array:
        self.check(x)
        self.remember(x)
        return as_array(self.xp, erf(self.xp, x))

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        x = self.xp.clip(self.recall(), -30, 30)  # beyond it the slope is 0
        return as_array(self.xp, g * (2 / math.sqrt(math.pi)) * self.xp.exp(-x * x))


class OnnxLabelLoss(Layer):
    """The value of a loss of `mtorch.losses` as a layer: (prediction (..., K), labels (...,)) -> its value.

    Shapes: (..., K), (...,) -> () or, with reduction="none", (...,).

    Backward: dprediction = output_grad dL/dprediction; labels have no gradient (None).
    """

    takes = ("floats", "ids")

    def __init__(self, loss_func: LabelLoss, *, xp: ModuleType = numpy, dtype: Any = "float32", rng: Any = None):
        super().__init__(xp=xp, dtype=dtype)
        if not isinstance(loss_func, LabelLoss):
            raise TypeError(f"OnnxLabelLoss expected loss_func to be a loss on labels, got {shown(loss_func)}")
        self.loss_func = loss_func

    def forward(self, x: tuple[Array, Array]) -> Array:
        prediction, labels = x
        loss = self.loss_func(prediction, labels)
        self.remember(loss.grad)
        return self.xp.asarray(loss.lazy_value, dtype=self.dtype)

    def backward(self, output_grad: Array) -> tuple[Array, None]:
        g = self.cast_grad(output_grad)
        grad = self.recall()
        return as_array(self.xp, (grad * g.reshape(g.shape + (1,) * (grad.ndim - g.ndim))).astype(self.dtype)), None

    def details(self) -> str:
        return repr(self.loss_func)

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        def value(xp: ModuleType, rng: Any) -> Value:
            return xp.asarray(rng.standard_normal((4, 3))), xp.asarray(rng.integers(0, 3, 4))

        yield cls(CrossEntropyLoss(weight=[0.5, 1.0, 2.0]), xp=xp, dtype=dtype), value
        yield cls(NLLLoss(reduction="none"), xp=xp, dtype=dtype), value
