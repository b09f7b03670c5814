"""The built-in digits, raw and as MNIST would hold them."""

import os
import pathlib

import numpy
import pytest

from mtorch.data import as_mnist, digits, mnist, uci_digits


def centre_of_mass(image):
    image = image / image.sum()
    at = numpy.arange(28)
    return image.sum(1) @ at, image.sum(0) @ at


def test_there_are_1797_scans_in_at_most_60_kb():
    assert uci_digits.FILE.stat().st_size <= 60_000
    data = digits(size=8)
    assert data.name == "digits"
    assert data.train_images.shape == (1257, 8, 8) and data.test_images.shape == (540, 8, 8)
    assert data.train_images.dtype == numpy.uint8 and data.train_labels.dtype == numpy.int64
    both = numpy.concatenate([data.train_images, data.test_images])
    assert both.min() == 0 and both.max() == 16
    labels = numpy.concatenate([data.train_labels, data.test_labels])
    assert numpy.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_the_source_and_licence_are_credited():
    assert "CC BY 4.0" in uci_digits.__doc__ and "Alpaydin" in uci_digits.__doc__


def test_the_scans_are_those_of_scikit_learn(tmp_path):
    pytest.importorskip("sklearn")
    from mtorch.data.make_digits import make

    make(str(tmp_path / "again.npz"))
    with numpy.load(tmp_path / "again.npz") as made, numpy.load(uci_digits.FILE) as kept:
        assert sorted(kept) == sorted(made) and all((kept[name] == made[name]).all() for name in kept)


def test_the_split_is_fixed_and_the_same_for_both_sizes():
    small, large, again = digits(size=8), digits(), digits()
    assert (small.train_labels == large.train_labels).all() and (small.test_labels == large.test_labels).all()
    assert (large.test_images == again.test_images).all()
    assert large.test_labels[:10].tolist() == [4, 7, 6, 6, 2, 3, 3, 8, 6, 1]
    assert (uci_digits.enlarged(small.test_images[17]) == large.test_images[17]).all()
    other = digits(seed=1)
    assert other.train_images.shape == large.train_images.shape
    assert (other.train_labels != large.train_labels).any()


def test_a_caller_may_write_into_what_came():
    digits().train_images[:] = 0
    digits(size=8).train_images[:] = 0
    assert digits().train_images.any() and digits(size=8).train_images.any()


def test_enlarged_digits_have_the_measures_of_mnist():
    """MNIST: 28 x 28, ink in a box of 20 x 20, centre of mass in pixel (14, 14), mean 33, deviation 79, 81 % paper."""
    images = digits().train_images
    assert images.shape[1:] == (28, 28) and images.dtype == numpy.uint8 and images.max() == 255
    for image in images[:300]:
        rows, columns = (numpy.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        assert max(numpy.ptp(rows), numpy.ptp(columns)) + 1 <= 20
        assert abs(numpy.array(centre_of_mass(image)) - 14).max() <= 0.51
    assert 25 < images.mean() < 45 and 70 < images.std() < 90
    assert 0.7 < (images == 0).mean() < 0.85


def test_other_sizes_are_refused():
    with pytest.raises(ValueError, match="digits size: expected 28"):
        digits(size=16)
    for seed, kind in (("a", TypeError), (1.5, TypeError), (-1, ValueError)):
        with pytest.raises(kind, match="digits expected .*seed"):
            digits(seed=seed)


def disc(height, width, top, left, radius, ink=255):
    y, x = numpy.mgrid[:height, :width]
    return (numpy.hypot(y - top, x - left) <= radius).astype("u1") * numpy.uint8(ink)


DISCS = [(300, 500, 100, 380, 60), (28, 28, 9, 9, 8), (9, 9, 4, 4, 3)]


@pytest.mark.parametrize("height, width, top, left, radius", DISCS)
def test_a_picture_of_any_size_is_fitted_and_centred(height, width, top, left, radius):
    picture = disc(height, width, top, left, radius)
    field = as_mnist(picture)
    assert field.shape == (28, 28) and field.dtype == numpy.uint8
    rows, columns = numpy.flatnonzero(field.any(1)), numpy.flatnonzero(field.any(0))
    assert numpy.ptp(rows) + 1 == numpy.ptp(columns) + 1 == 20
    assert abs(numpy.array(centre_of_mass(field)) - 14).max() <= 0.51
    assert (field[12:16, 12:16] == 255).all()
    assert (field / 255).sum() == pytest.approx((picture / 255).sum() * (20 / (2 * radius + 1)) ** 2, rel=0.03)


def test_large_pictures_are_anti_aliased():
    stripes = numpy.zeros((200, 200), "u1")
    stripes[::2] = 255
    inner = as_mnist(stripes)[8:20, 8:20]
    assert (abs(inner.astype(int) - 128) <= 3).all()


def test_proportions_are_kept():
    bar = numpy.zeros((90, 90), "u1")
    bar[5:85, 40:50] = 200
    field = as_mnist(bar)
    assert numpy.ptp(numpy.flatnonzero(field.any(1))) + 1 == 20
    assert numpy.ptp(numpy.flatnonzero(field.any(0))) + 1 <= 3
    assert (as_mnist(bar.T) == field.T).all()


def test_ink_that_hangs_to_one_side_stays_whole_in_the_field():
    image = numpy.zeros((100, 100), "u1")
    image[:, 98:] = 255
    image[50, :] = 30
    field = as_mnist(image)
    assert field.any(axis=0).sum() >= 18 and field.any(axis=1).sum() >= 19


def test_a_picture_without_ink_gives_an_empty_field():
    assert not as_mnist(numpy.zeros((5, 7), "u1")).any()
    assert as_mnist([[255]]).any()


NO_PICTURES = [numpy.zeros((2, 2, 3)), numpy.zeros((0, 3)), [["a"]], numpy.full((2, 2), numpy.nan), 3.0]


@pytest.mark.parametrize("image", NO_PICTURES)
def test_what_is_no_grey_picture_is_refused(image):
    with pytest.raises(ValueError, match="as_mnist expected a picture"):
        as_mnist(image)


def test_values_above_white_are_white():
    image = disc(40, 60, 20, 30, 15)
    assert (as_mnist(image.astype(int) * 3) == as_mnist(image)).all()


def test_floats_and_other_layouts_give_the_same_field():
    image = disc(40, 60, 20, 30, 15)
    expected = as_mnist(image)
    for same in (image.astype("f4"), image.astype("i8"), numpy.asfortranarray(image), image.tolist()):
        assert (as_mnist(same) == expected).all()


def test_the_package_data_are_where_the_wheel_takes_them_from():
    assert uci_digits.FILE.parent == pathlib.Path(uci_digits.__file__).parent and uci_digits.FILE.name.endswith(".npz")


@pytest.mark.skipif("MTORCH_DATA" not in os.environ, reason="needs MNIST: MTORCH_DATA names its folder")
def test_mnists_own_pictures_stay_as_they_are():
    """They were made this way: all but those whose ink is fainter than 2 % at the edge come out bit by bit."""
    images = mnist().test_images[:200]
    assert sum((as_mnist(image) == image).all() for image in images) >= 190
