"""Convolution over images and over sequences."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, widened
from mtorch.checks import check_choice, shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.convolution import Convolution, convolve, convolve_input_grad, convolve_weight_grad
from mtorch.layers.geometry import Sizes, as_image, check_fits, check_image, like_input, make_window
from mtorch.math.padding import MODES, Sides, pad, pad_grad


class Conv(Convolution):
    """y = b + W X and its derivatives, for images and for sequences, which are images of height 1.

    Zeros on both sides belong to the window, which skips them. Any other padding is made before it slides.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes | str = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        name = type(self).__name__
        check_choice(name, "padding_mode", padding_mode, MODES)
        if isinstance(padding, str) and padding not in ("same", "valid"):
            raise ValueError(f"{name} expected padding to be numbers, 'same' or 'valid', got {shown(padding)}")
        width = 0 if isinstance(padding, str) else padding
        window = make_window(name, self.rank, kernel_size, stride, width, dilation)
        sides: Sides = tuple((p, p) for p in window.padding)
        if padding == "same":
            if max(window.stride) > 1:
                raise ValueError(f"{name} expected a stride of 1 with padding='same', got {shown(stride)}")
            total = [d * (k - 1) for d, k in zip(window.dilation, window.kernel, strict=True)]
            sides = tuple((t // 2, t - t // 2) for t in total)
        self.sides: Sides | None = None
        by_window = padding_mode == "zeros" and all(before == behind for before, behind in sides)
        if not by_window and any(map(any, sides)):
            self.sides, sides = sides, ((0, 0), (0, 0))
        self.padding, self.padding_mode = padding, padding_mode
        window = window._replace(padding=(sides[0][0], sides[1][0]))
        super().__init__(in_channels, out_channels, window, groups, bias, xp=xp, dtype=dtype, rng=rng)

    @accelerated
    def forward(self, x: Array) -> Array:
        image = self.check_input(x)
        self.remember(image)
        y = convolve(self.xp, image, self.kernels(), self.window, self.groups)
        if self.bias is not None:
            y = y + self.bias.value[:, None, None]
        return like_input(y, self.rank)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = as_image(self.cast_grad(output_grad))
        image = self.recall()
        self._parameter_grads(image, g)
        dx = convolve_input_grad(self.xp, g, self.kernels(), image.shape[2:], self.window, self.groups)
        return self.input_grad(dx)

    @accelerated
    def backward_parameters(self, output_grad: Array) -> None:
        g = as_image(self.cast_grad(output_grad))
        self._parameter_grads(self.recall(), g)

    def _parameter_grads(self, image: Array, g: Array) -> None:
        self.weight.accumulate(
            lambda: like_input(convolve_weight_grad(self.xp, image, g, self.window, self.groups), self.rank)
        )
        if self.bias is not None:
            self.bias.accumulate(lambda: widened(g).sum(axis=(0, 2, 3)))

    def check_input(self, x: Array) -> Array:
        """x as the image that the window slides over; ShapeMismatchError where channels or sizes do not fit."""
        image = check_image(self, x, self.rank, self.in_channels)
        return check_fits(self, image if self.sides is None else self._padded(image, self.sides), self.window)

    def _padded(self, image: Array, sides: Sides) -> Array:
        for n, wide in zip(image.shape[2:], map(max, sides), strict=True):
            least = {"reflect": wide + 1, "replicate": 1, "circular": wide}.get(self.padding_mode, 0)
            if wide and n < least:
                text = f"expected at least {least} entries along an axis that they pad by {wide}, got {n}"
                raise ShapeMismatchError(self, text)
        return pad(self.xp, image, sides, self.padding_mode)

    def input_grad(self, dx: Array) -> Array:
        """The gradient of that image as the gradient of x."""
        if self.sides is not None:
            dx = pad_grad(dx, self.sides, self.padding_mode)
        return like_input(dx, self.rank)

    def details(self) -> str:
        text = super().details()
        if self.sides is not None:
            text += f", padding={self.padding!r}"
            text += f", padding_mode={self.padding_mode!r}" if self.padding_mode != "zeros" else ""
        return text


class Conv2d(Conv):
    """y[n, o, i, j] = b[o] + sum_{c, k, l} W[o, c, k, l] x[n, c, i s - p + k d, j s - p + l d]

    with stride s, padding p and dilation d, each an int or a pair (along H, along W). With `groups` G the channels form
    G groups, each convolved by itself; G = C is a depthwise convolution.

    padding: "same" makes OH = H and OW = W (an odd entry stands behind the image), "valid" is 0.
    padding_mode: what the padding shows: "zeros", or entries of the image, "reflect", "replicate" or "circular" (see
        `mtorch/math/padding.py`).

    Shapes: x (N, C, H, W), W (O, C / G, KH, KW), b (O,) -> y (N, O, OH, OW), OH = (H + 2p - d (KH - 1) - 1) // s + 1.

    Backward: y is linear in W and in x, so each product W x in y adds g x to dW and g W to dx, with g = output_grad:
        dW[o, c, k, l] = sum_{n, i, j} g[n, o, i, j] x[n, c, i s - p + k d, j s - p + l d],
        db[o] = sum_{n, i, j} g[n, o, i, j],
        dx[n, c, u, v] = sum of g[n, o, i, j] W[o, c, k, l] over all o, (i, k), (j, l) with i s - p + k d = u and
                         j s - p + l d = v; what padding shows is a copy, and adds its part to the entry it shows.

    Remembers x, padded where the padding is not zeros on both sides.  Errors: ShapeMismatchError for other channels and
    for an image smaller than the kernel, or than a padding of its own entries.

    LeCun et al., "Gradient-Based Learning Applied to Document Recognition", 1998; Dumoulin & Visin, "A guide to
    convolution arithmetic for deep learning", 2016, arXiv:1603.07285.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(2, 3, 3, **bound), (2, 2, 5, 4)
        yield cls(1, 2, 3, stride=2, padding=1, **bound), (2, 1, 6, 7)  # the stride leaves a remainder
        yield cls(2, 2, (1, 3), stride=(1, 2), padding=(0, 1), bias=False, **bound), (1, 2, 3, 6)
        yield cls(2, 1, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(2, 3), **bound), (2, 2, 7, 5)
        yield cls(4, 6, 2, groups=2, **bound), (2, 4, 4, 3)
        yield cls(3, 3, 3, padding=1, groups=3, **bound), (2, 3, 4, 4)  # depthwise
        yield cls(3, 2, 1, **bound), (2, 3, 2, 3)
        yield cls(2, 2, 1, stride=3, **bound), (1, 2, 4, 5)  # entries that no window covers
        yield cls(2, 3, (3, 2), stride=(1, 2), padding=(1, 0), **bound), (64, 2, 4, 7)  # a fast body by rows
        yield cls(4, 4, 3, padding=2, dilation=2, groups=2, **bound), (70, 4, 3, 3)
        yield cls(1, 2, (2, 3), padding="same", dilation=(1, 2), **bound), (2, 1, 3, 4)
        yield cls(2, 1, (2, 4), padding="same", padding_mode="circular", **bound), (2, 2, 3, 4)
        yield cls(1, 2, 3, stride=2, padding=(1, 2), padding_mode="reflect", bias=False, **bound), (2, 1, 4, 3)
        yield cls(2, 2, 3, padding=2, padding_mode="replicate", groups=2, **bound), (70, 2, 3, 2)


class Conv1d(Conv):
    """y[n, o, i] = b[o] + sum_{c, k} W[o, c, k] x[n, c, i s - p + k d]: `Conv2d` along one axis.

    padding and padding_mode are those of `Conv2d`.

    Shapes: x (N, C, T), W (O, C / G, K), b (O,) -> y (N, O, OT), OT = (T + 2p - d (K - 1) - 1) // s + 1.

    Backward, with g = output_grad:
        dW[o, c, k] = sum_{n, i} g[n, o, i] x[n, c, i s - p + k d],    db[o] = sum_{n, i} g[n, o, i],
        dx[n, c, u] = sum of g[n, o, i] W[o, c, k] over all o and (i, k) with i s - p + k d = u.

    Remembers x.  Errors: ShapeMismatchError for other channels and for a sequence shorter than the kernel.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(2, 3, 3, **bound), (2, 2, 6)
        yield cls(2, 2, 4, stride=3, padding=2, dilation=2, bias=False, **bound), (2, 2, 9)
        yield cls(4, 4, 2, groups=4, **bound), (1, 4, 5)
        yield cls(2, 2, 3, stride=2, padding=1, **bound), (64, 2, 8)
        yield cls(1, 2, 4, padding="same", **bound), (2, 1, 5)
        for mode in ("reflect", "replicate", "circular"):
            yield cls(1, 2, 3, padding=2, padding_mode=mode, **bound), (2, 1, 4)
