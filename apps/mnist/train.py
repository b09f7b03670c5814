"""Training the recogniser: epochs, a checkpoint after each, and the figures at the end."""

import argparse
import math
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy

from apps.mnist.recipes import LOSSES, OPTIMIZERS, RECIPES, Recipe, make_loss, make_optimizer
from mtorch import DataParallel, Module
from mtorch.arrays import as_numpy, module_for
from mtorch.data import ArrayDataset, DataLoader, DigitData, load_digits_data
from mtorch.devices import describe_device
from mtorch.insight.summary import count_parameters
from mtorch.training import RunFolder, Score, evaluate, progress, train_epoch, written

COLUMNS = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
OPTIONS = (
    "data", "model", "epochs", "batch_size", "lr", "gamma", "optimizer", "loss", "seed", "workers", "device", "out",
)  # fmt: skip


@dataclass
class Run:
    """Everything one training run needs, made from the command line.

    settings: what a checkpoint must have been made with to be gone on from. Neither paths, workers nor the device
    count.
    """

    settings: dict[str, Any]
    recipe: Recipe
    data: DigitData
    module: Module
    loss_func: Any
    optimizer: Any
    train_batches: DataLoader
    test_batches: DataLoader
    epochs: int

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Run":
        recipe, xp = RECIPES[args.model], module_for(args.device)
        data = load_digits_data(args.data, size=8 if recipe.scans else 28)
        settings = chosen(args, recipe, data)
        rng = numpy.random.default_rng(args.seed)
        net = recipe.build(settings["side"] ** 2, rng=rng, xp=xp)
        module = Module(net if args.workers == 1 else DataParallel(net, args.workers))

        def batches(images: numpy.ndarray, labels: numpy.ndarray, size: int, shuffle: bool) -> DataLoader:
            dataset = ArrayDataset(xp.asarray(recipe.inputs(images)), xp.asarray(labels))
            return DataLoader(dataset, batch_size=size, shuffle=shuffle, rng=rng)

        train_batches = batches(data.train_images, data.train_labels, settings["batch_size"], shuffle=True)
        test_batches = batches(data.test_images, data.test_labels, 500, shuffle=False)
        rates = settings["lr"], settings["gamma"], len(train_batches)
        optimizer = make_optimizer(settings["optimizer"], module, *rates)
        epochs = recipe.default_epochs(data) if args.epochs is None else args.epochs
        loss_func = make_loss(settings["loss"], module)
        return cls(settings, recipe, data, module, loss_func, optimizer, train_batches, test_batches, epochs)

    def resume(self, folder: RunFolder) -> list[dict[str, Any]]:
        """Goes back to the state of the folder's checkpoint; returns the history so far."""
        more = folder.resume(self.module, self.optimizer, self.settings, loader=dict, history=COLUMNS)
        self.train_batches.load_state_dict(more["loader"])
        return more["history"]

    def save(self, folder: RunFolder, history: list[dict[str, Any]]) -> None:
        loader = self.train_batches.state_dict()
        folder.save(self.module, self.optimizer, settings=self.settings, loader=loader, history=history)
        folder.write_history(history)

    def epoch(self, number: int) -> dict[str, Any]:
        """Trains one epoch; its row of the history."""
        with progress(self.train_batches, f"epoch {number}/{self.epochs}") as batches:
            train = train_epoch(self.module, self.loss_func, self.optimizer, batches)
        test = self.test()
        if not math.isfinite(train.loss + test.loss):
            raise ValueError(f"the loss is not finite in epoch {number}: try a smaller --lr than {self.settings['lr']}")
        return row(number, train, test)

    def test(self) -> Score:
        return evaluate(self.module, self.loss_func, self.test_batches)

    def test_probabilities(self) -> numpy.ndarray:
        """What the model thinks of each test digit, (N, K)."""
        loss = self.settings["loss"]
        return numpy.concatenate([probabilities(self.module, x, loss) for x, _ in self.test_batches])


def chosen(args: argparse.Namespace, recipe: Recipe, data: DigitData) -> dict[str, Any]:
    """The settings that shape a run, the recipe's where none are given. A default rate belongs to its optimizer."""
    optimizer = args.optimizer or recipe.optimizer
    lr = OPTIMIZERS[optimizer][1]
    if optimizer == recipe.optimizer and recipe.lr is not None:
        lr = recipe.lr
    return {
        "model": args.model,
        "loss": args.loss or recipe.loss,
        "optimizer": optimizer,
        "lr": lr if args.lr is None else args.lr,
        "gamma": recipe.default_gamma(data) if args.gamma is None else args.gamma,
        "batch_size": args.batch_size or recipe.batch_size,
        "seed": args.seed,
        "side": data.train_images.shape[-1],
        "data": fingerprint(data),
    }


