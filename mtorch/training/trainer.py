"""The loop of a training script as an object, which can be stopped at any moment and goes on with the same bits."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy

from mtorch import arrays
from mtorch.checks import check_number, check_size
from mtorch.data.loader import generator_state, set_generator_state
from mtorch.layer import Layer
from mtorch.optim.base import Optimizer
from mtorch.parallel.data_parallel import ranks_of
from mtorch.training import stops
from mtorch.training.bar import Bar
from mtorch.training.batches import END, Batches
from mtorch.training.before import BeforeStep
from mtorch.training.best import Best
from mtorch.training.checkpoints import Checkpoints
from mtorch.training.every import Every
from mtorch.training.log import Log, Row, Test
from mtorch.training.loop import Tally, is_count
from mtorch.training.nonfinite import Guard


class Trainer:
    """Trains `module` on the batches of `loader`, evaluates, keeps a history, saves, and goes on after any stop.

        trainer = Trainer(module, loss_func, optimizer, train_loader, test_loader, out="runs/mine", patience=5)
        trainer.resume()  # goes on where a checkpoint is, in the middle of an epoch too
        history = trainer.fit(epochs=50)  # or fit(steps=5000); Ctrl-C and SIGTERM save first
        trainer.restore_best()

    A batch is (x, target), or (x, y, ..., target) for a module of several arguments. A `DataLoader` tells where it is,
    as does any loader with `state_dict` and `load_state_dict`; of another iterable a resumed run leaves out the batches
    that were used, so it must give the same ones again.
    test: a loader, or a function without arguments that returns numbers by name.
    out: a folder for `model.npz`, which holds all that decides how the run goes on, `best.npz` and `history.csv`.
    checkpoint_every: an `Every`, or seconds. In seconds, there is one also at the end of an epoch if that takes little
    of its time; there is always one at the end.
    log_every: when a row of the history is due, `Every(steps=...)` or `Every(epochs=...)`; after each epoch by default.
    monitor: the column that tells the best row: the smallest, of an accuracy the largest; the first of the test.
    keep_best: whether the parameters of the best row are kept.  patience: stops after so many rows without a better.
    guard: whether a loss or a gradient that is not finite is a `NonFiniteError` that names the first layer that made
    it, before it reaches a parameter; on a GPU only the rows are looked at.  max_norm: a bound on the gradient's norm.
    callbacks, step_callbacks: functions of the trainer, called after each row and after each step. They may call
    `stop()` and keep numbers, texts and arrays in the dict `notes`, which belongs to the checkpoint.
    settings: what a checkpoint must have been made with to be gone on with.
    generators: the numpy Generators that dataset, loss and callbacks draw from, so that a checkpoint has their state.
    The loader's own is part of it already, and so are those of the module's layers.

    Where `module` is divided among the ranks of an MPI job, rank 0 prints and writes, and a stop of one stops all.

    A run that was stopped or killed at any moment and goes on ends with the same bits as one that never was, if
    callbacks keep what they need in `notes`. Where `mtorch.training.run` handles signals, a stop waits for the end of
    the step. Elsewhere (a notebook, a thread) a KeyboardInterrupt drops the step that it breaks off, saves, and goes on
    its way; if it comes while parameters move, the module goes back to the last checkpoint.
    """

    def __init__(
        self,
        module: Layer,
        loss_func: Callable[..., Any],
        optimizer: Optimizer,
        loader: Iterable[Any],
        test: Test = None,
        *,
        out: Any = None,
        checkpoint_every: Every | float = 30.0,
        log_every: Every | None = None,
        monitor: str | None = None,
        keep_best: bool = True,
        patience: int | None = None,
        guard: bool = True,
        max_norm: float | None = None,
        callbacks: Sequence[Callable[["Trainer"], Any]] = (),
        step_callbacks: Sequence[Callable[["Trainer"], Any]] = (),
        settings: Mapping[str, Any] | None = None,
        generators: Sequence[numpy.random.Generator] = (),
        bar: bool = True,
    ):
        self.module, self.loss_func, self.optimizer = module, loss_func, optimizer
        self.ranks = ranks_of(module)
        self.leads = self.ranks is None or self.ranks.rank == 0
        self.checkpoints = Checkpoints(out, Every.of(checkpoint_every), self.leads)
        self.log = Log(module, loss_func, test, log_every, guard, stops.check if self.ranks is None else None)
        self.patience = None if patience is None else check_size("Trainer", "patience", patience)
        self.max_norm = None if max_norm is None else check_number("Trainer", "max_norm", max_norm, above=0)
        self.best = Best(monitor, keep_best and test is not None)
        self.guard, self.callbacks, self.step_callbacks = guard, callbacks, step_callbacks
        self.settings, self.generators, self.bar = dict(settings or {}), tuple(generators), bar and self.leads
        self.batches, self.epoch, self.steps = Batches(loader), 0, 0  # complete epochs and steps
        self.notes: dict[str, Any] = {}
        self._stopping = False
        self._in_step, self._whole = False, True  # whole: parameters and everything that counts steps agree
        self._bar = Bar(self, None, None)

    # ------------------------------------------------------------------ the loop

    def fit(self, *, epochs: int | None = None, steps: int | None = None) -> list[Row]:
        """Trains until so many epochs, or steps, are complete, with those before this call; returns the history."""
        if (epochs is None) is (steps is None):
            raise TypeError("Trainer.fit expected either epochs or steps")
        goal = check_size("Trainer.fit", *(("steps", steps) if epochs is None else ("epochs", epochs)), 0)
        self._begin()
        quiet = numpy.errstate(over="ignore", invalid="ignore", divide="ignore")
        try:
            with stops.deferred(), quiet, Bar(self, epochs, steps) as self._bar:
                while True:
                    if self.batches.over:
                        self._end_epoch()
                    elif self.log.is_due(self.steps):
                        self._append(self.log.row(self.steps))
                    elif self._stopping or (self.steps if epochs is None else self.epoch) >= goal:
                        break
                    else:
                        self._step()
                    self._bar.update()
                    if self.checkpoints.due(self):
                        self.save()
                    stops.check() if self.ranks is None else self._check_together()
                self.save()
        except BaseException as error:
            self._leave(error)
            raise
        return self.history

    def _check_together(self) -> None:
        """Every rank stops where one of them was asked to."""
        assert self.ranks is not None
        told = self.ranks.exchange("", (stops.noted(), self._stopping))
        for rank, (text, _) in enumerate(told):
            if text:
                raise RuntimeError(f"Trainer: rank {rank} of {self.ranks.size} failed: {text}")
        asked = [item for _, item in told]
        self._stopping = any(stopping for _, stopping in asked)
        if number := max(number for number, _ in asked):
            raise stops.Stopped(status=128 + number)

    def stop(self) -> None:
        """Ends `fit` after the step that is under way; for callbacks."""
        self._stopping = True

    def _begin(self) -> None:
        self._stopping = self.best.is_over(self.history, self.patience)
        self._before = BeforeStep(self.module, self.generators)
        guards = self.guard and arrays.is_numpy(self.module.xp)
        self._guard = Guard(self.module, self.loss_func, self.max_norm) if guards else None
        self.checkpoints.begin()

    def _step(self) -> None:
        self.batches.begin()
        self._before.note()
        self._in_step = True
        batch = self.batches.next()
        if batch is END:
            self._in_step = False
            return
        prediction, target, loss = self._forward(batch)
        loss.backward()
        if self._guard is not None and (trouble := self._guard.trouble(loss)):
            number = self.steps + 1 if self.log.key == "step" else self.epoch + 1
            raise self._guard.error(f"{trouble} in {self.log.key} {number}", batch, lambda: self._again(batch))
        self._whole = False
        self.optimizer.step()
        self.batches.used()
        self.steps += 1
        self.log.add(loss, prediction, target)
        for callback in self.step_callbacks:
            callback(self)
        self._whole, self._in_step = True, False

    def _forward(self, batch: Any) -> tuple[Any, Any, Any]:
        *x, target = batch
        prediction = self.module(*x)
        return prediction, target, self.loss_func(prediction, target)

    def _again(self, batch: Any) -> Any:
        """The loss of that batch, from the state before this step."""
        self._before.restore()
        return self._forward(batch)[2]

    def _end_epoch(self) -> None:
        row = self.log.row(self.epoch + 1) if self.log.is_due_after(self.epoch + 1) else None
        self._whole = False
        self.epoch += 1
        self.batches.begin_epoch()
        if row is not None:
            self._append(row)
        self._whole = True

    def _append(self, row: Row) -> None:
        self._whole = False
        self.log.append(row)
        self.best.note(self.history, self.module)
        if self.best.is_over(self.history, self.patience):
            best = self.history[self.best.rows - 1]
            self.say(f"no better row came after {self.log.key} {best[self.log.key]}: training ends")
            self.stop()
        for callback in self.callbacks:
            callback(self)
        self._whole = True

    @property
    def history(self) -> list[Row]:
        """A row of scores for each epoch, or as `log_every` says."""
        return self.log.rows

    def say(self, line: str) -> None:
        """Prints a line, above the bar if there is one; of several ranks the first one does."""
        if self.leads:
            self._bar.say(line)

    # ------------------------------------------------------------------ stops and checkpoints

    def save(self) -> None:
        """Writes a checkpoint, if there is a folder and anything has changed since the last one."""
        self.checkpoints.save(self)

    def resume(self, columns: Sequence[str] | None = None) -> bool:
        """Goes back to the state of the checkpoint in `out`; False if there is none.  columns: those of its history.

        ValueError if it was made with other `settings`, or is none of a Trainer. Says where the run goes on, and what
        has changed since of that which decides the last bits (`environment`).
        """
        if not self.checkpoints.load(self, columns):
            return False
        self.say(f"going on after {self.place} of {self.checkpoints.model}")
        return True

    def restore_best(self) -> Row:
        """Gives the module the parameters of the best row, and returns that row."""
        if self.best.state is None:
            raise ValueError("Trainer: no parameters are kept: that needs keep_best, a test, and a row")
        self.module.load_state_dict(self.best.state)
        return self.history[self.best.rows - 1]

    @property
    def place(self) -> str:
        """How far the run is, in words."""
        if self.log.key == "step":
            return f"step {self.steps}"
        used = self.batches.used_batches
        return f"step {used} of epoch {self.epoch + 1}" if used else f"epoch {self.epoch}"

    def _leave(self, error: BaseException) -> None:
        """Saves if fit was asked to stop; the state is then that before the step which was broken off."""
        whole, in_step = self._whole, self._in_step
        self._whole, self._in_step = True, False
        if whole:
            if in_step:
                self._before.restore()
            if isinstance(error, KeyboardInterrupt):
                self.save()
        elif isinstance(error, KeyboardInterrupt):
            self.module.discard()
            self.checkpoints.go_back(self)
        self.batches.rewind()

    def state_dict(self) -> dict[str, Any] | None:
        """What a checkpoint holds beside module and optimizer; None while a loader cannot take back its last batch."""
        batches = self.batches.state_dict()
        return None if batches is None else {
            "epoch": self.epoch,
            "steps": self.steps,
            "batches": batches,
            "tally": self.log.tally.state_dict(),
            "best": self.best.state_dict(),
            "notes": self.notes,
            "generators": [generator_state(rng) for rng in self.generators],
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any], history: list[Row]) -> None:
        """Takes over `state_dict()` and the history that belongs to it; a ValueError if they do not fit."""
        parts: list[Any] = [state.get(name) for name in ("batches", "tally", "best", "notes")]
        counts: list[Any] = [state.get("epoch"), state.get("steps")]
        texts: Any = state.get("generators")
        if not (all(type(part) is dict for part in parts) and all(map(is_count, counts)) and type(texts) is list):
            raise ValueError("it lacks a part, or one is of another kind")
        tally = Tally()
        if len(texts) != len(self.generators):
            raise ValueError(f"it has the states of {len(texts)} generators, expected {len(self.generators)}")
        tally.load_state_dict(parts[1])
        self.best.load_state_dict(parts[2], history, self.module)
        for rng, text in zip(self.generators, texts, strict=True):
            set_generator_state(rng, text, "Trainer")
        self.batches.load_state_dict(parts[0])
        (self.epoch, self.steps), self.notes, self.log.rows, self.log.tally = counts, parts[3], history, tally
