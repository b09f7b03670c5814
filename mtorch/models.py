"""Nets that people learn with, as short functions: sizes in, a `Sequential` out.

Digit models take images as rows (N, D), D = side * side, and return one score for each of K classes: logits for
cross-entropy, but for `mlp`. Their keyword arguments `xp`, `dtype` and `rng` are those of the layers.
"""

import math
from collections.abc import Callable
from functools import wraps
from typing import Any

from mtorch import layers
from mtorch.checks import check_memory, check_size, shown
from mtorch.layer import Layer
from mtorch.residual import Residual
from mtorch.sequential import Sequential


def _model(function: Callable[..., Sequential]) -> Callable[..., Sequential]:
    """The function with its sizes checked, and with a note on every error: the model and what it was called with."""
    names = function.__code__.co_varnames[: function.__code__.co_argcount]
    kinds = function.__annotations__

    def checked(name: str, value: Any) -> Any:
        is_size = kinds.get(name) is int or (kinds.get(name) == int | None and value is not None)
        return check_size(function.__name__, name, value) if is_size else value

    @wraps(function)
    def model(*args: Any, **options: Any) -> Sequential:
        args = (*map(checked, names, args), *args[len(names) :])
        options = {name: checked(name, value) for name, value in options.items()}
        given = dict(zip(names, args, strict=False)) | options
        try:
            return function(*args, **options)
        except Exception as error:
            text = ", ".join(f"{name}={shown(value)}" for name, value in given.items())
            error.add_note(f"in the model {function.__name__}({text})")
            raise

    return model


# ---------------------------------------------------------------------- dense


@_model
def linear(pixels: int = 784, classes: int = 10, **options: Any) -> Sequential:
    """One linear map: multinomial logistic regression when trained with cross-entropy."""
    nn = layers.on(**options)
    return Sequential(nn.Linear(pixels, classes))


@_model
def mlp(pixels: int = 784, classes: int = 10, hidden: int = 16, **options: Any) -> Sequential:
    """The original mtorch's digit net, 784-16-16-10 with a sigmoid at the end, for a square loss on one-hot targets.

    The output bias starts at the logit of the prior 1 / K and the output weights start small. Otherwise outputs start
    at one half, far too high for nine classes in ten, and the first steps drive some of them so low that the sigmoid
    is flat there and they stay. The first weights start small, because pixels without any news keep theirs for ever.
    """
    nn, classes = layers.on(**options), check_size("mlp", "classes", classes, 2)
    out: Any = nn.Linear(hidden, classes, coe=0.1)
    out.bias.value[...] = -math.log(classes - 1)
    return Sequential(
        nn.Linear(pixels, hidden, coe=0.1), nn.ReLU(), nn.Linear(hidden, hidden, coe=2), nn.ReLU(), out, nn.Sigmoid()
    )


@_model
def deep(pixels: int = 784, classes: int = 10, hidden: int = 512, **options: Any) -> Sequential:
    """784-512-512-10 with ReLU."""
    nn = layers.on(**options)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2), nn.ReLU(),
        nn.Linear(hidden, hidden, coe=2), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


@_model
def dropout(pixels: int = 784, classes: int = 10, hidden: int = 512, p: float = 0.3, **options: Any) -> Sequential:
    """`deep` with dropout after each hidden layer.

    Srivastava et al., "Dropout: A Simple Way to Prevent Neural Networks from Overfitting", 2014.
    """
    nn = layers.on(**options)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2), nn.ReLU(), nn.Dropout(p),
        nn.Linear(hidden, hidden, coe=2), nn.ReLU(), nn.Dropout(p),
        nn.Linear(hidden, classes),
    )  # fmt: skip


@_model
def batchnorm(pixels: int = 784, classes: int = 10, hidden: int = 512, **options: Any) -> Sequential:
    """`deep` with batch normalisation before each ReLU, which takes the place of the biases.

    Ioffe & Szegedy, "Batch Normalization: Accelerating Deep Network Training", 2015, arXiv:1502.03167.
    """
    nn = layers.on(**options)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, hidden, coe=2, bias=False), nn.BatchNorm1d(hidden), nn.ReLU(),
        nn.Linear(hidden, classes),
    )  # fmt: skip


@_model
def residual(pixels: int = 784, classes: int = 10, hidden: int = 1024, **options: Any) -> Sequential:
    """784-1024-1024-10, the second hidden layer with a way around it."""
    nn = layers.on(**options)
    return Sequential(
        nn.Linear(pixels, hidden, coe=2), nn.ReLU(),
        Residual(Sequential(nn.Linear(hidden, hidden), nn.ReLU())),
        nn.Linear(hidden, classes),
    )  # fmt: skip


