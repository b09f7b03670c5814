"""How well `apps.mnist predict` reads the pictures that people have: photographs of digits, with all that is wrong.

`python tools/pictures.py --out runs/mnist` makes 1,000 pictures of each kind at each of three strengths from test
digits (100 where they have a million pixels and more), lets the model in that folder read them, and prints the table of
docs/pictures.md. `--examples FILE` draws a picture of each kind instead. A picture follows from its kind, its strength
and its number alone.
"""

import argparse
import io
import sys
import zlib
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))

from apps.mnist.pictures import digits_in  # noqa: E402
from apps.mnist.predict import trained  # noqa: E402
from apps.mnist.train import probabilities  # noqa: E402
from mtorch.data import load_digits_data  # noqa: E402

MANY = 1000  # pixels a side: what is larger is drawn with so many and enlarged


@dataclass(frozen=True)
class Scene:
    """What lies before the camera, and the camera. Lengths are shares of the picture's side, colours 0 … 255."""

    width: int = 240  # pixels a side; a row of four digits is three times as wide
    digit: float = 0.5  # the side of the digit's box
    angle: float = 0.0  # the digit is turned by up to so many degrees, either way
    paper: tuple[int, int, int] = (205, 205, 205)
    ink: tuple[int, int, int] = (65, 65, 65)
    hue: float = 0.0  # above 0: the ink is as light as the paper, so far from it in colour
    light: float = 1.0  # what is left of the light in the darkest corner
    shadow: float = 1.0  # what is left of it in a shadow
    grain: float = 0.0  # standard deviation of the paper's texture
    lines: float = 0.0  # how dark ruled lines are beside the ink
    frame: float = 0.0  # how thick a frame is
    specks: int = 0
    blur: float = 0.0  # standard deviation, as a share of the digit's box
    noise: float = 0.0  # standard deviation of each pixel's error
    quality: int = 0  # of the JPEG file


CLEAN = "nothing wrong"
KINDS: dict[str, list[dict[str, Any]]] = {
    "noise of the sensor, deviation 5, 15, 40": [{"noise": v} for v in (5, 15, 40)],
    "specks of dust: 1, 8, 30": [{"specks": v} for v in (1, 8, 30)],
    "uneven light: down to 70, 45, 25 %": [{"light": v} for v in (0.7, 0.45, 0.25)],
    "a shadow that leaves 80, 60, 40 %": [{"shadow": v} for v in (0.8, 0.6, 0.4)],
    "grain of the paper, deviation 4, 10, 20": [{"grain": v} for v in (4, 10, 20)],
    "ruled lines, 30, 60, 100 % as dark as the ink": [{"lines": v} for v in (0.3, 0.6, 1.0)],
    "a frame, 1, 3, 8 % of the side thick": [{"frame": v} for v in (0.01, 0.03, 0.08)],
    "blur, deviation 2, 5, 8 % of the digit": [{"blur": v} for v in (0.02, 0.05, 0.08)],
    "turned by up to 5, 10, 20 degrees": [{"angle": v} for v in (5, 10, 20)],
    "faint ink: contrast 80, 40, 20": [{"ink": (205 - v,) * 3} for v in (80, 40, 20)],
    "ink as light as the paper, 80, 40, 25 away in colour": [{"paper": (170,) * 3, "hue": v} for v in (80, 40, 25)],
    "light on dark, contrast 140, 80, 40": [{"paper": (45,) * 3, "ink": (45 + v,) * 3} for v in (140, 80, 40)],
    "few pixels: 160, 100, 60 a side": [{"width": v} for v in (160, 100, 60)],
    "many pixels: 1,000, 2,000, 4,000 a side": [{"width": v} for v in (1000, 2000, 4000)],
    "small: a quarter, an eighth, a twelfth of the side": [{"digit": 1 / v} for v in (4, 8, 12)],
    "close: 70, 85, 100 % of the side": [{"digit": v} for v in (0.7, 0.85, 1.0)],
    "JPEG of quality 60, 30, 10": [{"quality": v} for v in (60, 30, 10)],
    "all at once": [
        {"noise": 3, "specks": 2, "light": 0.8, "shadow": 0.85, "grain": 3, "lines": 0.2, "frame": 0.01, "blur": 0.01,
         "angle": 3, "quality": 75},
        {"noise": 6, "specks": 4, "light": 0.7, "shadow": 0.7, "grain": 5, "lines": 0.35, "frame": 0.02, "blur": 0.02,
         "angle": 6, "quality": 60},
        {"noise": 12, "specks": 8, "light": 0.5, "shadow": 0.6, "grain": 9, "lines": 0.5, "frame": 0.03, "blur": 0.03,
         "angle": 9, "quality": 40},
    ],
}  # fmt: skip


