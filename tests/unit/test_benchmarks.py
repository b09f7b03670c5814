"""The benchmark's versions of a step are one step: equal losses from equal initial values."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks import busy, fresh, gains, lenet_to_99, machine, report, rounds, since
from benchmarks.pairs import Pairs
from benchmarks.results import Results
from benchmarks.rounds import Bench, Row, Worker
from benchmarks.worker import Missing, build
from benchmarks.workloads import SCALING, SIDES, TABLE, WORKLOADS, calls

HEAVY = ("cnn", "cnn-parallel", "resnet", "rnn-large", "gru-large", "lstm-large", "lstm-large-parallel")


def names(side):
    equal = [w.name for w in TABLE if side in w.sides and w.equal]
    return [pytest.param(name, marks=pytest.mark.slow if name in HEAVY else ()) for name in equal]


def others(side):
    """Rows of a library that lives in a process of its own; all but the lightest are slow to compile or to run."""
    light = ("digit",) if side == "jax" else ("digit", "mlp", "mlp-adam")
    rows = [w.name for w in TABLE if side in w.sides]
    return [pytest.param(side, name, marks=() if name in light else pytest.mark.slow) for name in rows]


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


@pytest.fixture(scope="module")
def process():
    """The process of a side, started once."""
    workers = {}

    def of(side):
        return workers.setdefault(side, workers.get(side) or Worker(side))

    yield of
    for worker in workers.values():
        worker.close()


@pytest.mark.parametrize("side, name", [*others("jax"), *others("sklearn"), *others("pydynet")])
def test_our_step_equals_that_of_another_library(process, side, name):
    reply = process(side).ask(do="losses", workload=name, steps=3)
    if "missing" in reply:
        pytest.skip(reply["missing"])
    assert "losses" in reply, reply
    same = np.allclose(losses(name, "ours"), reply["losses"], rtol=2e-4, atol=2e-7)
    assert same != (side in WORKLOADS[name].differs)


@pytest.mark.slow
@pytest.mark.parametrize("size", [32, 64])
def test_deep_nets_do_not_diverge_while_they_are_timed(size):
    step = dict(SCALING["depth"])[size].sides["ours"]()
    assert all(step() < 10 for _ in range(600))


@pytest.mark.parametrize("axis", SCALING)
def test_the_scaling_steps_are_equal_at_their_smallest(axis):
    assert_same(SCALING[axis][0][1].name, "numpy")


def test_other_sides_are_measured_in_processes_without_mtorch_and_its_settings():
    code = "import sys, benchmarks.worker as w; w.build('gru-small', 'calls')(); assert 'mtorch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parents[2], check=True)


def test_each_side_is_first_in_some_rounds():
    bench = Bench.__new__(Bench)
    bench.rounds = 3
    assert "".join(bench.turns("abc")) == "abcbcacab"


def test_names_are_unique_and_goals_belong_to_sides():
    assert len(WORKLOADS) == len(TABLE) + sum(map(len, SCALING.values()))
    assert all(set(w.goals) <= set(w.sides) - {"ours"} and "ours" in w.sides for w in TABLE)
    assert all(set(w.differs) <= set(w.sides) <= set(SIDES) for w in TABLE)


def test_a_worker_answers_over_its_pipes_and_reports_an_unknown_workload():
    worker = Worker("numpy")
    try:
        reply = worker.ask(do="time", workload="digit", steps=2)
        assert reply["steps"] == 2 and 0 < reply["seconds"] < 1
        assert "KeyError" in worker.ask(do="time", workload="nothing")["error"]
        assert len(worker.ask(do="losses", workload="digit", steps=2)["losses"]) == 2
    finally:
        worker.close()


@pytest.mark.parametrize(
    "side, package", [("torch", "torch"), ("jax", "jax"), ("sklearn", "scikit-learn"), ("pydynet", "pydynet")]
)
def test_a_library_that_is_not_installed_is_one_line(monkeypatch, side, package):
    monkeypatch.setitem(sys.modules, side, None)
    for workload in (w for w in TABLE if side in w.sides):
        with pytest.raises(Missing, match=f"{package} is not installed: pip install {package}"):
            build(workload.name, side)


def test_a_side_without_times_is_an_empty_column():
    row = Row("digit", {"ours": [1e-4, 1.2e-4, 1.1e-4], "numpy": [1e-4] * 3}, {}, {"torch": "not installed"})
    line = report.cells(row)
    assert line[1].startswith("105 µs") and line[2] == "" and line[6] == "1.05"
    row.notes["jax"] = "not installed"
    found = report.remainder(results([row]))
    assert "torch: not installed (digit)" in found and "jax: not installed (digit)" in found
    assert report.alternatives([row]).lines[0][2:7] == ["", "", "–", "", ""]


def test_a_missed_goal_is_marked_and_the_result_is_json():
    row = Row("digit", {"ours": [3e-4] * 3, "torch": [6e-4] * 3, "numpy": [1e-4] * 3})
    assert "0.50 !" in report.cells(row) and "3.00 !" in report.cells(row)
    found = results([row])
    found.scaling = {"batch": [(1, Row("scaling/batch-1", row.times))]}
    result = json.loads(json.dumps(found.as_dict()))
    ratio = result["rows"][0]["ratio"]
    assert ratio == {"torch": pytest.approx(0.5), "numpy": pytest.approx(3.0), "jax": None, "pydynet": None}
    assert "0.50" in report.markdown(found)


@pytest.mark.parametrize(("floor", "mark"), [(0.9, "!"), (1.1, "†")])
def test_a_goal_below_the_floor_is_marked_as_out_of_reach(floor, mark):
    row = row_of("gru-small", ours=2, torch=5, jax=1, floor=floor)
    assert report.ratio_and_goal(row, "jax") == [f"2.00 {mark}", "≤ 1.00"]
    assert report.ratio_and_goal(row, "torch") == ["0.40 !", "≤ 0.35"]


@pytest.mark.parametrize("kind", calls.KINDS)
def test_the_bare_calls_of_a_step_can_be_repeated_without_growth(kind):
    with np.errstate(all="raise"):
        step = calls.recurrent(kind, (7, 4, 3, 5))
        for _ in range(50):
            step()


def results(rows, beside=()):
    machine = {"machine": {"processor": "some", "cores": "2"}, "versions": {"ours": {"numpy": "2", "mtorch": "0"}}}
    return Results("2026-01-01", machine, rows, busy=list(beside))


def row_of(name, **milliseconds):
    times = {key.replace("_", " "): [1e-3 * value] * 3 for key, value in milliseconds.items()}
    return Row(name, times, {key: [0.0] * 3 for key in times})


def test_the_table_of_other_libraries_names_the_fastest_marks_goals_and_says_what_differs():
    rows = [row_of("gru-small", ours=2, torch=8, jax=1, pydynet=50), row_of("mlp", ours=3, torch=4, sklearn=6)]
    found = report.alternatives(rows)
    assert found.lines[0][1:6] == ["2 ms", "8 ms", "1 ms", "–", "50 ms *"]
    assert found.lines[0][-3:] == ["2.00 !", "≤ 1.00", "2.00 (jax.jit)"]
    assert found.lines[1][-1] == "0.75 (PyTorch)" and found.lines[1][3:6] == ["", "6 ms", ""]
    assert found.remark.startswith("* PyDyNet's GRU resets")
    assert not report.alternatives([row_of("cnn-parallel", ours=1, torch=1)]).lines


BESIDE = {
    "ours_alone": 4.0, "ours_beside": 9.0, "ours_one_thread_alone": 3.8, "ours_one_thread_beside": 4.5,
    "torch_alone": 5.0, "torch_beside": 5.0, "torch_one_thread_alone": 6.0, "torch_one_thread_beside": 6.0,
}  # fmt: skip


def test_beside_a_busy_process_the_default_threads_are_held_against_the_better_of_two():
    row = row_of("lstm-small", **BESIDE)
    line = report.beside([row]).lines[0]
    assert line[1:7] == ["4 ms", "9 ms", "3.8 ms", "4.5 ms", "1.05", "2.00 !"]
    assert line[7:] == ["5 ms", "5 ms", "6 ms", "6 ms"] and busy.ratio_to_better(row, "torch", "alone") == 1
    del row.times["ours one thread beside"]
    assert report.beside([row]).lines[0][4:7] == ["", "1.05", ""]


def test_rows_beside_a_busy_process_come_from_processes_with_all_threads_and_with_one(monkeypatch):
    monkeypatch.setattr(busy, "SIDES", ("ours",))
    monkeypatch.delenv("OPENBLAS_NUM_THREADS", raising=False)
    with busy.Busy(rounds=1, seconds=0.002, retries=0) as bench:
        found = bench.row("digit")
        if Path("/proc/self/environ").exists():
            ours, one = (environment_of(bench.workers[key].process) for key in ("ours", "ours one thread"))
            assert "OPENBLAS_NUM_THREADS" not in ours and one["OPENBLAS_NUM_THREADS"] == "1"
    assert set(found.times) == {key.replace("_", " ") for key in BESIDE if key.startswith("ours")} and not found.notes
    assert {"mlp", "lenet", "cnn", "lstm-small"} < set(busy.NAMES) and "mlp-adam-fused" not in busy.NAMES
    assert not any(name.startswith("predict") or name.endswith("parallel") for name in busy.NAMES)


def test_the_loop_keeps_to_the_last_core_and_ends():
    with busy.Loop() as loop:
        assert loop.poll() is None
        if hasattr(os, "sched_getaffinity"):
            assert os.sched_getaffinity(loop.pid) == {max(os.sched_getaffinity(0))}
    assert loop.poll() is not None


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells")
def test_the_loop_ends_with_its_parent_even_when_that_is_killed():
    parent = "import os, signal\nfrom benchmarks.busy import Loop\nprint(Loop().__enter__().pid, flush=True)\n"
    root = Path(__file__).parents[2]
    killed = subprocess.run(
        [sys.executable, "-c", parent + "os.kill(os.getpid(), signal.SIGKILL)"], cwd=root, stdout=subprocess.PIPE
    )
    state, give_up = Path(f"/proc/{int(killed.stdout)}/stat"), time.monotonic() + 10
    while state.exists() and state.read_text().rpartition(")")[2].split()[0] != "Z":
        assert time.monotonic() < give_up
        time.sleep(0.01)


def test_the_loop_is_none_of_the_others_that_disturb_a_turn(monkeypatch):
    class Alone(Bench):
        def start(self):
            return {"numpy": Worker("numpy")}

    seconds = {"of all": iter((0.0, 10.0, 10.0, 20.0)), -1: iter((0.0, 10.0))}
    monkeypatch.setattr(rounds, "busy_seconds", lambda: next(seconds["of all"]))
    monkeypatch.setattr(rounds, "process_seconds", lambda pid: next(seconds[pid]) if pid in seconds else 0.0)
    with Alone() as bench:
        bench.company = [-1]
        assert bench.watched("numpy", "digit", 1)[1] == 0
        bench.company = []
        assert bench.watched("numpy", "digit", 1)[1] > 1


def environment_of(process):
    text = Path(f"/proc/{process.pid}/environ").read_text()
    return dict(line.split("=", 1) for line in text.split("\0") if "=" in line)


SET = {"OPENBLAS_CORETYPE": "Haswell", "OPENBLAS_L2_SIZE": "512"}
CHILD = f"import os; assert not set(os.environ) & {set(SET)}; print('epoch  1 test loss 0.1, accuracy 99.5%')"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="only Linux tells")
def test_no_process_that_is_measured_is_told_to_compute_as_another_processor(monkeypatch):
    for key, value in SET.items():
        monkeypatch.setenv(key, value)
    for worker in (Worker("numpy"), Worker("numpy", {"A": "b"}), gains.Variant("all")):
        assert worker.ask(do="time", workload="digit", steps=1)["seconds"]
        assert not set(SET) & set(environment_of(worker.process))
        worker.close()
    assert fresh.seconds_of(CHILD) is not None
    assert lenet_to_99.race([sys.executable, "-c", CHILD], 0.99)["epochs"] == 1
    assert os.environ["OPENBLAS_CORETYPE"] == "Haswell"


def test_versions_name_openblas_its_kernel_and_threads(monkeypatch):
    pytest.importorskip("threadpoolctl")
    found = machine.versions("ours")
    assert found["mtorch"] and (found["OpenBLAS"] == "none" or "kernel" in found["OpenBLAS"])
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert machine.versions("numpy")["OpenBLAS"].startswith("unknown")


def test_tables_and_pictures_come_from_the_written_results_again(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    rows = [row_of("digit", ours=1, torch=6, jax=2, pydynet=40), row_of("gru-small", ours=1, torch=2, pydynet=9)]
    written = results([*rows, row_of("mlp", ours=1)], [row_of("lstm-small", **BESIDE)])
    found = json.loads(json.dumps(written.as_dict()))
    assert Results.from_dict(found) == written
    found["rows"][2]["name"] = "a row of long ago"
    (tmp_path / "results.json").write_text(json.dumps(found))
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(command, "IMAGES", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--redraw"])
    monkeypatch.setattr(Bench, "start", lambda self: pytest.fail("it measured"))
    assert command.main() == 0
    assert (tmp_path / "RESULTS.md").read_text() == report.markdown(results(rows, written.busy))
    assert len(json.loads((tmp_path / "results.json").read_text())["rows"]) == 2
    pictures = [tmp_path / name for name in ("results.png", "speed.png")]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in pictures)
    before = [path.read_bytes() for path in pictures]
    command.write(results([], [row_of("lstm-small", **BESIDE)]))
    assert [path.read_bytes() for path in pictures] == before


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--only", "digit", "--only", "digot"], "nothing is called digot; --list shows the names"),
        (["--only", "busy", "--only", "cnn-parallel"], "beside a busy process there is no row cnn-par.*"),
        (["--rounds", "0"], "--rounds must be at least 1"),
        (["--json", "no-such-folder/x.json"], "no-such-folder/x.json cannot be written: .*"),
        (["--figure", "."], ". cannot be written: it is a folder, .*"),
        (["--figure", "x.png"], "pictures need matplotlib, .*: pip install matplotlib"),
        (["--write"], "pictures need matplotlib, .*"),
        (["--redraw"], "pictures need matplotlib, .*"),
    ],
)
def test_what_cannot_be_done_is_said_in_one_line_before_anything_is_measured(options, reason, monkeypatch, capsys):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    monkeypatch.setattr(Bench, "start", lambda self: pytest.fail("it measured"))
    monkeypatch.setattr(sys, "argv", ["benchmarks", *options])
    assert command.main() == 2
    assert re.fullmatch(reason + "\n", capsys.readouterr().err)


def test_without_written_results_there_is_nothing_to_draw_again(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(command, "HERE", tmp_path)
    monkeypatch.setattr(sys, "argv", ["benchmarks", "--redraw"])
    assert command.main() == 2
    assert capsys.readouterr().err == f"{tmp_path / 'results.json'} does not exist; --write makes it\n"


@pytest.mark.parametrize(
    "options, reason",
    [
        (["--only", "digot"], "nothing is called digot; --help has the names"),
        (["--only", "digit", "--without", "relo"], "nothing is called relo; --help has the names"),
        (["--rounds", "0"], "--rounds must be at least 1"),
    ],
)
def test_gains_of_unknown_names_are_not_measured(options, reason, monkeypatch, capsys):
    monkeypatch.setattr(gains.Variants, "start", lambda self: pytest.fail("it measured"))
    monkeypatch.setattr(sys, "argv", ["gains", *options])
    assert gains.main() == 2
    assert capsys.readouterr().err == reason + "\n"


@pytest.mark.parametrize(
    "options, reason",
    [
        (["HEAD", "--only", "digot"], "nothing is called digot; --help has the names"),
        (["HEAD", "--pairs", "0"], "--pairs must be at least 1"),
        (["HEAD", "--pairs", "5", "--write"], "--pairs must be at least 6"),
        (["no-such-commit"], "git rev-parse --verify --end-of-options no-such-commit.*"),
        (["--", "--list"], "git rev-parse --verify --end-of-options --list.*"),
    ],
)
def test_what_cannot_be_compared_is_not_measured(options, reason, monkeypatch, capsys):
    monkeypatch.setattr(since, "compare", lambda *args: pytest.fail("it measured"))
    monkeypatch.setattr(sys, "argv", ["since", *options])
    assert since.main() == 2
    assert re.fullmatch(reason + "\n", capsys.readouterr().err, re.S)


@pytest.mark.parametrize(("count", "left_out"), [(1, 0), (5, 0), (6, 0), (9, 1), (15, 3), (25, 7)])
def test_the_range_of_a_median_leaves_out_as_many_as_a_sign_test(count, left_out):
    """The least and the greatest rank of the usual tables, for 95 %."""
    found = Pairs(then=[1.0] * count, now=[float(n) for n in reversed(range(count))])
    assert found.range() == (left_out, count - 1 - left_out)


def test_both_versions_take_turns_and_the_first_of_a_pair_changes(monkeypatch):
    asked = []
    monkeypatch.setattr(
        since,
        "seconds_of",
        lambda folder, *args, **how: asked.append(folder) or ((3.0 if folder == since.ROOT else 2.0), 7),
    )
    assert since.compare("then", "digit", 4) == Pairs([2.0] * 4, [3.0] * 4)
    assert {asked[-2 * k] for k in (1, 2)} == {asked[-2 * k - 1] for k in (1, 2)} == {"then", since.ROOT}


def test_an_earlier_commit_has_a_table(monkeypatch, tmp_path):
    (tmp_path / "results.json").write_text(results([], []).as_json())
    monkeypatch.setattr(since, "RESULTS", tmp_path / "results.json")
    since.keep("abc", {"digit": Pairs([2e-3, 2e-3, 4e-3], [1e-3, 1e-3, 1e-3]), "a row of old": Pairs([1.0], [1.0])})
    kept = json.loads((tmp_path / "results.json").read_text())["since"]
    assert kept["commit"] == "abc" and kept["rows"]["digit"] == {"then": [2e-3, 2e-3, 4e-3], "now": [1e-3, 1e-3, 1e-3]}
    text = (tmp_path / "RESULTS.md").read_text()
    assert "Alone, against commit abc" in text and "python -m benchmarks.since abc --write" in text
    line = next(line for line in text.splitlines() if line.startswith("| digit net"))
    assert [cell.strip() for cell in line.split("|")[2:-1]] == ["1 ms", "2 ms", "0.500", "0.250 to 0.500"]


@pytest.mark.slow
@pytest.mark.skipif(not (since.ROOT / ".git").exists(), reason="this is no clone")
def test_the_package_of_a_commit_runs_in_the_benchmark_of_now():
    with since.mtorch_of("HEAD") as folder:
        seconds, steps = since.seconds_of(folder, "digit", 10, turns=2)
        (folder / "mtorch" / "__init__.py").write_text("raise ImportError('of the commit', name='mtorch')")
        with pytest.raises(RuntimeError, match="digit: of the commit"):
            since.seconds_of(folder, "digit", 10)
    assert 0 < seconds < 1 and steps == 10 and not folder.exists()


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "killpg"), reason="only Unix has groups of processes")
@pytest.mark.parametrize("module", [["benchmarks"], ["benchmarks.gains", "--without", "relu"]])
def test_ctrl_c_ends_all_processes_and_is_one_line(module):
    started = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, *module, "--only", "digit", "--rounds", "100000"],
        cwd=Path(__file__).parents[2],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert started.stdout.readline() == "first turn\n"
    os.killpg(started.pid, signal.SIGINT)
    _, errors = started.communicate(timeout=30)
    assert errors == "stopped\n" and started.returncode == 1


def test_what_fresh_processes_told_is_tables_too():
    found = results([], [])
    found.more = {
        "cold_start": {"import": {"ours": 0.1, "torch": None, "numpy": 0.05, "python": 0.01}},
        "memory": {"ours": {"growth": 10.0, "peak": 60.0}, "numpy": {"growth": 8.0, "peak": 50.0}},
    }
    for text in (report.remainder(found), report.markdown(found)):
        assert "Cold start" in text and "Peak memory" in text and "10 MiB" in text


def test_a_reason_names_each_row_once():
    row = Row("digit", notes={"torch": "torch is not installed"})
    assert report.notes(results([row], [row])) == ["torch: torch is not installed (digit)"]


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


INTERRUPTED = """
import runpy, signal, sys
from benchmarks.rounds import Bench
signal.signal(signal.SIGINT, signal.default_int_handler)
turn = Bench.turn
def first_turn(*args):
    sys.__stdout__.write("first turn\\n")
    sys.__stdout__.flush()
    Bench.turn = turn
    return turn(*args)
Bench.turn = first_turn
sys.stdout = open("/dev/null", "w")
sys.argv[:2] = [sys.argv[1]]
runpy.run_module(sys.argv[0], run_name="__main__")
"""
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


@pytest.mark.slow
def test_the_race_to_99_percent_begins_with_the_values_and_batches_of_the_app(tmp_path):
    from benchmarks import lenet_to_99

    lenet_to_99.start_of(0, "digits", 2, tmp_path / "start.npz")
    with np.load(tmp_path / "start.npz") as start:
        settings = json.loads(str(start["settings"]))
        assert settings["batch_size"] > 0 and settings["gamma"] < 1  # or the sides would not have the same rates
        assert len(start["orders"]) == 2 and sorted(start["orders"][0]) == list(range(len(start["orders"][1])))
        assert start["value000"].shape == (6, 1, 5, 5)
