"""Weights of Keras 3 models, whose axes, gates and biases are ordered otherwise.

Keras keeps a dense kernel as (in, out), convolutions as (height, width, in, out), and images as (N, H, W, C), so that a
dense layer behind a Flatten reads the pixels in another order than ours, which has them as (N, C, H, W). Its GRU has
the gates z, r, n, ours r, z, n; its LSTM has i, f, g, o as ours.
"""

import os
import re
from collections.abc import Callable, Iterator
from typing import Any

import numpy

from mtorch.layer import Layer
from mtorch.layers.recurrent import RecurrentLayer
from mtorch.parameter import Buffer, Parameter

State = dict[str, numpy.ndarray]
STATISTICS = {"mean": "mean", "var": "variance"}


def load_keras_weights(module: Layer, keras_model: Any) -> None:
    """Gives the module the weights of a Keras model, or of one layer of Keras, that has the same layers.

    The layers that have weights are paired in their order: Dense with Linear, Conv1D, Conv2D, DepthwiseConv2D and their
    transposes with Conv1d, ..., BatchNormalization, LayerNormalization, GroupNormalization and RMSNormalization with
    our norms, Embedding, and SimpleRNN, GRU and LSTM, also within Bidirectional, with RNN, GRU and LSTM; a recurrent
    layer of several layers takes as many of Keras. Activations, also those that stand in a layer of Keras, are layers
    of their own in ours. A file is read by Keras: `keras.models.load_model(path)`.

    Errors: ValueError that names both layers where they do not fit; nothing is changed then.
    """
    if not isinstance(module, Layer):
        raise TypeError(f"load_keras_weights expected a module or layer, got {module!r}")
    if not hasattr(keras_model, "weights") or not hasattr(keras_model, "get_config"):
        hint = ": keras.models.load_model reads a file" if isinstance(keras_model, str | os.PathLike) else ""
        got = type(keras_model).__name__
        raise TypeError(f"load_keras_weights expected a Keras model or layer, got {got}{hint}")
    given: list[Any] = list(_weighted(keras_model, [None]))
    state: State = {}
    for prefix, layer in _leaves(module):
        count = layer.num_layers if isinstance(layer, RecurrentLayer) else 1
        theirs, given = given[:count], given[count:]
        if len(theirs) < count:
            raise ValueError(f"{layer!r} at {prefix[:-1] or 'the top'} has no layer in the Keras model")
        for i, (each, shape) in enumerate(theirs):
            found = _converted(layer, prefix, each, shape, i)
            state |= {prefix + name: array for name, array in found.items()}
    if given:
        raise ValueError(f"{module!r} has no layer for these of Keras: {', '.join(_name(each) for each, _ in given)}")
    module.load_state_dict(module.state_dict() | state)


def _leaves(module: Layer) -> list[tuple[str, Layer]]:
    """The layers that have parameters or buffers of their own, a shared one once."""
    found: dict[int, tuple[str, Layer]] = {}
    for prefix, layer in module.walk():
        if any(isinstance(item, Parameter) or item.persistent for _, item in layer.own(Parameter | Buffer)):
            found.setdefault(id(layer), (prefix, layer))
    return list(found.values())


def _weighted(layer: Any, image: list[Any]) -> Iterator[tuple[Any, Any]]:
    """(layer of Keras, the shape (H, W, C) of the image that was flattened before it, or None), those with weights.

    image: one entry, the shape of an image that has been flattened and not been read yet; True behind a convolution.
    """
    kind = type(layer).__name__
    if kind == "TimeDistributed":
        yield from _weighted(layer.layer, image)
        return
    if kind not in CONVERTERS and kind != "Bidirectional" and hasattr(layer, "layers"):
        for each in layer.layers:
            yield from _weighted(each, image)
        return
    if getattr(layer, "data_format", None) == "channels_last" and (kind.startswith("Conv") or "Pooling" in kind):
        image[0] = True
    if kind == "DepthwiseConv2D":
        image[0] = True
    if kind == "Flatten" and image[0] is True:
        image[0] = tuple(layer.input.shape[1:])
    if "Global" in kind or kind in ("Permute", "Reshape", "Bidirectional", "SimpleRNN", "GRU", "LSTM"):
        image[0] = None
    if layer.weights:
        flattened = image[0] if isinstance(image[0], tuple) else None
        yield layer, flattened
        if flattened:
            image[0] = None


