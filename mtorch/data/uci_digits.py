"""The built-in digits: 1,797 real scans of handwritten digits that are there without a network.

They are the test part of the UCI data set "Optical Recognition of Handwritten Digits" (E. Alpaydin & C. Kaynak, 1998,
https://doi.org/10.24432/C50P49, licence CC BY 4.0), as shipped in scikit-learn's `load_digits`: each pixel of a scan
counts the ink in a 4 x 4 block of a 32 x 32 bitmap, 0 … 16. `make_digits.py` made `digits.npz` from it, unchanged.
"""

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy

from mtorch.checks import check_size, shown
from mtorch.data.mnist_style import centred, fitted

FILE = Path(__file__).with_name("digits.npz")
TRAIN = 0.7


class DigitData(NamedTuple):
    """Images (N, H, W) uint8 and labels (N,) int64 to train on and to test with, and the data's name."""

    name: str
    train_images: numpy.ndarray
    train_labels: numpy.ndarray
    test_images: numpy.ndarray
    test_labels: numpy.ndarray


def digits(size: int = 28, seed: int = 0) -> DigitData:
    """The built-in digits, split 70/30 (1,257 to train on, 540 to test with) in an order that `seed` fixes.

    size: 28 for pictures made like MNIST's (0 … 255), 8 for the raw scans (0 … 16). The split is the same for both.
    """
    if not isinstance(size, int | numpy.integer) or size not in (8, 28):
        raise ValueError(f"digits size: expected 28 (like MNIST) or 8 (the raw scans), got {shown(size)}")
    scans, labels = _scans()
    images = scans if size == 8 else _enlarged()
    order = numpy.random.default_rng(check_size("digits", "seed", seed, least=0)).permutation(len(scans))
    train, test = numpy.split(order, [int(TRAIN * len(scans))])
    return DigitData("digits", images[train], labels[train], images[test], labels[test])


@lru_cache(maxsize=1)
def _scans() -> tuple[numpy.ndarray, numpy.ndarray]:
    with numpy.load(FILE, allow_pickle=False) as file:
        return file["images"], file["labels"].astype(numpy.int64)


@lru_cache(maxsize=1)
def _enlarged() -> numpy.ndarray:
    return numpy.stack([enlarged(scan) for scan in _scans()[0]])


def enlarged(scan: numpy.ndarray) -> numpy.ndarray:
    """A raw scan (8, 8), 0 … 16, as MNIST would hold it: (28, 28) uint8.

    Enlarging 2.5 times blurs. Doubling the contrast about half ink gives back edges that are one grey pixel wide, and
    with them MNIST's share of paper, grey and ink.
    """
    return centred(numpy.clip(2.0 * fitted(scan / 16.0) - 0.5, 0.0, 1.0))
