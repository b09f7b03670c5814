"""The Trainer: the loop of the README, which may be stopped anywhere and goes on with the same bits."""

import csv
import math
import os
import select
import sys
import time

import numpy
import pytest

import mtorch
from mtorch import SGD, Adam, CrossEntropyLoss, DataParallel, Layer, Module, MSELoss, Parameter, Sequential, layers
from mtorch.container import Tape
from mtorch.data import ArrayDataset, DataLoader
from mtorch.optim.schedules import StepLR
from mtorch.testing import strict
from mtorch.training import Every, NonFiniteError, RunFolder, Trainer, checkpoints, train_epoch
from mtorch.training.environment import environment


def data(n=50, seed=0):
    rng = numpy.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return ArrayDataset((rng.standard_normal((n, 6)) + 2 * numpy.eye(6)[labels]).astype("float32"), labels)


def trainer_of(out=None, seed=0, xp=numpy, shuffle=True, hook=None, batch=8, **options):
    """A run with everything that has a state: batch norm, dropout, momentum, a schedule, a shuffled loader."""
    rng = numpy.random.default_rng(seed)
    nn = layers.on(xp, rng=rng)
    chain = [nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 3)]
    module = Module(Sequential(chain if hook is None else [*chain, hook]))
    optimizer = SGD(module, lr=StepLR(0.1, 5, 0.9), momentum=0.9, clip_norm=5.0)
    loader = DataLoader(data(), batch_size=batch, shuffle=shuffle, rng=rng)
    test = options.pop("test", DataLoader(data(30, 1), batch_size=16))
    loss_func = options.pop("loss_func", None) or CrossEntropyLoss(module)
    return Trainer(module, loss_func, optimizer, options.pop("loader", loader), test, out=out, **options)


def bits(trainer):
    """Everything that must be the same."""
    found = {name: value.tobytes() for name, value in trainer.module.state_dict().items()}
    found |= {f"optimizer {name}": numpy.asarray(x).tobytes() for name, x in trainer.optimizer.state_dict().items()}
    state = trainer.state_dict()
    place = {name: state[name] for name in ("epoch", "steps", "batches", "tally", "generators")}
    draws = [layer.random_state() for _, layer in trainer.module.walk()]
    return found | {"history": repr(trainer.history), "place": repr(place), "draws": repr(draws)}


STEPS = 7  # of an epoch


# ---------------------------------------------------------------------- the loop


