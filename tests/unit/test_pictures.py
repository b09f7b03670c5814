"""Photographs of digits, with all that is wrong with them, are seen as the digits they show."""

import argparse
import os
import time

import numpy
import pytest

pytest.importorskip("PIL")

import pictures  # noqa: E402

from apps.mnist.__main__ import main  # noqa: E402
from apps.mnist.parts import parts_of  # noqa: E402
from apps.mnist.pictures import digits_in, open_picture  # noqa: E402
from apps.mnist.predict import trained  # noqa: E402
from mtorch.data import digits, load_digits_data  # noqa: E402

DATA = digits()
ONE_OF_EACH = [int(numpy.flatnonzero(DATA.test_labels == digit)[1]) for digit in range(10)]
FEW = [ONE_OF_EACH[digit] for digit in (0, 4, 5, 7)]  # a ring, an angle, a stroke that may come off, a bar


def likeness(a, b):
    """The correlation of two images, at the best of the places a pixel around."""
    shifted = [numpy.roll(b, (down, across), (0, 1)) for down in (-1, 0, 1) for across in (-1, 0, 1)]
    return max(numpy.corrcoef(a.ravel(), each.ravel())[0, 1] for each in shifted)


def alike(seen):
    """Which digit of ONE_OF_EACH an image is most like."""
    return max(range(10), key=lambda digit: likeness(seen, DATA.test_images[ONE_OF_EACH[digit]].astype(float)))


@pytest.mark.parametrize("kind", [pictures.CLEAN, *pictures.KINDS])
def test_a_digit_is_seen_through_what_is_wrong_with_the_picture(kind):
    for number in FEW[: 1 if "many" in kind else None]:
        seen = digits_in(pictures.made(DATA, kind, 1 if kind in pictures.KINDS else 0, number))
        assert len(seen) == 1 and alike(seen[0].image) == DATA.test_labels[number], number


@pytest.mark.parametrize("number", FEW)
def test_a_clean_picture_is_seen_as_mnist_would_hold_it(number):
    seen = digits_in(pictures.made(DATA, pictures.CLEAN, 0, number))[0]
    assert seen.image.shape == (28, 28) and seen.image.dtype == numpy.uint8
    assert likeness(seen.image, DATA.test_images[number]) > 0.93


def test_the_box_is_where_the_digit_is():
    from PIL import Image

    page = Image.new("L", (900, 700), 220)
    page.paste(Image.fromarray(220 - DATA.test_images[FEW[0]] // 2).resize((84, 84)), (600, 500))
    left, top, right, bottom = digits_in(page)[0].box
    assert 600 <= left < right <= 684 and 500 <= top < bottom <= 584 and max(right - left, bottom - top) > 50


@pytest.mark.parametrize("damage", [{"noise": 15}, {"grain": 10}, {"light": 0.45}, {"shadow": 0.6}, {"quality": 30}])
def test_a_page_without_ink_is_blank(damage):
    scene = pictures.Scene(ink=(205,) * 3, **damage)
    page = pictures.picture(DATA.test_images[0], scene, numpy.random.default_rng(0))
    with pytest.raises(ValueError, match="shows no digit: the picture is blank"):
        digits_in(page)


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (1, 400), (400, 1), (20_000, 1), (30, 5)])
def test_a_picture_of_any_size_is_looked_at(size):
    from PIL import Image

    with pytest.raises(ValueError, match="the picture is blank"):
        digits_in(Image.new("L", size, 90))


def test_a_stroke_that_came_off_still_belongs_to_its_digit():
    from PIL import Image, ImageDraw

    five = Image.new("L", (200, 200), 230)
    pen = ImageDraw.Draw(five)
    pen.line([(118, 52), (150, 50)], fill=40, width=9)  # the flag, 8 pixels from the rest
    pen.line([(95, 52), (90, 95), (125, 100), (135, 125), (115, 150), (85, 148)], fill=40, width=9)
    pen.ellipse((30, 160, 36, 166), fill=40)  # dust
    assert digits_in(five)[0].box == pytest.approx((84, 46, 151, 154), abs=6)


def test_parts_are_what_touches():
    rng = numpy.random.default_rng(0)
    mask = rng.random((40, 50)) < 0.4
    found = parts_of(mask, numpy.ones(mask.shape))
    labels, count = numpy.full(mask.shape, -1), 0
    for start in zip(*numpy.nonzero(mask), strict=True):
        if labels[start] < 0:
            stack = [start]
            while stack:
                y, x = stack.pop()
                if 0 <= y < 40 and 0 <= x < 50 and mask[y, x] and labels[y, x] < 0:
                    labels[y, x] = count
                    stack += [(y + i, x + j) for i in (-1, 0, 1) for j in (-1, 0, 1)]
            count += 1
    assert len(found.mass) == count and ((found.labels == -1) == ~mask).all()
    assert len({(a, b) for a, b in zip(labels[mask], found.labels[mask], strict=True)}) == count
    for part in range(count):
        rows, columns = numpy.nonzero(found.labels == part)
        assert found.mass[part] == len(rows) and (found.top[part], found.bottom[part]) == (rows.min(), rows.max() + 1)
        assert (found.left[part], found.right[part]) == (columns.min(), columns.max() + 1)
    assert len(parts_of(numpy.zeros((3, 3), bool), numpy.ones((3, 3))).mass) == 0


def test_a_large_photograph_takes_little_time(tmp_path):
    page = pictures.made(DATA, "many pixels: 1,000, 2,000, 4,000 a side", 2, FEW[1])
    page.resize((4000, 3000)).save(tmp_path / "large.jpg")
    start = time.process_time()
    seen = digits_in(open_picture(tmp_path / "large.jpg"))
    assert time.process_time() - start < 2 and len(seen) == 1


# ---------------------------------------------------------------------- how many are read


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """LeNet as the app trains it on MNIST, or on the built-in digits where there is no MNIST; with the data."""
    name = "mnist" if "MTORCH_DATA" in os.environ else "digits"
    out = tmp_path_factory.mktemp("lenet")
    assert main(["--model", "lenet", "--data", name, "--out", str(out)]) == 0
    return trained(argparse.Namespace(out=str(out), device="cpu")), load_digits_data(name, size=28)


@pytest.mark.slow
def test_every_kind_of_picture_is_read_nearly_as_well_as_a_clean_one(model):
    count = 40
    clean = pictures.accuracy(*model, pictures.CLEAN, 0, count)
    found = {kind: pictures.accuracy(*model, kind, 1, 10 if "many" in kind else count) for kind in pictures.KINDS}
    assert clean >= 0.96
    assert not {kind: share for kind, share in found.items() if share < clean - 0.03}


@pytest.mark.slow
def test_nine_of_ten_rows_of_four_digits_are_read_whole(model):
    assert pictures.rows_right(*model, 60) >= 0.9
