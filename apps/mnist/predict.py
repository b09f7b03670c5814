"""Reading digits off pictures with a trained model, and testing one again."""

import argparse
from pathlib import Path
from typing import Any

import numpy

from apps.mnist.pictures import digits_in, open_picture
from apps.mnist.recipes import RECIPES, Recipe, make_loss
from apps.mnist.show import save_sheet
from apps.mnist.train import probabilities, settings_of
from mtorch import Module
from mtorch.arrays import module_for
from mtorch.data import ArrayDataset, DataLoader, load_digits_data
from mtorch.devices import describe_device
from mtorch.training import RunFolder, evaluate


def trained(args: argparse.Namespace) -> tuple[Module, dict[str, Any], Recipe]:
    """The model in `--out`, its settings, and its recipe."""
    folder = RunFolder(args.out)
    if not folder.model.exists():
        raise FileNotFoundError(f"no model in {folder.path}: train one with python -m apps.mnist --out {args.out}")
    settings = settings_of(folder)
    recipe = RECIPES[settings["model"]]
    module = Module(recipe.build(settings["side"] ** 2, rng=0, xp=module_for(args.device)))
    folder.load(module)
    return module, settings, recipe


def test(args: argparse.Namespace) -> None:
    """`python -m apps.mnist evaluate`."""
    module, settings, recipe = trained(args)
    data = load_digits_data(args.data, size=settings["side"])
    if data.test_images.shape[-1] != settings["side"]:
        raise ValueError(f"the model in {args.out} reads 8 x 8 scans, {data.name} has none: ask for --data digits")
    xp = module.xp
    dataset = ArrayDataset(xp.asarray(recipe.inputs(data.test_images)), xp.asarray(data.test_labels))
    print(f"device: {describe_device(xp, args.device)}")
    score = evaluate(module, make_loss(settings["loss"], module), DataLoader(dataset, batch_size=500))
    print(
        f"{settings['model']} on the {len(dataset):,} test images of {data.name}: "
        f"loss {score.loss:.4f}, accuracy {score.accuracy:.2%}"
    )


def predict(args: argparse.Namespace) -> None:
    """`python -m apps.mnist predict IMAGE...`."""
    module, settings, recipe = trained(args)
    if settings["side"] != 28:
        raise ValueError(f"the model in {args.out} reads 8 x 8 scans, not pictures: train it on MNIST")
    pictures = [open_picture(Path(name)) for name in args.images]  # all are read before any is answered
    found = [digits_in(picture, name, args.digits) for picture, name in zip(pictures, args.images, strict=True)]
    images = numpy.stack([digit.image for digits in found for digit in digits])
    rows = iter(probabilities(module, module.xp.asarray(recipe.inputs(images)), settings["loss"]))
    if args.device != "cpu":
        print(f"device: {describe_device(module.xp, args.device)}")
    answers = [[next(rows) for _ in digits] for digits in found]
    for name, answer in zip(args.images, answers, strict=True):
        print(f"{name}: {''.join(str(row.argmax()) for row in answer)}")
        for row in answer:
            print("   " + "  ".join(f"{digit}: {p:.1%}" for digit, p in enumerate(row)))
    if args.show:
        save_sheet(Path(args.show), pictures, found, [[int(row.argmax()) for row in answer] for answer in answers])
        print(f"see {args.show}")
