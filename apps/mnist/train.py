"""Training the recogniser: epochs, a checkpoint after each, and the figures at the end."""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy

from apps.mnist.recipes import RECIPES, Recipe, make_loss, make_optimizer
from mtorch import Module
from mtorch.arrays import as_numpy, module_for
from mtorch.data import ArrayDataset, DataLoader, DigitData, load_digits_data
from mtorch.summary import count_parameters
from mtorch.training import RunFolder, Score, evaluate, progress, train_epoch

SETTINGS = ("model", "loss", "optimizer", "lr", "batch_size", "seed", "dataset")


class Mismatch(ValueError):
    """A checkpoint that was made with other settings than those asked for."""


@dataclass
class Run:
    """Everything one training run needs, made from the command line."""

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
    def of(cls, args: argparse.Namespace, data: DigitData | None = None) -> "Run":
        recipe, xp = RECIPES[args.model], module_for(args.device)
        data = data or load_digits_data(args.data, size=8 if recipe.scans else 28)
        settings = {
            "model": args.model,
            "loss": args.loss or recipe.loss,
            "optimizer": args.optimizer or recipe.optimizer,
            "lr": args.lr,
            "batch_size": args.batch_size or recipe.batch_size,
            "seed": args.seed,
            "dataset": data.name,
        }
        rng = numpy.random.default_rng(args.seed)
        module = Module(recipe.build(data.train_images[0].size, rng=rng, xp=xp))
        optimizer = make_optimizer(settings["optimizer"], module, args.lr)
        settings["lr"] = optimizer.rate

        def batches(images: numpy.ndarray, labels: numpy.ndarray, size: int, shuffle: bool) -> DataLoader:
            dataset = ArrayDataset(xp.asarray(recipe.inputs(images)), xp.asarray(labels))
            return DataLoader(dataset, batch_size=size, shuffle=shuffle, rng=rng if shuffle else None)

        return cls(
            settings, recipe, data, module, make_loss(settings["loss"], module), optimizer,
            batches(data.train_images, data.train_labels, settings["batch_size"], True),
            batches(data.test_images, data.test_labels, 500, False),
            recipe.default_epochs(data) if args.epochs is None else args.epochs,
        )  # fmt: skip

    def resume(self, folder: RunFolder) -> list[dict[str, Any]]:
        """Goes back to the state of the folder's checkpoint; returns the history so far."""
        more = folder.load(self.module, self.optimizer)
        other = [f"{key} {more['settings'][key]}" for key in SETTINGS if more["settings"][key] != self.settings[key]]
        if other:
            raise Mismatch(f"{folder.model} was made with {', '.join(other)}: ask for the same, or name another --out")
        self.train_batches.load_state_dict(more["loader"])
        return more["history"]

    def save(self, folder: RunFolder, history: list[dict[str, Any]]) -> None:
        loader = self.train_batches.state_dict()
        folder.save(self.module, self.optimizer, settings=self.settings, loader=loader, history=history)

    def epoch(self, number: int) -> dict[str, Any]:
        """Trains one epoch; its row of the history."""
        batches = progress(self.train_batches, f"epoch {number}/{self.epochs}")
        train = train_epoch(self.module, self.loss_func, self.optimizer, batches)
        return row(number, train, evaluate(self.module, self.loss_func, self.test_batches))

    def test_probabilities(self) -> numpy.ndarray:
        """What the model thinks of each test digit, (N, K)."""
        return numpy.concatenate([probabilities(self.module, x) for x, _ in self.test_batches])


def row(epoch: int, train: Score, test: Score) -> dict[str, Any]:
    scores = {
        "train_loss": train.loss,
        "train_accuracy": train.accuracy,
        "test_loss": test.loss,
        "test_accuracy": test.accuracy,
    }
    return {"epoch": epoch, **{name: round(value, 6) for name, value in scores.items()}}


def probabilities(module: Module, x: Any) -> numpy.ndarray:
    """The model's scores as probabilities: normalised where they are sigmoids, through a softmax where logits."""
    scores = as_numpy(module.predict(x)).astype(float)
    if scores.min() >= 0 and scores.max() <= 1:
        return scores / numpy.maximum(scores.sum(axis=-1, keepdims=True), 1e-30)
    scores = numpy.exp(scores - scores.max(axis=-1, keepdims=True))
    return scores / scores.sum(axis=-1, keepdims=True)


def train(args: argparse.Namespace) -> int:
    """`python -m apps.mnist train`."""
    started, folder = time.perf_counter(), RunFolder(args.out)
    run, history = Run.of(args), []
    if args.resume and folder.model.exists():
        history = run.resume(folder)
        print(f"going on after epoch {len(history)} of {folder.model}")
    elif args.resume:
        print(f"no checkpoint in {folder.path}: starting afresh")
    parameters = count_parameters(run.module)
    print(
        f"{run.settings['model']}: {parameters:,} parameters, {len(run.data.train_labels):,} digits of "
        f"{run.data.name} to train on, {len(run.data.test_labels):,} to test with, {run.epochs} epochs"
    )
    try:
        for number in range(len(history) + 1, run.epochs + 1):
            history.append(run.epoch(number))
            run.save(folder, history)
            folder.write_history(history)
            print(line(history[-1]), flush=True)
    except KeyboardInterrupt:
        done = f"epoch {len(history)} is kept in {folder.model}" if history else "nothing was kept yet"
        print(f"\nstopped: {done}; go on with: python -m apps.mnist {again(args)} --resume")
        return 130
    if not history:
        test = evaluate(run.module, run.loss_func, run.test_batches)
        history = [row(0, Score(test.loss, test.accuracy), test)]
        run.save(folder, [])
    last = {name: value for name, value in history[-1].items() if name != "epoch"}
    metrics = {
        **run.settings, "parameters": parameters, "epochs": max(run.epochs, history[-1]["epoch"]), **last,
        "seconds": round(time.perf_counter() - started, 3),
    }  # fmt: skip
    folder.write_metrics(metrics)
    pictures(folder, run, history)
    print(f"test accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.1f} s; see {folder.path}")
    return 0


def line(row: dict[str, Any]) -> str:
    return (
        f"epoch {row['epoch']:>3}   train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"
        f"   test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}"
    )


def again(args: argparse.Namespace) -> str:
    """The options of this run, for the line that says how to go on."""
    names = ("data", "model", "epochs", "batch_size", "lr", "optimizer", "loss", "seed", "device", "out")
    given = {name: getattr(args, name) for name in names}
    return " ".join(f"--{name.replace('_', '-')} {value}" for name, value in given.items() if value is not None)


def pictures(folder: RunFolder, run: Run, history: list[dict[str, Any]]) -> None:
    """Draws what matplotlib can, and says what is missing where it is not installed."""
    try:
        from apps.mnist import figures
    except ImportError:
        print("no pictures: they need matplotlib (pip install 'mtorch[plot]')")
        return
    guesses = run.test_probabilities()
    figures.curves(folder.path / "curves.png", {run.settings["model"]: history})
    figures.predictions(folder.path / "predictions.png", run.data.test_images, run.data.test_labels, guesses)
    figures.confusion(folder.path / "confusion.png", run.data.test_labels, guesses.argmax(axis=-1))
