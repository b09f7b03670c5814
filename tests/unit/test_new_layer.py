"""Every class of docs/new_layer.md, added to a copy of the package by its file and its line, passes its proofs."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "new_layer.md").read_text()
FILES = re.findall(r"`(mtorch/\S+\.py)`[^\n]*:\n\n```python\n(.*?)```.*?```python\n(from .*?\n)```", PAGE, re.S)
NAMES = [line.split()[-1] for _, _, line in FILES]


@pytest.fixture(scope="module")
def proofs(tmp_path_factory):
    """{class: {proof: outcome}} of a copy of the package with every file of the page."""
    root = tmp_path_factory.mktemp("copy")
    (root / "tests" / "unit").mkdir(parents=True)
    for folder in ("mtorch", "tests/conformance"):
        shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "tests/unit/small_training.py", "tests/unit/test_keywords.py"):
        shutil.copy(ROOT / file, root / file)
    for path, text, line in FILES:
        (root / path).write_text(text)
        with open((root / path).parent / "__init__.py") as listing:
            listed = listing.read()
        (root / path).parent.joinpath("__init__.py").write_text(listed.replace("\n__all__", f"{line}\n__all__"))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "tests/conformance",
        "tests/unit/test_keywords.py",
        "-v",
        "--tb=short",
        "-p",
        "no:cacheprovider",
    ]
    command += ["-k", " or ".join(NAMES), "-o", "addopts=-m 'not gpu'"]
    environment = {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300)
    found = {name: {} for name in NAMES}
    for proof, options, outcome in re.findall(r"::(\w+)\[(\S+)\] (\w+)", done.stdout):
        for name in NAMES:
            if name in options:
                found[name][proof, options] = outcome
    return found, done.stdout


def test_the_page_has_a_file_of_each_kind():
    assert NAMES == ["Slope", "RunningCentre", "UniformNoise", "Gated", "LogCoshLoss", "PolyLoss", "Signum"]
    assert PAGE.count("```python") == 2 * len(FILES)


@pytest.mark.parametrize("name", NAMES)
def test_a_class_of_the_page_passes_all_its_proofs(proofs, name):
    found, output = proofs
    outcomes = list(found[name].values())  # a proof about .safetensors is skipped where that is not installed
    assert outcomes.count("PASSED") >= 4 and set(outcomes) <= {"PASSED", "SKIPPED"}, output[-8000:]
