"""What all convolutions share: sizes, parameters, initial values, and the three products.

`windows_out` unrolls an image into columns X, one for each position of the window, so that a convolution is one matrix
product for each of the G groups of channels. It is linear in both factors, so its derivatives are products as well:

    Y = W X,    dW = dY X^T,    dX = W^T dY,

and `windows_back` takes dX back to the image. As matrices, for each group:

    W (O / G, (C / G) KH KW),    X ((C / G) KH KW, OH OW N),    Y (O / G, OH OW N).
"""

import math
from types import ModuleType
from typing import Any

from mtorch.arrays import Array
from mtorch.checks import check_flag, check_memory, check_size
from mtorch.initializers import as_generator, fans, kaiming_uniform, uniform
from mtorch.layer import Layer
from mtorch.layers.geometry import as_image, describe
from mtorch.math.windows import Pair, Window, windows_back, windows_out
from mtorch.parameter import Parameter


def convolve(xp: ModuleType, x: Array, weight: Array, window: Window, groups: int) -> Array:
    """x (N, C, H, W), weight (O, C / G, KH, KW) -> y (N, O, OH, OW)."""
    columns, o = windows_out(xp, x, window), len(weight)
    W = weight.reshape(groups, o // groups, -1)
    X = columns.reshape(groups, W.shape[2], -1)
    Y = W @ X
    return Y.reshape(o, *columns.shape[2:]).transpose(3, 0, 1, 2)


def convolve_weight_grad(xp: ModuleType, x: Array, dy: Array, window: Window, groups: int) -> Array:
    """x (N, C, H, W), dy (N, O, OH, OW) -> dweight (O, C / G, KH, KW)."""
    columns, o = windows_out(xp, x, window), dy.shape[1]
    c, taps = columns.shape[:2]
    X = columns.reshape(groups, c // groups * taps, -1)
    dY = dy.transpose(1, 2, 3, 0).reshape(groups, o // groups, -1)
    dW = (X @ dY.transpose(0, 2, 1)).transpose(0, 2, 1)  # dY X^T, as (X dY^T)^T: BLAS is faster so
    return dW.reshape(o, c // groups, *window.kernel)


def convolve_input_grad(xp: ModuleType, dy: Array, weight: Array, size: Pair, window: Window, groups: int) -> Array:
    """dy (N, O, OH, OW), weight (O, C / G, KH, KW), size (H, W) -> dx (N, C, H, W)."""
    (n, o, out_h, out_w), (_, group_c, kernel_h, kernel_w) = dy.shape, weight.shape
    W = weight.reshape(groups, o // groups, -1)
    dY = dy.transpose(1, 2, 3, 0).reshape(groups, o // groups, -1)
    dX = W.transpose(0, 2, 1) @ dY  # in convolve this was Y = W @ X
    return windows_back(xp, dX.reshape(groups * group_c, kernel_h * kernel_w, out_h, out_w, n), size, window)


class Convolution(Layer):
    """Sizes, parameters and initial values of the convolutions.

    As in torch, weight and bias are uniform within +-1/sqrt(fan_in), where fan_in is the product of all axes of the
    weight but the first.
    """

    array_only = True
    rank = 2
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        window: Window,
        groups: int,
        bias: bool,
        *,
        xp: ModuleType,
        dtype: Any,
        rng: Any,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.in_channels = in_channels = check_size(name, "in_channels", in_channels)
        self.out_channels = out_channels = check_size(name, "out_channels", out_channels)
        self.groups = groups = check_size(name, "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name} expected groups to divide in_channels={in_channels} and out_channels={out_channels}, "
                f"got groups={groups}"
            )
        self.window = window
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.window.kernel[-self.rank :])
        given = {"in_channels": in_channels, "out_channels": out_channels, "kernel_size": self.window.kernel}
        check_memory(name, math.prod(shape), **given)
        fan_in, fan_out = fans(shape)
        rng = as_generator(rng, name)
        weight = kaiming_uniform(a=math.sqrt(5))(rng, shape, fan_in, fan_out)
        self.weight = Parameter(xp.asarray(weight, dtype=self.dtype))
        self.bias = None
        if check_flag(name, "bias", bias):
            bound = 1 / math.sqrt(fan_in)
            values = uniform(-bound, bound)(rng, (out_channels,), fan_in, fan_out)
            self.bias = Parameter(xp.asarray(values, dtype=self.dtype))

    def kernels(self) -> Array:
        """The weight with its four axes (O, C / G, KH, KW)."""
        return as_image(self.weight.value)

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.in_channels)
        return {1: self.out_channels}

    def details(self) -> str:
        text = f"{self.in_channels} -> {self.out_channels}, {describe(self.window, self.rank)}"
        text += f", groups={self.groups}" if self.groups > 1 else ""
        return text if self.bias is not None else text + ", bias=False"