def test_it_is_the_loop_of_the_readme(tmp_path):
    trainer, by_hand = trainer_of(tmp_path), trainer_of()
    history = trainer.fit(epochs=3)
    scores = [train_epoch(by_hand.module, by_hand.loss_func, by_hand.optimizer, by_hand.batches.loader) for _ in "abc"]
    assert (trainer.module.to_vector() == by_hand.module.to_vector()).all()
    assert [row["train_loss"] for row in history] == pytest.approx([score.loss for score in scores], rel=1e-5)
    assert [row["train_accuracy"] for row in history] == pytest.approx([score.accuracy for score in scores], rel=1e-5)
    assert list(history[0]) == ["epoch", "train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    rows = list(csv.DictReader((tmp_path / "history.csv").read_text().splitlines()))
    assert [{name: float(text) for name, text in row.items()} for row in rows] == history
    assert (trainer.epoch, trainer.steps) == (3, 3 * STEPS)


def test_a_goal_counts_from_the_beginning_and_one_that_is_reached_does_nothing():
    trainer = trainer_of()
    trainer.fit(steps=10)
    assert (trainer.epoch, trainer.steps, len(trainer.history)) == (1, 10, 1)
    trainer.fit(epochs=2)
    trainer.fit(epochs=1), trainer.fit(steps=3)
    assert (trainer.epoch, trainer.steps) == (2, 14)
    whole = trainer_of()
    whole.fit(epochs=2)
    assert bits(trainer) == bits(whole)


def test_rows_may_be_due_after_so_many_steps_and_come_from_a_function(tmp_path):
    targets = ArrayDataset(numpy.ones((12, 2), "float32"), numpy.zeros((12, 2), "float32"))
    module = Module(layers.Linear(2, 2, rng=0))
    seen = []
    trainer = Trainer(
        module, MSELoss(module), SGD(module, lr=0.1), DataLoader(targets, 3), lambda: {"test_norm": 2.5},
        out=tmp_path, log_every=Every(steps=3), callbacks=[lambda t: seen.append(t.history[-1]["step"])],
    )  # fmt: skip
    history = trainer.fit(steps=10)
    assert [list(row) for row in history] == [["step", "train_loss", "test_norm"]] * 3  # floats are no labels
    assert [row["step"] for row in history] == seen == [3, 6, 9] and history[0]["test_norm"] == 2.5
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def test_a_module_of_several_arguments_takes_all_but_the_last_part_of_a_batch():
    class Sum(Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = layers.Linear(2, 1, rng=0), layers.Linear(3, 1, rng=1)

        def forward(self, x, y):
            return self.a(x) + self.b(y)

    parts = [numpy.ones((8, n), "float32") for n in (2, 3, 1)]
    module = Sum()
    history = Trainer(module, MSELoss(module), SGD(module, lr=0.1), DataLoader(ArrayDataset(*parts), 4)).fit(epochs=5)
    assert history[-1]["train_loss"] < 0.1 * history[0]["train_loss"] and list(history[0]) == ["epoch", "train_loss"]


def test_a_device_is_waited_for_at_the_rows_only():
    x, labels = data()[:]
    module = Module(Sequential(layers.on(strict, rng=0).Linear(6, 3)))
    loader = DataLoader(ArrayDataset(strict.asarray(x), strict.asarray(labels)), 8, shuffle=True, rng=0)
    trainer = Trainer(module, CrossEntropyLoss(module), Adam(module), loader, bar=False)
    with strict.count_synchronisations() as places:
        trainer.fit(epochs=2)
    assert len(places) == 4 and trainer.history[1]["train_loss"] < trainer.history[0]["train_loss"]


def test_callbacks_come_after_rows_and_steps_may_stop_and_keep_notes(tmp_path):
    def count(trainer):
        trainer.notes["steps"] = trainer.notes.get("steps", 0) + 1
        if trainer.steps == 10:
            trainer.stop()

    trainer = trainer_of(tmp_path, step_callbacks=[count], callbacks=[lambda t: t.notes.update(row=t.epoch)])
    trainer.fit(epochs=5)
    assert trainer.notes == {"steps": 10, "row": 1} and trainer.steps == 10
    again = trainer_of(tmp_path, step_callbacks=[count])
    assert again.resume() and again.notes == {"steps": 10, "row": 1}
    again.fit(epochs=2)
    assert again.steps == 14 == again.notes["steps"]


def test_wrong_arguments_are_refused():
    with pytest.raises(TypeError, match="Every expected one of seconds, steps and epochs, got seconds, steps"):
        Every(seconds=3, steps=4)
    with pytest.raises(TypeError, match="got none"):
        Every()
    with pytest.raises(ValueError, match="Every expected steps >= 1"):
        Every(steps=0)
    with pytest.raises(ValueError, match="Every expected seconds >= 0"):
        trainer_of(checkpoint_every=-1)
    with pytest.raises(ValueError, match="log_every in steps or epochs"):
        trainer_of(log_every=Every(seconds=3))
    for options in ({}, {"epochs": 1, "steps": 1}):
        with pytest.raises(TypeError, match="Trainer.fit expected either epochs or steps"):
            trainer_of().fit(**options)
    with pytest.raises(ValueError, match="no column 'loss' to monitor, but epoch, train_loss"):
        trainer_of(monitor="loss").fit(epochs=1)
    with pytest.raises(ValueError, match="at least one batch, got none"):
        trainer_of(loader=iter([])).fit(epochs=1)
    with pytest.raises(TypeError, match="expected a loader of batches, got 3"):
        trainer_of(loader=3)
    with pytest.raises(ValueError, match="no parameters are kept"):
        trainer_of().restore_best()


# ---------------------------------------------------------------------- resume


@pytest.fixture(scope="module")
def whole():
    trainer = trainer_of()
    trainer.fit(epochs=3)
    return bits(trainer)


@pytest.mark.parametrize("steps", [0, 1, 6, 7, 8, 13, 14, 20, 21])
def test_a_run_that_is_resumed_after_any_step_ends_with_the_same_bits(tmp_path, steps, whole):
    trainer_of(tmp_path).fit(steps=steps)
    again = trainer_of(tmp_path, seed=9)
    assert again.resume() and again.steps == steps
    again.fit(epochs=3)
    assert bits(again) == whole


def test_every_checkpoint_of_a_run_goes_on_with_the_same_bits(tmp_path, whole, monkeypatch):
    """Also the one that is written when an epoch is over and its row is not yet there."""
    kept = []
    save = RunFolder.save
    monkeypatch.setattr(RunFolder, "save", lambda f, *a, **m: (save(f, *a, **m), kept.append(f.model.read_bytes())))
    trainer_of(tmp_path, checkpoint_every=0).fit(epochs=3)
    monkeypatch.undo()
    assert len(kept) == 3 * (STEPS + 2)
    for number in (0, 5, 6, 7, 8, 9, 20, len(kept) - 2, len(kept) - 1):
        (tmp_path / "model.npz").write_bytes(kept[number])
        again = trainer_of(tmp_path, checkpoint_every=Every(steps=2))
        assert again.resume()
        again.fit(epochs=3)
        assert bits(again) == whole, number


def test_the_training_loader_may_be_the_test_too_within_an_epoch(tmp_path):
    def run(out=None):
        loader = DataLoader(data(), 8, shuffle=True, rng=1)
        return trainer_of(out, loader=loader, test=loader, log_every=Every(steps=3))

    whole = run()
    whole.fit(epochs=2)
    run(tmp_path).fit(steps=3)
    again = run(tmp_path)
    assert again.resume()
    again.fit(epochs=2)
    assert again.steps == 2 * STEPS and bits(again) == bits(whole)


def test_a_list_of_batches_goes_on_where_it_was(tmp_path):
    batches = list(DataLoader(data(), 8))
    whole = trainer_of(loader=batches)
    whole.fit(epochs=3)
    trainer_of(tmp_path, loader=batches).fit(steps=11)
    again = trainer_of(tmp_path, loader=batches)
    assert again.resume()
    again.fit(epochs=3)
    assert bits(again) == bits(whole)
    state = again.state_dict()
    again.load_state_dict(state | {"batches": state["batches"] | {"used": 2**62}}, again.history)
    with pytest.raises(ValueError, match="at least one batch"):  # at once: a place that is claimed is not waited for
        again.fit(epochs=4)


class Stopping(Layer):
    """Raises KeyboardInterrupt in the forward, or in the backward, of one step."""

    def __init__(self, verb, step):
        super().__init__()
        self.verb, self.left = verb, step

    def forward(self, x):
        self.count("forward")
        return x

    def backward(self, output_grad):
        self.count("backward")
        return output_grad

    def count(self, verb):
        if verb == self.verb and self.training:
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt


class StoppingData(ArrayDataset):
    """Raises KeyboardInterrupt while one batch is read, after it has drawn from a generator."""

    left, rng = 0, numpy.random.default_rng(0)

    def __getitem__(self, index):
        x, labels = super().__getitem__(index)
        noise = self.rng.standard_normal(x.shape, "float32")
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt
        return x + 0.1 * noise, labels


@pytest.mark.parametrize("step", [4, 8, *(pytest.param(step, marks=pytest.mark.slow) for step in (1, 7, 14))])
@pytest.mark.parametrize("place", ["forward", "backward", "data", "update", "step callback", "row callback", "test"])
def test_an_interrupt_anywhere_saves_a_state_that_goes_on_with_the_same_bits(tmp_path, place, step):
    if place in ("row callback", "test") and step > 2:
        pytest.skip("there are three epochs")

    def made(out=None, stop=None):
        rng = numpy.random.default_rng(5)
        dataset = StoppingData(*data()[:])
        dataset.rng, dataset.left = rng, step if stop == "data" else 0
        loader = DataLoader(dataset, 8, shuffle=True, rng=1)
        left = [step]

        def interrupt(trainer=None):
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt

        def test():
            interrupt() if stop == "test" else None
            return {"test_loss": float(trainer.module.predict(data()[:][0]).sum())}

        hook = Stopping(stop, step)
        calls = {"step callback": "step_callbacks", "row callback": "callbacks"}
        more = {calls[stop]: [interrupt]} if stop in calls else {}
        trainer = trainer_of(out, hook=hook, loader=loader, generators=[rng], test=test, checkpoint_every=1e9, **more)
        if stop == "update":
            update = trainer.optimizer.step
            trainer.optimizer.step = lambda: (interrupt(), update())
        return trainer

    whole = made()
    whole.fit(epochs=3)
    stopped = made(tmp_path, place)
    with pytest.raises(KeyboardInterrupt):
        stopped.fit(epochs=3)
    again = made(tmp_path)
    found = again.resume()
    if place in ("forward", "backward", "data", "test"):  # else a step was half done: the end of an epoch may be there
        assert found
        assert again.steps == stopped.steps == (step * STEPS if place == "test" else step - 1)
        stopped.fit(epochs=3)  # in a notebook: the same object goes on
        assert bits(stopped) == bits(whole)
    again.fit(epochs=3)
    assert bits(again) == bits(whole)


def test_an_interrupt_while_parameters_move_goes_back_to_the_last_checkpoint(tmp_path, whole):
    trainer = trainer_of(tmp_path, checkpoint_every=Every(steps=3))
    update = trainer.optimizer.step

    def half():
        if trainer.steps == 10:
            trainer.module.net[0].weight.value += 1
            raise KeyboardInterrupt
        update()

    trainer.optimizer.step = half
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(epochs=3)
    assert trainer.steps == 9
    trainer.optimizer.step = update
    trainer.fit(epochs=3)
    assert bits(trainer) == whole


def test_an_error_leaves_the_state_before_the_step(whole):
    trainer = trainer_of()
    trainer.fit(steps=9)
    before, loss_func = bits(trainer), trainer.loss_func

    def broken(prediction, target):
        raise RuntimeError("no loss today")

    trainer.loss_func = broken
    with pytest.raises(RuntimeError, match="no loss today"):
        trainer.fit(epochs=3)
    assert bits(trainer) == before
    trainer.loss_func = loss_func
    trainer.fit(epochs=3)
    assert bits(trainer) == whole


class Interrupt:
    """Raises KeyboardInterrupt at a line that is run in some files of the package: from the outside, at any moment."""

    def __init__(self, at, *files):
        self.left, self.files = at, files

    def __call__(self, frame, event, _):
        if event == "call" and not frame.f_code.co_filename.endswith(self.files):
            return None
        if event == "line":
            self.left -= 1
            if not self.left:
                raise KeyboardInterrupt
        return self

    def during(self, run):
        """Whether it came."""
        before = sys.gettrace()
        sys.settrace(self)
        try:
            run()
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(before)
        return False


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["loader", "list"])
def test_an_interrupt_at_any_line_loses_and_repeats_no_batch(tmp_path, kind, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    x, labels = data(16)[:]
    batches = [(x[i : i + 8], labels[i : i + 8]) for i in (0, 8)]

    def made(out=None):
        loader = DataLoader(ArrayDataset(x, labels), 8, shuffle=True, rng=1) if kind == "loader" else batches
        return trainer_of(out, loader=loader, checkpoint_every=Every(steps=2), bar=False, test=None)

    whole = made(tmp_path / "whole")
    whole.fit(epochs=2)
    history = (tmp_path / "whole" / "history.csv").read_text()
    files = "training/batches.py", "data/loader.py" if kind == "loader" else "training/checkpoints.py"
    for at in range(1, 10_000):  # each line that is run from the second step on
        out = tmp_path / str(at)
        trainer = made(out)
        trainer.fit(steps=1)
        came = Interrupt(at, *files).during(lambda trainer=trainer: trainer.fit(epochs=2))
        trainer.fit(epochs=2)
        assert trainer.steps == 4, at
        assert bits(trainer) == bits(whole), at
        assert (out / "history.csv").read_text() == history, at
        if not came:
            break
    assert at > 100


def test_an_interrupt_after_the_last_layer_of_a_chain_stays_an_interrupt():
    net = Sequential(layers.Tanh(), layers.Tanh())

    class Calls(list):
        def append(self, call):
            super().append(call)
            if len(self) == 2:
                raise KeyboardInterrupt

    tape = Tape(net)
    tape.calls = Calls()
    with pytest.raises(KeyboardInterrupt):
        tape.run(list(net), numpy.ones(3))


def test_a_loader_that_cannot_go_back_saves_only_between_steps(tmp_path):
    class Counter:
        """A loader with a state of its own, which a batch that was handed out cannot return to."""

        at = 0

        def __iter__(self):
            batches = list(DataLoader(data(), 8))
            while self.at < len(batches):
                self.at += 1
                yield batches[self.at - 1]
            self.at = 0

        def state_dict(self):
            return {"at": self.at}

        def load_state_dict(self, state):
            self.at = state["at"]

    whole = trainer_of(loader=Counter())
    whole.fit(epochs=3)
    first = trainer_of(tmp_path, loader=Counter(), hook=Stopping("forward", 10), checkpoint_every=Every(steps=4))
    with pytest.raises(KeyboardInterrupt):
        first.fit(epochs=3)
    again = trainer_of(tmp_path, loader=Counter(), hook=Stopping("", 0))
    assert again.resume() and again.steps == 8
    again.fit(epochs=3)
    assert (again.module.to_vector() == whole.module.to_vector()).all()


# ---------------------------------------------------------------------- what is written


def test_a_checkpoint_is_due_after_seconds_steps_or_epochs(tmp_path, monkeypatch):
    now, saved = [0.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(checkpoints.Checkpoints, "save", saved_at(saved))

    def steps_of(every):
        saved.clear()
        tick = [lambda trainer: now.__setitem__(0, now[0] + 1.0)]
        trainer = trainer_of(tmp_path, checkpoint_every=every, step_callbacks=tick)
        trainer.checkpoints._seconds = 1e9  # so expensive that the end of an epoch alone is no reason
        trainer.fit(epochs=3)
        return saved[:-1]

    assert steps_of(5) == steps_of(Every(steps=5)) == [5, 10, 15, 20]
    assert steps_of(Every(epochs=2)) == [14]
    assert steps_of(0)[:4] == [1, 2, 3, 4]


def saved_at(saved):
    def save(self, trainer):
        saved.append(trainer.steps)
        self._note(trainer)

    return save


def test_what_is_derived_from_a_checkpoint_is_made_again_when_a_run_goes_on(tmp_path):
    trainer = trainer_of(tmp_path)
    trainer.fit(epochs=3)
    wanted = {name: (tmp_path / name).read_bytes() for name in ("history.csv", "best.npz")}
    assert {path.name for path in tmp_path.iterdir()} == {"model.npz", *wanted}
    (tmp_path / "history.csv").write_text("epoch,train_loss\n1,0.5\n")  # killed before it was written
    (tmp_path / "best.npz").unlink()
    assert trainer_of(tmp_path).resume()
    assert {name: (tmp_path / name).read_bytes() for name in wanted} == wanted


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    trainer = trainer_of()
    trainer.fit(epochs=1)
    assert not trainer.resume() and not list(tmp_path.iterdir())
    assert not trainer_of(tmp_path / "new").resume()


def test_a_resumed_run_says_where_it_goes_on_and_what_has_changed(tmp_path, capsys, monkeypatch):
    trainer_of(tmp_path).fit(steps=9)
    here = environment()
    monkeypatch.setattr(checkpoints, "environment", lambda xp: here | {"threads": "64", "kernel": "Other"})
    assert trainer_of(tmp_path).resume()
    changed, where = capsys.readouterr().out.splitlines()
    assert changed == (
        f"the last bits may differ from here on: kernel Other, was {here['kernel']}; threads 64, was {here['threads']}"
    )
    assert where == f"going on after step 2 of epoch 2 of {tmp_path / 'model.npz'}"


def test_a_run_goes_on_under_its_own_settings_only(tmp_path):
    trainer_of(tmp_path, settings={"lr": 0.1}).fit(steps=1)
    with pytest.raises(ValueError, match="was made with lr 0.1: ask for that"):
        trainer_of(tmp_path, settings={"lr": 0.2}).resume()
    with pytest.raises(ValueError, match="is not a checkpoint of this app"):
        trainer_of(tmp_path).resume()


def wrong_states():
    for name, value in {
        "epoch": -1, "steps": 2**63, "batches": {}, "tally": {"loss": 1}, "best": {"rows": 9, "state": None},
        "notes": None, "generators": [3],
    }.items():  # fmt: skip
        yield name, {name: value}
    yield "position", {"batches": {"used": 1, "over": 0, "loader": {}}}
    yield "loader", {"batches": {"used": 1, "over": False, "loader": {"samples": 3}}}
    yield "best", {"best": {"rows": 1, "state": {"file": "text"}}}
    yield "none", None


@pytest.mark.parametrize("wrong", [pytest.param(wrong, id=name) for name, wrong in wrong_states()])
def test_a_state_that_is_none_is_refused_and_changes_nothing(tmp_path, wrong):
    trainer = trainer_of(tmp_path)
    trainer.fit(steps=9)
    state = None if wrong is None else trainer.state_dict() | wrong
    more = {"settings": {}, "history": trainer.history, "environment": {}, "trainer": state}
    trainer.checkpoints.folder.save(trainer.module, trainer.optimizer, **more)
    again = trainer_of(tmp_path)
    before = bits(again)
    with pytest.raises(ValueError, match=r"model\.npz is not a checkpoint of this app"):
        again.resume()
    assert bits(again) == before


def test_a_module_that_does_not_fit_leaves_the_trainer_as_it_was(tmp_path):
    trainer_of(tmp_path, batch=25).fit(steps=1)
    again = trainer_of(tmp_path, hook=Stopping("", 0))
    again.module.net[0].weight = Parameter(numpy.ones((8, 5), "float32"))
    before = again.state_dict()
    with pytest.raises(ValueError, match=r"model\.npz: .* wrong shape"):
        again.resume()
    assert again.state_dict() == before


# ---------------------------------------------------------------------- the best row


def falling_then_rising(trainer):
    return {"test_loss": abs(trainer.epoch - 3) + 1.0}  # while epoch n + 1 is measured, n are complete


def test_training_stops_when_no_better_row_comes_and_the_best_is_kept(tmp_path, capsys):
    made = {}

    def fresh():
        made["now"] = trainer_of(tmp_path, test=lambda: falling_then_rising(made["now"]), patience=2)
        return made["now"]

    trainer, states = fresh(), []
    trainer.callbacks = [lambda t: states.append(t.module.state_dict())]
    assert len(trainer.fit(epochs=50)) == 6
    assert "no better row came after epoch 4: training ends" in capsys.readouterr().out
    twin = trainer_of().module
    mtorch.load(tmp_path / "best.npz", twin)
    assert trainer.restore_best() == trainer.history[3]
    for module in (twin, trainer.module):
        assert all((value == states[3][name]).all() for name, value in module.state_dict().items())
    again = fresh()
    assert again.resume() and len(again.fit(epochs=50)) == 6  # it stays stopped
    assert again.restore_best()["test_loss"] == 1.0
    assert (again.module.to_vector() == twin.to_vector()).all()


def test_the_best_accuracy_is_the_largest():
    trainer = trainer_of(monitor="test_accuracy")
    history = trainer.fit(epochs=6)
    assert trainer.restore_best()["test_accuracy"] == max(row["test_accuracy"] for row in history)


def test_a_row_that_is_no_number_is_never_the_best():
    losses = iter([math.nan, 2.0, math.nan, 1.0, math.nan])
    trainer = trainer_of(test=lambda: {"test_loss": next(losses)}, guard=False)
    trainer.fit(epochs=5)
    assert trainer.restore_best()["epoch"] == 4


def test_a_stopped_early_run_that_was_killed_finds_the_same_best(tmp_path):
    whole = trainer_of(patience=3)
    whole.fit(epochs=40)
    trainer_of(tmp_path, patience=3).fit(steps=len(whole.history) * STEPS - 5)
    again = trainer_of(tmp_path, patience=3)
    assert again.resume()
    again.fit(epochs=40)
    assert bits(again) == bits(whole) and again.best.rows == whole.best.rows
    assert again.restore_best() == whole.restore_best()
    assert (again.module.to_vector() == whole.module.to_vector()).all()


# ---------------------------------------------------------------------- guards


class Broken(Layer):
    """x, with one entry that is not finite in the forward, or in the gradient, of one step."""

    def __init__(self, forward=math.inf, backward=math.inf, value=math.nan):
        super().__init__()
        self.steps, self.at, self.value = [0, 0], (forward, backward), value

    def broken(self, verb, x):
        if self.training and self.steps[0] >= self.at[verb]:
            x = x.copy()
            x[0, 0] = self.value
        return x

    def forward(self, x):
        self.steps[0] += self.training
        return self.broken(0, x)

    def backward(self, output_grad):
        return self.broken(1, output_grad)


@pytest.mark.parametrize("parallel", [False, pytest.param(True, marks=pytest.mark.skipif(
    not hasattr(os, "fork") or sys.platform != "linux", reason="needs processes that share memory"))])  # fmt: skip
@pytest.mark.parametrize("verb", ["forward", "backward"])
def test_what_is_not_finite_is_traced_to_the_first_layer_before_a_parameter_moves(verb, parallel):
    net = Sequential(
        layers.Linear(6, 5, rng=0), layers.ReLU(), Sequential(Broken(**{verb: 3}), layers.Linear(5, 3, rng=1))
    )
    module = Module(DataParallel(net, 2) if parallel else net)
    trainer = Trainer(module, CrossEntropyLoss(module), SGD(module, lr=0.1), DataLoader(data(), 8))
    trainer.fit(steps=2)
    before = bits(trainer)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(epochs=1)
    what = "the loss" if verb == "forward" else "the gradient"
    which = "output" if verb == "forward" else "gradient"
    text = rf"{what} is not finite in epoch 1: the first layer whose {which} is not finite is 2\.0, Broken\(\)"
    assert str(caught.value) == text.replace("\\", "") and caught.value.layer == "2.0"
    assert bits(trainer) == before
    assert not any(verb in vars(layer) for _, layer in module.walk() for verb in ("forward", "backward"))


def test_a_cause_outside_of_the_layers_is_named(monkeypatch):
    def error_of(trainer):
        with pytest.raises(NonFiniteError) as caught:
            trainer.fit(epochs=1)
        return str(caught.value)

    x, labels = (part.copy() for part in data()[:])
    x[3, 2] = numpy.inf
    assert error_of(trainer_of(loader=DataLoader(ArrayDataset(x, labels), 8))) == (
        "the loss is not finite in epoch 1: the batch itself holds one"
    )
    trainer = trainer_of()
    trainer.module.net[4].bias.value[1] = numpy.nan
    assert error_of(trainer).endswith(f"the parameter bias of 4, {trainer.module.net[4]!r}, is not finite")
    module = Module(layers.Linear(2, 1, coe=1e-9, rng=0))
    far = [(numpy.ones((2, 2), "float32"), numpy.full((2, 1), 1e30, "float32"))]
    text = error_of(Trainer(module, MSELoss(module), SGD(module, lr=0.1), far))
    assert text == "the loss is not finite in epoch 1: the output of every layer is finite, MSELoss() is not"


def test_a_gradient_above_a_bound_is_an_error_and_large_squares_are_not():
    with pytest.raises(NonFiniteError, match=r"^the norm of the gradient is \d\.\d+, above 1e-05 in epoch 1$"):
        trainer_of(max_norm=1e-5).fit(epochs=1)
    trainer_of(max_norm=1e5).fit(epochs=1)
    module = Module(layers.Linear(1, 1, rng=0))
    steep = [(numpy.full((1, 1), 1e-3, "float32"), numpy.full((1, 1), 1e18, "float32"))] * 2
    Trainer(module, MSELoss(module), SGD(module, lr=1e-30), steep).fit(epochs=1)  # the square of 1e15 … 1e36 overflows


def test_without_a_guard_nothing_is_looked_at():
    trainer = trainer_of(hook=Broken(forward=2), guard=False, test=None)
    assert math.isnan(trainer.fit(epochs=1)[0]["train_loss"])


def test_a_device_finds_it_with_the_next_row():
    x, labels = data()[:]
    nn = layers.on(strict, rng=0)
    module = Module(Sequential(nn.Linear(6, 3)))
    module.net[0].weight.value[0, 0] = strict.asarray(numpy.float32("nan"))
    loader = DataLoader(ArrayDataset(strict.asarray(x), strict.asarray(labels)), 8)
    with pytest.raises(NonFiniteError, match="the loss is not finite in epoch 1"):
        Trainer(module, CrossEntropyLoss(module), SGD(module, lr=0.1), loader).fit(epochs=1)


# ---------------------------------------------------------------------- the bar


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("goal", [{"epochs": 2}, {"steps": 10}], ids=str)
def test_a_terminal_shows_a_bar_and_lines_above_it(monkeypatch, capsys, goal):
    import pty

    master, slave = pty.openpty()
    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        slow = [lambda trainer: time.sleep(0.06)]
        trainer_of(step_callbacks=slow, callbacks=[lambda t: t.say(f"row {t.epoch}")]).fit(**goal)
        trainer_of(bar=False).fit(steps=1)
        seen = b""
        while select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 100_000)
    os.close(master)
    seen, out = seen.decode(), capsys.readouterr().out
    titles = {"epoch 1/2: ", "epoch 2/2: "} if "epochs" in goal else {"step: "}
    assert all(title in seen for title in titles) and "epoch 3/" not in seen
    assert "loss " in seen and "accuracy " in seen and "row 1" in out
    assert seen.rpartition("\r")[2].strip() == ""


README = """
from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers
from mtorch.data import ArrayDataset, DataLoader, digits
from mtorch.optim.schedules import CosineAnnealingLR
from mtorch.training import Trainer

data = digits(size=8)
x, labels = data.train_images.reshape(-1, 64) / 16, data.train_labels
train = DataLoader(ArrayDataset(x[:900], labels[:900]), batch_size=30, shuffle=True, rng=0)
module = Module(Sequential(layers.Linear(64, 64, coe=2, rng=1), layers.ReLU(), layers.Linear(64, 10, rng=2)))
optimizer = Adam(module, lr=CosineAnnealingLR(0.01, 60 * len(train)), clip_norm=1.0)
val = DataLoader(ArrayDataset(x[900:], labels[900:]), batch_size=400)
trainer = Trainer(module, CrossEntropyLoss(module), optimizer, train, val, out="runs/digits", patience=5)
trainer.resume()  # in the middle of an epoch, if a run was stopped there; the log is runs/digits/history.csv
trainer.fit(epochs=60)  # Ctrl-C saves first
print(trainer.restore_best())
"""


def test_the_script_of_the_readme_stops_early_logs_and_is_resumed(tmp_path, monkeypatch, capsys):
    assert len(README.strip().replace("\n\n", "\n").splitlines()) <= 15
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        exec(compile(README, "README", "exec"), {})
    first, last = capsys.readouterr().out.split("going on after")
    assert "training ends" in first and first.splitlines()[-1] == last.splitlines()[-1]
    rows = list(csv.DictReader((tmp_path / "runs" / "digits" / "history.csv").read_text().splitlines()))
    assert 6 < len(rows) < 60 and float(rows[-1]["test_accuracy"]) > 0.9
