"""Activations, operators of two arrays and reductions."""

from typing import Any

from mtorch import layers
from mtorch.interop.onnx.builder import Builder, Symbol
from mtorch.layer import Layer


def named(operator: str) -> Any:
    """The writer of a layer that is one operator of one array."""
    return lambda b, layer, x: b.node(operator, x.name)


def of_two(operator: str) -> Any:
    """The writer of a layer that is one operator of a pair."""
    return lambda b, layer, x: b.node(operator, x[0].name, x[1].name)


def same(b: Builder, layer: Layer, x: Any) -> Any:
    """No node: in eval mode the layer returns what it takes."""
    return x


def leaky_relu(b: Builder, layer: layers.LeakyReLU, x: Symbol) -> str:
    return b.node("LeakyRelu", x.name, alpha=layer.negative_slope)


def prelu(b: Builder, layer: layers.PReLU, x: Symbol) -> str:
    slope = b.parameter(layer.weight)
    if x.rank == 0:
        slope = b.node("Squeeze", slope, b.ints(0))
    elif layer.num_parameters > 1 and x.rank > 2:
        slope = b.node("Unsqueeze", slope, b.ints(*range(1, x.rank - 1)))
    return b.node("PRelu", x.name, slope)


def elu(b: Builder, layer: layers.ELU, x: Symbol) -> str:
    return b.node("Elu", x.name, alpha=layer.alpha)


def gelu(b: Builder, layer: layers.GELU, x: Symbol) -> str:
    return b.node("Gelu", x.name, approximate=layer.approximate)


def silu(b: Builder, layer: layers.SiLU, x: Symbol) -> str:
    return b.node("Mul", x.name, b.node("Sigmoid", x.name))


def softplus(b: Builder, layer: layers.Softplus, x: Symbol) -> str:
    if layer.beta == 1 and layer.threshold is None:
        return b.node("Softplus", x.name)
    beta = b.constant(float(layer.beta))
    z = b.node("Mul", x.name, beta)
    y = b.node("Div", b.node("Softplus", z), beta)
    if layer.threshold is None:
        return y
    return b.node("Where", b.node("Greater", z, b.constant(float(layer.threshold))), x.name, y)


def clip(b: Builder, layer: Any, x: Symbol) -> str:
    low, high = (layer.min, layer.max) if isinstance(layer, layers.Clip) else (layer.min_val, layer.max_val)
    bounds = [None if bound is None else b.constant(float(bound)) for bound in (low, high)]
    if low is not None and high is not None and low > high:  # ONNX leaves the order of the two open
        return b.node("Min", b.node("Max", x.name, bounds[0]), bounds[1])
    return b.node("Clip", x.name, *bounds)


def along(operator: str) -> Any:
    """The writer of Softmax and its logarithm."""
    return lambda b, layer, x: b.node(operator, x.name, axis=layer.axis)


def square(b: Builder, layer: layers.Square, x: Symbol) -> str:
    return b.node("Mul", x.name, x.name)


def power(b: Builder, layer: layers.Power, x: Symbol) -> str:
    return b.node("Pow", x.name, b.constant(float(layer.exponent)))


def constant_operand(b: Builder, layer: layers.ConstantOperand, x: Symbol) -> Any:
    c = Symbol(b.constant(layer.constant.value), layer.constant.value)
    return b.write(layer.operator, (c, x) if layer.on_left else (x, c))


def where(b: Builder, layer: layers.Where, x: Any) -> str:
    condition, left, right = x
    name = condition.name
    if condition.example.dtype.kind != "b":
        name = b.node("Cast", name, to=9)  # TensorProto.BOOL
    return b.node("Where", name, left.name, right.name)


def reduction(operator: str) -> Any:
    """The writer of a reduction."""

    def write(b: Builder, layer: Any, x: Symbol) -> Any:
        axes = layer.axis if isinstance(layer.axis, tuple) else () if layer.axis is None else (layer.axis,)
        if layer.axis == ():
            return x
        return b.node(operator, x.name, b.ints(*axes) if axes else None, keepdims=int(layer.keepdims))

    return write


WRITERS = {
    layers.ReLU: named("Relu"),
    layers.LeakyReLU: leaky_relu,
    layers.PReLU: prelu,
    layers.ELU: elu,
    layers.GELU: gelu,
    layers.SiLU: silu,
    layers.Softplus: softplus,
    layers.Hardtanh: clip,
    layers.Clip: clip,
    layers.Sigmoid: named("Sigmoid"),
    layers.Tanh: named("Tanh"),
    layers.Softmax: along("Softmax"),
    layers.LogSoftmax: along("LogSoftmax"),
    layers.Dropout: same,
    layers.Identity: same,
    layers.Probe: same,
    layers.Add: of_two("Add"),
    layers.Subtract: of_two("Sub"),
    layers.Multiply: of_two("Mul"),
    layers.Divide: of_two("Div"),
    layers.Maximum: of_two("Max"),
    layers.Minimum: of_two("Min"),
    layers.MatMul: of_two("MatMul"),
    layers.Pow: of_two("Pow"),
    layers.Power: power,
    layers.Square: square,
    layers.Abs: named("Abs"),
    layers.Exp: named("Exp"),
    layers.Log: named("Log"),
    layers.Negative: named("Neg"),
    layers.Sqrt: named("Sqrt"),
    layers.Sin: named("Sin"),
    layers.Cos: named("Cos"),
    layers.ConstantOperand: constant_operand,
    layers.Where: where,
    layers.Sum: reduction("ReduceSum"),
    layers.Mean: reduction("ReduceMean"),
    layers.Max: reduction("ReduceMax"),
    layers.Min: reduction("ReduceMin"),
}
