"""What training scripts share: the loop, scores, the folder of a run, progress, command lines."""

import argparse
import json
import os
import select
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

from mtorch import SGD, Adam, CrossEntropyLoss, Module, models
from mtorch.data import ArrayDataset, DataLoader
from mtorch.testing import strict
from mtorch.training import Parser, RunFolder, evaluate, number, progress, run, train_epoch, written

ROOT = Path(__file__).parents[2]


@pytest.fixture
def parts():
    rng = numpy.random.default_rng(0)
    labels = rng.integers(0, 3, 50)
    x = (rng.standard_normal((50, 6)) + 2 * numpy.eye(6)[labels]).astype("float32")
    module = Module(models.deep(6, 3, hidden=8, rng=0))
    return module, CrossEntropyLoss(module), SGD(module, lr=0.5), ArrayDataset(x, labels)


# ---------------------------------------------------------------------- the loop


def test_the_score_of_an_epoch_is_the_mean_over_samples_also_with_a_smaller_last_batch(parts):
    module, loss_func, _, data = parts
    x, labels = data[:]
    score = train_epoch(module, loss_func, SGD(module, lr=0.0), DataLoader(data, batch_size=16))
    assert score.loss == pytest.approx(loss_func(module.predict(x), labels).value, rel=1e-5)
    assert score.accuracy == (module.predict(x).argmax(axis=-1) == labels).mean()


def test_labels_of_any_form_have_the_same_accuracy(parts):
    module, loss_func, _, data = parts
    x, labels = data[:]
    wanted = evaluate(module, loss_func, DataLoader(data, batch_size=16)).accuracy
    assert wanted == (module.predict(x).argmax(axis=-1) == labels).mean() < 1
    for form in (labels[:, None], numpy.eye(3, dtype="float32")[labels]):
        found = evaluate(module, loss_func, DataLoader(ArrayDataset(x, form), batch_size=16))
        assert found.accuracy == wanted
    places = ArrayDataset(numpy.stack([x, x], 1), numpy.stack([labels, labels], 1))  # a label at each of two places
    assert evaluate(module, loss_func, DataLoader(places, batch_size=16)).accuracy == wanted


def test_training_lowers_the_loss_and_evaluating_changes_nothing(parts):
    module, loss_func, optimizer, data = parts
    loader = DataLoader(data, batch_size=10, shuffle=True, rng=0)
    before = evaluate(module, loss_func, loader)
    for _ in range(10):
        train_epoch(module, loss_func, optimizer, loader)
    state = module.state_dict()
    after = evaluate(module, loss_func, loader)
    assert after.loss < 0.5 * before.loss and after.accuracy > 0.8
    assert all((state[name] == value).all() for name, value in module.state_dict().items())
    assert evaluate(module, loss_func, loader) == pytest.approx(after)


def test_a_pass_without_batches_has_no_score(parts):
    module, loss_func, optimizer, data = parts
    batches = iter(DataLoader(data, batch_size=10))
    train_epoch(module, loss_func, optimizer, batches)
    for again in (batches, [], DataLoader(data, batch_size=51, drop_last=True)):
        with pytest.raises(ValueError, match="expected at least one batch, got none: is the loader used up"):
            train_epoch(module, loss_func, optimizer, again)
        with pytest.raises(ValueError, match="expected at least one batch"):
            evaluate(module, loss_func, again)


def test_an_epoch_on_a_device_is_waited_for_at_its_end_only(parts):
    x, labels = parts[3][:]
    scores = []
    for xp in (strict, numpy):
        module = Module(models.deep(6, 3, hidden=8, xp=xp, rng=0))
        loss_func, optimizer = CrossEntropyLoss(module), Adam(module, lr=0.01)
        loader = DataLoader(ArrayDataset(xp.asarray(x), xp.asarray(labels)), batch_size=8, shuffle=True, rng=0)
        with strict.count_synchronisations() as places:
            scores.append(train_epoch(module, loss_func, optimizer, loader))
        assert len(places) == 2 * (xp is strict)
        scores.append(evaluate(module, loss_func, loader))
    assert scores[:2] == [pytest.approx(score, rel=1e-5) for score in scores[2:]]


def test_without_a_terminal_progress_hands_the_batches_on(monkeypatch, parts):
    loader = DataLoader(parts[3], batch_size=10)
    with progress(loader, "epoch 1") as batches:
        assert batches is loader
    monkeypatch.setattr(sys, "stderr", None)
    with progress(loader, "epoch 1") as batches:
        assert batches is loader


