"""What all convolutions share."""

import math
from types import ModuleType
from typing import Any

import numpy

from mtorch.checks import check_flag, check_size
from mtorch.initializers import as_generator, fans, kaiming_uniform, uniform
from mtorch.layer import Layer
from mtorch.layers.geometry import Sizes, describe, make_window
from mtorch.parameter import Parameter


class Convolution(Layer):
    """Sizes, parameters and initial values of the convolutions.

    As in torch, weight and bias are uniform within +-1/sqrt(fan_in), where fan_in is the product of all axes of the
    weight but the first.
    """

    array_only = True
    multithreaded = True
    rank = 2
    transposed = False

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Sizes,
        stride: Sizes = 1,
        padding: Sizes = 0,
        dilation: Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        xp: ModuleType = numpy,
        dtype: Any = "float32",
        rng: Any = None,
    ):
        super().__init__(xp=xp, dtype=dtype)
        name = type(self).__name__
        self.in_channels = check_size(name, "in_channels", in_channels)
        self.out_channels = check_size(name, "out_channels", out_channels)
        self.groups = check_size(name, "groups", groups)
        if in_channels % groups or out_channels % groups:
            raise ValueError(
                f"{name} expected groups to divide in_channels={in_channels} and out_channels={out_channels}, "
                f"got groups={groups}"
            )
        self.window = make_window(name, self.rank, kernel_size, stride, padding, dilation)
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.window.kernel[-self.rank :])
        fan_in, fan_out = fans(shape)
        rng = as_generator(rng, name)
        weight = kaiming_uniform(a=math.sqrt(5))(rng, shape, fan_in, fan_out)
        self.weight = Parameter(xp.asarray(weight, dtype=self.dtype))
        self.bias = None
        if check_flag(name, "bias", bias):
            bound = 1 / math.sqrt(fan_in)
            values = uniform(-bound, bound)(rng, (out_channels,), fan_in, fan_out)
            self.bias = Parameter(xp.asarray(values, dtype=self.dtype))

    def infer_shape(self, known: dict[int, int]) -> dict[int, int]:
        self.check_dim(known, 1, self.in_channels)
        return {1: self.out_channels}

    def details(self) -> str:
        text = f"{self.in_channels} -> {self.out_channels}, {describe(self.window, self.rank)}"
        text += f", groups={self.groups}" if self.groups > 1 else ""
        return text if self.bias is not None else text + ", bias=False"
