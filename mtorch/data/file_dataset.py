"""Digit images and labels from a pair of IDX files, standardised as the original mtorch does."""

import math
from typing import Any

import numpy

from mtorch.arrays import as_data
from mtorch.data.dataset import ArrayDataset, Dataset, describe_samples
from mtorch.data.idx import Path, read_idx, read_idx_header

BLOCK = 512  # images that are standardised together, so that they stay in cache


class FileDataset(Dataset):
    """(image, label) pairs from two IDX files: float32 of shape (H·W,), each image with mean 0 and deviation 1; int64.

    Both headers are checked against their files, and against each other, before anything is read.
    """

    def __init__(self, img_path: Path, label_path: Path):
        images, labels = _checked("img_path", img_path, 3), _checked("label_path", label_path, 1)
        if images[0] != labels[0]:
            raise ValueError(
                f"FileDataset expected as many labels as images, got {images[0]} images in {img_path} "
                f"and {labels[0]} labels in {label_path}"
            )
        self.images = standardise(read_idx(img_path))
        self.labels = read_idx(label_path).astype(numpy.int64)
        self._pairs = ArrayDataset(self.images, self.labels)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: Any) -> Any:
        return self._pairs[index]

    def __repr__(self) -> str:
        return f"FileDataset({len(self)} samples of {describe_samples(self._pairs.arrays)})"


def standardise(images: Any) -> numpy.ndarray:
    """(N, ...) -> (N, D) float32: every image minus its own mean, over its own standard deviation.

    An image without any contrast has no deviation to divide by and becomes zeros.
    """
    images = as_data(images, "standardise")
    if images.ndim < 2 or images.dtype.kind not in "fiub":
        raise ValueError(f"standardise expected images (N, ...) of numbers, got {images.dtype} of shape {images.shape}")
    rows = images.reshape(len(images), math.prod(images.shape[1:]))
    out = numpy.empty(rows.shape, numpy.float32)
    for start in range(0, len(rows) if rows.size else 0, BLOCK):
        x = out[start : start + BLOCK]
        x[...] = rows[start : start + BLOCK]
        mean = x.mean(axis=1, keepdims=True)
        x -= mean
        std = numpy.sqrt(numpy.square(x).mean(axis=1, keepdims=True))
        std[std <= 1e-6 * abs(mean)] = numpy.inf
        x /= std
    return out


def _checked(argument: str, path: Path, ndim: int) -> tuple[int, ...]:
    try:
        dtype, shape = read_idx_header(path)
    except TypeError as error:
        raise TypeError(f"FileDataset {argument}: {error}") from error
    if dtype != numpy.uint8 or len(shape) != ndim:
        raise ValueError(
            f"{path}: FileDataset expected {argument} to hold unsigned bytes with {ndim} dimensions "
            f"(magic 00 00 08 {ndim:02x}), got {dtype} of shape {shape}"
        )
    return shape
