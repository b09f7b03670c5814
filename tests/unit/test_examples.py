"""Every program of examples/ runs, and its own check at the end holds."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))


@pytest.mark.slow
@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs_and_its_check_holds(path, tmp_path):
    paths = os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    environment = os.environ | {"PYTHONPATH": paths, "OPENBLAS_NUM_THREADS": "1"}  # small nets, perhaps a busy machine
    command = [sys.executable, "-W", "error", str(path)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    if needed := re.match("this example needs ([^:]+): ", done.stderr):
        pytest.skip(f"{needed[1]} is not installed")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_short_says_what_it_does_and_checks_it(path):
    text = path.read_text()
    assert text.startswith('"""') and "\nassert " in text
    assert 25 <= sum(map(bool, text.splitlines())) <= 60


def test_the_readme_names_every_example():
    text = (ROOT / "README.md").read_text()
    assert len(EXAMPLES) >= 11 and [path for path in EXAMPLES if f"examples/{path.name}" not in text] == []
