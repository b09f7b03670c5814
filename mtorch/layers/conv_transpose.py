"""The transposed convolution, over images and over sequences."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, widened
from mtorch.checks import shown
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.convolution import Convolution, convolve, convolve_input_grad, convolve_weight_grad
from mtorch.layers.geometry import Sizes, as_image, check_image, check_sizes, like_input, make_window
from mtorch.math.windows import Pair


class ConvTranspose(Convolution):
    """The transposed convolution, for images and for sequences, which are images of height 1."""

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        output_padding: Sizes = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Sizes = 1,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        name = type(self).__name__
        window = make_window(name, self.rank, kernel_size, stride, padding, dilation)
        *height, width = check_sizes(name, "output_padding", output_padding, self.rank, least=0)
        self.output_padding: Pair = (height[0] if height else 0), width
        if any(more >= s for more, s in zip(self.output_padding, window.stride, strict=True)):
            raise ValueError(f"{name} expected output_padding < stride {stride!r}, got {shown(output_padding)}")
        super().__init__(in_channels, out_channels, window, groups, bias, xp=xp, dtype=dtype, rng=rng)

    @accelerated
    def forward(self, x: Array) -> Array:
        image, size = self.check_input(x)
        self.remember(image)
        y = convolve_input_grad(self.xp, image, self.kernels(), size, self.window, self.groups)
        if self.bias is not None:
            y = y + self.bias.value[:, None, None]
        return like_input(y, self.rank)

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = as_image(self.cast_grad(output_grad))
        self._parameter_grads(self.recall(), g)
        return like_input(convolve(self.xp, g, self.kernels(), self.window, self.groups), self.rank)

    @accelerated
    def backward_parameters(self, output_grad: Array) -> None:
        g = as_image(self.cast_grad(output_grad))
        self._parameter_grads(self.recall(), g)

    def _parameter_grads(self, x: Array, g: Array) -> None:
        self.weight.accumulate(
            lambda: like_input(convolve_weight_grad(self.xp, g, x, self.window, self.groups), self.rank)
        )
        if self.bias is not None:
            self.bias.accumulate(lambda: widened(g).sum(axis=(0, 2, 3)))

    def check_input(self, x: Array) -> tuple[Array, Pair]:
        """x as an image, and (OH, OW); ShapeMismatchError for other channels and where the padding leaves nothing."""
        image = check_image(self, x, self.rank, self.in_channels)
        height, width = (
            (n - 1) * s - 2 * p + d * (k - 1) + 1 + more
            for n, k, s, p, d, more in zip(image.shape[2:], *self.window[:4], self.output_padding, strict=True)
        )
        if min(height, width) < 1 or min(image.shape[2:]) < 1:
            raise ShapeMismatchError(self, f"expected an image larger than what the padding cuts off, got {x.shape}")
        return image, (height, width)

    def details(self) -> str:
        more = self.output_padding[2 - self.rank :]
        return super().details() + (f", output_padding={more[0] if len(set(more)) == 1 else more}" if any(more) else "")


class ConvTranspose2d(ConvTranspose):
    """Every input entry lays a copy of the kernel, scaled by its value, onto the output:

        y[n, o, i s - p + k d, j s - p + l d] += x[n, c, i, j] W[c, o, k, l]    for all c, i, j, k, l, and + b[o],

    with stride s, padding p (what it cuts off around the result) and dilation d. `output_padding` q < s makes the
    result larger by q rows and columns at its end: a convolution of stride s takes several sizes to one, and q says to
    which of them this one goes back.

    Shapes: x (N, C, H, W), W (C, O / G, KH, KW), b (O,) -> y (N, O, OH, OW), OH = (H - 1) s - 2p + d (KH - 1) + 1 + q.

    Backward: this is the map x -> dx of a `Conv2d` from O to C channels with the same W. Its transpose is that
    convolution itself, and in W it is linear with the two images in exchanged roles; with g = output_grad:
        dW[c, o, k, l] = sum_{n, i, j} x[n, c, i, j] g[n, o, i s - p + k d, j s - p + l d],
        db[o] = sum_{n, u, v} g[n, o, u, v],   dx = conv(g, W).

    Remembers x.  Errors: ShapeMismatchError for other channels and where the padding leaves nothing.

    Zeiler et al., "Deconvolutional Networks", 2010; Dumoulin & Visin, 2016, arXiv:1603.07285.
    """

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(2, 3, 3, **bound), (2, 2, 3, 4)
        yield cls(3, 2, 2, stride=2, **bound), (2, 3, 3, 2)
        yield cls(2, 2, (3, 2), stride=(2, 3), padding=1, dilation=(1, 2), bias=False, **bound), (1, 2, 3, 4)
        yield cls(4, 2, 3, stride=2, padding=1, groups=2, **bound), (2, 4, 3, 3)
        yield cls(3, 3, 2, stride=3, groups=3, **bound), (2, 3, 2, 2)  # entries that no window reaches
        yield cls(2, 3, 3, stride=2, padding=1, **bound), (64, 2, 2, 4)
        yield cls(2, 1, 3, stride=(2, 3), padding=1, output_padding=(1, 2), **bound), (2, 2, 2, 3)
        yield cls(2, 2, 2, stride=2, output_padding=1, groups=2, **bound), (70, 2, 2, 3)


class ConvTranspose1d(ConvTranspose):
    """y[n, o, i s - p + k d] += x[n, c, i] W[c, o, k] for all c, i and k, and + b[o]: `ConvTranspose2d` on one axis.

    Shapes: x (N, C, T), W (C, O / G, K), b (O,) -> y (N, O, OT), OT = (T - 1) s - 2p + d (K - 1) + 1 + q.

    Backward, with g = output_grad:
        dW[c, o, k] = sum_{n, i} x[n, c, i] g[n, o, i s - p + k d],   db[o] = sum_{n, u} g[n, o, u],   dx = conv(g, W).

    Remembers x.  Errors: ShapeMismatchError for other channels and where the padding leaves nothing.
    """

    rank = 1

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(2, 3, 3, **bound), (2, 2, 4)
        yield cls(4, 2, 4, stride=3, padding=2, dilation=2, groups=2, bias=False, **bound), (2, 4, 3)
        yield cls(2, 1, 3, stride=2, padding=1, output_padding=1, **bound), (64, 2, 4)
