"""The benchmark's versions of a step are one step: equal losses from equal initial values."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import machine, report
from benchmarks.rounds import Row, Worker
from benchmarks.worker import Missing, build
from benchmarks.workloads import SCALING, TABLE, WORKLOADS

HEAVY = ("cnn", "cnn-parallel", "resnet", "rnn-large", "gru-large", "lstm-large", "lstm-large-parallel")


def names(side):
    equal = [w.name for w in TABLE if side in w.sides and w.equal]
    return [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in equal]


def losses(name, side, steps=3):
    try:
        step = build(name, side)
    except Missing as reason:
        pytest.skip(str(reason))
    return np.asarray([step() for _ in range(steps)])


def assert_same(name, side):
    ours, theirs = losses(name, "ours"), losses(name, side)
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-7)


@pytest.mark.parametrize("name", names("numpy"))
def test_our_step_equals_the_hand_written_one(name):
    assert_same(name, "numpy")


@pytest.mark.parametrize("name", names("torch"))
def test_our_step_equals_pytorchs(name):
    pytest.importorskip("torch")
    assert_same(name, "torch")


@pytest.mark.parametrize("axis", SCALING)
def test_the_scaling_steps_are_equal_at_their_smallest(axis):
    assert_same(SCALING[axis][0][1].name, "numpy")


def test_names_are_unique_and_goals_belong_to_sides():
    assert len(WORKLOADS) == len(TABLE) + sum(map(len, SCALING.values()))
    assert all(set(w.goals) <= set(w.sides) - {"ours"} and "ours" in w.sides for w in TABLE)


def test_a_worker_answers_over_its_pipes_and_reports_an_unknown_workload():
    worker = Worker("numpy")
    try:
        reply = worker.ask(do="time", workload="digit", steps=2)
        assert reply["steps"] == 2 and 0 < reply["seconds"] < 1
        assert "KeyError" in worker.ask(do="time", workload="nothing")["error"]
        assert len(worker.ask(do="losses", workload="digit", steps=2)["losses"]) == 2
    finally:
        worker.close()


def test_a_library_that_is_not_installed_is_one_line_and_an_empty_column(monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(Missing, match="torch is not installed: pip install torch"):
        build("digit", "torch")
    row = Row("digit", {"ours": [1e-4, 1.2e-4, 1.1e-4], "numpy": [1e-4] * 3}, {}, {"torch": "not installed"})
    line = report.cells(row)
    assert line[1].startswith("110 µs") and line[2] == "" and line[6] == "1.10"
    assert "torch: not installed (digit)" in report.remainder([row], {}, {})


def test_a_missed_goal_is_marked_and_the_result_is_json():
    row = Row("digit", {"ours": [3e-4] * 3, "torch": [6e-4] * 3, "numpy": [1e-4] * 3})
    assert "0.50 !" in report.cells(row) and "3.00 !" in report.cells(row)
    machine = {"machine": {"cores": "2"}, "versions": {"ours": {"numpy": "2"}}}
    result = json.loads(json.dumps(report.as_dict(machine, [row], {"batch": [(1, row)]}, {})))
    assert result["rows"][0]["ratio"] == pytest.approx({"torch": 0.5, "numpy": 3.0})
    assert "0.50" in report.markdown("2026-01-01", machine, [row], {"batch": [(1, row)]}, {})


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="only Linux tells")
def test_the_time_of_a_process_is_also_that_of_those_it_starts():
    """A DataParallel's processes are not others that disturb it."""
    work = "import time\nwhile time.process_time() < 0.2: pass\nprint(flush=True)\ninput()"
    before = machine.process_seconds(os.getpid())
    child = subprocess.Popen([sys.executable, "-c", work], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    child.stdout.readline()
    during = machine.process_seconds(os.getpid())
    child.communicate(b"\n")
    assert during - before > 0.15 and machine.process_seconds(os.getpid()) - before > 0.15


LEAVE_OUT = """
from benchmarks import gains
from mtorch import accelerate
names = gains.names()
for name in names:
    gains.leave_out(name)
assert not accelerate.pairs(), accelerate.pairs()
assert "relu" in names and "convolution" in names
"""


def test_every_fast_body_can_be_left_out_to_measure_its_gain():
    root, environment = Path(__file__).parents[2], os.environ | {"MTORCH_FAST": "1"}
    done = subprocess.run([sys.executable, "-c", LEAVE_OUT], capture_output=True, text=True, cwd=root, env=environment)
    assert not done.returncode, done.stderr
