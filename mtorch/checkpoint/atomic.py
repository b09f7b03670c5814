"""Whole files or none: a file is written beside its target and moved over it when it is complete and on the disk.

A kill, a full disk or a second writer never leaves half a file. The temporary file is locked while it is written, so
the next writer knows what a killed one left behind: what nobody holds.
"""

import contextlib
import errno
import os
import re
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

from mtorch.checkpoint.lock import take_lock

KEPT = 86_400.0  # seconds for which a leftover stays where locks do not work
FULL = {errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)}


def write_atomically(path: str | os.PathLike, write: Callable[[BinaryIO], Any]) -> None:
    """Calls `write(file)` on a temporary file beside `path`, then puts it in the place of `path`.

    A link stays: what it points to is written. What is no file (a folder, a device, a pipe) is an OSError.
    """
    asked, path = path, Path(os.path.realpath(path))
    if path.is_dir():
        raise IsADirectoryError(f"cannot write {Path(asked).name or asked}: it is a folder")
    if path.exists() and not path.is_file():
        raise OSError(f"cannot write {Path(asked).name}: it is no regular file")
    _remove_leftovers(path)
    part = path
    try:
        part, file = _temporary(path)
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if path.exists():
                os.chmod(part, path.stat().st_mode & 0o7777)
            if os.name == "posix":  # while it is locked; Windows does not move an open file
                os.replace(part, path)
        if os.name != "posix":
            os.replace(part, path)
    except BaseException as error:
        if part != path:
            with contextlib.suppress(OSError):
                part.unlink()
        if isinstance(error, OSError) and error.filename in (None, str(part)) and error.errno:
            if error.errno in FULL:
                error.strerror = f"{error.strerror} for a file in the folder {path.parent}"
            error.filename = str(asked)
        raise
    _sync_folder(path.parent)


def _temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside `path`, open and locked, under a name that nobody can guess."""
    while True:
        part = path.with_name(f".{_shortened(path.name)}.{os.urandom(6).hex()}.part")
        try:
            file = open(part, "xb")
        except FileExistsError:
            continue
        except OSError as error:
            error.filename = str(path)
            raise
        if take_lock(file) is not False and _is_named(file, part):
            return part, file
        file.close()  # before it was locked, another writer took it for a leftover


def _remove_leftovers(path: Path) -> None:
    """Removes what killed writers of this file left behind, under the names of former versions too."""
    names = rf"\.{re.escape(_shortened(path.name))}\.[0-9a-f]{{12}}\.part|\.{re.escape(path.name)}\.\d+\.\d+\.part"
    with contextlib.suppress(OSError):  # a folder that cannot be listed
        found = [name for name in os.listdir(path.parent) if re.fullmatch(names, name)]
        for name in found:
            with contextlib.suppress(OSError):
                _remove_leftover(path.with_name(name))


def _remove_leftover(part: Path) -> None:
    """Removes it if no writer holds its lock."""
    if not stat.S_ISREG(part.lstat().st_mode):
        return
    flags = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0)
    with open(os.open(part, flags), "r+b") as file:
        free = take_lock(file)
        if free is None:
            free = time.time() - part.stat().st_mtime > KEPT
        if free and os.name == "posix" and _is_named(file, part):
            part.unlink()
    if free and os.name != "posix" and time.time() - part.stat().st_mtime > 60:  # not one that is just being moved
        part.unlink()


def _is_named(file: BinaryIO, path: Path) -> bool:
    """Whether that name still belongs to the open file."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.lstat(path))
    except FileNotFoundError:
        return False


def _shortened(name: str) -> str:
    """The name, cut so that what is added to it fits into the longest name of any file system."""
    return name.encode(errors="surrogateescape")[:100].decode(errors="ignore")


def _sync_folder(folder: Path) -> None:
    """Puts the folder's list of names on the disk, where the system lets one open it."""
    if os.name == "posix":
        with contextlib.suppress(OSError):  # the file itself is on the disk
            handle = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
