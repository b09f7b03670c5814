"""Training the recogniser: epochs, checkpoints on the way, and the figures at the end."""

import argparse
import time
import zlib
from dataclasses import dataclass
from typing import Any

import numpy

from apps.mnist.recipes import OPTIMIZERS, RECIPES, Recipe, are_settings, make_loss, make_optimizer
from mtorch import DataParallel, Module
from mtorch.arrays import as_numpy, module_for
from mtorch.data import ArrayDataset, DataLoader, DigitData, load_digits_data
from mtorch.devices import describe_device
from mtorch.insight.summary import count_parameters
from mtorch.parallel.communicators import communicator
from mtorch.training import NonFiniteError, RunFolder, Trainer, evaluate, going_on, significant, written

COLUMNS = ("epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy")
OPTIONS = (
    "data", "model", "epochs", "batch_size", "lr", "gamma", "optimizer", "loss", "seed", "workers", "device", "out",
    "parallel", "checkpoint_every",
)  # fmt: skip


@dataclass
class Run:
    """Everything one training run needs, made from the command line.

    settings: what a checkpoint must have been made with to be gone on from. Neither paths, workers, ranks, the device
    nor the time between checkpoints count.
    """

    settings: dict[str, Any]
    recipe: Recipe
    data: DigitData
    trainer: Trainer
    epochs: int

    @classmethod
    def of(cls, args: argparse.Namespace, folder: RunFolder) -> "Run":
        recipe, xp = RECIPES[args.model], module_for(args.device)
        if args.parallel is not None:
            communicator(args.parallel, xp)  # first: a rank that fails before it has met the others leaves them waiting
        data = load_digits_data(args.data, size=8 if recipe.scans else 28)
        settings = chosen(args, recipe, data)
        rng = numpy.random.default_rng(args.seed)
        net = recipe.build(settings["side"] ** 2, rng=rng, xp=xp)
        module = Module(divided(net, args))

        def batches(images: numpy.ndarray, labels: numpy.ndarray, size: int, shuffle: bool) -> DataLoader:
            dataset = ArrayDataset(xp.asarray(recipe.inputs(images)), xp.asarray(labels))
            return DataLoader(dataset, batch_size=size, shuffle=shuffle, rng=rng)

        train_batches = batches(data.train_images, data.train_labels, settings["batch_size"], shuffle=True)
        test_batches = batches(data.test_images, data.test_labels, 500, shuffle=False)
        rates = settings["lr"], settings["gamma"], len(train_batches)
        optimizer = make_optimizer(settings["optimizer"], module, *rates)
        trainer = Trainer(
            module, make_loss(settings["loss"], module), optimizer, train_batches, test_batches, out=folder,
            checkpoint_every=30 if args.checkpoint_every is None else args.checkpoint_every, keep_best=False,
            callbacks=[lambda trainer: trainer.say(line(trainer.history[-1]))], settings=settings,
        )  # fmt: skip
        epochs = recipe.default_epochs(data) if args.epochs is None else args.epochs
        return cls(settings, recipe, data, trainer, epochs)

    def train(self) -> list[dict[str, Any]]:
        """The epochs that are left; the history."""
        try:
            return self.trainer.fit(epochs=self.epochs)
        except NonFiniteError as error:
            more = f" ({error.cause})" if error.cause else ""
            raise ValueError(f"{error.what}: try a smaller --lr than {self.settings['lr']}{more}") from error

    def test_probabilities(self) -> numpy.ndarray:
        """What the model thinks of each test digit, (N, K)."""
        module, loss = self.trainer.module, self.settings["loss"]
        return numpy.concatenate([probabilities(module, x, loss) for x, _ in self.trainer.log.test])


def divided(net: Any, args: argparse.Namespace) -> Any:
    """The net, or the net whose batches several processes share."""
    if args.parallel is None:
        return net if args.workers == 1 else DataParallel(net, args.workers)
    if args.workers != 1:
        raise ValueError("--parallel mpi has as many processes as mpiexec starts: leave out --workers")
    return DataParallel(net, comm=args.parallel)


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
    settings: Any = folder.notes().get("settings")
    if not are_settings(settings):
        raise ValueError(f"{folder.model} is not a checkpoint of the digit recogniser")
    return settings


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
    metrics, _ = run_training(args, f"train {written(args, OPTIONS)}")
    if metrics:
        print(f"test accuracy {metrics['test_accuracy']:.2%} after {metrics['seconds']:.1f} s; see {args.out}")


def run_training(args: argparse.Namespace, again: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """One run from its options to its pictures; its metrics, on the first of several ranks, and history.

    again: the arguments that go on with it.
    """
    started, folder = time.perf_counter(), RunFolder(args.out)
    start = "" if args.parallel is None else "mpiexec -n N "
    with going_on(folder, f"{start}python -m apps.mnist {again}", args.resume):
        run = Run.of(args, folder)
        folder.prepare()
        if args.resume and not run.trainer.resume(COLUMNS):
            run.trainer.say(f"no checkpoint in {folder.path}: starting afresh")
        trainer, module = run.trainer, run.trainer.module
        parameters = count_parameters(module)
        trainer.say(
            f"{args.model} on {run.data.name}: {parameters:,} parameters, {len(run.data.train_labels):,} images "
            f"to train on, {len(run.data.test_labels):,} to test with, {max(run.epochs, trainer.epoch)} epochs"
        )
        trainer.say(f"device: {describe_device(module.xp, args.device)}")
        if trainer.ranks is not None:
            trainer.say(f"{trainer.ranks.size} ranks divide each batch of {run.settings['batch_size']}")
        history = run.train()
        if not trainer.leads:
            return {}, history
        return finish(folder, run, history, parameters, started)


def line(row: dict[str, Any]) -> str:
    return (
        f"epoch {row['epoch']:>3}   train loss {row['train_loss']:.4f}, accuracy {row['train_accuracy']:.2%}"
        f"   test loss {row['test_loss']:.4f}, accuracy {row['test_accuracy']:.2%}"
    )


def finish(
    folder: RunFolder, run: Run, history: list[dict[str, Any]], parameters: int, started: float
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Writes metrics and pictures; returns the metrics, and a history of at least one row."""
    if not history:
        test = evaluate(run.trainer.module, run.trainer.loss_func, run.trainer.log.test)
        history = [dict(zip(COLUMNS, (0, *map(significant, (*test, *test))), strict=True))]
        folder.write_history(history)
    last = history[-1]
    settings = {name: value for name, value in run.settings.items() if name not in ("side", "data")}
    seconds = round(time.perf_counter() - started, 3)
    metrics = {"dataset": run.data.name, **settings, "parameters": parameters} | last
    metrics["epochs"] = metrics.pop("epoch")
    metrics["seconds"] = seconds
    folder.write_metrics(metrics)
    pictures(folder, run, history)
    return metrics, history


def pictures(folder: RunFolder, run: Run, history: list[dict[str, Any]]) -> None:
    """Draws what matplotlib can, and says what is missing where it is not installed."""
    try:
        from apps.mnist import figures
    except ImportError:
        print("no pictures: they need matplotlib (pip install -e '.[plot]')")
        return
    guesses = run.test_probabilities()
    figures.curves(folder.path / "curves.png", {run.settings["model"]: history})
    figures.predictions(folder.path / "predictions.png", run.data.test_images, run.data.test_labels, guesses)
    figures.confusion(folder.path / "confusion.png", run.data.test_labels, guesses.argmax(axis=-1))
