"""Resizing of images and sequences by interpolation."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.arrays import Array
from mtorch.checks import check_choice, check_flag, check_number, check_size, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer

RANKS = {"nearest": (1, 2), "linear": (1,), "bilinear": (2,)}  # how many axes each mode is for


class Upsample(Layer):
    """y = A_h x A_w^T for every image: along each axis, an entry of y is a mean of two neighbours in x.

    size, scale_factor: one of both, a number for all axes or a tuple; OH is `size`, or floor(scale_factor H). Below,
    r = H / OH, or 1 / scale_factor where that is given.
    mode: "nearest" copies the entry at floor(i r): row i of A_h has a single 1. "bilinear" (for sequences "linear")
        reads the position u = max((i + 1/2) r - 1/2, 0): row i of A_h has 1 - t at floor(u) and t at the entry after
        it, where t = u - floor(u). With `align_corners=True`, u = i (H - 1) / (OH - 1).

    Shapes: (N, C, H, W) -> (N, C, OH, OW), or (N, C, T) -> (N, C, OT).  Remembers the size of the image.

    Backward: y is linear in x, so dx = A_h^T output_grad A_w.

    Errors: ShapeMismatchError for another number of axes, and where no entry is left.
    """

    array_only = True

    def __init__(
        self,
        size: int | tuple[int, ...] | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool | None = None,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        if (size is None) == (scale_factor is None):
            raise ValueError(
                f"Upsample expected either size or scale_factor, got {shown(size)} and {shown(scale_factor)}"
            )
        check_choice("Upsample", "mode", mode, RANKS)
        if align_corners is not None and mode == "nearest":
            raise ValueError("Upsample expected mode 'linear' or 'bilinear' with align_corners, got 'nearest'")
        self.by_factor, self.mode = size is None, mode
        given: Any = scale_factor if self.by_factor else size
        several = isinstance(given, tuple | list)
        numbers: tuple = tuple(given) if several else (given,)
        if self.by_factor:
            numbers = tuple(check_number("Upsample", "scale_factor", number, above=0) for number in numbers)
        else:
            numbers = tuple(check_size("Upsample", "size", number) for number in numbers)
        if several and len(numbers) not in RANKS[mode]:
            argument = "scale_factor" if self.by_factor else "size"
            raise ValueError(
                f"Upsample expected as {argument} a number for each of {RANKS[mode][-1]} axes, got {shown(given)}"
            )
        self.given = numbers if several else numbers[0]
        self.align_corners = align_corners is not None and check_flag("Upsample", "align_corners", align_corners)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        sizes = self.given if isinstance(self.given, tuple) and not self.by_factor else ()
        return ({1: known[1]} if 1 in known else {}) | dict(enumerate(sizes, start=2))

    def axes(self, sizes: tuple[int, ...]) -> list[tuple[int, int, float]]:
        """(n, OH, r) for each axis of an image of these sizes."""
        numbers = self.given if isinstance(self.given, tuple) else (self.given,) * len(sizes)
        outs = [int(n * f) if self.by_factor else f for n, f in zip(sizes, numbers, strict=True)]
        ratios = [1 / f if self.by_factor else n / f for n, f in zip(sizes, numbers, strict=True)]
        return list(zip(sizes, outs, ratios, strict=True))

    def taps(self, n: int, out: int, ratio: float) -> tuple[Array, Array, Array]:
        """(low, high, t), each (OH,): y_i = (1 - t_i) x[low_i] + t_i x[high_i]."""
        xp = self.xp
        i = xp.arange(out)
        if self.mode == "nearest":
            low = (i * ratio).astype("int64") if self.by_factor else i * n // out
            return xp.minimum(low, n - 1), xp.minimum(low, n - 1), xp.zeros(out, self.dtype)
        u = i * ((n - 1) / max(out - 1, 1)) if self.align_corners else xp.maximum((i + 0.5) * ratio - 0.5, 0)
        low = xp.minimum(u.astype("int64"), n - 1)
        return low, xp.minimum(low + 1, n - 1), (u - low).astype(self.dtype)

    def matrix(self, n: int, out: int, ratio: float) -> Array:
        """A (OH, H), with y = A x along one axis."""
        low, high, t = (each[:, None] for each in self.taps(n, out, ratio))
        column = self.xp.arange(n)
        return (column == low) * (1 - t) + (column == high) * t

    def forward(self, x: Array) -> Array:
        ranks = {len(self.given)} if isinstance(self.given, tuple) else set(RANKS[self.mode])
        if x.ndim - 2 not in ranks:
            forms = " or ".join({1: "(N, C, T)", 2: "(N, C, H, W)"}[rank] for rank in sorted(ranks))
            raise ShapeMismatchError(self, f"expected input of shape {forms}, got {x.shape}")
        axes = self.axes(x.shape[2:])
        if any(n < 1 or out < 1 for n, out, _ in axes):
            raise ShapeMismatchError(self, f"expected an image with an entry to make, got {x.shape}")
        self.remember(axes)
        y = x
        for axis, (n, out, ratio) in enumerate(axes, start=2):
            low, high, t = self.taps(n, out, ratio)
            near = y.take(low, axis=axis)
            if self.mode != "nearest":
                t = t.reshape(out, *(1,) * (x.ndim - 1 - axis))
                near = (1 - t) * near + t * y.take(high, axis=axis)
            y = near
        return y

    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        *height, width = (self.matrix(*axis) for axis in self.recall())
        dx = g @ width
        for a in height:
            dx = a.T @ dx
        return dx

    def details(self) -> str:
        text = f"{'scale_factor' if self.by_factor else 'size'}={self.given}, mode={self.mode!r}"
        return text + (", align_corners=True" if self.align_corners else "")

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype}
        yield cls(scale_factor=2, **bound), (2, 2, 3, 2)
        yield cls((5, 3), **bound), (1, 2, 3, 4)
        yield cls(scale_factor=1.5, **bound), (2, 2, 4)
        yield cls(scale_factor=2, mode="bilinear", **bound), (2, 2, 2, 3)
        yield cls(5, mode="bilinear", align_corners=True, **bound), (1, 2, 3, 4)
        yield cls((2, 7), mode="bilinear", align_corners=False, **bound), (1, 2, 4, 3)
        yield cls(scale_factor=2.5, mode="linear", **bound), (2, 1, 3)
        yield cls(1, mode="linear", align_corners=True, **bound), (2, 1, 3)
