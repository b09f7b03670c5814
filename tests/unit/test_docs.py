"""The catalogue and the table of layers are those of the code as it is."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_catalogue_and_table_of_layers_are_up_to_date():
    command = [sys.executable, "tools/make_catalogue.py", "--check"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
