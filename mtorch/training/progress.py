"""A progress bar on a terminal, silence elsewhere."""

import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def progress(batches: Iterable[Any], title: str) -> AbstractContextManager[Iterable[Any]]:
    """`with progress(loader, "epoch 1") as batches:` gives the batches, with a tqdm bar where stderr is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext(batches)
    from tqdm import tqdm

    return tqdm(batches, desc=title, leave=False, file=sys.stderr, dynamic_ncols=True, mininterval=0.1)
