"""What the system allows: how many cores there are, and whether this thread may divide its work among processes."""

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from mtorch.fast import threads


class _ThisThread(threading.local):
    computes_share = False


_this_thread = _ThisThread()


def cpu_count() -> int:
    """The number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def can_fork() -> bool:
    """Whether this thread may fork workers: on Linux, unless it computes the share of one process already."""
    return sys.platform == "linux" and hasattr(os, "fork") and not _this_thread.computes_share


@contextmanager
def one_share() -> Iterator[None]:
    """Inside, this thread computes the share of one process: on one core, in one thread."""
    before, _this_thread.computes_share = _this_thread.computes_share, True
    try:
        with threads.one_thread():
            yield
    finally:
        _this_thread.computes_share = before
