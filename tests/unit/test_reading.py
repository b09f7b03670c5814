"""docs/reading.md names files that exist, in the order of the page."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "reading.md").read_text()


def test_every_link_leads_somewhere_and_the_path_has_fourteen_files():
    links = re.findall(r"\]\((\S+?)\)", PAGE)
    assert all((ROOT / "docs" / link).exists() for link in links)
    rows = re.findall(r"^\| (\d+) \| \[(\S+)\]\(\.\./(\S+)\)", PAGE, re.M)
    assert [int(number) for number, _, _ in rows] == list(range(1, 15))
    assert all(name == path for _, name, path in rows)
