"""The digit recogniser from its command line."""

import csv
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy
import pytest

import apps.mnist
from apps.mnist.__main__ import main, parser
from apps.mnist.recipes import OPTIMIZERS, RECIPES
from apps.mnist.train import COLUMNS, Run
from mtorch.data import digits, standardise
from mtorch.testing import strict
from mtorch.training import RunFolder, Trainer

ROOT = Path(__file__).parents[2]
PICTURES = {"curves.png", "predictions.png", "confusion.png"}


def train(out, *more):
    """A run on the built-in digits; its metrics."""
    assert main(["--data", "digits", "--out", str(out), *map(str, more)]) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture
def no_pictures(monkeypatch):
    without_pictures(monkeypatch)


def without_pictures(patch):
    patch.delattr(apps.mnist, "figures", raising=False)
    patch.setitem(sys.modules, "apps.mnist.figures", None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder with a model that reads most digits."""
    out = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        assert train(out, "--model", "deep", "--epochs", 6)["test_accuracy"] > 0.9
    return out


# ---------------------------------------------------------------------- training


def test_training_is_the_default_and_leaves_everything_in_its_folder(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    metrics = train(tmp_path / "run", "--epochs", 3)
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert names == {"model.npz", "metrics.json", "history.csv"} | PICTURES
    assert metrics["dataset"] == "digits" and metrics["model"] == "mlp" and metrics["parameters"] == 13_002
    assert (metrics["loss"], metrics["optimizer"], metrics["lr"], metrics["batch_size"]) == ("square", "sgd", 0.1, 20)
    assert metrics["epochs"] == 3 and metrics["seconds"] > 0
    rows = list(csv.DictReader((tmp_path / "run" / "history.csv").read_text().splitlines()))
    assert [row["epoch"] for row in rows] == ["1", "2", "3"]
    for name in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
        assert float(rows[-1][name]) == metrics[name]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "device: NumPy on the CPU"
    assert [line[:9] for line in lines[2:5]] == ["epoch   1", "epoch   2", "epoch   3"]
    for name in PICTURES:
        assert (tmp_path / "run" / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_a_run_says_what_the_pictures_need(tmp_path, capsys, no_pictures):
    train(tmp_path, "--epochs", 1)
    assert "no pictures: they need matplotlib (pip install -e '.[plot]')" in capsys.readouterr().out
    assert not PICTURES & {path.name for path in tmp_path.iterdir()}


def test_no_epochs_is_an_untrained_net(tmp_path, no_pictures):
    assert train(tmp_path, "--epochs", 0)["test_accuracy"] < 0.4
    assert train(tmp_path, "--epochs", 1, "--resume")["epochs"] == 1


def test_one_seed_is_one_run(tmp_path, no_pictures):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(tmp_path / name, "--epochs", 1, "--seed", seed)
    a, b, c = ((tmp_path / name / "model.npz").read_bytes() for name in "abc")
    assert a == b and a != c


@pytest.mark.parametrize("options", [[], ["--model", "dropout", "--optimizer", "adam"], ["--optimizer", "nesterov"]])
def test_a_resumed_run_leaves_the_very_bytes_of_an_uninterrupted_one(tmp_path, no_pictures, capsys, options):
    train(tmp_path / "whole", "--epochs", 2, *options)
    for epochs in (1, 2):
        metrics = train(tmp_path / "parts", "--epochs", epochs, "--resume", *options)
    text = capsys.readouterr().out
    assert f"no checkpoint in {tmp_path / 'parts'}: starting afresh" in text
    assert f"going on after epoch 1 of {tmp_path / 'parts' / 'model.npz'}" in text
    for name in ("model.npz", "history.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert metrics["epochs"] == 2
    assert train(tmp_path / "parts", "--epochs", 1, "--resume", *options)["epochs"] == 2


def test_a_checkpoint_of_another_run_is_not_gone_on_with(tmp_path, no_pictures, capsys):
    train(tmp_path, "--epochs", 1)
    before = (tmp_path / "model.npz").read_bytes()
    for option, value in (("--model", "linear"), ("--lr", "0.2"), ("--batch-size", "10"), ("--seed", "5")):
        assert main(["--data", "digits", "--out", str(tmp_path), "--resume", option, value]) == 2
        err = capsys.readouterr().err
        assert re.search(r"^error: .*model\.npz was made with .*: ask for that, or name another --out\n$", err)
    assert (tmp_path / "model.npz").read_bytes() == before


@pytest.mark.slow
def test_the_checkpoint_names_neither_paths_nor_the_clock(tmp_path, no_pictures):
    train(tmp_path / "here", "--epochs", 1)
    time.sleep(2.1)  # the finest grain of a zip file's clock
    train(tmp_path / "there", "--epochs", 1)
    data = (tmp_path / "here" / "model.npz").read_bytes()
    assert data == (tmp_path / "there" / "model.npz").read_bytes()
    assert str(tmp_path).encode() not in data and b"resume" not in data


def test_the_default_rate_belongs_to_the_optimizer(tmp_path, no_pictures):
    for name, (_, lr, _) in OPTIMIZERS.items():
        assert train(tmp_path / name, "--epochs", 0, "--optimizer", name)["lr"] == lr
    assert train(tmp_path / "own", "--epochs", 0, "--optimizer", "adam", "--lr", "0.5")["lr"] == 0.5
    assert train(tmp_path / "recipe", "--epochs", 0, "--model", "residual")["lr"] == 5e-3
    assert train(tmp_path / "other", "--epochs", 0, "--model", "residual", "--optimizer", "sgd")["lr"] == 0.1


@pytest.mark.parametrize("name", RECIPES)
def test_every_model_that_is_offered_trains(tmp_path, no_pictures, name, monkeypatch):
    data = digits(8 if RECIPES[name].scans else 28)
    few = data._replace(**{field: getattr(data, field)[:40] for field in data._fields[1:]})
    monkeypatch.setattr("apps.mnist.train.load_digits_data", lambda *_, **__: few)
    metrics = train(tmp_path, "--model", name, "--epochs", 1, "--batch-size", 20)
    assert metrics["model"] == name and metrics["train_loss"] < 10


COMPARE = ["compare", "--models", "mlp,linear", "--data", "digits", "--epochs", "2"]


def test_a_run_on_another_device_ends_where_one_on_the_cpu_does(tmp_path, no_pictures, monkeypatch, capsys):
    found = [train(tmp_path / "cpu", "--epochs", 1, "--batch-size", 100)]
    for place in ("apps.mnist.train", "apps.mnist.predict"):
        monkeypatch.setattr(f"{place}.module_for", {"gpu": strict, "cpu": numpy}.get)
    found.append(train(tmp_path / "gpu", "--epochs", 1, "--batch-size", 100, "--device", "gpu"))
    assert found[0]["train_loss"] == pytest.approx(found[1]["train_loss"], rel=1e-4)
    assert train(tmp_path / "gpu", "--epochs", 2, "--batch-size", 100, "--device", "cpu", "--resume")["epochs"] == 2
    assert main(["evaluate", "--data", "digits", "--device", "gpu", "--out", str(tmp_path / "gpu")]) == 0


@pytest.mark.slow
def test_several_models_are_compared_in_one_figure(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert main([*COMPARE, "--out", str(tmp_path)]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())["models"]
    assert list(metrics) == ["mlp", "linear"] and metrics["linear"]["parameters"] == 7_850
    assert json.loads((tmp_path / "linear" / "metrics.json").read_text()) == metrics["linear"]
    assert (tmp_path / "compare.png").read_bytes().startswith(b"\x89PNG")
    assert re.search(r"^linear +7,850 +2 +\d\d\.\d\d% ", capsys.readouterr().out, re.MULTILINE)


def test_the_axis_of_the_loss_has_plain_numbers(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    from apps.mnist import figures

    drawn = []
    monkeypatch.setattr(figures, "save", lambda figure, path: (figure.canvas.draw(), drawn.append(figure)))
    history = [{"epoch": i, "train_loss": 0.4 / i, "test_loss": 0.5 / i, "train_accuracy": 0.9, "test_accuracy": 0.9}
               for i in (1, 2, 3)]  # fmt: skip
    figures.curves(tmp_path / "curves.png", {"mlp": history})
    texts = {label.get_text() for label in drawn[0].axes[0].get_yticklabels(which="both")}
    assert {"0.1", "0.2", "0.4"} < texts and not any("e" in text for text in texts)


def test_a_comparison_is_gone_on_with_model_by_model(tmp_path, capsys, no_pictures):
    for more in ([], ["--resume"]):
        assert main([*COMPARE, "--out", str(tmp_path), *more]) == 0
    text = capsys.readouterr().out
    assert text.count("going on after epoch 2 of ") == 2 and "compare.png" not in text


# ---------------------------------------------------------------------- afterwards


def test_evaluate_gives_the_accuracy_of_the_run(trained, capsys):
    assert main(["evaluate", "--data", "digits", "--out", str(trained)]) == 0
    accuracy = json.loads((trained / "metrics.json").read_text())["test_accuracy"]
    text = rf"device: NumPy on the CPU\ndeep on the 540 test images of digits: loss \d\.\d+, accuracy {accuracy:.2%}\n"
    assert re.fullmatch(text, capsys.readouterr().out)


def picture(kind, test_image):
    """The same digit as different pictures."""
    Image = pytest.importorskip("PIL.Image")
    ink = Image.fromarray(test_image)
    large = ink.resize((300, 300))
    wide = Image.new("L", (500, 220), 0)
    wide.paste(ink.resize((160, 160)), (300, 20))
    grey = numpy.asarray(large)

    def plain(mode, colour):
        return Image.new(mode, (300, 300), colour)

    return {
        "light on dark": ink,
        "dark on light": Image.eval(large, lambda v: 255 - v),
        "off centre": wide,
        "grey on grey": Image.fromarray((180 - grey * 0.5).astype("uint8")),
        "blue on yellow": Image.composite(plain("RGB", "navy"), plain("RGB", "khaki"), large),
        "black on nothing": Image.merge("LA", (plain("L", 0), large)),
        "white on nothing": Image.merge("RGBA", [plain("L", 255)] * 3 + [large]),
        "palette": Image.eval(large, lambda v: 255 - v).convert("P"),
        "one bit": large.convert("1"),
        "16 bits": Image.fromarray(grey.astype("uint16") * 257),
        "16 bits, faint": Image.fromarray(60_000 - grey.astype("uint16") * 40),
        "10 bits in 16": Image.fromarray((255 - grey).astype("uint16") * 4),
        "12 bits in 16": Image.fromarray(grey.astype("uint16") * 16),
        "32 bits": Image.fromarray((255 - grey).astype("int32")),
        "float, 0 to 1": Image.fromarray(1 - grey.astype("float32") / 255),
        "float, any range": Image.fromarray(grey.astype("float32") / 50 + 1000),
    }[kind]  # fmt: skip


KINDS = [
    "light on dark", "dark on light", "off centre", "grey on grey", "blue on yellow", "black on nothing",
    "white on nothing", "palette", "one bit", "16 bits", "16 bits, faint", "10 bits in 16", "12 bits in 16", "32 bits",
    "float, 0 to 1", "float, any range",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_predict_reads_a_digit_off_any_kind_of_picture(tmp_path, trained, capsys, kind):
    data = digits()
    chosen = [numpy.flatnonzero(data.test_labels == digit)[0] for digit in (0, 2, 4, 7)]
    names = []
    for i in chosen:
        names.append(str(tmp_path / (f"{i}.tif" if "float" in kind or "32" in kind else f"{i}.png")))
        picture(kind, data.test_images[i]).save(names[-1])
    assert main(["predict", *names, "--out", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.rpartition(": ")[0] for line in lines[0::2]] == names
    assert [line.rpartition(": ")[2] for line in lines[0::2]] == ["0", "2", "4", "7"]
    assert all(re.fullmatch(r"   (\d: +\d+\.\d%( +|$)){10}", line) for line in lines[1::2])


def test_predict_sees_the_picture_as_the_net_saw_its_digits(tmp_path):
    pytest.importorskip("PIL")
    from apps.mnist.pictures import read_picture

    image = digits().test_images[0]
    picture("light on dark", image).save(tmp_path / "x.png")
    seen = read_picture(tmp_path / "x.png")
    assert seen.shape == (28, 28) and seen.dtype == numpy.uint8
    assert numpy.corrcoef(standardise(seen[None])[0], standardise(image[None])[0])[0, 1] > 0.9


def test_predict_reads_a_photograph_that_says_it_lies_on_its_side(tmp_path, trained, capsys):
    data = digits()
    i = numpy.flatnonzero(data.test_labels == 7)[0]
    image, exif = picture("dark on light", data.test_images[i]), pytest.importorskip("PIL.Image").Exif()
    exif[0x0112] = 6
    image.rotate(90, expand=True).save(tmp_path / "seven.jpg", exif=exif)
    assert main(["predict", str(tmp_path / "seven.jpg"), "--out", str(trained)]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'seven.jpg'}: 7\n")


def test_predict_reads_a_row_of_digits_and_shows_what_the_net_saw(tmp_path, trained, capsys):
    Image = pytest.importorskip("PIL.Image")
    data = digits()
    row = numpy.hstack([data.test_images[numpy.flatnonzero(data.test_labels == digit)[0]] for digit in (4, 2, 0, 7)])
    Image.fromarray(255 - row).resize((448, 112)).save(tmp_path / "row.png")
    picture("blue on yellow", data.test_images[0]).save(tmp_path / "one.png")
    names, sheet = [str(tmp_path / "row.png"), str(tmp_path / "one.png")], tmp_path / "new" / "sheet.png"
    assert main(["predict", "--digits", *names, "--show", str(sheet), "--out", str(trained)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{names[0]}: 4207" and lines[5].startswith(f"{names[1]}: ") and lines[-1] == f"see {sheet}"
    assert [line[:3] for line in lines[1:5]] == ["   "] * 4 and len(lines) == 8
    with Image.open(sheet) as drawn:
        assert drawn.format == "PNG" and drawn.width > 448 and drawn.height > 2 * 140


def bad_pictures(folder):
    Image = pytest.importorskip("PIL.Image")
    Image.new("L", (30, 30), 200).save(folder / "blank.png")
    Image.new("L", (1, 1), 0).save(folder / "dot.png")
    noise = numpy.random.default_rng(0).normal(size=(90, 120))
    Image.fromarray((200 + 20 * noise).clip(0, 255).astype("uint8")).save(folder / "noise.png")
    Image.fromarray((3 + noise).clip(0, 9).astype("uint16")).save(folder / "dark.png")
    Image.fromarray(numpy.full((30, 30), numpy.nan, "float32")).save(folder / "nan.tif")
    Image.new("L", (40, 40), 0).save(folder / "short.png")
    data = (folder / "short.png").read_bytes()
    (folder / "short.png").write_bytes(data[: len(data) - 20])
    (folder / "text.png").write_text("this is no picture")
    (folder / "empty.png").write_bytes(b"")
    (folder / "folder.png").mkdir()
    return {
        "blank.png": "shows no digit: the picture is blank",
        "dot.png": "shows no digit: the picture is blank",
        "noise.png": "shows no digit: the picture is blank",
        "dark.png": "shows no digit: the picture is blank",
        "nan.tif": "shows no digit: the picture is blank",
        "short.png": "is damaged or too large",
        "text.png": "is not a picture that can be read",
        "empty.png": "is not a picture that can be read",
        "folder.png": "is a folder, not a picture",
        "missing.png": "No such file or directory",
    }


def test_predict_refuses_bad_pictures_in_one_line_each(tmp_path, trained, capsys):
    for name, text in bad_pictures(tmp_path).items():
        assert main(["predict", str(tmp_path / name), "--out", str(trained)]) == 2
        out, err = capsys.readouterr()
        assert out == "" and err.startswith("error: ") and err.count("\n") == 1 and name in err and text in err


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--epoch", "1"], "unrecognized arguments: --epoch 1"),
        (["--epochs", "x"], "argument --epochs: expected an integer of at least 0, got 'x'"),
        (["--epochs", "-1"], "argument --epochs: expected an integer of at least 0, got '-1'"),
        (["--batch-size", "0"], "argument --batch-size: expected an integer of at least 1, got '0'"),
        (["--lr", "nan"], "argument --lr: expected a number above 0, got 'nan'"),
        (["--out", ""], "argument --out: expected the name of a folder, got ''"),
        (["compare", "--models", "mlp", "--out", " "], "argument --out: expected the name of a folder, got ' '"),
        (["--data", ""], "argument --data: expected the name of a folder, got ''"),
        (["--model", "what"], "argument --model: invalid choice: 'what'"),
        (["--optimizer", "what"], "argument --optimizer: invalid choice: 'what'"),
        (["compare", "--models", "mlp,what"], "argument --models: expected models of mlp, linear"),
        (["compare", "--models", "mlp,mlp"], "argument --models: expected models of"),
        (["predict"], "the following arguments are required: IMAGE"),
        (["predict", "x.png", "--show", "x.jpg"], "argument --show: expected the name of a PNG file, got 'x.jpg'"),
        (["what.png"], "argument train|evaluate|predict|compare|serve: invalid choice: 'what.png'"),
    ],
)  # fmt: skip
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, arguments, text):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert text in err and err.startswith("error: ") and err.count("\n") == 1


def test_wrong_places_are_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    (tmp_path / "file").write_text("x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "foreign").mkdir()
    numpy.savez(tmp_path / "foreign" / "model.npz", weight=numpy.zeros(3))
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.npz").write_bytes(b"PK\x03\x04 not really")
    for arguments, text in (
        (["--data", "digits", "--out", "file"], "file is a file; a run needs a folder to write to"),
        (["--data", "digits", "--out", "file/below"], "cannot write to the folder file/below"),
        (["--data", "missing"], "missing: there is no such folder"),
        (["--data", "file"], "file: expected a folder with MNIST's files"),
        (["--data", "empty"], "empty: expected MNIST's files"),
        (["evaluate", "--out", "empty"], "no model in empty: train one with python -m apps.mnist --out empty"),
        (["evaluate", "--out", "foreign"], "is not a checkpoint of the digit recogniser"),
        (["predict", "x.png", "--out", "damaged"], "model.npz is damaged or no checkpoint"),
        (["--data", "digits", "--out", "damaged", "--resume"], "model.npz is damaged or no checkpoint"),
    ):  # fmt: skip
        monkeypatch.chdir(tmp_path)
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert text in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    "history",
    [
        ["epoch 1"],
        [3],
        [{}],
        [{"epoch": 1}],
        [{**dict.fromkeys(COLUMNS, 0.5), "epoch": "1"}],
        [{**dict.fromkeys(COLUMNS, 0.5), "test_loss": None}],
        [dict.fromkeys(COLUMNS, 0.5), {}],
    ],
)
def test_a_history_that_is_none_is_one_line_and_exit_code_2(tmp_path, no_pictures, capsys, history):
    train(tmp_path, "--epochs", 0)
    arguments = ["--data", "digits", "--out", str(tmp_path), "--epochs", "1", "--resume"]
    folder = RunFolder(tmp_path)
    run = Run.of(parser().parse_args(["train", *arguments]), folder)
    run.trainer.resume()
    more = {"trainer": run.trainer.state_dict(), "environment": {}, "history": history}
    folder.save(run.trainer.module, run.trainer.optimizer, settings=run.settings, **more)
    capsys.readouterr()
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "model.npz is not a checkpoint of this app" in err and err.startswith("error: ") and err.count("\n") == 1


def test_a_checkpoint_of_an_earlier_version_is_read_but_not_gone_on_with(tmp_path, no_pictures, capsys):
    arguments = ["--data", "digits", "--out", str(tmp_path)]
    folder = RunFolder(tmp_path)
    run = Run.of(parser().parse_args(["train", *arguments]), folder)
    loader = run.trainer.batches.loader.state_dict()
    folder.save(run.trainer.module, run.trainer.optimizer, settings=run.settings, loader=loader, history=[])
    assert main(["evaluate", *arguments]) == 0
    assert main([*arguments, "--resume"]) == 2
    assert "model.npz was made by an earlier version of mtorch" in capsys.readouterr().err


def test_a_model_that_reads_scans_says_so_to_pictures(tmp_path, no_pictures, capsys):
    train(tmp_path, "--model", "gru", "--epochs", 1)
    assert main(["predict", "x.png", "--out", str(tmp_path)]) == 2
    assert "reads 8 x 8 scans, not pictures: train it on MNIST" in capsys.readouterr().err
    assert main(["evaluate", "--data", "digits", "--out", str(tmp_path)]) == 0


def test_a_loss_that_is_no_number_any_more_ends_the_run_and_keeps_nothing_of_it(tmp_path, no_pictures, capsys):
    arguments = ["--data", "digits", "--model", "deep", "--optimizer", "sgd", "--lr", "1e30", "--out", str(tmp_path)]
    assert main(arguments) == 2
    err = capsys.readouterr().err
    assert "the loss is not finite in epoch 1: try a smaller --lr than 1e+30 (the first layer whose output" in err
    assert not (tmp_path / "model.npz").exists()


# ---------------------------------------------------------------------- as a process


def start(*arguments, **options):
    environment = os.environ | {"PYTHONUNBUFFERED": "", "MPLBACKEND": "Agg"}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options
    pipes["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # which a job in the background ignores
    return subprocess.Popen([sys.executable, "-m", "apps.mnist", *arguments], cwd=ROOT, env=environment, **pipes)


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_the_last_checkpoint_and_says_how_to_go_on(tmp_path, no_pictures):
    out, history = tmp_path / "a run", tmp_path / "a run" / "history.csv"
    process = start("--data", "digits", "--epochs", "100000", "--out", str(out))
    deadline = time.monotonic() + 60
    while not (history.exists() and history.read_text().count("\n") > 3) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1
    done = re.fullmatch(r"stopped: epoch (\d+) is kept in (.+); go on with: python -m apps.mnist (.+)\n", err)
    assert done and done[2] == str(out / "model.npz")
    assert not list(out.glob(".*.part"))
    again = shlex.split(done[3])
    assert again[-1] == "--resume" and str(out) in again
    epochs = str(int(done[1]) + 1)
    again[again.index("--epochs") + 1] = epochs
    assert main(again) == 0
    train(tmp_path / "whole", "--epochs", epochs)
    assert (out / "model.npz").read_bytes() == (tmp_path / "whole" / "model.npz").read_bytes()


def test_a_run_that_is_stopped_in_the_middle_of_an_epoch_loses_no_step(tmp_path, no_pictures, monkeypatch, capsys):
    """An epoch may be far longer than the time between two stops."""
    options = ["--model", "dropout", "--batch-size", 100, "--epochs", 2]
    train(tmp_path / "whole", *options)
    step, left = Trainer._step, []

    def stopping(trainer):
        step(trainer)
        left.append(trainer.steps)
        if len(left) % 4 == 0:  # of 13 in an epoch
            signal.raise_signal(signal.SIGTERM if len(left) % 8 else signal.SIGINT)

    monkeypatch.setattr(Trainer, "_step", stopping)
    again = ["train", "--data", "digits", *map(str, options), "--out", str(tmp_path / "parts")]
    codes = []
    while not codes or codes[-1]:
        codes.append(main([*again, "--resume", "--checkpoint-every", str(1e6 - len(codes))]))
        err = capsys.readouterr().err
        if codes[-1]:
            wanted = "step 4 of epoch 1" if len(codes) == 1 else r"(step \d+ of )?epoch \d"
            assert re.fullmatch(rf"stopped: {wanted} is kept in .*model.npz; go on with: python -m .* --resume\n", err)
    assert codes == [143, 130, 143, 130, 143, 130, 143, 0] and sorted(set(left) - {0}) == list(range(1, 27))
    for name in ("model.npz", "history.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("command", "place"),
    [
        ("train", "apps.mnist.train.load_digits_data"),
        ("train", "apps.mnist.train.make_optimizer"),
        ("train", "apps.mnist.train.count_parameters"),
        ("train", "apps.mnist.train.pictures"),
        ("compare", "apps.mnist.train.load_digits_data"),
        ("compare", "apps.mnist.compare.show"),
        ("evaluate", "apps.mnist.predict.load_digits_data"),
        ("evaluate", "apps.mnist.predict.evaluate"),
        ("predict", "apps.mnist.predict.open_picture"),
        ("predict", "apps.mnist.predict.probabilities"),
        ("train", "apps.mnist.__main__.parser"),
    ],
)
def test_a_signal_at_any_place_is_one_line_and_its_own_status(
    tmp_path, trained, no_pictures, capsys, monkeypatch, command, place, name
):
    def stop(*_, **__):
        signal.raise_signal(getattr(signal, name))
        raise AssertionError("it went on")

    more = ["--data", "digits", "--epochs", "1", "--out", str(tmp_path)]
    if command == "compare":
        more += ["--models", "linear"]
    if command == "evaluate":
        more = ["--data", "digits", "--out", str(trained)]
    if command == "predict":
        pytest.importorskip("PIL")
        picture("light on dark", digits().test_images[0]).save(tmp_path / "x.png")
        more = [str(tmp_path / "x.png"), "--out", str(trained)]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    monkeypatch.setattr(place, stop)
    assert main([command, *more]) == {"SIGINT": 130, "SIGTERM": 143}[name]
    signal.signal(signal.SIGINT, before)
    err = capsys.readouterr().err
    assert err.startswith("stopped") and err.count("\n") == 1
    assert f"go on with: python -m apps.mnist {command} " in err
    assert err.endswith("--resume\n") is (command in ("train", "compare") and "parser" not in place)


@pytest.mark.skipif(sys.platform != "linux", reason="DataParallel has workers on Linux only")
def test_a_signal_to_the_whole_group_lets_workers_finish_the_step(tmp_path, no_pictures):
    out = tmp_path / "run"
    options = ["--data", "digits", "--model", "dropout", "--batch-size", "100", "--workers", "2"]
    process = start(*options, "--epochs", "100000", "--out", str(out), start_new_session=True)
    deadline = time.monotonic() + 60
    while not (out / "history.csv").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGTERM)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 143
    assert re.fullmatch(r"stopped: epoch \d+ is kept in .*; go on with: python -m apps.mnist train .* --resume\n", err)


@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="needs a shell")
def test_a_closed_pipe_and_no_streams_at_all_end_without_a_traceback(tmp_path):
    command = f'"{sys.executable}" -m apps.mnist --data digits --epochs 100000 --out "{tmp_path / "a"}" | head -1'
    done = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("mlp on digits: 13,002 parameters") and done.stderr == ""
    command = f'"{sys.executable}" -m apps.mnist --data digits --epochs 1 --out "{tmp_path / "b"}" >&- 2>&- <&-'
    assert subprocess.run(["sh", "-c", command], cwd=ROOT, timeout=60).returncode == 0


# ---------------------------------------------------------------------- how well it learns


@pytest.mark.slow
def test_on_the_built_in_digits_nine_of_ten_seeds_reach_95_percent(tmp_path, no_pictures):
    accuracies = [train(tmp_path / str(seed), "--seed", seed)["test_accuracy"] for seed in range(10)]
    assert sum(accuracy >= 0.95 for accuracy in accuracies) >= 9, accuracies


@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("gru", 0.955), ("sigmoid", 0.965)])
def test_on_the_raw_scans_the_originals_nets_do_as_well_over_ten_splits(model, least):
    """A GRU over the rows, 8 -> 16; and 64-64-10 with sigmoids, Adam 0.01, 50 epochs, batches of 32."""
    from mtorch import Adam, CrossEntropyLoss, Module, Sequential, layers, models
    from mtorch.data import ArrayDataset, DataLoader
    from mtorch.optim.schedules import StepLR
    from mtorch.training import evaluate, train_epoch

    recipe, accuracies = RECIPES["gru"], []
    for seed in range(10):
        data, rng = digits(8, seed), numpy.random.default_rng(seed)
        train_set = ArrayDataset(recipe.inputs(data.train_images), data.train_labels)
        loader = DataLoader(train_set, batch_size=32, shuffle=True, rng=rng)
        if model == "gru":
            module, epochs = Module(models.gru(64, rng=rng)), recipe.small_epochs
            optimizer = Adam(module, lr=StepLR(recipe.lr, len(loader), recipe.default_gamma(data)))
        else:
            nn, epochs = layers.on(rng=rng), 50
            module = Module(Sequential(nn.Linear(64, 64), nn.Sigmoid(), nn.Linear(64, 10)))
            optimizer = Adam(module, lr=0.01)
        loss_func = CrossEntropyLoss(module)
        for _ in range(epochs):
            train_epoch(module, loss_func, optimizer, loader)
        test_set = ArrayDataset(recipe.inputs(data.test_images), data.test_labels)
        accuracies.append(evaluate(module, loss_func, DataLoader(test_set, batch_size=540)).accuracy)
    assert numpy.mean(accuracies) >= least, accuracies


real = pytest.mark.skipif("MTORCH_DATA" not in os.environ, reason="needs MNIST: MTORCH_DATA names its folder")


@real
@pytest.mark.slow
def test_on_mnist_nine_of_ten_seeds_reach_92_percent_after_one_epoch(tmp_path, no_pictures):
    options = ["--data", "mnist", "--epochs", "1", "--out", str(tmp_path)]
    accuracies = []
    for seed in range(10):
        assert main([*options, "--seed", str(seed)]) == 0
        accuracies.append(json.loads((tmp_path / "metrics.json").read_text())["test_accuracy"])
    assert sum(accuracy >= 0.92 for accuracy in accuracies) >= 9, accuracies


@real
@pytest.mark.slow
@pytest.mark.parametrize(("model", "least"), [("lenet", 0.975), ("lenet_large", 0.983), ("gru", 0.95), ("deep", 0.96)])
def test_on_mnist_one_epoch_goes_a_long_way(tmp_path, no_pictures, model, least):
    assert main(["--data", "mnist", "--model", model, "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["test_accuracy"] >= least
