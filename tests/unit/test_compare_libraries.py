"""The table beside other libraries: what counts as a line to read, and how a row is written."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import compare_libraries, compared

SOURCE = '''"""A module.

Of several lines.
"""

import os  # read


class A:
    """A class."""

    def f(self, x):
        """A function."""

        # a comment
        text = """one
        two"""
        return [x, text]

    @property
    def g(self):
        return lambda: (
            1
        )
'''


def test_blank_lines_comments_and_docstrings_are_no_code():
    assert compared.code_lines(SOURCE) == {6, 9, 12, 16, 17, 18, 20, 21, 22, 23, 24}


def test_the_functions_that_run_are_counted_once_with_their_decorators(tmp_path):
    (tmp_path / "sample.py").write_text(SOURCE)
    names: dict = {}
    exec(compile(SOURCE, str(tmp_path / "sample.py"), "exec"), names)
    a = names["A"]()

    def run():
        a.f(1)
        a.f(2)
        a.g()

    assert compared.reading(compared.code_that_runs(run, tmp_path)) == {"lines": 9, "functions": 3, "files": 1}


def test_ours_runs_both_tasks():
    compared.mtorch_step()()
    run = compared.mtorch_read()
    run()
    package = Path(sys.modules["mtorch"].__file__).parent
    found = compared.reading(compared.code_that_runs(run, package))
    assert found["functions"] > 10 and found["lines"] > 100


def test_a_row_says_what_was_not_measured():
    ours, theirs = compare_libraries.LIBRARIES[0], compare_libraries.LIBRARIES[3]
    rows = [
        {
            "library": ours, "missing": "", "version": "1.0", "read": {"lines": 1386, "functions": 48, "files": 13},
            "imports": [0.1, 0.3, 0.2], "size": 58.6, "steps": [8e-5, 7.6e-5, 9e-5], "tests": "7 of 9",
        },
        {
            "library": theirs, "missing": "", "version": "2", "read": None, "imports": [1.5], "size": 0.009,
            "steps": [], "tests": "none shipped",
        },
        {"library": theirs, "missing": "does not install here"},
    ]  # fmt: skip
    heads, line, first, second, third = compare_libraries.table(rows).splitlines()
    assert heads.startswith("| | lines to read") and line.count("---") == 6
    assert first == (
        "| mtorch 1.0 | 1,386 in 48 functions, 13 files; the references, `MTORCH_FAST=0` | 200 ms | 59 MB | 80 µs "
        "| 7 of 9 |"
    )
    assert "| n/a; it has no LSTM | 1.5 s | 9.0 kB | did not run, without the sigmoid | none shipped |" in second
    assert third.startswith("| micrograd | does not install here | |")


def test_tinytorchs_package_is_made_of_the_cells_marked_for_export(tmp_path, monkeypatch):
    monkeypatch.setattr(compare_libraries, "CACHE", tmp_path / "cache")
    clone = tmp_path / "clone"
    for folder in ("tinytorch/core", "tito", "tests", "src/02_a"):
        (clone / folder).mkdir(parents=True)
    (clone / "pyproject.toml").write_text("[project]\n")
    cells = ["#| default_exp core.a\n#| export\nx = 1", "y = 2", "#| export\nz = 3"]
    (clone / "src" / "02_a" / "02_a.py").write_text("\n# %% cell\n".join(["", *cells]))
    made = compare_libraries.exported(clone)
    names: dict = {}
    exec((made / "tinytorch" / "core" / "a.py").read_text(), names)
    assert names["x"] == 1 and names["z"] == 3 and "y" not in names


@pytest.mark.parametrize("script", ["compare_libraries.py"])
def test_the_script_answers_help(script):
    path = Path(compare_libraries.__file__).parent / script
    done = subprocess.run([sys.executable, str(path), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "--tinytorch CLONE" in done.stdout
