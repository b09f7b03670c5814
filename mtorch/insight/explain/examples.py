"""A net, inputs and weights for each class that are small enough to be checked by hand.

A class without an entry takes the smallest of its `examples()`, with round numbers in it.
"""

from typing import Any, NamedTuple

import numpy

import mtorch
from mtorch import arrays, layers, losses
from mtorch.bidirectional import Bidirectional
from mtorch.layer import Layer
from mtorch.layers.recurrent import Cell, RecurrentLayer
from mtorch.losses.base import LossFunction
from mtorch.unroll import Recurrent

X = (1.0, -2.0, 3.0, 0.5, -1.0, 2.0)
WEIGHTS = (1.0, -1.0, 0.5, 2.0, -0.5)
GRADIENT = (1.0, -1.0, 2.0, 0.5, -2.0)


class Worked(NamedTuple):
    """What is run: the source of the constructor, the names of the inputs (as they nest) and their values."""

    source: str
    names: Any
    values: Any
    outputs: Any = "y"


IMAGE = [[[[1, 2, 0], [3, -1, 1], [0, 2, 4]]]]
DISTINCT = [[[[1, 5, 2, 0], [3, 4, 8, 6]]]]
ROW = [[1, 2, -1]]
STEPS = [[[1]], [[-1]]]  # two steps of one sequence with one feature

A_B = ("a", "b"), ([[1, -2], [3, 4]], [2, -1])
CELL = ("h", "x"), ([[0.5]], [[1]])
LSTM_CELL = (("h", "c"), "x"), (([[0.5]], [[-1]]), [[1]])

