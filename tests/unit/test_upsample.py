"""Upsample: values by hand, and what it refuses."""

import numpy
import pytest

from mtorch import Sequential, ShapeMismatchError, layers

ROW = numpy.array([[[1.0, 3.0]]])


def upsampled(x, **options):
    return layers.Upsample(**options, dtype="float64")(x).reshape(-1).tolist()


def test_values_by_hand():
    assert upsampled(ROW, scale_factor=2) == [1, 1, 3, 3]
    assert upsampled(ROW, size=3) == [1, 1, 3]
    assert upsampled(ROW, scale_factor=2, mode="linear") == [1, 1.5, 2.5, 3]
    assert upsampled(ROW, size=3, mode="linear", align_corners=True) == [1, 2, 3]
    assert upsampled(ROW[..., None], size=(3, 2), mode="bilinear", align_corners=True) == [1, 1, 2, 2, 3, 3]
    assert upsampled(numpy.arange(4.0)[None, None], scale_factor=0.5) == [0, 2]


def test_a_nearest_copy_keeps_every_entry_apart():
    """0 times infinity, as in a product with a matrix of zeros and ones, would spread NaN over the row."""
    x = numpy.array([[[1.0, numpy.inf, numpy.nan, 4.0]]])
    numpy.testing.assert_array_equal(
        upsampled(x, scale_factor=2), [1, 1, numpy.inf, numpy.inf, numpy.nan, numpy.nan, 4, 4]
    )


@pytest.mark.parametrize(
    "options, text",
    [
        ({}, "either size or scale_factor"),
        ({"size": 2, "scale_factor": 2}, "either size or scale_factor"),
        ({"size": 2, "mode": "bicubic"}, "mode in"),
        ({"size": 2, "align_corners": True}, "mode 'linear' or 'bilinear' with align_corners"),
        ({"size": 0}, "size >= 1"),
        ({"scale_factor": -1}, "scale_factor > 0"),
        ({"scale_factor": float("inf")}, "scale_factor > 0"),
        ({"size": (2, 3, 4)}, "a number for each of 2 axes"),
        ({"size": (2, 3), "mode": "linear"}, "a number for each of 1 axes"),
        ({"size": (2,), "mode": "bilinear"}, "a number for each of 2 axes"),
    ],
)
def test_what_the_constructor_refuses(options, text):
    with pytest.raises(ValueError, match=f"Upsample expected .*{text}"):
        layers.Upsample(**options)


@pytest.mark.parametrize("size", ["2", 2.5, (2, None), True])
def test_sizes_that_are_no_integers_are_a_type_error(size):
    with pytest.raises(TypeError, match="Upsample expected an integer size"):
        layers.Upsample(size)


@pytest.mark.parametrize(
    "options, shape",
    [
        ({"size": 2}, (3, 4)),
        ({"size": 2, "mode": "bilinear"}, (1, 2, 3)),
        ({"size": 2, "mode": "linear"}, (1, 2, 3, 4)),
        ({"size": (2,)}, (1, 2, 3, 4)),
        ({"size": 2}, (1, 2, 0, 4)),
        ({"scale_factor": 0.2}, (1, 2, 4, 4)),
    ],
)
def test_an_image_that_does_not_fit_is_refused(options, shape):
    with pytest.raises(ShapeMismatchError, match="Upsample"):
        layers.Upsample(**options)(numpy.zeros(shape))


def test_channels_are_known_before_any_data():
    with pytest.raises(ValueError, match="expected 4 entries on axis 1"):
        Sequential(layers.Conv2d(1, 3, 3), layers.Upsample(scale_factor=2), layers.Conv2d(4, 1, 3))
