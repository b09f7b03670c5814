"""The sine-to-cosine app from its command line."""

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

import apps.rnn_sin_cos
from apps.rnn_sin_cos.__main__ import main, parser
from apps.rnn_sin_cos.free_run import free_run
from apps.rnn_sin_cos.tasks import CELLS
from apps.rnn_sin_cos.train import Run
from mtorch.data import sine_cosine
from mtorch.testing import strict
from mtorch.training import RunFolder

ROOT = Path(__file__).parents[2]
KEYS = {"cell", "steps", "test_mse", "test_mse_after_first_step", "seconds"}


def train(out, *more):
    """A run; its metrics."""
    assert main(["--out", str(out), *map(str, more)]) == 0
    return json.loads((out / "metrics.json").read_text())


@pytest.fixture
def no_pictures(monkeypatch):
    monkeypatch.delattr(apps.rnn_sin_cos, "figures", raising=False)
    monkeypatch.setitem(sys.modules, "apps.rnn_sin_cos.figures", None)


def test_a_run_leaves_everything_in_its_folder(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    out = tmp_path / "run"
    metrics = train(out, "--steps", 120, "--free-run")
    pictures = {"curve.png", "loss.png", "free_run.png"}
    assert {path.name for path in out.iterdir()} == {"model.npz", "metrics.json", "history.csv"} | pictures
    assert all((out / name).read_bytes().startswith(b"\x89PNG") for name in pictures)
    assert KEYS <= metrics.keys() and metrics["cell"] == "rnn" and metrics["steps"] == 120
    rows = list(csv.DictReader((out / "history.csv").read_text().splitlines()))
    assert [row["step"] for row in rows] == [str(step) for step in range(0, 121, 10)]
    assert float(rows[-1]["test_mse"]) == metrics["test_mse"] < 0.5 * float(rows[0]["test_mse"])
    assert capsys.readouterr().out.startswith("device: NumPy on the CPU\nstep   100   test mse 0.")


def test_the_second_task_tells_the_next_point_of_a_noisy_sine(tmp_path):
    pytest.importorskip("matplotlib")
    metrics = train(tmp_path, "--task", "noisy-sine", "--cell", "gru", "--steps", 60)
    assert metrics["test_rmse_noise_free"] < metrics["test_rmse"] < 0.3
    assert (tmp_path / "curve.png").exists() and (tmp_path / "loss.png").exists()


def test_without_matplotlib_a_run_says_what_the_pictures_need(tmp_path, capsys, no_pictures):
    train(tmp_path, "--steps", 1, "--free-run")
    assert "no pictures: they need matplotlib (pip install -e '.[plot]')" in capsys.readouterr().out
    assert not list(tmp_path.glob("*.png"))


@pytest.mark.parametrize("cell", CELLS)
def test_a_resumed_run_leaves_the_very_bytes_of_an_uninterrupted_one(tmp_path, no_pictures, capsys, cell):
    options = ["--cell", cell, "--seed", 3]
    train(tmp_path / "whole", "--steps", 130, *options)
    for steps in (0, 45, 100, 130):
        train(tmp_path / "parts", "--steps", steps, "--resume", *options)
    text = capsys.readouterr().out
    assert f"no checkpoint in {tmp_path / 'parts'}: starting afresh" in text
    assert f"going on after step 45 of {tmp_path / 'parts' / 'model.npz'}" in text
    for name in ("model.npz", "history.csv"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    whole, parts = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("whole", "parts"))
    assert whole | {"seconds": 0} == parts | {"seconds": 0}
    assert str(tmp_path).encode() not in (tmp_path / "whole" / "model.npz").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("task", ["sine-cosine", "noisy-sine"])
def test_a_run_on_another_device_ends_where_one_on_the_cpu_does(tmp_path, monkeypatch, task):
    pytest.importorskip("matplotlib")
    options = ["--task", task, "--steps", 10] + ["--free-run"] * (task == "sine-cosine")
    cpu = train(tmp_path / "cpu", *options)
    monkeypatch.setattr("apps.rnn_sin_cos.train.module_for", {"gpu": strict}.get)
    gpu = train(tmp_path / "gpu", *options, "--device", "gpu")
    measures = [name for name in cpu if name.startswith("test_")]
    assert [cpu[name] for name in measures] == pytest.approx([gpu[name] for name in measures], rel=1e-3)


def test_a_checkpoint_of_another_run_is_not_gone_on_with(tmp_path, no_pictures, capsys):
    train(tmp_path, "--steps", 3)
    for option, value in (("--cell", "gru"), ("--lr", "0.5"), ("--seed", "1"), ("--task", "noisy-sine")):
        assert main(["--out", str(tmp_path), "--steps", "5", "--resume", option, value]) == 2
        err = capsys.readouterr().err
        assert re.search(r"^error: .*model\.npz was made with .*: ask for that, or name another --out\n$", err)


@pytest.mark.parametrize(
    "wrong",
    [
        {"history": []},
        {"history": [3]},
        {"history": [{}]},
        {"history": [{"step": 0, "train_loss": "small", "test_mse": 1, "test_mse_after_first_step": 1}]},
        {"moments": {"first": numpy.zeros((10, 32, 1))}},
        {"moments": {"0": "text"}},
        {"moments": {"0": numpy.zeros(3)}},
    ],
    ids=str,
)
def test_a_history_that_is_none_is_one_line_and_exit_code_2(tmp_path, capsys, wrong):
    pytest.importorskip("matplotlib")
    arguments = ["--out", str(tmp_path), "--steps", "1"]
    folder = RunFolder(tmp_path)
    run = Run.of(parser().parse_args(arguments), folder)
    run.begin()
    state = run.trainer.state_dict()
    good = {"settings": run.settings, "history": run.trainer.history, "trainer": state, "environment": {}}
    folder.prepare()
    folder.save(run.module, run.trainer.optimizer, **good)
    assert main([*arguments, "--resume"]) == 0
    bad = {"trainer": state | {"notes": wrong}} if "moments" in wrong else wrong
    folder.save(run.module, run.trainer.optimizer, **good | bad)
    capsys.readouterr()
    assert main([*arguments, "--resume"]) == 2
    err = capsys.readouterr().err
    assert "model.npz is not a checkpoint of this app" in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--bogus"], "unrecognized arguments: --bogus"),
        (["--cell", "cnn"], "argument --cell: invalid choice: 'cnn'"),
        (["--task", "what"], "argument --task: invalid choice: 'what'"),
        (["--steps", "-1"], "argument --steps: expected an integer of at least 0, got '-1'"),
        (["--out", ""], "argument --out: expected the name of a folder, got ''"),
        (["--lr", "0"], "argument --lr: expected a number above 0, got '0'"),
    ],
)
def test_a_wrong_command_line_is_one_line_and_exit_code_2(capsys, arguments, text):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    out, err = capsys.readouterr()
    assert stop.value.code == 2 and out == ""
    assert text in err and err.startswith("error: ") and err.count("\n") == 1