def fingerprint(data: DigitData) -> str:
    """What differs between data sets, wherever they are kept."""
    total = 0
    for array in data[1:]:
        total = zlib.crc32(numpy.ascontiguousarray(array), total)
    return f"with checksum {total:08x}"


def settings_of(folder: RunFolder) -> dict[str, Any]:
    """What the folder's checkpoint was made with."""
    settings = folder.notes().get("settings")
    names = [settings.get(name) for name in ("model", "loss")] if isinstance(settings, dict) else [None, None]
    if names[0] not in list(RECIPES) or names[1] not in list(LOSSES) or settings.get("side") not in (8, 28):
        raise ValueError(f"{folder.model} is not a checkpoint of the digit recogniser")
    return settings


def row(epoch: int, train: Score, test: Score) -> dict[str, Any]:
    scores = (train.loss, train.accuracy, test.loss, test.accuracy)
    return dict(zip(COLUMNS, (epoch, *(round(score, 6) for score in scores)), strict=True))


def probabilities(module: Module, x: Any, loss: str) -> numpy.ndarray:
    """The model's scores as probabilities: a softmax of logits; shares, where a square loss made them probabilities."""
    scores = as_numpy(module.predict(x)).astype(float)
    if loss == "square":
        scores = scores.clip(1e-9, 1)
    else:
        scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def train(args: argparse.Namespace) -> None:
    """`python -m apps.mnist train`."""
    metrics, _ = run_training(args, f"train {written(args, OPTIONS)} --resume")
    print(f"test accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.1f} s; see {args.out}")


def run_training(args: argparse.Namespace, again: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run from its options to its pictures; its metrics and history.  again: the arguments that go on with it."""
    started, folder = time.perf_counter(), RunFolder(args.out)
    run, history = Run.of(args), []
    folder.prepare()
    if args.resume and folder.model.exists():
        history = run.resume(folder)
        print(f"going on after epoch {len(history)} of {folder.model}")
    elif args.resume:
        print(f"no checkpoint in {folder.path}: starting afresh")
    parameters = count_parameters(run.module)
    print(
        f"{args.model} on {run.data.name}: {parameters:,} parameters, {len(run.data.train_labels):,} images "
        f"to train on, {len(run.data.test_labels):,} to test with, {max(run.epochs, len(history))} epochs"
    )
    print(f"device: {describe_device(run.module.xp, args.device)}", flush=True)
    kept = len(history)
    try:
        if not run.epochs and not history:
            run.save(folder, [])
        with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for number in range(len(history) + 1, run.epochs + 1):
                history.append(run.epoch(number))
                run.save(folder, history)
                kept = number
                print(line(history[-1]), flush=True)
        metrics = finish(folder, run, history, parameters, started)
    except KeyboardInterrupt:
        done = f"epoch {kept} is kept in {folder.model}" if kept else "no epoch was complete"
        raise KeyboardInterrupt(f"{done}; go on with: python -m apps.mnist {again}") from None
    return metrics, history


def line(row: dict[str, Any]) -> str:
    return (
        f"epoch {row['epoch']:>3}   train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"
        f"   test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}"
    )


def finish(
    folder: RunFolder, run: Run, history: list[dict[str, Any]], parameters: int, started: float
) -> dict[str, Any]:
    """Writes metrics and pictures."""
    if not history:
        test = run.test()
        history = [row(0, test, test)]
        folder.write_history(history)
    last = history[-1]
    settings = {name: value for name, value in run.settings.items() if name not in ("side", "data")}
    seconds = round(time.perf_counter() - started, 3)
    metrics = {"dataset": run.data.name, **settings, "parameters": parameters} | last
    metrics["epochs"] = metrics.pop("epoch")
    metrics["seconds"] = seconds
    folder.write_metrics(metrics)
    pictures(folder, run, history)
    return metrics


def pictures(folder: RunFolder, run: Run, history: list[dict[str, Any]]) -> None:
    """Draws what matplotlib can, and says what is missing where it is not installed."""
    try:
        from apps.mnist import figures
    except ImportError:
        print("no pictures: they need matplotlib (pip install '.[plot]')")
        return
    guesses = run.test_probabilities()
    figures.curves(folder.path / "curves.png", {run.settings["model"]: history})
    figures.predictions(folder.path / "predictions.png", run.data.test_images, run.data.test_labels, guesses)
    figures.confusion(folder.path / "confusion.png", run.data.test_labels, guesses.argmax(axis=-1))
