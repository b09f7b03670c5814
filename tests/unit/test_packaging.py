"""What the package index and pip are told, and that every text that names an extra names one that exists."""

import re
import tomllib
from pathlib import Path

import pytest

import mtorch

ROOT = Path(__file__).parents[2]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]

FOLDERS = ("mtorch", "apps", "benchmarks", "docs", "examples", "tools", "tests", ".ci", ".github")
KINDS = {".py", ".md", ".toml", ".yml", ".cff", ""}
TEXTS = [
    path
    for top in [*ROOT.iterdir(), *(ROOT / name for name in FOLDERS)]
    for path in ([top] if top.is_file() else top.rglob("*") if top.name in FOLDERS else [])
    if path.is_file() and path.suffix in KINDS and path.name not in (".git", Path(__file__).name)
]
INSTALLS = [
    (path, line.strip())
    for path in dict.fromkeys(TEXTS)
    for line in path.read_text().splitlines()
    if re.search(r"\bpip['\"]? install\b", line)
]


def test_the_distribution_has_a_name_of_its_own_and_the_import_stays():
    assert PROJECT["name"] == "mtorch-layers" and PYPROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
    assert PROJECT["authors"] == [{"name": "mtorch contributors"}] and PROJECT["license"] == "MIT"
    assert "mtorch contributors" in (ROOT / "LICENSE").read_text()


def test_one_version_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {PROJECT['version']}\n" in citation and mtorch.__version__ == PROJECT["version"]
    assert 'name: "mtorch contributors"' in citation and "http" not in citation


def test_no_extra_asks_the_index_for_a_package_called_mtorch():
    for name, wants in EXTRAS.items():
        assert not [want for want in wants if re.match(r"mtorch\b", want)], name


def test_every_python_that_ci_tests_is_a_classifier():
    named = {each.removeprefix("Programming Language :: Python :: ") for each in PROJECT["classifiers"]}
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    tested = set(re.findall(r"3\.1\d", re.search(r"python: \[(.*)\]", workflow)[1]))
    assert tested == {each for each in named if re.fullmatch(r"3\.\d+", each)} == {"3.11", "3.12", "3.13", "3.14"}


@pytest.mark.parametrize("path, line", INSTALLS, ids=lambda value: getattr(value, "name", None))
def test_a_text_that_says_pip_install_names_the_clone_and_an_extra_that_exists(path, line):
    """`mtorch` on the package index is somebody else's project."""
    wanted = line.split("install", 1)[1]
    assert not re.search(r"install\s[^|;&]*\bmtorch\b", line), f"{path}: {line}"
    for extras in re.findall(r"\.\[([^\]]*)\]", wanted):
        for extra in extras.split(","):
            assert extra.strip() in EXTRAS, f"{path} names the extra {extra!r}: {line}"


def test_no_text_gives_the_package_that_name_with_extras():
    for path in TEXTS:
        assert not re.search(r"\bmtorch\[[a-z]", path.read_text()), path
    assert len(INSTALLS) > 5
