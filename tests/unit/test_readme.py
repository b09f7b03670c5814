"""Every code block of the README and of the pages in docs/ runs."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = {path.stem: path.read_text() for path in sorted((ROOT / "docs").glob("*.md"))}
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
BASH = [
    line
    for text in (README, *PAGES.values())
    for block in re.findall(r"```bash\n(.*?)```", text, re.S)
    for line in block.splitlines()
]
LINKS = [("README.md", link) for link in re.findall(r"\]\(((?!http)[^)#]+)\)", README)]
LINKS += [(f"docs/{page}.md", link) for page in PAGES for link in re.findall(r"\]\(((?!http)[^)#]+)\)", PAGES[page])]
ELSEWHERE = ("new_layer", "interop_torch")  # pages with tests of their own
MADE = ("reference/index.md", "recipes/index.md")  # by tools/make_site.py
SETUP = [line for line in BASH if line.startswith("python3 -m venv")]
COMMANDS = [line for line in BASH if line not in SETUP]


@pytest.mark.parametrize("number", range(len(PYTHON)))
def test_a_python_block_runs_as_it_stands(number, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    exec(compile(PYTHON[number], f"README block {number}", "exec"), {"__name__": "readme"})


@pytest.mark.parametrize("page", [page for page in PAGES if "```python" in PAGES[page] and page not in ELSEWHERE])
def test_the_blocks_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for needed in re.findall(r"<!-- needs (\w+) -->", PAGES[page]):
        pytest.importorskip(needed)
    names = {"__name__": "page"}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", PAGES[page], re.S)):
        exec(compile(block, f"block {number} of docs/{page}.md", "exec"), names)


def test_the_two_commands_come_first_and_are_what_ci_runs():
    assert len(SETUP) == 2 and BASH[:2] == SETUP
    assert "apps.mnist" in SETUP[0] and "pytest" in SETUP[1]
    assert all(" install -q -e '.[" in line for line in SETUP)  # a copy would hide a reader's edits from other scripts
    assert "README.md" in (ROOT / ".ci" / "run").read_text()  # CI takes both from this page


def test_a_layer_is_added_as_the_page_says(tmp_path):
    shutil.copytree(ROOT / "mtorch", tmp_path / "mtorch", ignore=shutil.ignore_patterns("__pycache__"))
    block = next(block for block in PYTHON if "class Scale(Layer)" in block)
    file, proof = block.split("\n\n\nfrom mtorch.testing")
    folder = tmp_path / "mtorch" / "layers"
    (folder / "scale.py").write_text(file)
    with open(folder / "__init__.py", "a") as listing:
        listing.write("from mtorch.layers.scale import Scale\n")
    script = f"from mtorch.layers import Scale\nimport numpy\nfrom mtorch.testing{proof}"
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_runs_as_it_stands(line, tmp_path):
    """On the built-in digits where it names no data, with a picture of a seven at hand, and briefly."""
    words = shlex.split(line)
    assert words[:2] == ["python", "-m"]
    pytest.importorskip("matplotlib"), pytest.importorskip("PIL")
    environment = os.environ | {"MPLBACKEND": "Agg", "PYTHONPATH": str(ROOT)}
    if "mnist" in words and not os.environ.get("MTORCH_DATA"):
        pytest.skip("this command wants real MNIST, and there is none here")
    if words[2] == "apps.mnist" and "--data" not in words and "predict" not in words:
        words += ["--data", "digits"]
    if "predict" in words:
        seven(tmp_path / "seven.png")
        train = [sys.executable, "-m", "apps.mnist", "--data", "digits", "--epochs", "2"]
        subprocess.run(train, cwd=tmp_path, env=environment, check=True, capture_output=True)
    done = subprocess.run([sys.executable, *words[1:]], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def seven(path):
    from PIL import Image, ImageDraw

    picture = Image.new("L", (60, 80), 255)
    ImageDraw.Draw(picture).line([(12, 12), (48, 12), (26, 68)], fill=0, width=7)
    picture.save(path)


@pytest.mark.parametrize("page, link", LINKS)
def test_a_link_leads_somewhere(page, link):
    assert link in MADE or (ROOT / page).parent.joinpath(link).exists(), link
