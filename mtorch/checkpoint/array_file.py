"""What the two formats have in common: a file that announces named arrays, and hands them out one at a time."""

import contextlib
import math
import os
import stat
from abc import ABC, abstractmethod
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy

from mtorch.checks import plain

RESERVED = "__mtorch__"  # the entry that holds the notes; it begins the names of the arrays in them
PIECE = 2**16  # bytes that are read at once


class Header(NamedTuple):
    """What a file announces of an array."""

    shape: tuple[int, ...]
    dtype: numpy.dtype
    order: Any = "C"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


class ArrayFile(ABC):
    """An open file of named arrays. What it announces can be looked at before anything is read."""

    names: Set[str]  # of all arrays but the notes
    size: int  # of the whole file

    @abstractmethod
    def notes(self) -> str | None:
        """The text that stands beside the arrays."""

    @abstractmethod
    def bytes_of(self, name: str) -> int:
        """How many bytes the array takes, at most."""

    @abstractmethod
    def header(self, name: str) -> Header:
        """The shape and the dtype of that array."""

    @abstractmethod
    def pieces(self, name: str) -> Iterator[numpy.ndarray]:
        """The array in flat pieces, which are checked against the file's checksum when the last one has come."""

    def read(self, name: str, dtype: numpy.dtype | None = None) -> numpy.ndarray:
        """The whole array, in that dtype. Only as much is allocated."""
        header, start = self.header(name), 0
        flat = numpy.empty(header.size, dtype or header.dtype)
        for piece in self.pieces(name):
            try:
                with numpy.errstate(over="raise", invalid="raise"):
                    flat[start : start + len(piece)] = piece
            except FloatingPointError:
                raise ValueError(f"{name} holds numbers that {flat.dtype} cannot hold") from None
            start += len(piece)
        return flat.reshape(header.shape, order=header.order)


@contextlib.contextmanager
def regular_file(path: Path) -> Iterator[BinaryIO]:
    """The open file. OSError for a folder, a pipe or a device, which is not waited for."""

    def opener(name: str, flags: int) -> int:
        return os.open(name, flags | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0))

    with open(path, "rb", opener=opener) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(f"cannot read {path.name}: it is no regular file")
        yield file


@contextlib.contextmanager
def naming(path: Path, what: str = " is damaged or no checkpoint") -> Iterator[None]:
    """Turns whatever a file's content provokes into one ValueError that names the file."""
    import zipfile
    import zlib

    try:
        yield
    except OSError as error:
        if error.errno is not None:
            error.filename = error.filename or str(path)
            raise
        raise ValueError(f"{path.name}{what}: {plain(error, 8000)}") from None
    except MemoryError:
        raise ValueError(f"{path.name}{what}: it announces more than there is memory for") from None
    except (
        zipfile.BadZipFile, zlib.error, EOFError, ArithmeticError, LookupError, RuntimeError, TypeError, ValueError
    ) as error:  # fmt: skip
        raise ValueError(f"{path.name}{what}: {plain(error, 8000)}") from None
