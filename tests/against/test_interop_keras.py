"""Weights of real Keras 3 models: the same outputs after they were taken over."""

import os
import re
from pathlib import Path

import numpy
import pytest

from mtorch import Sequential, interop, layers

os.environ.setdefault("KERAS_BACKEND", "torch")
pytest.importorskip("torch")
keras = pytest.importorskip("keras")
K = keras.layers
# Keras calls NumPy so itself, in `get_weights`.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


def rows(*shape):
    return numpy.random.default_rng(0).standard_normal(shape).astype("float32")


def shaken(model):
    """The model with weights that are none of the usual zeros and ones."""
    rng = numpy.random.default_rng(1)
    model.set_weights([rng.uniform(0.2, 1.0, w.shape) * rng.choice([-1, 1], w.shape) for w in model.get_weights()])
    for layer in model.layers:
        if hasattr(layer, "moving_variance"):
            layer.moving_variance.assign(rng.uniform(0.5, 1.5, layer.moving_variance.shape))
    return model


def chain(shape, *stack, dtype="float32"):
    return shaken(keras.Sequential([keras.Input(shape, dtype=dtype), *stack]))


def assert_same(ours, model, x, channels_first=False):
    interop.load_keras_weights(ours, model)
    given = numpy.moveaxis(x, -1, 1) if channels_first else x
    y, t = ours.predict(numpy.ascontiguousarray(given)), numpy.asarray(keras.ops.convert_to_numpy(model(x)))
    t = numpy.moveaxis(t, -1, 1) if channels_first and t.ndim > 2 else t
    assert y.shape == t.shape
    numpy.testing.assert_allclose(y, t, rtol=1e-5, atol=1e-5)


def test_dense_layers_and_norms_of_rows():
    model = chain(
        (5,), K.Dense(4), K.BatchNormalization(epsilon=1e-3), K.ReLU(), K.Dense(6, use_bias=False),
        K.LayerNormalization(), K.RMSNormalization(), K.Dense(3, activation="tanh"),
    )  # fmt: skip
    ours = Sequential(
        layers.Linear(5, 4), layers.BatchNorm1d(4, eps=1e-3), layers.ReLU(), layers.Linear(4, 6, bias=False),
        layers.LayerNorm(6, eps=1e-3), layers.RMSNorm(6, eps=1e-6), layers.Linear(6, 3), layers.Tanh(),
    )  # fmt: skip
    assert_same(ours, model, rows(7, 5))


