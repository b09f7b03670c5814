"""A progress bar on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable
from typing import Any


class _Silent:
    """Stands in for the bar where nobody watches."""

    def __init__(self, batches: Iterable[Any]):
        self._batches = batches

    def __iter__(self):
        return iter(self._batches)

    def set_postfix_str(self, text: str, refresh: bool = True) -> None:
        pass


def progress(batches: Iterable[Any], title: str) -> Any:
    """`batches` with a tqdm bar on stderr, when stderr is a terminal."""
    if not sys.stderr.isatty():
        return _Silent(batches)
    from tqdm import tqdm

    return tqdm(batches, desc=title, leave=False, file=sys.stderr, dynamic_ncols=True, mininterval=0.1)