EXAMPLES: dict[str, Worked] = {
    "Linear": Worked("Linear(2, 3)", "x", [[1, -2], [3, 0]]),
    "PReLU": Worked("PReLU(init=0.25)", "x", [[1, -2, 3], [-1, 0, 2]]),
    "Hardtanh": Worked("Hardtanh()", "x", [[0.5, -2, 3], [-0.25, 1, 0]]),
    "Softmax": Worked("Softmax()", "x", [[1, 2, 3]]),
    "LogSoftmax": Worked("LogSoftmax()", "x", [[1, 2, 3]]),
    "Conv1d": Worked("Conv1d(1, 1, 2)", "x", [[[1, 2, -1, 3]]]),
    "Conv2d": Worked("Conv2d(1, 1, 2)", "x", IMAGE),
    "ConvTranspose1d": Worked("ConvTranspose1d(1, 1, 2, stride=2)", "x", [[[1, -2]]]),
    "ConvTranspose2d": Worked("ConvTranspose2d(1, 1, 2)", "x", [[[[1, 2], [-1, 3]]]]),
    "AvgPool1d": Worked("AvgPool1d(2)", "x", [[[1, 3, -2, 4]]]),
    "AvgPool2d": Worked("AvgPool2d(2)", "x", DISTINCT),
    "MaxPool1d": Worked("MaxPool1d(2)", "x", [[[1, 3, -2, -4]]]),
    "MaxPool2d": Worked("MaxPool2d(2)", "x", DISTINCT),
    "AdaptiveAvgPool2d": Worked("AdaptiveAvgPool2d((1, 2))", "x", [[[[1, 2, 3], [5, 4, 9]]]]),
    "Upsample": Worked("Upsample(scale_factor=2)", "x", [[[[1, 2], [3, 4]]]]),
    "BatchNorm1d": Worked("BatchNorm1d(2)", "x", [[1, 2], [3, -2], [5, 3]]),
    "BatchNorm2d": Worked("BatchNorm2d(1)", "x", [[[[1, 3]]], [[[2, -2]]]]),
    "LayerNorm": Worked("LayerNorm(3)", "x", [[1, 2, 6]]),
    "GroupNorm": Worked("GroupNorm(1, 2)", "x", [[[1, 3], [2, -2]]]),
    "InstanceNorm1d": Worked("InstanceNorm1d(2)", "x", [[[1, 3], [2, -2]]]),
    "InstanceNorm2d": Worked("InstanceNorm2d(1, affine=True)", "x", [[[[1, 3], [2, -2]]]]),
    "RMSNorm": Worked("RMSNorm(2)", "x", [[3, 4], [1, -1]]),
    "Dropout": Worked("Dropout(0.5, rng=0)", "x", [[1, 2, 3, 4], [5, 6, 7, 8]]),
    "RNN": Worked("RNN(1, 1)", "x", STEPS),
    "GRU": Worked("GRU(1, 1)", "x", STEPS),
    "LSTM": Worked("LSTM(1, 1)", "x", STEPS),
    "RNNCell": Worked("RNNCell(1, 1)", *CELL, ("h'", "y")),
    "GRUCell": Worked("GRUCell(1, 1)", *CELL, ("h'", "y")),
    "LSTMCell": Worked("LSTMCell(1, 1)", *LSTM_CELL, (("h'", "c'"), "y")),
    "MultiHeadAttention": Worked("MultiHeadAttention(2, 1)", "x", [[[1, 0]], [[-1, 2]]]),
    "PositionalEmbedding": Worked("PositionalEmbedding(3, 2)", "x", [[[1, 2]], [[-1, 0]]]),
    "Embedding": Worked("Embedding(3, 2)", "ids", numpy.array([2, 0, 2])),
    **{
        name: Worked(f"{name}()", *A_B)
        for name in ("Add", "Subtract", "Multiply", "Divide", "Maximum", "Minimum")
    },
    "MatMul": Worked("MatMul()", ("a", "b"), ([[1, 2], [3, -1]], [[2, 0], [1, -2]])),
    "Pow": Worked("Pow()", ("a", "b"), ([[1, 2], [3, 4]], [[2, 3], [1, 0.5]])),
    "Power": Worked("Power(3)", "x", [[1, -2], [3, 0]]),
    "Log": Worked("Log()", "x", [[1, 2], [0.5, 4]]),
    "Sqrt": Worked("Sqrt()", "x", [[1, 4], [9, 0.25]]),
    "Clip": Worked("Clip(-1, 2)", "x", [[1, -2], [3, 0.5]]),
    "Where": Worked(
        "Where()",
        ("condition", "a", "b"),
        (numpy.array([[True, False], [False, True]]), [[1, 2], [3, 4]], [[5, 6], [7, 8]]),
    ),
    "ConstantOperand": Worked("ConstantOperand(Multiply(), right=[2.0, -1.0])", "x", [[1, -2], [3, 4]]),
    **{name: Worked(f"{name}(axis=1)", "x", [[1, 5, 3], [2, -2, 6]]) for name in ("Max", "Mean", "Min", "Sum")},
    "Flatten": Worked("Flatten()", "x", [[[1, 2], [3, 4]]]),
    "Reshape": Worked("Reshape((3, 2))", "x", [[[1, 2, 3], [4, 5, 6]]]),
    "Transpose": Worked("Transpose((1, 0))", "x", [[1, 2, 3], [4, 5, 6]]),
    "Slice": Worked("Slice((slice(None), [0, 2, 2]))", "x", [[1, 2, 3], [4, 5, 6]]),
    "GetItem": Worked("GetItem(1)", ("x_0", "x_1"), ([[1, 2]], [[3, 4]])),
    "Take": Worked("Take()", ("x", "ids"), ([[1, 2, 3], [4, 5, 6]], numpy.array([2, 0]))),
    "Concat": Worked("Concat(axis=1)", ("x_1", "x_2"), ([[1, 2], [3, 4]], [[5], [6]])),
    "Split": Worked("Split(2, axis=1)", "x", [[1, 2, 3, 4], [5, 6, 7, 8]], ("y_1", "y_2")),
    "Probe": Worked('Probe("hidden")', "x", [[1, -2]]),
    "Sequential": Worked("Sequential(Linear(2, 2), ReLU(), Linear(2, 1))", "x", [[1, -2]]),
    "Module": Worked("Module(Sequential(Linear(2, 2), ReLU()), input_grad=True)", "x", [[1, -2]]),
    "Residual": Worked("Residual(Sequential(Linear(2, 2), ReLU()))", "x", [[1, -2]]),
    "Fork": Worked("Fork(Linear(2, 1), ReLU())", "x", [[1, -2]], ("y_1", "y_2")),
    "Parallel": Worked("Parallel(Linear(2, 1), ReLU())", ("x_1", "x_2"), ([[1, -2]], [[3, -1]]), ("y_1", "y_2")),
    "Graph": Worked(
        'Graph("x", {"h": (Linear(2, 2), "x"), "r": (ReLU(), "h"), "y": (Add(), ("r", "x"))}, "y")', "x", [[1, -2]]
    ),
    "Recurrent": Worked("Recurrent(RNNCell(1, 1))", "x", STEPS),
    "Bidirectional": Worked("Bidirectional(Recurrent(RNNCell(1, 1)), Recurrent(RNNCell(1, 1)))", "x", STEPS),
    "DataParallel": Worked("DataParallel(Linear(2, 1), workers=2)", "x", [[1, -2], [3, 0], [0, 1], [2, 2]]),
    "BCELoss": Worked("BCELoss()", ("p", "t"), ([[0.5, 0.8]], [[1, 0]])),
    "BCEWithLogitsLoss": Worked("BCEWithLogitsLoss()", ("x", "t"), ([[0, 2]], [[1, 0]])),
    "CosineEmbeddingLoss": Worked(
        "CosineEmbeddingLoss()", (("x", "y"), "t"), (([[3, 4], [1, 0]], [[4, 3], [1, 1]]), numpy.array([1, -1]))
    ),
    "CrossEntropyLoss": Worked("CrossEntropyLoss()", ("x", "target"), ([[1, 2, 3], [2, 0, 0]], numpy.array([2, 1]))),
    "HuberLoss": Worked("HuberLoss()", ("p", "t"), ([[0.5, 3]], [[0, 1]])),
    "KLDivLoss": Worked(
        'KLDivLoss(reduction="batchmean")', ("x", "t"), ([[-1, -0.5]], [[0.25, 0.75]])
    ),
    "L1Loss": Worked("L1Loss()", ("p", "t"), ([[1, -2], [3, 4]], [[0, 0], [5, 4]])),
    "MSELoss": Worked("MSELoss()", ("p", "t"), ([[1, -2], [3, 4]], [[0, 0], [5, 4]])),
    "NLLLoss": Worked("NLLLoss()", ("x", "target"), ([[-1, -2, -0.5], [-0.25, -3, -2]], numpy.array([2, 1]))),
    "SquareLoss": Worked("SquareLoss()", ("p", "t"), ([[1, -2], [3, 4]], [[0, 0], [5, 4]])),
    "TripletMarginLoss": Worked(
        "TripletMarginLoss(margin=2.0)", (("a", "p", "n"), None), (([[0, 0]], [[3, 4]], [[6, 0]]), None)
    ),
}  # fmt: skip


