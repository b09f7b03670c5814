"""Reading digits off pictures with a trained model, and testing one again."""

import argparse
from pathlib import Path
from typing import Any

import numpy

from apps.mnist.recipes import RECIPES, make_loss
from apps.mnist.train import probabilities
from mtorch import Module
from mtorch.arrays import module_for
from mtorch.data import ArrayDataset, DataLoader, as_mnist, load_digits_data
from mtorch.training import RunFolder, evaluate


def trained(args: argparse.Namespace) -> tuple[Module, dict[str, Any], Any]:
    """The model in `--out`, its settings, and its recipe."""
    folder = RunFolder(args.out)
    if not folder.model.exists():
        raise FileNotFoundError(f"no model in {folder.path}: train one first with python -m apps.mnist --out {args.out}")
    settings = peek(folder)
    recipe = RECIPES[settings["model"]]
    side = 8 if recipe.scans and settings["dataset"] == "digits" else 28
    module = Module(recipe.build(side * side, rng=0, xp=module_for(args.device)))
    folder.load(module)
    return module, settings, recipe


def peek(folder: RunFolder) -> dict[str, Any]:
    """The settings a checkpoint was made with, before there is a model to load it into."""
    from mtorch.checkpoint import read_notes

    more = read_notes(folder.model)
    if not isinstance(more.get("settings"), dict) or more["settings"].get("model") not in RECIPES:
        raise ValueError(f"{folder.model} is not a checkpoint of this app")
    return more["settings"]


def test(args: argparse.Namespace) -> int:
    """`python -m apps.mnist evaluate`."""
    module, settings, recipe = trained(args)
    data = load_digits_data(args.data, size=8 if recipe.scans else 28)
    xp = module.xp
    dataset = ArrayDataset(xp.asarray(recipe.inputs(data.test_images)), xp.asarray(data.test_labels))
    score = evaluate(module, make_loss(settings["loss"], module), DataLoader(dataset, batch_size=500))
    print(
        f"{settings['model']} (trained on {settings['dataset']}) on {len(dataset):,} test digits of {data.name}: "
        f"loss {score.loss:.4f}, accuracy {score.accuracy:.2%}"
    )
    return 0


def predict(args: argparse.Namespace) -> int:
    """`python -m apps.mnist predict IMAGE...`."""
    module, settings, recipe = trained(args)
    if recipe.scans and settings["dataset"] == "digits":
        raise ValueError(f"a {settings['model']} model trained on 8 x 8 scans cannot read pictures: train it on MNIST")
    images = [read_picture(Path(name)) for name in args.images]  # all are read before any is answered
    rows = probabilities(module, module.xp.asarray(recipe.inputs(numpy.stack(images))))
    for name, row in zip(args.images, rows, strict=True):
        print(f"{name}: {row.argmax()}")
        print("   " + "  ".join(f"{digit}: {p:5.1%}" for digit, p in enumerate(row)))
    return 0


def read_picture(path: Path) -> numpy.ndarray:
    """A picture of one digit, dark on light or light on dark, as MNIST would hold it: (28, 28) uint8."""
    try:
        from PIL import Image, UnidentifiedImageError
    except ImportError:
        raise RuntimeError("reading pictures needs Pillow: pip install 'mtorch[plot]'") from None
    try:
        with Image.open(path) as picture:
            rgba = picture.convert("RGBA")
    except UnidentifiedImageError:
        raise ValueError(f"{path} is not a picture that can be read (PNG and the like)") from None
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path} is damaged or too large: {error}") from None
    grey = numpy.asarray(Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("L"), dtype=float)
    edge = numpy.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    paper = numpy.median(edge)
    ink = abs(grey - paper)
    if ink.max() < 16:
        raise ValueError(f"{path} shows no digit: the picture is blank")
    return as_mnist(255 * numpy.clip((ink / ink.max() - 0.1) / 0.9, 0, 1))
