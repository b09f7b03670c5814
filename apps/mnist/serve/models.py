"""Where the nets on the page come from: a file of weights, a run's folder, or a few seconds of training."""

import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy

from apps.mnist.recipes import OPTIMIZERS, RECIPES, are_settings, make_loss, make_optimizer
from apps.mnist.serve.model import Digits, Model
from mtorch import Module
from mtorch.checkpoint import load, read_notes, save
from mtorch.data import ArrayDataset, DataLoader, DigitData, digits, load_digits_data
from mtorch.training import evaluate, train_epoch

OFFERED = ("mlp", "lenet", "gru")
EPOCHS = {"mlp": (8, 12), "lenet": (2, 5), "gru": (2, 5)}  # on MNIST, and on the built-in digits
STORED = 1000  # training digits that are kept with the weights, for lessons to repeat
VERSION = 1  # of the training: weights that another one left are made anew


class Models:
    """The models of the page by name, and what still keeps it from being ready.

    out: the folder of a run; the page starts with its model, and the weights that are trained here stay in its folder
    `draw`.  weights: a file to use instead of the run's.
    """

    def __init__(self, out: Path, weights: Path | None = None, data: str = "auto"):
        self.folder, self.data = out / "draw", data
        self.loaded: dict[str, Model] = {}
        self.stored: Digits | None = None
        self.first, self.doing, self.progress, self.problem = OFFERED[0], "starting", 0.0, ""
        given = weights or out / "model.npz"
        if weights is not None or given.exists():
            model = model_from(given)
            self.first = model.name
            self.loaded[model.name] = model
        self.names = tuple(dict.fromkeys((*OFFERED, self.first)))
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._open, daemon=True)

    @property
    def ready(self) -> bool:
        return all(name in self.loaded for name in self.names)

    def get(self, name: Any) -> Model:
        """ValueError for a name that the page does not offer, LookupError for a net that is still being trained."""
        if not isinstance(name, str) or name not in self.names:
            raise ValueError(f"expected model to be one of {', '.join(self.names)}")
        if name not in self.loaded:
            raise LookupError(f"{name} is still being trained")
        return self.loaded[name]

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.stopped.set()
        if self.thread.is_alive():
            self.thread.join(5)

    # ------------------------------------------------------------------ weights kept, and trained

    def _open(self) -> None:
        try:
            missing = [name for name in self.names if name not in self.loaded and not self._take_kept(name)]
            if missing:
                self._train(missing)
            self.doing, self.progress = "", 1.0
        except Stopped:
            return
        except Exception as error:  # whatever it is, the page says so
            self.problem = " ".join(f"{type(error).__name__}: {error}".split())
            say(f"error: {self.problem}")

    def path(self, name: str) -> Path:
        return self.folder / f"{name}.npz"

    def _take_kept(self, name: str) -> bool:
        path = self.path(name)
        try:
            if not path.exists():
                return False
            notes = read_notes(path)
            images, labels = notes.get("images"), notes.get("labels")
            if notes.get("training") != VERSION or not are_digits(images, labels):
                return False
            model = model_from(path)
            if model.name != name:
                return False
            self.loaded[name], self.stored = model, (images, labels)
        except (OSError, ValueError) as error:
            say(f"{path} cannot be used, it is made anew: {error}")
            return False
        return True

    def _train(self, names: list[str]) -> None:
        self.doing = "fetching digits"
        data = load_digits_data(self.data)
        few = len(data.train_labels) < 10_000
        picked = numpy.random.default_rng(0).permutation(len(data.train_labels))[:STORED]
        self.stored = data.train_images[picked], data.train_labels[picked]
        self.doing = "varying digits"
        images, labels = with_variety(data, 15 if few else 5)
        for number, name in enumerate(names):
            self.doing = f"training {name} on {len(labels):,} digits"
            module, settings = self._trained(name, images, labels, EPOCHS[name][few], (number, len(names)))
            recipe = RECIPES[name]
            tests = DataLoader(ArrayDataset(recipe.inputs(data.test_images), data.test_labels), batch_size=500)
            score = evaluate(module, make_loss(settings["loss"], module), tests)
            about = {"trained_on": data.name, "accuracy": round(score.accuracy, 4)}
            stored = dict(zip(("images", "labels"), self.stored, strict=True))
            self._keep(name, module, settings=settings, training=VERSION, **about, **stored)
            self.loaded[name] = Model(module, settings, **about)

    def _trained(
        self, name: str, images: numpy.ndarray, labels: numpy.ndarray, epochs: int, place: tuple[int, int]
    ) -> tuple[Module, dict[str, Any]]:
        recipe, rng = RECIPES[name], numpy.random.default_rng(0)
        module = Module(recipe.build(28 * 28, rng=rng))
        dataset = ArrayDataset(recipe.inputs(images), labels)
        batches = DataLoader(dataset, batch_size=recipe.batch_size, shuffle=True, rng=rng)
        rate = recipe.lr or OPTIMIZERS[recipe.optimizer][1]
        gamma = 0.1 ** (1 / max(epochs - 1, 1))
        optimizer, loss_func = (
            make_optimizer(recipe.optimizer, module, rate, gamma, len(batches)),
            make_loss(recipe.loss, module),
        )
        total = epochs * len(batches)

        def counted(epoch: int) -> Iterator[Any]:
            for number, batch in enumerate(batches):
                if self.stopped.is_set():
                    raise Stopped
                self.progress = (place[0] + (epoch * len(batches) + number) / total) / place[1]
                yield batch

        for epoch in range(epochs):
            train_epoch(module, loss_func, optimizer, counted(epoch))
        return module, {"model": name, "loss": recipe.loss, "side": 28}

    def digits_for(self, model: Model) -> Digits:
        """The digits that a lesson repeats: the built-in ones, and some of those that nets here were trained on."""
        own = digits(model.side)
        if self.stored is None or model.side != 28:
            return own.train_images, own.train_labels
        return (
            numpy.concatenate([self.stored[0], own.train_images]),
            numpy.concatenate([self.stored[1], own.train_labels]),
        )

    def _keep(self, name: str, module: Module, **notes: Any) -> None:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            save(self.path(name), module, **notes)
        except OSError as error:
            say(f"the weights of {name} cannot be kept: {error}")


