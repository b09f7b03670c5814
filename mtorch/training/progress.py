"""A progress bar on a terminal or in a notebook, silence elsewhere."""

import os
import sys
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from typing import Any


def progress(
    batches: Iterable[Any] | None, title: str, total: int | None = None, done: int = 0
) -> AbstractContextManager[Any]:
    """`with progress(loader, "epoch 1") as batches:` gives the batches, with a tqdm bar where somebody can see it.

    batches: None gives a bar that its `update()` moves, of `total` steps of which some are `done`; or None, where there
    is no bar. Without tqdm there is none.
    """
    notebook = "ipykernel" in sys.modules
    if not notebook and (sys.stderr is None or not sys.stderr.isatty()):
        return nullcontext(batches)
    try:
        from tqdm import tqdm
    except ImportError:
        return nullcontext(batches)
    if notebook and find_spec("ipywidgets"):
        from tqdm.notebook import tqdm
    size: dict[str, Any] = {}
    if not notebook:
        told = os.get_terminal_size(sys.stderr.fileno()).columns > 0  # where it is not, tqdm would show nothing
        size = {"dynamic_ncols": True} if told else {"ncols": 80, "nrows": 24}
    more = {} if batches is not None else {"total": total, "initial": done}
    return tqdm(batches, desc=title, leave=False, file=sys.stderr, mininterval=0.1, **more, **size)
