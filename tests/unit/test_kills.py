"""tools/kills.py sees what it is there for: it is run in full by .ci/run."""

import os
import random
import subprocess
import sys

import kills
import numpy
import pytest

from mtorch.training import RunFolder

pytestmark = pytest.mark.skipif(os.name != "posix", reason="sends signals")

APP = """
import signal, sys, time
def handler(number, frame):
    print({text!r}, file=sys.stderr)
    raise SystemExit({status})
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, handler)
print("ready", flush=True)
time.sleep(30)
"""


class Always(random.Random):
    """Chooses a signal, and none twice."""

    def __init__(self, kind):
        super().__init__(0)
        self.kind = kind

    def choice(self, among):
        return self.kind

    def random(self):
        return 1.0


def stopped(kind, text="stopped: step 3 is kept; go on with: python -m thing", status=143):
    command = [sys.executable, "-c", APP.format(text=text, status=status)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.readline()
    return kills.stop(process, 0.01, Always(kind))


def test_a_stop_must_end_with_its_status_and_one_line():
    assert stopped("SIGTERM") == "SIGTERM" and stopped("SIGKILL") == "SIGKILL"
    for text, status in (("Traceback", 143), ("stopped", 143), ("stopped: go on with: python -m x", 1)):
        with pytest.raises(kills.Failure, match=f"SIGTERM ended it with status {status}"):
            stopped("SIGTERM", text, status)


def test_a_file_that_is_cut_off_is_found(tmp_path):
    folder = RunFolder(tmp_path)
    (tmp_path / ".model.npz.part").write_bytes(b"half")  # a temporary file may be
    kills.check_files(tmp_path)
    for name, text in (
        ("a.npz", b"PK"), ("a.json", b"{"), ("a.csv", b"epoch,loss\n1,0.5\n2"), ("a.png", b"\x89PNG"),
    ):  # fmt: skip
        (tmp_path / name).write_bytes(text)
        with pytest.raises(kills.Failure, match=f"{name} cannot be read"):
            kills.check_files(tmp_path)
        (tmp_path / name).unlink()
    folder.write_history([{"epoch": 1, "loss": 0.5}])
    kills.check_files(tmp_path)


def test_one_differing_bit_and_one_file_too_many_are_found(tmp_path):
    x = numpy.ones(3)
    for name, value in (("a", x), ("b", x), ("c", numpy.nextafter(x, 2))):
        (tmp_path / name).mkdir()
        numpy.savez(tmp_path / name / "model.npz", weight=value)
        RunFolder(tmp_path / name).write_metrics({"loss": 1, "seconds": random.random()})
    a, b, c = (kills.contents(tmp_path / name) for name in "abc")
    assert a == b != c
    (tmp_path / "b" / ".model.npz.x.part").write_bytes(b"")
    assert kills.contents(tmp_path / "b") != a
