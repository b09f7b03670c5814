"""A progress bar on a terminal, silence elsewhere."""

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from typing import Any


def progress(batches: Iterable[Any], title: str) -> AbstractContextManager[Iterable[Any]]:
    """`with progress(loader, "epoch 1") as batches:` gives the batches, with a tqdm bar where stderr is a terminal.

    Without tqdm there is no bar.
    """
    if sys.stderr is None or not sys.stderr.isatty():
        return nullcontext(batches)
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(batches)
    told = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # where it is not, tqdm would show nothing
    size = {"dynamic_ncols": True} if told else {"ncols": 80, "nrows": 24}
    return tqdm(batches, desc=title, leave=False, file=sys.stderr, mininterval=0.1, **size)
