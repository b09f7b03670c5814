"""The lock of an open file, which ends with the file: when it is closed, or when its process dies however it dies."""

import sys
from typing import BinaryIO


def take_lock(file: BinaryIO) -> bool | None:
    """True when it is ours now, False when another holds it, None where locks do not work."""
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(2**40)  # beyond what anybody writes
            try:
                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
            finally:
                file.seek(0)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except (ImportError, OSError):  # a browser, some network file systems
        return None
    return True
