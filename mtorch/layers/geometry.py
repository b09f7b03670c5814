"""Sizes of sliding windows: what constructors of convolutions and poolings accept, and the images they then take."""

from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_size, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.math.windows import Window

LARGEST = 1 << 24
Sizes = int | tuple[int, ...]


def check_sizes(layer: str, name: str, sizes: Any, rank: int, least: int = 1) -> tuple[int, ...]:
    """One int for every axis, or a tuple of `rank` ints, as a tuple."""
    if not isinstance(sizes, tuple | list):
        return (check_size(layer, name, sizes, least),) * rank
    if len(sizes) != rank:
        raise ValueError(f"{layer} expected {name} to be an int or a tuple of {rank}, got {shown(sizes)}")
    return tuple(check_size(layer, name, size, least) for size in sizes)


def make_window(
    layer: str, rank: int, kernel_size: Sizes, stride: Sizes, padding: Sizes, dilation: Sizes = 1, ceil: bool = False
) -> Window:
    """The window of those sizes; one-dimensional data are images of height 1."""

    def pair(name: str, sizes: Sizes, least: int = 1) -> tuple[int, int]:
        *height, width = check_sizes(layer, name, sizes, rank, least)
        return (height[0] if height else least), width

    kernel = pair("kernel_size", kernel_size)
    if kernel[0] * kernel[1] > LARGEST:
        raise ValueError(f"{layer} expected a kernel_size of at most 2**24 entries, got {kernel_size}")
    return Window(
        kernel,
        pair("stride", stride),
        pair("padding", padding, 0),
        pair("dilation", dilation),
        ceil,
    )


def describe(window: Window, rank: int) -> str:
    """The window for a repr: the kernel, and what differs from the defaults of a convolution."""
    parts = []
    for name, sizes, usual in zip(
        ("kernel_size", "stride", "padding", "dilation"), window[:4], (None, 1, 0, 1), strict=True
    ):
        shown = sizes[2 - rank :]
        if any(size != usual for size in shown):
            parts.append(f"{name}={shown[0] if len(set(shown)) == 1 else shown}")
    return ", ".join(parts)


def as_image(array: Array) -> Array:
    """A sequence (N, C, T) as an image (N, C, 1, T) of height 1; an image as it is."""
    return array[:, :, None] if array.ndim == 3 else array


def like_input(image: Array, rank: int) -> Array:
    """An image in the form that a layer of that rank takes: the inverse of `as_image`."""
    return image[:, :, 0] if rank == 1 else image


def check_image(layer: Layer, x: Array, rank: int, channels: int | None = None) -> Array:
    """x as an image; ShapeMismatchError for another number of axes or channels."""
    if x.ndim != rank + 2 or channels not in (None, x.shape[1]):
        shape = f"N, {'C' if channels is None else channels}, {'T' if rank == 1 else 'H, W'}"
        raise ShapeMismatchError(layer, f"expected input of shape ({shape}), got {x.shape}")
    return as_image(x)


def check_fits(layer: Layer, image: Array, window: Window) -> Array:
    """The image; ShapeMismatchError when it is smaller than the window, padding included."""
    height, width = image.shape[2:]
    if min(window.out_size((height, width))) < 1:
        reach = tuple(d * (k - 1) + 1 for k, d in zip(window.kernel, window.dilation, strict=True))
        least = " x ".join(str(max(1, r - 2 * p)) for r, p in zip(reach, window.padding, strict=True))
        raise ShapeMismatchError(layer, f"expected an image of at least {least}, got {height} x {width}")
    return image
