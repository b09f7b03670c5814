"""A picture from anywhere, as MNIST would hold the digit in it."""

import warnings
from pathlib import Path
from typing import Any

import numpy

from mtorch.data import as_mnist

LEAST_CONTRAST = 16 / 255


def read_picture(path: Path) -> numpy.ndarray:
    """A picture of one digit, dark on light or light on dark, as MNIST would hold it: (28, 28) uint8."""
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise RuntimeError("reading pictures needs Pillow: pip install '.[plot]'") from None
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a folder, not a picture")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            warnings.simplefilter("ignore", UserWarning)  # odd transparency or EXIF
            with Image.open(path) as picture:
                picture.load()
                picture = ImageOps.exif_transpose(picture)
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that can be read (PNG and the like)") from None
    except (FileNotFoundError, PermissionError):
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ValueError(f"{path} is damaged or too large: {error}") from None
    for paper in ("white", "black"):  # what shows through where the picture is transparent
        ink = _ink(_grey(picture, paper))
        if ink is not None:
            return as_mnist(255 * ink)
    raise ValueError(f"{path} shows no digit: the picture is blank")


def _grey(picture: Any, paper: str) -> numpy.ndarray:
    """Lightness from 0 to 1."""
    from PIL import Image

    if picture.mode.startswith("I") or picture.mode == "F":  # 16 bits and more, which conversion would cut off
        grey = numpy.asarray(picture).astype(float)
        return numpy.nan_to_num(grey) / max(65535.0 if picture.mode != "F" else 1.0, abs(grey).max())
    if picture.mode not in ("L", "LA", "PA", "P", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    picture = picture.convert("RGBA")
    ground = Image.new("RGBA", picture.size, paper)
    return numpy.asarray(Image.alpha_composite(ground, picture).convert("L")) / 255.0


def _ink(grey: numpy.ndarray) -> numpy.ndarray | None:
    """How much each pixel differs from the paper, 0 to 1; what the paper itself varies by counts as nothing."""
    edge = numpy.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    ink = abs(grey - numpy.median(edge))
    most = ink.max()
    if most < LEAST_CONTRAST:
        return None
    grain = numpy.quantile(abs(edge - numpy.median(edge)), 0.75)
    least = min(max(0.1, 2 * grain / most), 0.5)
    return numpy.clip((ink / most - least) / (1 - least), 0, 1)
