"""The catalogue and the table of layers are those of the code as it is; the notebook shows what its cells gave."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_catalogue_and_table_of_layers_are_up_to_date():
    command = [sys.executable, "tools/make_catalogue.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_notebook_is_kept_as_it_ran():
    """`python tools/run_notebook.py docs/by_hand.ipynb --write` keeps what the cells printed and drew."""
    notebook = json.loads((ROOT / "docs" / "by_hand.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source = "".join(cell["source"])
        kinds = [kind for output in cell["outputs"] for kind in (output["output_type"], *output.get("data", ()))]
        assert "error" not in kinds and "stderr" not in [output.get("name") for output in cell["outputs"]]
        assert ("stream" in kinds) >= ("print(" in source), source
        assert ("image/png" in kinds) >= (".plot()" in source), source
