"""Training: steps, checkpoints on the way, and the figures at the end."""

import argparse
import time
from dataclasses import dataclass
from typing import Any

import numpy

from apps.rnn_sin_cos.tasks import TASKS, Task, on_host
from mtorch import Adam, Module, MSELoss
from mtorch.arrays import as_numpy, module_for
from mtorch.devices import describe_device
from mtorch.optim import schedules
from mtorch.training import Every, NonFiniteError, RunFolder, Trainer, going_on, significant, written

HIDDEN = 32
LOGGED, SAID = 10, 100  # steps between two rows of the history, and between two lines about them
MOMENTS = {0, 10, 30, 100, 300, 1000, 3000, 10_000}  # steps whose predictions the picture shows
OPTIONS = ("task", "cell", "steps", "lr", "seed", "device", "out", "free_run", "checkpoint_every")


@dataclass
class Run:
    """Everything one training run needs. What the net gave at some moments is kept in the trainer's notes.

    settings: what a checkpoint must have been made with to be gone on from. Neither steps, the device nor the time
    between checkpoints count.
    """

    settings: dict[str, Any]
    task: Task
    module: Module
    trainer: Trainer
    steps: int

    @classmethod
    def of(cls, args: argparse.Namespace, folder: RunFolder | None = None) -> "Run":
        rng = numpy.random.default_rng(args.seed)
        task = TASKS[args.task](module_for(args.device), rng)
        module = Module(task.build(args.cell, HIDDEN))
        lr = task.lr if args.lr is None else args.lr
        optimizer = Adam(module, lr=schedules.ExponentialLR(lr, task.gamma))
        settings = {"task": args.task, "cell": args.cell, "lr": lr, "seed": args.seed}
        trainer = Trainer(
            module, MSELoss(module), optimizer, task.batches, lambda: run.score(), out=folder,
            checkpoint_every=30 if args.checkpoint_every is None else args.checkpoint_every, keep_best=False,
            log_every=Every(steps=LOGGED), callbacks=[say], step_callbacks=[lambda _: run.keep_moment()],
            settings=settings,
        )  # fmt: skip
        run = cls(settings, task, module, trainer, task.steps if args.steps is None else args.steps)
        return run

    def begin(self) -> None:
        """The first row: the untrained net."""
        x, target = self.task.batches[0]
        loss = self.trainer.loss_func(self.module.predict(x), target)
        self.trainer.history.append({"step": 0, "train_loss": significant(loss.value), **self.score()})
        self.trainer.notes["moments"] = {}
        self.keep_moment()

    def resume(self) -> bool:
        """Goes back to the state of the folder's checkpoint, if there is one."""
        if not self.trainer.resume(("step", "train_loss", *self.score())):
            return False
        moments, shape = self.trainer.notes.get("moments"), self.prediction().shape
        known = isinstance(moments, dict) and all(step.isdecimal() for step in moments)
        if not (known and self.trainer.history and all(getattr(y, "shape", 0) == shape for y in moments.values())):
            raise ValueError(f"{self.trainer.checkpoints.model} is not a checkpoint of this app")
        return True

    def train(self) -> None:
        """The steps that are left."""
        try:
            self.trainer.fit(steps=self.steps)
        except NonFiniteError as error:
            more = f" ({error.cause})" if error.cause else ""
            raise ValueError(f"{error.what}: try a smaller --lr than {self.settings['lr']}{more}") from error

    def keep_moment(self) -> None:
        if self.trainer.steps in MOMENTS:
            self.trainer.notes["moments"][str(self.trainer.steps)] = self.prediction()

    def prediction(self) -> numpy.ndarray:
        return as_numpy(self.module.predict(self.task.test[0]))

    def score(self) -> dict[str, float]:
        found = self.task.score(self.prediction(), on_host(self.task.test))
        return {name: significant(value) for name, value in found.items()}


def say(trainer: Trainer) -> None:
    if trainer.steps % SAID == 0:
        trainer.say(f"step {trainer.steps:>5}   {described(trainer.history[-1])}")


def train(args: argparse.Namespace) -> None:
    """`python -m apps.rnn_sin_cos`."""
    if args.free_run and args.task != "sine-cosine":
        raise ValueError(f"--free-run goes with --task sine-cosine, got {args.task}")
    started, folder = time.perf_counter(), RunFolder(args.out)
    with going_on(folder, f"python -m apps.rnn_sin_cos {written(args, OPTIONS)}", args.resume):
        run = Run.of(args, folder)
        folder.prepare()
        print(f"device: {describe_device(run.module.xp, args.device)}", flush=True)
        if not (args.resume and run.resume()):
            if args.resume:
                print(f"no checkpoint in {folder.path}: starting afresh")
            run.begin()
        run.train()
        seconds, score = round(time.perf_counter() - started, 3), run.score()
        folder.write_metrics(run.settings | {"steps": run.trainer.steps} | score | {"seconds": seconds})
        pictures(folder, run, args.free_run)
    print(f"{described(score)} after {seconds:.1f} s; see {folder.path}")


def described(row: dict[str, Any]) -> str:
    """The measures of a row as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name.startswith("te"))


def pictures(folder: RunFolder, run: Run, free_run: bool) -> None:
    """Draws what matplotlib can, and says what is missing where it is not installed."""
    try:
        from apps.rnn_sin_cos import figures
    except ImportError:
        print("no pictures: they need matplotlib (pip install -e '.[plot]')")
        return
    moments = run.trainer.notes["moments"]
    shown = {int(step): y for step, y in moments.items()} | {run.trainer.steps: run.prediction()}
    draw = figures.cosine if run.settings["task"] == "sine-cosine" else figures.following
    draw(folder.path / "curve.png", run.settings["cell"], on_host(run.task.test), shown)
    figures.losses(folder.path / "loss.png", run.settings["cell"], run.trainer.history)
    if free_run:
        from apps.rnn_sin_cos.free_run import free_run as follow

        figures.free_run(folder.path / "free_run.png", run.settings["cell"], follow(run.module.net))