class Stopped(Exception):
    """The server ends while nets are trained."""


def say(line: str) -> None:
    print(" ".join(line.split()), file=sys.stderr, flush=True)


def model_from(path: str | os.PathLike) -> Model:
    """A file of weights that the recogniser wrote. ValueError that names the file if it is none."""
    path = Path(path)
    notes = read_notes(path)
    settings: Any = notes.get("settings")
    if not are_settings(settings):
        raise ValueError(f"{path} is not a checkpoint of the digit recogniser")
    module = Module(RECIPES[settings["model"]].build(settings["side"] ** 2, rng=0))
    load(path, module)
    if not all(numpy.isfinite(value).all() for value in module.state_dict().values()):
        raise ValueError(f"{path} holds numbers that are not finite")
    trained_on, accuracy = notes.get("trained_on"), notes.get("accuracy")
    about: dict[str, Any] = {}
    if isinstance(trained_on, str) and isinstance(accuracy, float) and 0 <= accuracy <= 1:
        about = {"trained_on": trained_on[:100], "accuracy": accuracy}
    return Model(module, {name: settings[name] for name in ("model", "loss", "side")}, **about)


def are_digits(images: Any, labels: Any) -> bool:
    """Whether these are images (N, 28, 28) and labels (N,) as they are kept."""
    return (
        isinstance(images, numpy.ndarray) and isinstance(labels, numpy.ndarray)
        and images.dtype == numpy.uint8 and images.shape[1:] == (28, 28)
        and labels.dtype == numpy.int64 and labels.shape == images.shape[:1]
        and labels.size > 0 and labels.min() >= 0 and labels.max() <= 9
    )  # fmt: skip


# ---------------------------------------------------------------------- variety


def with_variety(data: DigitData, copies: int) -> tuple[numpy.ndarray, numpy.ndarray]:
    """The training digits, and that many varied copies of the built-in ones, which know other ways to write a digit."""
    more, rng = digits(), numpy.random.default_rng(0)
    images = [data.train_images, *(varied(more.train_images, rng) for _ in range(copies))]
    return numpy.concatenate(images), numpy.concatenate([data.train_labels, numpy.tile(more.train_labels, copies)])


def varied(images: numpy.ndarray, rng: numpy.random.Generator) -> numpy.ndarray:
    """(N, 28, 28) uint8: each turned, slanted, stretched and moved a little, its ink thinner or fuller."""
    n, side = images.shape[:2]
    turn, slant, size = rng.normal(0, 0.12, n), rng.normal(0, 0.15, n), rng.uniform(0.85, 1.1, (n, 2, 1))
    cosine, sine = numpy.cos(turn), numpy.sin(turn)
    down = numpy.stack([cosine, -sine], axis=-1)
    across = numpy.stack([sine, cosine], axis=-1) + slant[:, None] * down
    matrix, shift = numpy.stack([down, across], axis=1) / size, rng.uniform(-1.5, 1.5, (n, 1, 2))
    grid = numpy.stack(numpy.mgrid[:side, :side], axis=-1).reshape(-1, 2) - side / 2
    place = (grid @ matrix.transpose(0, 2, 1) + side / 2 + shift).clip(0, side - 1.001)
    corner = place.astype(int)
    y, x = numpy.moveaxis(place - corner, -1, 0)
    flat, first = images.reshape(n, -1).astype(numpy.float32), corner[..., 0] * side + corner[..., 1]

    def ink(step: int) -> numpy.ndarray:
        return numpy.take_along_axis(flat, first + step, axis=1)

    mixed = (ink(0) * (1 - x) + ink(1) * x) * (1 - y) + (ink(side) * (1 - x) + ink(side + 1) * x) * y
    fuller = numpy.exp(rng.uniform(-0.5, 0.9, (n, 1)))
    return numpy.rint(255 * (mixed / 255) ** fuller).astype(numpy.uint8).reshape(images.shape)