@pytest.mark.skipif(os.name != "posix", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("columns", [0, 100])
def test_on_a_terminal_a_bar_shows_loss_and_accuracy_and_is_cleared(monkeypatch, parts, columns):
    import fcntl
    import pty
    import struct
    import termios

    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24 * (columns > 0), columns, 0, 0))
    module, loss_func, optimizer, data = parts

    class Slow(DataLoader):
        def __iter__(self):
            for batch in super().__iter__():
                time.sleep(0.12)
                yield batch

    with os.fdopen(slave, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with progress(Slow(data, batch_size=20), "epoch 3") as batches:
            train_epoch(module, loss_func, optimizer, batches)
        seen = b""
        while select.select([master], [], [], 0.05)[0]:
            seen += os.read(master, 100_000)
    os.close(master)
    seen = seen.decode()
    assert "epoch 3: " in seen and "2/3" in seen and "loss " in seen and "accuracy " in seen
    assert seen.rpartition("epoch")[2].rstrip("\r").endswith("    ")


# ---------------------------------------------------------------------- the folder


def test_a_run_folder_keeps_model_metrics_and_history(tmp_path, parts):
    module, *_, optimizer = parts[0], Adam(parts[0], lr=0.1)
    folder = RunFolder(tmp_path / "a" / "b")
    folder.prepare()
    assert list(folder.path.iterdir()) == []
    folder.save(module, optimizer, settings={"lr": 0.1}, best=3)
    folder.write_metrics({"loss": 0.5})
    folder.write_history([{"epoch": 1, "loss": 0.5}, {"epoch": 2, "loss": 0.25}])
    assert sorted(path.name for path in folder.path.iterdir()) == ["history.csv", "metrics.json", "model.npz"]
    assert (folder.path / "history.csv").read_text() == "epoch,loss\n1,0.5\n2,0.25\n"
    assert folder.read_metrics() == json.loads((folder.path / "metrics.json").read_text()) == {"loss": 0.5}
    twin = Module(models.deep(6, 3, hidden=8, rng=1))
    assert folder.load(twin)["best"] == folder.notes()["best"] == 3
    assert (twin.state_dict()["0.weight"] == module.state_dict()["0.weight"]).all()


def test_a_run_is_gone_on_with_only_under_its_own_settings(tmp_path, parts):
    module, optimizer, folder = parts[0], parts[2], RunFolder(tmp_path)
    folder.save(module, optimizer, settings={"lr": 0.5, "batch_size": 20})
    assert folder.resume(module, optimizer, {"lr": 0.5, "batch_size": 20})["settings"]["lr"] == 0.5
    with pytest.raises(ValueError, match=r"model\.npz was made with batch-size 20: ask for that, or name"):
        folder.resume(module, optimizer, {"lr": 0.5, "batch_size": 10})
    with pytest.raises(ValueError, match="not a checkpoint of this app"):
        folder.resume(module, optimizer, {"lr": 0.5})
    for more in ({}, {"history": None}, {"history": 3}):
        folder.save(module, optimizer, settings={"lr": 0.5}, **more)
        with pytest.raises(ValueError, match="not a checkpoint of this app"):
            folder.resume(module, optimizer, {"lr": 0.5}, history=list)
    folder.save(module, optimizer, settings={"lr": 0.5}, history=[])
    assert folder.resume(module, optimizer, {"lr": 0.5}, history=list)["history"] == []
    folder.save(module)
    with pytest.raises(ValueError, match="not a checkpoint of this app"):
        folder.resume(module, optimizer, {"lr": 0.5})


def test_a_folder_that_cannot_be_written_to_is_an_error_before_any_work(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="file is a file; a run needs a folder"):
        RunFolder(tmp_path / "file").prepare()
    with pytest.raises(OSError, match="cannot write to the folder .*file/below"):
        RunFolder(tmp_path / "file" / "below").prepare()
    if os.name == "posix" and os.geteuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o500)
        with pytest.raises(PermissionError, match="cannot write to the folder .*locked: Permission denied"):
            RunFolder(tmp_path / "locked").prepare()


# ---------------------------------------------------------------------- command lines


@pytest.mark.parametrize(
    ("kind", "least", "above", "good", "bad"),
    [
        (int, 0, False, {"0": 0, "12": 12}, ["-1", "1.5", "x", "", "nan"]),
        (float, 0, True, {"0.1": 0.1, "1e-9": 1e-9}, ["0", "-1", "nan", "inf", "1e999", "x"]),
    ],
)
def test_numbers_on_the_command_line_have_bounds(kind, least, above, good, bad):
    parse = number(kind, least, above)
    assert {text: parse(text) for text in good} == good
    for text in bad:
        with pytest.raises(argparse.ArgumentTypeError, match="expected an? .* (above|of at least) 0, got"):
            parse(text)


def test_a_parser_says_what_is_wrong_in_one_line(capsys):
    parser = Parser(prog="python -m thing")
    parser.add_argument("--steps", type=number(int, 0))
    for arguments in (["--what"], ["--steps", "-3"], ["--steps"]):
        with pytest.raises(SystemExit) as stop:
            parser.parse_args(arguments)
        assert stop.value.code == 2
        text = capsys.readouterr().err
        assert text.startswith("error: ") and text.count("\n") == 1 and "(see python -m thing --help)" in text


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("no\n  good"), "error: no good"),
        (FileNotFoundError(2, "No such file or directory", "x.png"), "error: x.png: No such file or directory"),
        (OSError("disk full"), "error: disk full"),
        (RuntimeError("no GPU here"), "error: no GPU here"),
        (ImportError("pip install it"), "error: pip install it"),
        (MemoryError(), "error: MemoryError"),
    ],
)
def test_what_a_user_can_set_right_is_one_line_and_exit_code_2(capsys, error, line):
    def command():
        raise error

    assert run(command) == 2
    assert capsys.readouterr().err == line + "\n"


def test_the_exit_code_is_the_commands_own_and_bugs_are_not_hidden():
    assert run(lambda: None) == 0 and run(lambda code: code, 7) == 7
    with pytest.raises(TypeError):
        run(lambda: None, "too much")


def test_an_interruption_says_how_to_go_on(capsys):
    def command():
        raise KeyboardInterrupt("step 3 is kept")

    assert run(command) == 130
    assert capsys.readouterr().err == "stopped: step 3 is kept\n"


@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_pipe_ends_a_command_in_silence():
    code = "from mtorch.training import run; run(lambda: [print(i, flush=True) for i in range(100_000)] and None)"
    done = subprocess.run(
        ["sh", "-c", f'"{sys.executable}" -c "{code}" | head -1'], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.stdout, done.stderr) == ("0\n", "")


def test_options_are_written_as_a_user_would():
    args = argparse.Namespace(out="my runs", batch_size=20, lr=None, resume=True, free_run=False)
    text = written(args, ("out", "batch_size", "lr", "resume", "free_run"))
    assert text == "--out 'my runs' --batch-size 20 --resume"