def test_what_cannot_be_done_is_one_line_and_exit_code_2(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("x")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "model.npz").write_bytes(b"PK\x03\x04 not really")
    for arguments, text in (
        (["--out", "file"], "file is a file; a run needs a folder to write to"),
        (["--out", "file/below"], "cannot write to the folder file/below"),
        (["--out", "damaged", "--resume"], "model.npz is damaged or no checkpoint"),
        (["--free-run", "--task", "noisy-sine"], "--free-run goes with --task sine-cosine, got noisy-sine"),
        (
            ["--out", "a", "--lr", "1e30", "--steps", "20"],
            "the loss is not finite in step 2: try a smaller --lr than 1e+30",
        ),
    ):
        assert main(arguments) == 2
        err = capsys.readouterr().err
        assert text in err and err.startswith("error: ") and err.count("\n") == 1


@pytest.mark.skipif(os.name != "posix", reason="sends a signal")
def test_ctrl_c_keeps_the_last_checkpoint_and_says_how_to_go_on(tmp_path, no_pictures):
    out, history = tmp_path / "a run", tmp_path / "a run" / "history.csv"
    command = [sys.executable, "-m", "apps.rnn_sin_cos", "--steps", "1000000", "--out", str(out)]
    hear = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}  # which a job in the background ignores
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **hear)
    deadline = time.monotonic() + 60
    while not (history.exists() and history.read_text().count("\n") > 11) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130 and err.count("\n") == 1
    done = re.fullmatch(r"stopped: step (\d+) is kept in (.+); go on with: python -m \S+ (.+)\n", err)
    assert done and done[2] == str(out / "model.npz")
    assert 10 * (history.read_text().count("\n") - 2) <= int(done[1])
    steps = int(done[1]) + 20
    again = shlex.split(done[3])
    again[again.index("--steps") + 1] = str(steps)
    assert again[-1] == "--resume" and main(again) == 0
    train(tmp_path / "whole", "--steps", steps)
    assert (out / "model.npz").read_bytes() == (tmp_path / "whole" / "model.npz").read_bytes()


def test_the_free_run_goes_on_from_the_nets_own_state():
    run = Run.of(parser().parse_args([]))
    curves = free_run(run.module.net)
    sine, _ = sine_cosine(0, 1)
    assert curves.trained == 10 and len(curves.time) == 10 + round(6 * 198 / 13)
    numpy.testing.assert_allclose(curves.own_sine[:10], sine[:, 0, 0], atol=1e-6)
    numpy.testing.assert_allclose(curves.own_cosine[:10], curves.reading[:10], atol=1e-6)
    numpy.testing.assert_allclose(curves.reading[:10, None], run.module.predict(sine)[:, 0], atol=1e-6)
    d = 13 * numpy.pi / 99
    following = curves.own_sine[10:-1] * numpy.cos(d) + curves.own_cosine[10:-1] * numpy.sin(d)
    numpy.testing.assert_allclose(curves.own_sine[11:], following, atol=1e-6)


# ---------------------------------------------------------------------- how well it learns


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_every_cell_reaches_the_floor_for_four_of_five_seeds(tmp_path, no_pictures, cell):
    found = [train(tmp_path / str(seed), "--cell", cell, "--seed", seed) for seed in range(5)]
    good = [m["test_mse"] <= 0.055 and m["test_mse_after_first_step"] < 0.001 for m in found]
    assert sum(good) >= 4, found


@pytest.mark.slow
@pytest.mark.parametrize("cell", CELLS)
def test_noise_is_seen_through(tmp_path, no_pictures, cell):
    found = [train(tmp_path / str(seed), "--task", "noisy-sine", "--cell", cell, "--seed", seed) for seed in range(5)]
    assert numpy.mean([m["test_rmse"] for m in found]) <= 0.125
    assert numpy.mean([m["test_rmse_noise_free"] for m in found]) <= 0.07
