"""Convolution over images and over sequences."""

from collections.abc import Iterator
from types import ModuleType
from typing import Any

from mtorch.accelerate import accelerated
from mtorch.arrays import Array, widened
from mtorch.layer import Layer
from mtorch.layers.convolution import Convolution, convolve, convolve_input_grad, convolve_weight_grad
from mtorch.layers.geometry import as_image, check_fits, check_image, like_input


class Conv(Convolution):
    """y = b + W X and its derivatives, for images and for sequences, which are images of height 1."""

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
        return like_input(dx, self.rank)

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
        """x as an image; ShapeMismatchError where channels or sizes do not fit."""
        return check_fits(self, check_image(self, x, self.rank, self.in_channels), self.window)


class Conv2d(Conv):
    """y[n, o, i, j] = b[o] + sum_{c, k, l} W[o, c, k, l] x[n, c, i s - p + k d, j s - p + l d]

    with stride s, padding p (zeros around the image) and dilation d, each an int or a pair (along H, along W). With
    `groups` G the channels form G groups, each convolved by itself; G = C is a depthwise convolution.

    Shapes: x (N, C, H, W), W (O, C / G, KH, KW), b (O,) -> y (N, O, OH, OW), OH = (H + 2p - d (KH - 1) - 1) // s + 1.

    Backward: y is linear in W and in x, so each product W x in y adds g x to dW and g W to dx, with g = output_grad:
        dW[o, c, k, l] = sum_{n, i, j} g[n, o, i, j] x[n, c, i s - p + k d, j s - p + l d],
        db[o] = sum_{n, i, j} g[n, o, i, j],
        dx[n, c, u, v] = sum of g[n, o, i, j] W[o, c, k, l] over all o, (i, k), (j, l) with i s - p + k d = u and
                         j s - p + l d = v.

    Remembers x.  Errors: ShapeMismatchError for other channels and for an image smaller than the kernel.

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


class Conv1d(Conv):
    """y[n, o, i] = b[o] + sum_{c, k} W[o, c, k] x[n, c, i s - p + k d]: `Conv2d` along one axis.

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
