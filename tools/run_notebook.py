"""Executes a notebook; its own assertions must hold.

python tools/run_notebook.py docs/by_hand.ipynb            # changes nothing
python tools/run_notebook.py docs/by_hand.ipynb --write    # keeps what the cells printed and drew
"""

import sys
import time
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError


def main(path: str, *options: str) -> int:
    notebook = nbformat.read(path, nbformat.NO_CONVERT)
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", coalesce_streams=True)
    started = time.perf_counter()
    try:
        client.execute(cwd=str(Path(path).parents[1]))
    except CellExecutionError as error:
        print(error, file=sys.stderr)
        return 1
    print(f"{path}: {len(notebook.cells)} cells in {time.perf_counter() - started:.0f} s")
    if "--write" in options:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # clock times
        nbformat.write(notebook, path)
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
