"""Training: steps, a checkpoint now and then, and the figures at the end."""

import argparse
import time
from dataclasses import dataclass, field
from typing import Any

import numpy

from apps.rnn_sin_cos.tasks import TASKS, Task, on_host
from mtorch import Adam, Module, MSELoss
from mtorch.arrays import as_numpy, module_for
from mtorch.devices import describe_device
from mtorch.losses import Loss
from mtorch.optim import schedules
from mtorch.training import RunFolder, progress, written

HIDDEN = 32
LOGGED, KEPT = 10, 100  # steps between two rows of the history, and between two checkpoints
MOMENTS = {0, 10, 30, 100, 300, 1000, 3000, 10_000}  # steps whose predictions the picture shows
OPTIONS = ("task", "cell", "steps", "lr", "seed", "device", "out", "free_run")


@dataclass
class Run:
    """Everything one training run needs. The history, and what the net gave at some moments, are kept with it.

    settings: what a checkpoint must have been made with to be gone on from. Neither steps nor the device count.
    """

    settings: dict[str, Any]
    task: Task
    module: Module
    loss_func: MSELoss
    optimizer: Adam
    steps: int
    history: list[dict[str, Any]] = field(default_factory=list)
    moments: dict[str, numpy.ndarray] = field(default_factory=dict)

    @classmethod
    def of(cls, args: argparse.Namespace) -> "Run":
        rng = numpy.random.default_rng(args.seed)
        task = TASKS[args.task](module_for(args.device), rng)
        module = Module(task.build(args.cell, HIDDEN))
        lr = task.lr if args.lr is None else args.lr
        optimizer = Adam(module, lr=schedules.ExponentialLR(lr, task.gamma))
        settings = {"task": args.task, "cell": args.cell, "lr": lr, "seed": args.seed}
        return cls(settings, task, module, MSELoss(module), optimizer, task.steps if args.steps is None else args.steps)

    def begin(self) -> None:
        """The first row: the untrained net."""
        x, target = self.task.batches[0]
        self.note(0, self.loss_func(self.module.predict(x), target))

    def resume(self, folder: RunFolder) -> None:
        """Goes back to the state of the folder's checkpoint."""
        columns, shape = ("step", "train_loss", *self.score()), self.prediction().shape
        more = folder.resume(self.module, self.optimizer, self.settings, history=columns, moments=dict)
        self.history, self.moments = more["history"], more["moments"]
        kept = all(step.isdecimal() and getattr(y, "shape", None) == shape for step, y in self.moments.items())
        if not (self.history and kept):
            raise ValueError(f"{folder.model} is not a checkpoint of this app")

    def save(self, folder: RunFolder) -> None:
        if not numpy.isfinite(self.prediction()).all():
            lr, steps = self.settings["lr"], self.optimizer.steps
            raise ValueError(f"the net's answers are not finite after {steps} steps: try a smaller --lr than {lr}")
        notes = {"settings": self.settings, "history": self.history, "moments": self.moments}
        folder.save(self.module, self.optimizer, **notes)
        folder.write_history(self.history)

    def step(self) -> Loss:
        """One step on the next batch; its loss is not read, so that a GPU is not waited for."""
        x, target = self.task.batches[self.optimizer.steps % len(self.task.batches)]
        loss = self.loss_func(self.module(x), target)
        loss.backward()
        self.optimizer.step()
        return loss

    def note(self, step: int, loss: Loss) -> None:
        """The history's row of this step, where one is due."""
        if step % LOGGED == 0:
            self.history.append({"step": step, "train_loss": significant(loss.value), **self.score()})
        if step in MOMENTS:
            self.moments[str(step)] = self.prediction()

    def prediction(self) -> numpy.ndarray:
        return as_numpy(self.module.predict(self.task.test[0]))

    def score(self) -> dict[str, float]:
        found = self.task.score(self.prediction(), on_host(self.task.test))
        return {name: significant(value) for name, value in found.items()}


def significant(value: float) -> float:
    return float(f"{value:.6g}")


def train(args: argparse.Namespace) -> None:
    """`python -m apps.rnn_sin_cos`."""
    if args.free_run and args.task != "sine-cosine":
        raise ValueError(f"--free-run goes with --task sine-cosine, got {args.task}")
    started, folder = time.perf_counter(), RunFolder(args.out)
    run = Run.of(args)
    folder.prepare()
    print(f"device: {describe_device(run.module.xp, args.device)}", flush=True)
    if args.resume and folder.model.exists():
        run.resume(folder)
        print(f"going on after step {run.optimizer.steps} of {folder.model}")
    else:
        if args.resume:
            print(f"no checkpoint in {folder.path}: starting afresh")
        run.begin()
        run.save(folder)
    try:
        with numpy.errstate(over="ignore", invalid="ignore", divide="ignore"):
            loop(run, folder)
        seconds = round(time.perf_counter() - started, 3)
        score = run.score()
        metrics = run.settings | {"steps": run.optimizer.steps} | score | {"seconds": seconds}
        folder.write_metrics(metrics)
        pictures(folder, run, args.free_run)
    except KeyboardInterrupt:
        again = f"python -m apps.rnn_sin_cos {written(args, OPTIONS)} --resume"
        raise KeyboardInterrupt(f"{folder.model} holds the last complete checkpoint; go on with: {again}") from None
    print(f"{described(score)} after {seconds:.1f} s; see {folder.path}")


def loop(run: Run, folder: RunFolder) -> None:
    """The steps that are left."""
    with progress(range(run.optimizer.steps + 1, run.steps + 1), run.settings["cell"]) as steps:
        show = getattr(steps, "set_postfix_str", None)
        say = getattr(steps, "write", print)
        for step in steps:
            run.note(step, run.step())
            if show is not None and step % LOGGED == 0:
                show(described(run.history[-1]).partition(",")[0], refresh=False)
            if step % KEPT == 0 or step == run.steps:
                run.save(folder)
            if step % KEPT == 0:
                say(f"step {step:>5}   {described(run.history[-1])}")


def described(row: dict[str, Any]) -> str:
    """The measures of a row as text."""
    return ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in row.items() if name.startswith("te"))


def pictures(folder: RunFolder, run: Run, free_run: bool) -> None:
    """Draws what matplotlib can, and says what is missing where it is not installed."""
    try:
        from apps.rnn_sin_cos import figures
    except ImportError:
        print("no pictures: they need matplotlib (pip install '.[plot]')")
        return
    shown = {int(step): y for step, y in run.moments.items()} | {run.optimizer.steps: run.prediction()}
    draw = figures.cosine if run.settings["task"] == "sine-cosine" else figures.following
    draw(folder.path / "curve.png", run.settings["cell"], on_host(run.task.test), shown)
    figures.losses(folder.path / "loss.png", run.settings["cell"], run.history)
    if free_run:
        from apps.rnn_sin_cos.free_run import free_run as follow

        figures.free_run(folder.path / "free_run.png", run.settings["cell"], follow(run.module.net))
