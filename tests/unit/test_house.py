"""How much a reader meets: in a step of the digit net, on the reading path, and outside of a class's own file.

`python tools/house.py` prints the same counts with all names.
"""

import json
import subprocess
import sys
from pathlib import Path

import house
import pytest

ROOT = Path(__file__).parents[2]

# A later order raises these by what its features need, and says so.
FILES, FUNCTIONS, LINES = 15, 42, 1900
PATH_FILES, PATH_LINES = 14, 1982  # 1,900 before losses added, predict had a state, parameters froze, errors were cut
CLASSES = 75


@pytest.fixture(scope="module")
def counts():
    command = [sys.executable, str(ROOT / "tools" / "house.py"), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_step_of_the_digit_net_runs_through_few_files_functions_and_lines(counts):
    step = counts["step"]
    files = {file for file, _ in step}
    assert not [file for file in files if file.startswith("fast/")]
    assert len(files) <= FILES and len(step) <= FUNCTIONS and house.lines_of(files) <= LINES, step


def test_the_reading_path_is_short(counts):
    path = counts["path"]
    assert (ROOT / "docs" / "reading.md").exists() and all(path.values()), path
    assert len(path) == PATH_FILES and sum(path.values()) <= PATH_LINES, path


def test_most_classes_have_their_arithmetic_in_their_own_file(counts):
    elsewhere = counts["elsewhere"]
    found = {name: functions for name, functions in elsewhere.items() if functions}
    assert len(elsewhere) >= 86 and len(elsewhere) - len(found) >= CLASSES, found


def test_the_count_sees_what_runs_elsewhere(tmp_path):
    """A function in the class's own file counts for it, one in another file against it."""
    from mtorch.layers import Tanh

    own = {("layers/tanh.py", "Tanh.forward"), ("layer.py", "Layer.recall"), ("math/erf.py", "erf")}
    assert house.strangers(Tanh, own, []) == set()
    assert house.strangers(Tanh, own | {("kernels/relu.py", "relu")}, []) == {"kernels/relu.py: relu"}
    (tmp_path / "one.py").write_text("def f():\n    return g()\n\ndef g():\n    return 1\n")
    sys.path.insert(0, str(tmp_path))
    try:
        import one

        assert house.functions_run(one.f, tmp_path) == {("one.py", "f"), ("one.py", "g")}
    finally:
        sys.path.remove(str(tmp_path))
