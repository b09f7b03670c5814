"""docs/sampling.md: its blocks run, one after the other."""

import re
from pathlib import Path

PAGE = (Path(__file__).parents[2] / "docs" / "sampling.md").read_text()


def test_every_block_of_the_page_about_sampling_runs():
    names = {"__name__": "page"}
    for number, block in enumerate(re.findall(r"```python\n(.*?)```", PAGE, re.S)):
        exec(compile(block, f"block {number} of docs/sampling.md", "exec"), names)