def test_an_image_net_whose_dense_layer_reads_flattened_pixels():
    model = chain(
        (9, 8, 2), K.Conv2D(4, (3, 2), strides=(2, 1), activation="relu"), K.BatchNormalization(scale=False),
        K.Conv2D(6, 2, groups=2), K.GroupNormalization(3), K.MaxPooling2D(2, 1), K.Flatten(), K.Dropout(0.5),
        K.Dense(5),
    )  # fmt: skip
    ours = Sequential(
        layers.Conv2d(2, 4, (3, 2), stride=(2, 1)), layers.ReLU(), layers.BatchNorm2d(4, eps=1e-3),
        layers.Conv2d(4, 6, 2, groups=2), layers.GroupNorm(3, 6, eps=1e-3), layers.MaxPool2d(2, 1), layers.Flatten(),
        layers.Dropout(), layers.Linear(6 * 2 * 5, 5),
    )  # fmt: skip
    x = rows(3, 9, 8, 2)
    interop.load_keras_weights(ours, model)
    y = ours.predict(numpy.ascontiguousarray(numpy.moveaxis(x, -1, 1)))
    numpy.testing.assert_allclose(y, keras.ops.convert_to_numpy(model(x)), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use_bias", [True, False])
def test_convolutions(use_bias):
    options = {"use_bias": use_bias}
    pairs = [
        ((7, 4), K.Conv1D(6, 3, strides=2, **options), layers.Conv1d(4, 6, 3, stride=2, bias=use_bias)),
        ((7, 4), K.Conv1D(6, 3, dilation_rate=2, groups=2, **options), layers.Conv1d(4, 6, 3, 1, 0, 2, 2, use_bias)),
        ((6, 7, 3), K.Conv2D(4, 3, padding="same", **options), layers.Conv2d(3, 4, 3, padding="same", bias=use_bias)),
        (
            (6, 7, 3),
            K.DepthwiseConv2D(3, depth_multiplier=2, **options),
            layers.Conv2d(3, 6, 3, groups=3, bias=use_bias),
        ),
        ((5, 3), K.Conv1DTranspose(4, 3, strides=2, **options), layers.ConvTranspose1d(3, 4, 3, 2, bias=use_bias)),
        ((4, 5, 3), K.Conv2DTranspose(4, (3, 2), **options), layers.ConvTranspose2d(3, 4, (3, 2), bias=use_bias)),
    ]
    for shape, theirs, ours in pairs:
        assert_same(ours, chain(shape, theirs), rows(2, *shape), channels_first=True)


@pytest.mark.parametrize("use_bias", [True, False])
@pytest.mark.parametrize("name", ["SimpleRNN", "GRU", "LSTM"])
def test_recurrent_layers(name, use_bias):
    options = {"return_sequences": True, "use_bias": use_bias}
    theirs, ours = getattr(K, name), getattr(layers, {"SimpleRNN": "RNN"}.get(name, name))
    on = {"batch_first": True, "bias": use_bias}
    x = rows(3, 6, 4)
    assert_same(ours(4, 5, **on), chain((6, 4), theirs(5, **options)), x)
    assert_same(ours(4, 5, num_layers=2, **on), chain((6, 4), theirs(5, **options), theirs(5, **options)), x)
    both = chain((6, 4), K.Bidirectional(theirs(5, **options)))
    assert_same(ours(4, 5, bidirectional=True, **on), both, x)


def test_a_text_net():
    each_step = K.TimeDistributed(K.Dense(4))
    model = chain((6,), K.Embedding(9, 4), each_step, K.LSTM(5), K.Dense(2), dtype="int32")
    ours = Sequential(
        layers.Embedding(9, 4),
        layers.Linear(4, 4),
        layers.LSTM(4, 5, batch_first=True),
        layers.Slice((slice(None), -1)),
        layers.Linear(5, 2),
    )
    assert_same(ours, model, numpy.random.default_rng(2).integers(0, 9, (3, 6)))


def test_what_keras_leaves_out_is_0_or_1():
    options = {"scale": False, "center": False}
    model = chain((4,), K.Dense(4, use_bias=False), K.BatchNormalization(**options), K.LayerNormalization(center=False))
    ours = Sequential(layers.Linear(4, 4), layers.BatchNorm1d(4, 1e-3), layers.LayerNorm(4, 1e-3))
    for parameter in ours.parameters().values():
        parameter.value += 0.5
    assert_same(ours, model, rows(5, 4))
    bare = Sequential(
        layers.Linear(4, 4, bias=False),
        layers.BatchNorm1d(4, 1e-3, affine=False),
        layers.LayerNorm(4, 1e-3, bias=False),
    )
    assert_same(bare, model, rows(5, 4))
    biased = layers.GRU(4, 3, batch_first=True)
    assert_same(biased, chain((5, 4), K.GRU(3, use_bias=False, return_sequences=True)), rows(2, 5, 4))


def test_nested_and_functional_models_and_single_layers():
    inside = keras.Sequential([keras.Input((4,)), K.Dense(3), K.ReLU()])
    x = keras.Input((4,))
    model = shaken(keras.Model(x, K.Dense(2)(inside(x))))
    ours = Sequential(Sequential(layers.Linear(4, 3), layers.ReLU()), layers.Linear(3, 2))
    assert_same(ours, model, rows(5, 4))
    relu = chain((6, 4), K.SimpleRNN(5, activation="relu", return_sequences=True)).layers[0]
    cell = layers.RNN(4, 5, nonlinearity="relu", batch_first=True)
    interop.load_keras_weights(cell, relu)
    numpy.testing.assert_array_equal(cell.weight_ih_l0.value, relu.get_weights()[0].T)


def test_a_saved_model_is_read_by_keras(tmp_path):
    model = chain((4,), K.Dense(3))
    model.save(tmp_path / "model.keras")
    assert_same(layers.Linear(4, 3), keras.models.load_model(tmp_path / "model.keras"), rows(2, 4))


@pytest.mark.parametrize(
    "ours, theirs, shape, text",
    [
        (lambda: layers.Linear(4, 3), lambda: K.Dense(2), (4,), "weight has shape"),
        (lambda: layers.Linear(4, 3), lambda: K.Conv1D(3, 1), (5, 4), "cannot take the weights of Conv1D .*for Conv1d"),
        (lambda: layers.BatchNorm1d(4), lambda: K.BatchNormalization(), (4,), "has eps=1e-05, .* has epsilon=0.001"),
        (lambda: layers.GroupNorm(2, 4, 1e-3), lambda: K.GroupNormalization(4), (5, 4), "which has groups=4"),
        (lambda: layers.RNN(4, 3), lambda: K.SimpleRNN(3, activation="relu"), (5, 4), "another nonlinearity .*: relu"),
        (lambda: layers.GRU(4, 3), lambda: K.GRU(3, reset_after=False), (5, 4), "has reset_after=False"),
        (lambda: layers.LSTM(4, 3), lambda: K.LSTM(3, activation="relu"), (5, 4), "has relu, sigmoid"),
        (lambda: layers.LSTM(4, 3), lambda: K.LSTM(3, go_backwards=True), (5, 4), "reads forwards"),
        (lambda: layers.LSTM(4, 3), lambda: K.Bidirectional(K.LSTM(3)), (5, 4), "both be bidirectional"),
        (lambda: layers.Linear(4, 3, bias=False), lambda: K.Dense(3), (4,), "unexpected: 1.bias"),
        (lambda: layers.LSTM(4, 3, bias=False), lambda: K.LSTM(3), (5, 4), "unexpected: 1.bias_ih_l0, 1.bias_hh_l0"),
        (lambda: layers.LayerNorm(4, 1e-3, bias=False), lambda: K.LayerNormalization(), (4,), "unexpected: 1.bias"),
        (lambda: layers.MultiHeadAttention(4, 2), lambda: K.Dense(3), (4,), "cannot take the weights of Dense"),
        (lambda: layers.Linear(4, 3), lambda: K.PReLU(), (4,), "mtorch knows Dense"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_nothing_is_changed(ours, theirs, shape, text):
    layer, model = Sequential(layers.Linear(4, 4), ours()), chain(shape, K.Dense(4), theirs())
    before = layer.state_dict()
    with pytest.raises(ValueError, match=text):
        interop.load_keras_weights(layer, model)
    for name, value in layer.state_dict().items():
        numpy.testing.assert_array_equal(value, before[name])


def test_too_many_and_too_few_layers_are_named():
    short, long = chain((4,), K.Dense(3)), chain((4,), K.Dense(3), K.Dense(2, name="last"))
    with pytest.raises(ValueError, match=r"Linear\(3 -> 2\) at 1 has no layer in the Keras model"):
        interop.load_keras_weights(Sequential(layers.Linear(4, 3), layers.Linear(3, 2)), short)
    with pytest.raises(ValueError, match="has no layer for these of Keras: Dense 'last'"):
        interop.load_keras_weights(layers.Linear(4, 3), long)
    with pytest.raises(TypeError, match="expected a Keras model or layer, got dict"):
        interop.load_keras_weights(layers.Linear(4, 3), {})
    with pytest.raises(TypeError, match="got str: keras.models.load_model reads a file"):
        interop.load_keras_weights(layers.Linear(4, 3), "model.keras")
    with pytest.raises(TypeError, match="expected a module or layer"):
        interop.load_keras_weights(short, short)


def test_the_code_on_the_page_runs():
    page = (Path(__file__).parents[2] / "docs" / "interop_torch.md").read_text()
    (block,) = (block for block in re.findall(r"```python\n(.*?)```", page, re.S) if "import keras" in block)
    names = {"Sequential": Sequential, "interop": interop, "layers": layers}
    exec(block, names)
    assert_same(names["ours"], names["model"], rows(3, 6, 4))