def picture(images: Any, scene: Scene, rng: numpy.random.Generator) -> Image.Image:
    """The picture of one digit (28, 28), or of several in a row (N, 28, 28)."""
    images = numpy.asarray(images).reshape(-1, 28, 28)
    height = min(scene.width, MANY)
    width, side = height * max(1, round(0.7 * len(images))), float(height)
    y, x = numpy.mgrid[:height, :width].astype(numpy.float32) + 0.5
    paper, ink = (numpy.array(colour, numpy.float32) for colour in (scene.paper, scene.ink))
    if scene.hue:
        ink = paper + scene.hue * equally_light(rng)

    covered = handwriting(images, scene, (height, width), rng)
    if scene.lines:
        covered = numpy.maximum(covered, scene.lines * ruled(x, y, side, rng))
    if scene.frame:
        covered = numpy.maximum(covered, border(x, y, scene.frame * side, side, rng))
    for _ in range(scene.specks):
        radius = side * rng.uniform(0.004, 0.015)
        distance = numpy.hypot(x - rng.uniform(0, width), (y - rng.uniform(0, height)) * rng.uniform(0.6, 1))
        covered = numpy.maximum(covered, numpy.clip(radius - distance + 0.5, 0, 1))

    texture = scene.grain * grain((height, width), side, rng) if scene.grain else 0
    light = numpy.ones_like(x)
    if scene.light < 1:
        light *= gradient(x / width, y / height, scene.light, rng)
    if scene.shadow < 1:
        light *= cast_shadow(x, y, side, scene.shadow, rng)
    colours = (paper + numpy.expand_dims(texture, -1)) * (1 - covered[..., None]) + ink * covered[..., None]
    colours *= light[..., None]
    if scene.blur:
        colours = blurred(colours, scene.blur * scene.digit * side)
    if scene.noise:
        colours += rng.normal(0, scene.noise, colours.shape)
    result = Image.fromarray(numpy.rint(numpy.clip(colours, 0, 255)).astype(numpy.uint8))
    if scene.width > MANY:
        result = result.resize((width * scene.width // MANY, scene.width), Image.Resampling.BICUBIC)
    if scene.quality:
        file = io.BytesIO()
        result.save(file, "JPEG", quality=scene.quality)
        result = Image.open(file)
    return result


def handwriting(images: numpy.ndarray, scene: Scene, shape: tuple[int, int], rng: Any) -> numpy.ndarray:
    """How much of each pixel the digits cover; each at a place of its own in its part of the row."""
    height, width = shape
    covered, part = numpy.zeros(shape, numpy.float32), width / len(images)
    for number, image in enumerate(images):
        box = min(scene.digit * height, part * 0.9 if len(images) > 1 else height)
        turn = numpy.deg2rad(rng.uniform(-scene.angle, scene.angle))
        rows, columns = (numpy.flatnonzero(image.any(axis=axis)) for axis in (1, 0))
        middle = (rows[0] + rows[-1] + 1) / 2, (columns[0] + columns[-1] + 1) / 2
        edge = (scene.frame + 0.05) * height if scene.frame else 0
        free_y, free_x = (max(length - box - 2 * edge, 0) / 2 for length in (height, part))
        centre_y = height / 2 + rng.uniform(-0.8, 0.8) * free_y
        centre_x = part * (number + 0.5) + rng.uniform(-0.8, 0.8) * free_x * (len(images) == 1)
        step = 20 / box
        cos, sin = numpy.cos(turn) * step, numpy.sin(turn) * step
        matrix = (cos, sin, middle[1] - cos * centre_x - sin * centre_y,
                  -sin, cos, middle[0] + sin * centre_x - cos * centre_y)  # fmt: skip
        wide = Image.fromarray(numpy.pad(image, 4).astype(numpy.float32))
        matrix = (*matrix[:2], matrix[2] + 4, *matrix[3:5], matrix[5] + 4)
        drawn = wide.transform((width, height), Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)
        covered = numpy.maximum(covered, numpy.asarray(drawn).clip(0, 255) / 255)
    return covered


def equally_light(rng: Any) -> numpy.ndarray:
    """A direction in colours, of length 1, along which lightness stays what it is."""
    weights = numpy.array([0.299, 0.587, 0.114])
    colour = rng.normal(size=3)
    colour -= weights * (colour @ weights) / (weights @ weights)
    return colour / numpy.linalg.norm(colour)


def ruled(x: Any, y: Any, side: float, rng: Any) -> numpy.ndarray:
    """Lines over the whole width, a little aslant, closer than the digit is high."""
    gap, thick = side * rng.uniform(0.14, 0.25), side * rng.uniform(0.006, 0.012)
    along = y + x * numpy.tan(numpy.deg2rad(rng.uniform(-2, 2))) + rng.uniform(0, gap)
    return numpy.clip(thick / 2 - abs((along + gap / 2) % gap - gap / 2) + 0.5, 0, 1)


def border(x: Any, y: Any, thick: float, side: float, rng: Any) -> numpy.ndarray:
    """The outline of a box around the digit, at the edge or a little inside."""
    inset = side * rng.choice([0, rng.uniform(0, 0.04)])
    inside = numpy.minimum.reduce([x, y, x.max() + 0.5 - x, y.max() + 0.5 - y]) - inset
    return numpy.clip(inside + 0.5, 0, 1) * numpy.clip(thick - inside + 0.5, 0, 1)


def grain(shape: tuple[int, int], side: float, rng: Any) -> numpy.ndarray:
    """Texture of deviation 1: fibres and blotches, of four sizes."""
    total = numpy.zeros(shape, numpy.float32)
    for cell in (0.005, 0.01, 0.03, 0.1):
        size = [max(2, round(length / (cell * side))) for length in shape]
        coarse = Image.fromarray(rng.normal(size=size).astype(numpy.float32))
        total += numpy.asarray(coarse.resize(shape[::-1], Image.Resampling.BICUBIC))
    return total / total.std()


def gradient(u: Any, v: Any, least: float, rng: Any) -> numpy.ndarray:
    """A lamp somewhere beside the picture: 1 where it is brightest, `least` where it is darkest."""
    a, b = rng.uniform(-0.3, 1.3, size=2)
    distance = numpy.hypot(u - a, v - b)
    distance = (distance - distance.min()) / (distance.max() - distance.min())
    return 1 - (1 - least) * distance ** rng.uniform(1, 2)


def cast_shadow(x: Any, y: Any, side: float, left: float, rng: Any) -> numpy.ndarray:
    """A shadow with a straight edge somewhere near the middle, soft over 2 to 10 % of the side."""
    turn, soft = rng.uniform(0, 2 * numpy.pi), side * rng.uniform(0.02, 0.1)
    across = (x - x.mean()) * numpy.cos(turn) + (y - y.mean()) * numpy.sin(turn) + side * rng.uniform(-0.3, 0.3)
    return 1 - (1 - left) * numpy.clip(across / soft + 0.5, 0, 1)


def blurred(colours: numpy.ndarray, deviation: float) -> numpy.ndarray:
    reach = numpy.arange(-int(3 * deviation) - 1, int(3 * deviation) + 2)
    weights = numpy.exp(-0.5 * (reach / deviation) ** 2)
    weights = (weights / weights.sum()).astype(numpy.float32)
    for axis in (0, 1):
        padded = numpy.pad(colours, [(len(reach) // 2,) * 2 if i == axis else (0, 0) for i in range(3)], mode="edge")
        windows = numpy.lib.stride_tricks.sliding_window_view(padded, len(reach), axis=axis)
        colours = windows @ weights
    return colours


def scenes(kind: str) -> list[Scene]:
    return [replace(Scene(), **change) for change in KINDS[kind]]


def made(data: Any, kind: str, strength: int, number: int) -> Image.Image:
    """Picture `number` of a kind at a strength from 0 to 2, of the test digit of that number."""
    rng = numpy.random.default_rng([zlib.crc32(kind.encode()), strength, number])
    return picture(data.test_images[number], scenes(kind)[strength] if kind in KINDS else Scene(), rng)


def row_of_four(data: Any, number: int) -> tuple[Image.Image, str]:
    """Four test digits on one picture, in uneven light and with some noise, and what they are."""
    rng = numpy.random.default_rng([4, number])
    chosen = rng.integers(0, len(data.test_labels), 4)
    image = picture(data.test_images[chosen], Scene(noise=5, light=0.7), rng)
    return image, "".join(map(str, data.test_labels[chosen]))


def read(model: Any, image: Image.Image, several: bool = False) -> str:
    """What a trained model reads on a picture; nothing where it finds no digit."""
    module, settings, recipe = model
    try:
        seen = numpy.stack([digit.image for digit in digits_in(image, several=several)])
    except ValueError:
        return ""
    rows = probabilities(module, module.xp.asarray(recipe.inputs(seen)), settings["loss"])
    return "".join(map(str, rows.argmax(axis=-1)))


def accuracy(model: Any, data: Any, kind: str, strength: int, count: int) -> float:
    answers = [read(model, made(data, kind, strength, number)) for number in range(count)]
    return float(numpy.mean([a == str(label) for a, label in zip(answers, data.test_labels, strict=False)]))


def rows_right(model: Any, data: Any, count: int) -> float:
    rows = (row_of_four(data, number) for number in range(count))
    return float(numpy.mean([read(model, image, several=True) == text for image, text in rows]))


def table(model: Any, data: Any, count: int, only: str = "") -> None:
    print(f"| kind of picture | light | middle | strong |\n|---|---|---|---|\n| {CLEAN} | ", end="")
    print(f"{accuracy(model, data, CLEAN, 0, count):.1%} | | |", flush=True)
    for kind in (kind for kind in KINDS if only in kind):
        shares = []
        for strength, scene in enumerate(scenes(kind)):
            many = count if scene.width < MANY else max(1, count // 10)
            shares.append(f"{accuracy(model, data, kind, strength, many):.1%}")
        print(f"| {kind} | {' | '.join(shares)} |", flush=True)
    print(f"| four digits in a row, all of them right | {rows_right(model, data, count):.1%} | | |")


def examples(path: Path, data: Any, side: int = 88) -> None:
    """A picture of each kind, one below the other for the three strengths."""
    sheet = Image.new("RGB", (len(KINDS) * (side + 4) - 4, 3 * (side + 4) - 4), "white")
    for column, kind in enumerate(KINDS):
        for strength in range(3):
            small = made(data, kind, strength, column).convert("RGB").resize((side, side))
            sheet.paste(small, (column * (side + 4), strength * (side + 4)))
    sheet.quantize(128).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/mnist", help="the folder of the trained model (%(default)s)")
    parser.add_argument("--data", default="auto", help="where test digits come from (%(default)s)")
    parser.add_argument("--count", type=int, default=1000, help="pictures of each kind (%(default)s)")
    parser.add_argument("--only", default="", metavar="TEXT", help="the kinds whose name contains this")
    parser.add_argument("--examples", type=Path, metavar="FILE", help="draw one picture of each kind instead")
    args = parser.parse_args()
    data = load_digits_data(args.data, size=28)
    if args.examples:
        examples(args.examples, data)
    else:
        model = trained(argparse.Namespace(out=args.out, device="cpu"))
        table(model, data, min(args.count, len(data.test_labels)), args.only)


if __name__ == "__main__":
    main()