def worked(cls: type) -> tuple[Any, Worked]:
    """The layer or loss in float64 with round weights, and its example."""
    entry = EXAMPLES.get(cls.__name__)
    subject: Any
    if entry is None:
        subject, entry = from_examples(cls)
    else:
        subject = eval(entry.source, {**names_in_float64(), "__builtins__": {"slice": slice}})
        entry = entry._replace(values=arrays.map_value(as_array, entry.values))
    if isinstance(subject, Layer):
        set_round(subject)
    return subject, entry


def from_examples(cls: Any) -> tuple[Any, Worked]:
    """The smallest of `examples()`, with round numbers in the places of its floats."""
    from mtorch.testing.gradients import make_value

    found: list[Any] = []
    for subject, inputs in cls.examples(xp=numpy, dtype="float64", rng=numpy.random.default_rng(0)):
        value = make_value(inputs, numpy, numpy.dtype("float64"), numpy.random.default_rng(1))
        found.append((sum(leaf.size for leaf in arrays.leaves(value)), len(found), subject, value))
    found = [each for each in found if each[0] >= 4] or found
    _, _, subject, value = min(found)
    count = len(value) if isinstance(value, tuple) else 0
    names = tuple(f"x_{i + 1}" for i in range(count)) if count else "x"
    if isinstance(subject, LossFunction):
        names = ("p", "t")
    round_value = arrays.map_value(lambda x: cycle(X, x.shape) if x.dtype.kind == "f" else x, value)
    return subject, Worked(repr(subject), names, round_value)


def set_round(layer: Layer) -> None:
    """Numbers that a reader can multiply, in place of the weights that were drawn."""
    for number, (name, parameter) in enumerate(layer.parameters().items()):
        if not name.rpartition(".")[2] == "weight" or parameter.value.ndim > 1:
            gentle = isinstance(layer, RecurrentLayer | Cell | Recurrent | Bidirectional)  # no gate is nearly shut
            values = (0.5, -0.5, 1.0, -1.0) if gentle else WEIGHTS if parameter.value.ndim > 1 else (0.5, -1.0, 1.0)
            parameter.value[...] = cycle(values[number % 2 :] + values[: number % 2], parameter.value.shape)


def cycle(values: tuple[float, ...], shape: tuple[int, ...]) -> numpy.ndarray:
    """An array of that shape, filled with these numbers again and again."""
    return numpy.resize(numpy.asarray(values), shape).astype("float64")


def as_array(given: Any) -> numpy.ndarray:
    return given if isinstance(given, numpy.ndarray) else numpy.asarray(given, dtype="float64")


def names_in_float64() -> dict[str, Any]:
    """The public classes, layers with their dtype bound."""
    bound = layers.on(numpy, dtype="float64", rng=0)
    made = {name: getattr(bound, name) for name in layers.__all__ if isinstance(getattr(layers, name), type)}
    return made | {name: getattr(mtorch, name) for name in mtorch.__all__ if name not in made} | vars(losses)
