"""The transposed convolution."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, widened
from mtorch.errors import ShapeMismatchError
from mtorch.layer import Layer
from mtorch.layers.convolution import Convolution, convolve, convolve_input_grad, convolve_weight_grad
from mtorch.layers.geometry import check_image
from mtorch.math.windows import Pair


class ConvTranspose2d(Convolution):
    """Every input entry lays a copy of the kernel, scaled by its value, onto the output:

        y[n, o, i s - p + k d, j s - p + l d] += x[n, c, i, j] W[c, o, k, l]    for all c, i, j, k, l, and + b[o],

    with stride s, padding p (what it cuts off around the result) and dilation d.

    Shapes: x (N, C, H, W), W (C, O / G, KH, KW), b (O,) -> y (N, O, OH, OW), OH = (H - 1) s - 2p + d (KH - 1) + 1.

    Backward: this is the map x -> dx of a `Conv2d` from O to C channels with the same W. Its transpose is that
    convolution itself, and in W it is linear with the two images in exchanged roles; with g = output_grad:
        dW[c, o, k, l] = sum_{n, i, j} x[n, c, i, j] g[n, o, i s - p + k d, j s - p + l d],
        db[o] = sum_{n, u, v} g[n, o, u, v],   dx = conv(g, W).

    Remembers x.  Errors: ShapeMismatchError for other channels and where the padding leaves nothing.

    Zeiler et al., "Deconvolutional Networks", 2010; Dumoulin & Visin, 2016, arXiv:1603.07285.
    """

    transposed = True

    @accelerated
    def forward(self, x: Array) -> Array:
        size = self.out_size(x)
        self.remember(x)
        y = convolve_input_grad(self.xp, x, self.weight.value, size, self.window, self.groups)
        return y if self.bias is None else y + self.bias.value[:, None, None]

    @accelerated
    def backward(self, output_grad: Array) -> Array:
        g = self.cast_grad(output_grad)
        self._parameter_grads(self.recall(), g)
        return convolve(self.xp, g, self.weight.value, self.window, self.groups)

    @accelerated
    def backward_parameters(self, output_grad: Array) -> None:
        g = self.cast_grad(output_grad)
        self._parameter_grads(self.recall(), g)

    def _parameter_grads(self, x: Array, g: Array) -> None:
        self.weight.accumulate(lambda: convolve_weight_grad(self.xp, g, x, self.window, self.groups))
        if self.bias is not None:
            self.bias.accumulate(lambda: widened(g).sum(axis=(0, 2, 3)))

    def out_size(self, x: Array) -> Pair:
        """(OH, OW); ShapeMismatchError for other channels and where the padding leaves nothing."""
        check_image(self, x, 2, self.in_channels)
        size = tuple(
            (n - 1) * s - 2 * p + d * (k - 1) + 1 for n, k, s, p, d in zip(x.shape[2:], *self.window, strict=True)
        )
        if min(size) < 1 or min(x.shape[2:]) < 1:
            raise ShapeMismatchError(self, f"expected an image larger than what the padding cuts off, got {x.shape}")
        return size

    @classmethod
    def examples(cls, *, xp: ModuleType, dtype: Any, rng: Any) -> Iterator[tuple[Layer, Any]]:
        bound = {"xp": xp, "dtype": dtype, "rng": rng}
        yield cls(2, 3, 3, **bound), (2, 2, 3, 4)
        yield cls(3, 2, 2, stride=2, **bound), (2, 3, 3, 2)
        yield cls(2, 2, (3, 2), stride=(2, 3), padding=1, dilation=(1, 2), bias=False, **bound), (1, 2, 3, 4)
        yield cls(4, 2, 3, stride=2, padding=1, groups=2, **bound), (2, 4, 3, 3)
        yield cls(3, 3, 2, stride=3, groups=3, **bound), (2, 3, 2, 2)  # entries that no window reaches
        yield cls(2, 3, 3, stride=2, padding=1, **bound), (64, 2, 2, 4)