# ---------------------------------------------------------------------- convolutional


@_model
def conv1d(pixels: int = 784, classes: int = 10, channels: int = 64, **options: Any) -> Sequential:
    """Convolutions along the columns of the image, its rows being the channels."""
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((side, side)),
        nn.Conv1d(side, channels, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
        nn.Conv1d(channels, 2 * channels, 3, padding=1), nn.ReLU(), nn.MaxPool1d(2),
        nn.Flatten(), nn.Linear(2 * channels * (side // 4), classes),
    )  # fmt: skip


@_model
def scn(pixels: int = 784, classes: int = 10, channels: int = 16, **options: Any) -> Sequential:
    """A simple convolutional net: conv-norm-ReLU-maxpool, conv-norm-ReLU-avgpool, conv, linear."""
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, channels, 3, padding=1), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(channels, 2 * channels, 3, padding=1), nn.BatchNorm2d(2 * channels), nn.ReLU(), nn.AvgPool2d(2),
        nn.Conv2d(2 * channels, 2 * channels, 3, padding=1),
        nn.Flatten(), nn.Linear(2 * channels * (side // 4) ** 2, classes),
    )  # fmt: skip


@_model
def lenet(pixels: int = 784, classes: int = 10, **options: Any) -> Sequential:
    """LeNet-5 with ReLU and max pooling: after the pool the rectifier has a quarter of the work, and gives the same.

    LeCun, Bottou, Bengio & Haffner, "Gradient-based learning applied to document recognition", 1998.
    """
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, 6, 5, padding=2), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(6, 16, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(16 * ((side // 2 - 4) // 2) ** 2, 120, coe=2), nn.ReLU(),
        nn.Linear(120, 84, coe=2), nn.ReLU(),
        nn.Linear(84, classes),
    )  # fmt: skip


@_model
def lenet_large(pixels: int = 784, classes: int = 10, **options: Any) -> Sequential:
    """Caffe's variant of LeNet: conv 20, pool, conv 50, pool, 500."""
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
        nn.Conv2d(20, 50, 5), nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(),
        nn.Linear(50 * (((side - 4) // 2 - 4) // 2) ** 2, 500, coe=2), nn.ReLU(),
        nn.Linear(500, classes),
    )  # fmt: skip


@_model
def cnn(pixels: int = 784, classes: int = 10, channels: int = 32, **options: Any) -> Sequential:
    """The net of PyTorch's MNIST example: conv 32, conv 64, pool, 128, with dropout."""
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, channels, 3), nn.ReLU(),
        nn.Conv2d(channels, 2 * channels, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Dropout(0.25), nn.Flatten(),
        nn.Linear(2 * channels * ((side - 4) // 2) ** 2, 4 * channels, coe=2), nn.ReLU(), nn.Dropout(0.5),
        nn.Linear(4 * channels, classes),
    )  # fmt: skip


@_model
def resnet_simple(pixels: int = 784, classes: int = 10, channels: int = 16, **options: Any) -> Sequential:
    """A first residual net: conv, pool, two blocks on equal terms, the mean over the image, linear."""
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(), nn.MaxPool2d(2),
        *residual_block(nn, channels, channels), *residual_block(nn, channels, channels),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes),
    )  # fmt: skip


@_model
def resnet(pixels: int = 784, classes: int = 10, channels: int = 16, **options: Any) -> Sequential:
    """A residual net of 10 layers for 28 x 28: 16 channels, then 32 on a 14 x 14 grid, then 64 on 7 x 7.

    He, Zhang, Ren & Sun, "Deep Residual Learning for Image Recognition", 2015, arXiv:1512.03385.
    """
    nn, side = layers.on(**options), side_of(pixels)
    blocks = [(1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1)]
    return Sequential(
        nn.Reshape((1, side, side)),
        nn.Conv2d(1, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(),
        *(layer for a, b, stride in blocks for layer in residual_block(nn, a * channels, b * channels, stride)),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4 * channels, classes),
    )  # fmt: skip


def residual_block(nn: Any, channels: int, out_channels: int, stride: int = 1) -> tuple[Layer, Layer]:
    """Two convolutions with a way around them, and a ReLU. Where sizes change, the way around is a 1 x 1 convolution.

    nn: a namespace of layers, `layers.on(...)`.
    """
    body = Sequential(
        nn.Conv2d(channels, out_channels, 3, stride=stride, padding=1, bias=False), nn.BatchNorm2d(out_channels),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False), nn.BatchNorm2d(out_channels),
    )  # fmt: skip
    shortcut = None
    if stride > 1 or out_channels != channels:
        shortcut = Sequential(
            nn.Conv2d(channels, out_channels, 1, stride=stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    return Residual(body, shortcut), nn.ReLU()


# ---------------------------------------------------------------------- sequences


@_model
def rnn(pixels: int = 784, classes: int = 10, hidden: int | None = None, **options: Any) -> Sequential:
    """A tanh RNN that reads the image row by row; see `gru`."""
    return _over_rows("RNN", pixels, classes, hidden, options)


@_model
def gru(pixels: int = 784, classes: int = 10, hidden: int | None = None, **options: Any) -> Sequential:
    """A GRU that reads the image row by row, and a linear map of its last step.

    hidden: 16 for scans of 8 x 8 and 64 for larger images where it is not given.
    """
    return _over_rows("GRU", pixels, classes, hidden, options)


@_model
def lstm(pixels: int = 784, classes: int = 10, hidden: int | None = None, **options: Any) -> Sequential:
    """An LSTM that reads the image row by row; see `gru`."""
    return _over_rows("LSTM", pixels, classes, hidden, options)


def _over_rows(cell: str, pixels: int, classes: int, hidden: int | None, options: dict[str, Any]) -> Sequential:
    nn, side = layers.on(**options), side_of(pixels)
    if hidden is None:
        hidden = 16 if side <= 8 else 64
    return Sequential(
        nn.Reshape((side, side)), getattr(nn, cell)(side, hidden, batch_first=True), nn.Slice((slice(None), -1)),
        nn.Linear(hidden, classes),
    )  # fmt: skip


@_model
def bilstm(vocabulary: int, classes: int = 2, embedding: int = 16, hidden: int = 16, **options: Any) -> Sequential:
    """A text classifier: word ids (T, N) -> (N, K), read from both ends; id 0 pads.

    The loudest answer over time counts: the maximum of every feature over the steps.
    """
    nn = layers.on(**options)
    return Sequential(
        nn.Embedding(vocabulary, embedding, padding_idx=0), nn.LSTM(embedding, hidden, bidirectional=True),
        nn.Max(axis=0), nn.Linear(2 * hidden, classes),
    )  # fmt: skip


@_model
def transformer(
    pixels: int = 784, classes: int = 10, width: int = 64, heads: int = 4, blocks: int = 2, **options: Any
) -> Sequential:
    """A small Transformer encoder over the rows of the image, then the mean over them."""
    check_memory("transformer", 8 * width * width * blocks, width=width, blocks=blocks)
    nn, side = layers.on(**options), side_of(pixels)
    return Sequential(
        nn.Reshape((side, side)), nn.Transpose((1, 0, 2)), nn.Linear(side, width), nn.PositionalEmbedding(side, width),
        *(layer for _ in range(blocks) for layer in transformer_block(nn, width, heads, 2 * width)),
        nn.LayerNorm(width), nn.Mean(axis=0), nn.Linear(width, classes),
    )  # fmt: skip


def transformer_block(nn: Any, width: int, heads: int, hidden: int, p: float = 0.0) -> tuple[Layer, Layer]:
    """Attention and a dense net of one hidden layer, each normalised first and with a way around it: (T, N, E) -> same.

    nn: a namespace of layers, `layers.on(...)`.

    Vaswani et al., "Attention Is All You Need", 2017, arXiv:1706.03762; with the normalisation first as in
    Xiong et al., "On Layer Normalization in the Transformer Architecture", 2020, arXiv:2002.04745.
    """
    attention = Sequential(nn.LayerNorm(width), nn.MultiHeadAttention(width, heads, dropout=p))
    dense = Sequential(
        nn.LayerNorm(width), nn.Linear(width, hidden, coe=2), nn.ReLU(), nn.Dropout(p), nn.Linear(hidden, width)
    )
    return Residual(attention), Residual(dense)


def side_of(pixels: int) -> int:
    """The side of a square image of that many pixels."""
    pixels = check_size("side_of", "pixels", pixels)
    side = math.isqrt(pixels)
    if side * side != pixels:
        raise ValueError(f"side_of expected the pixels of a square image, got {pixels}")
    return side