def _converted(layer: Layer, prefix: str, keras: Any, image: Any, number: int) -> State:
    kind, who = type(keras).__name__, f"{layer!r} at {prefix[:-1] or 'the top'}"
    both = kind == "Bidirectional"
    kind = type(keras.forward_layer).__name__ if both else kind
    if kind not in CONVERTERS:
        raise ValueError(f"{who} cannot take the weights of {_name(keras)}: mtorch knows {', '.join(CONVERTERS)}")
    wanted, convert = CONVERTERS[kind]
    if type(layer).__name__ not in wanted.split():
        raise ValueError(f"{who} cannot take the weights of {_name(keras)}, which are for {wanted}")
    if isinstance(layer, RecurrentLayer):
        if both is not layer.bidirectional or (both and keras.merge_mode != "concat"):
            wanted = "both be bidirectional, with merge_mode='concat', or neither"
            raise ValueError(f"{who} and {_name(keras)} must {wanted}")
        ends = (("", keras.forward_layer), ("_reverse", keras.backward_layer)) if both else (("", keras),)
        biases = re.compile(f"bias_[ih]h_l{number}(_reverse)?")  # 0 where Keras has none
        found = {name: numpy.zeros(p.value.shape) for name, p in layer.own(Parameter) if biases.fullmatch(name)}
        for end, each in ends:
            if not both and each.go_backwards:
                raise ValueError(f"{who} reads forwards, {_name(keras)} has go_backwards=True")
            if kind == "SimpleRNN" and each.activation.__name__ != getattr(layer, "nonlinearity", None):
                raise ValueError(f"{who} has another nonlinearity than {_name(keras)}: {each.activation.__name__}")
            values = convert(each, who)
            found |= {f"{name}_l{number}{end}": array for name, array in values.items()}
        return found
    if not numpy.isclose(getattr(layer, "eps", None) or 0, getattr(keras, "epsilon", None) or 0, rtol=1e-6, atol=0):
        raise ValueError(f"{who} has eps={getattr(layer, 'eps', None)}, {_name(keras)} has epsilon={keras.epsilon}")
    if kind == "GroupNormalization" and keras.groups != getattr(layer, "num_groups", None):
        raise ValueError(f"{who} has another number of groups than {_name(keras)}, which has groups={keras.groups}")
    found = convert(keras, who)
    for name, parameter in layer.own(Parameter):  # what Keras leaves out adds nothing, or multiplies with 1
        fill = numpy.zeros if name == "bias" else numpy.ones
        found.setdefault(name, fill(parameter.value.shape))
    if kind == "Dense" and image is not None:
        rows, size = found["weight"], int(numpy.prod(image))
        if rows.shape[1] == size:  # from pixels (H, W, C) to (C, H, W)
            found["weight"] = numpy.moveaxis(rows.reshape(len(rows), *image), -1, 1).reshape(rows.shape)
    return found


def _name(keras: Any) -> str:
    return f"{type(keras).__name__} {keras.name!r}"


def _array(variable: Any) -> numpy.ndarray:
    value = variable.value
    value = value.detach().cpu() if hasattr(value, "detach") else value
    return numpy.asarray(value)


def _bias(keras: Any) -> State:
    return {"bias": _array(keras.bias)} if keras.use_bias else {}


def _dense(keras: Any, who: str) -> State:
    return {"weight": _array(keras.kernel).T} | _bias(keras)


def _conv(keras: Any, who: str) -> State:
    """(..., in, out) -> (out, in, ...); a transposed one is (..., out, in) -> (in, out, ...)."""
    kernel = _array(keras.kernel)
    return {"weight": numpy.moveaxis(kernel, (-1, -2), (0, 1))} | _bias(keras)


def _depthwise(keras: Any, who: str) -> State:
    """(H, W, C, M) -> (C M, 1, H, W)."""
    kernel = numpy.moveaxis(_array(keras.kernel), (-2, -1), (0, 1))
    return {"weight": kernel.reshape(-1, 1, *kernel.shape[2:])} | _bias(keras)


def _embedding(keras: Any, who: str) -> State:
    return {"weight": _array(keras.embeddings)}


def _norm(keras: Any, who: str) -> State:
    found = {"weight": keras.gamma, "bias": keras.beta}
    found |= {f"running_{ours}": getattr(keras, f"moving_{theirs}", None) for ours, theirs in STATISTICS.items()}
    return {name: _array(variable) for name, variable in found.items() if variable is not None}


def _rms(keras: Any, who: str) -> State:
    return {"weight": _array(keras.scale)}


def _recurrent(keras: Any, who: str, order: tuple[int, ...]) -> State:
    """Kernels (D, G H) -> (G H, D), the gates in our order. One bias is b_ih, and b_hh is 0."""
    cell = keras.cell  # the one activation of SimpleRNN is compared with ours elsewhere
    names = ("activation", "recurrent_activation")
    activations = [getattr(keras, name).__name__ for name in names if hasattr(keras, name)]
    usual = ["tanh", "sigmoid"][: len(activations)]
    if len(order) > 1 and activations != usual:
        raise ValueError(f"{who} has the activations {', '.join(usual)}, {_name(keras)} has {', '.join(activations)}")
    if getattr(keras, "reset_after", True) is False:
        raise ValueError(f"{who} resets after the product, {_name(keras)} has reset_after=False")

    def gates(array: numpy.ndarray) -> numpy.ndarray:
        parts = numpy.split(array, len(order), axis=-1)
        return numpy.concatenate([parts[i] for i in order], axis=-1)

    found = {"weight_ih": gates(_array(cell.kernel)).T, "weight_hh": gates(_array(cell.recurrent_kernel)).T}
    if keras.use_bias:
        bias = gates(_array(cell.bias))
        found["bias_ih"], found["bias_hh"] = bias if bias.ndim == 2 else (bias, numpy.zeros_like(bias))
    return found


def _gates(*order: int) -> Callable[[Any, str], State]:
    return lambda keras, who: _recurrent(keras, who, order)


# For each class of Keras: the classes of ours that take its weights, and how.
CONVERTERS: dict[str, tuple[str, Callable[[Any, str], State]]] = {
    "Dense": ("Linear", _dense),
    "Conv1D": ("Conv1d", _conv),
    "Conv2D": ("Conv2d", _conv),
    "DepthwiseConv2D": ("Conv2d", _depthwise),
    "Conv1DTranspose": ("ConvTranspose1d", _conv),
    "Conv2DTranspose": ("ConvTranspose2d", _conv),
    "BatchNormalization": ("BatchNorm1d BatchNorm2d", _norm),
    "LayerNormalization": ("LayerNorm", _norm),
    "GroupNormalization": ("GroupNorm", _norm),
    "RMSNormalization": ("RMSNorm", _rms),
    "Embedding": ("Embedding", _embedding),
    "SimpleRNN": ("RNN", _gates(0)),
    "GRU": ("GRU", _gates(1, 0, 2)),
    "LSTM": ("LSTM", _gates(0, 1, 2, 3)),
}
