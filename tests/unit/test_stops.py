"""Stops by signal: a status of their own, one line, no traceback, from a command's first line to its last."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from mtorch.training import RunFolder, Stopped, going_on, run, stops

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")


@pytest.fixture(autouse=True)
def handlers_are_restored():
    """And Ctrl-C and a closed terminal are heard, also where the tests run in the background or under nohup."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    defaults = (signal.default_int_handler, signal.SIG_DFL, signal.SIG_DFL)
    kept = [signal.signal(getattr(signal, name), to) for name, to in zip(names, defaults, strict=True)]
    before = [signal.getsignal(getattr(signal, name)) for name in names]
    hook = sys.unraisablehook
    yield
    assert [signal.getsignal(getattr(signal, name)) for name in names] == before and sys.unraisablehook is hook
    for name, handler in zip(names, kept, strict=True):
        signal.signal(getattr(signal, name), handler)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_a_command_with_its_own_status_and_one_line(capsys, tmp_path, name, status):
    def command():
        with going_on(RunFolder(tmp_path), "python -m thing"):
            signal.raise_signal(getattr(signal, name))
            raise AssertionError("it went on")

    assert run(command) == status
    assert capsys.readouterr().err == "stopped: nothing is kept yet; go on with: python -m thing --resume\n"


def test_what_is_kept_of_another_run_is_not_gone_on_with(capsys, tmp_path):
    folder = RunFolder(tmp_path)
    folder.model.write_bytes(b"of an older run")

    def command(resumed):
        with going_on(folder, "python -m thing", resumed):
            raise KeyboardInterrupt

    assert run(command, False) == run(command, True) == 130
    folder.kept = "epoch 3 is kept in here"
    assert run(command, False) == 130
    assert capsys.readouterr().err.splitlines() == [
        "stopped: nothing is kept yet; go on with: python -m thing",
        "stopped: nothing is kept yet; go on with: python -m thing --resume",
        "stopped: epoch 3 is kept in here; go on with: python -m thing --resume",
    ]


def test_within_deferred_a_signal_waits_for_whoever_asks(capsys):
    done = []

    def command():
        with stops.deferred():
            signal.raise_signal(signal.SIGTERM)
            done.append("step")
            try:
                stops.check()
            except Stopped as stop:
                done.append(stop.status)
        done.append("never")

    assert run(command) == 143 and done == ["step", 143]
    assert capsys.readouterr().err == "stopped\n"


def test_a_stop_that_somebody_swallows_is_not_lost(capsys):
    def command():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            pass

    def broken():
        try:
            signal.raise_signal(signal.SIGTERM)
        except BaseException:
            raise LookupError("half of an import") from None

    assert run(command) == run(broken) == 143
    assert capsys.readouterr().err == "stopped\nstopped: half of an import\n"


def test_a_signal_that_is_ignored_stays_so():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    assert run(lambda: signal.raise_signal(signal.SIGINT)) == 0
    signal.signal(signal.SIGINT, signal.default_int_handler)


def test_without_signals_commands_run(monkeypatch, capsys):
    """In a thread, where no handler can be installed; on Windows, which lacks some; and in a browser's Python."""
    found = []
    thread = threading.Thread(target=lambda: found.append(run(lambda: 7)))
    thread.start()
    thread.join()
    monkeypatch.setattr(stops, "NAMES", ("SIGINT", "SIGBREAK_OF_WINDOWS"))
    found.append(run(lambda: signal.raise_signal(signal.SIGINT)))
    monkeypatch.setattr(stops, "signal", None)
    found.append(run(lambda: 7))
    assert found == [7, 130, 7]


def test_training_in_another_thread_leaves_the_signals_to_the_first(capsys):
    def train(done):
        with stops.deferred():
            done.wait(10)
            stops.check()

    def command():
        done = threading.Event()
        thread = threading.Thread(target=train, args=(done,))
        thread.start()
        try:
            time.sleep(0.05)
            signal.raise_signal(signal.SIGTERM)
        finally:
            done.set()
            thread.join()
        raise AssertionError("it went on")

    assert run(command) == 143
    assert capsys.readouterr().err == "stopped\n"


def test_what_is_said_has_no_control_characters_and_an_end(capsys):
    def command():
        raise ValueError("\x1b[2Ja name\x00 from a file" + 10_000 * "!")

    assert run(command) == 2
    err = capsys.readouterr().err
    assert (
        err.startswith(r"error: \x1b[2Ja name\x00 from a file!") and err.endswith("characters)\n") and len(err) < 2100
    )


# ---------------------------------------------------------------------- in a process of its own

HEAD = """
import atexit, os, signal, sys, time
from mtorch.training import run, run_process, stops
signal.signal(signal.SIGINT, signal.default_int_handler)
def say(text): print(text, flush=True)
"""


def start(script):
    command = [sys.executable, "-c", HEAD + script]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=ROOT, start_new_session=True, **pipes)


def ended(process):
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_where_no_exception_can_leave_the_process_ends():
    script = """
class Dying:
    def __del__(self):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
def command():
    Dying()
    time.sleep(30)
sys.exit(run(command))
"""
    assert ended(start(script)) == (143, "", "stopped at once\n")


WAITING = """
def command():
    with stops.deferred():
        say("ready")
        for _ in range({tenths}):
            time.sleep(0.1)
        say("done")
sys.exit(run(command))
"""


def test_a_second_signal_ends_the_process_at_once():
    process = start(WAITING.format(tenths=600))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    assert ended(process) == (130, "", "stopped at once\n")


def test_two_signals_at_one_moment_are_one():
    """`timeout` sends two: to the process, and to its group."""
    process = start(WAITING.format(tenths=5))
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    os.killpg(process.pid, signal.SIGTERM)
    assert ended(process) == (143, "done\n", "stopped\n")


def test_the_last_moments_of_a_process_are_covered_too():
    script = """
atexit.register(lambda: os.kill(os.getpid(), signal.SIGTERM))
run_process(lambda: run(lambda: say("done")))
"""
    assert ended(start(script)) == (0, "done\n", "")


def test_a_stop_that_a_library_turns_into_an_error_of_its_own_says_where_to_go_on(tmp_path, capsys):
    """Compiled code does: while a picture is drawn, a SIGTERM once ended in "Invalid affine transformation matrix"."""

    def command():
        with going_on(RunFolder(tmp_path), "python -m app"):
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(5)
            except BaseException:
                raise ValueError("Invalid affine transformation matrix") from None

    assert run(command) == 143
    assert capsys.readouterr().err == "stopped: nothing is kept yet; go on with: python -m app --resume\n"
