"""IDX, the file format of MNIST: a magic number, the dimensions, then the values row by row; raw or gzipped.

    magic     2 zero bytes, 1 byte that names the type, 1 byte with the number of dimensions
    sizes     one big-endian uint32 for each dimension
    values    in C order, big-endian

What the header promises is compared with what the file can hold before memory is allocated for it, and the values are
read piece by piece, so that a damaged or malicious header costs no memory.

LeCun, Cortes & Burges, "The MNIST database of handwritten digits", 1998.
"""

import gzip
import hashlib
import math
import os
import stat
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

import numpy

from mtorch.checks import physical_memory, shown

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
Stream = BinaryIO | gzip.GzipFile
GZIP = b"\x1f\x8b"
DEFLATE_LIMIT = 1032  # no deflate stream grows by more than this factor
PIECE = 1 << 20

Path = str | os.PathLike


def read_idx(path: Path) -> numpy.ndarray:
    """The array in an IDX file, raw or gzipped (the content decides, not the name).

    ValueError for a file that is damaged or no IDX file, or that needs more memory than the machine has, OSError for
    one that cannot be read, or is no regular file; both name the file.
    """
    return read_up_to(path, physical_memory())


def read_up_to(path: Path, largest: int) -> numpy.ndarray:
    """As read_idx; ValueError for values of more than that many bytes, before they are read."""
    with _opened(path) as (stream, size, packed):
        dtype, shape = _header(stream, size, packed)
        wanted = dtype.itemsize * math.prod(shape)
        if wanted > largest:
            raise ValueError(f"its header promises {_promise(shape, wanted)}, which is more than this reads")
        data = bytearray()
        while len(data) <= wanted:  # one byte more than promised shows a file that goes on, and gzip its checksum
            piece = stream.read(min(PIECE, wanted + 1 - len(data)))
            if not piece:
                break
            data += piece
        if len(data) != wanted:
            found = f"only {len(data):,} follow" if len(data) < wanted else "more follow"
            raise ValueError(f"its header promises {_promise(shape, wanted)}, but {found}")
        array = numpy.frombuffer(data, dtype).reshape(shape)
        return array.astype(dtype.newbyteorder("="), copy=False)


def read_idx_header(path: Path) -> tuple[numpy.dtype, tuple[int, ...]]:
    """dtype and shape that an IDX file's header gives, compared with the file's length."""
    with _opened(path) as (stream, size, packed):
        dtype, shape = _header(stream, size, packed)
        return dtype.newbyteorder("="), shape


def idx_sha256(array: numpy.ndarray) -> str:
    """SHA-256 of the uncompressed IDX file that holds these unsigned bytes."""
    header = bytes([0, 0, 0x08, array.ndim]) + numpy.array(array.shape, ">u4").tobytes()
    digest = hashlib.sha256(header)
    digest.update(numpy.ascontiguousarray(array, numpy.uint8).data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Stream, int, bool]]:
    """(stream of uncompressed bytes, bytes on the disk, whether it is gzipped); errors inside name the file."""
    if not isinstance(path, str | os.PathLike):
        raise TypeError(f"an IDX file's path must be a str or a Path, got {shown(path)}")
    with open(path, "rb", opener=_open_now) as raw:
        try:
            status = os.fstat(raw.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise OSError(f"{os.fspath(path)}: expected a regular file, got a pipe or a device")
            size = status.st_size
            packed = raw.read(2) == GZIP
            raw.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=raw) as stream:
                    yield stream, size, True
            else:
                yield raw, size, False
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{os.fspath(path)}: damaged gzip data: {error}") from error
        except ValueError as error:
            raise ValueError(f"{os.fspath(path)}: {error}") from error
        except MemoryError as error:
            raise MemoryError(f"{os.fspath(path)}: its values do not fit into memory") from error


def _open_now(path: str, flags: int) -> int:
    """An opener that does not wait for the other end of a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def _header(stream: Stream, size: int, packed: bool) -> tuple[numpy.dtype, tuple[int, ...]]:
    magic = stream.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] not in TYPES or not 1 <= magic[3] <= 32:
        raise ValueError(f"no IDX file: expected a magic number such as 00 00 08 03, got {magic.hex(' ') or 'nothing'}")
    sizes = stream.read(4 * magic[3])
    if len(sizes) < 4 * magic[3]:
        raise ValueError(f"its IDX header is cut off: expected {magic[3]} dimensions")
    dtype, shape = numpy.dtype(TYPES[magic[2]]), tuple(numpy.frombuffer(sizes, ">u4").tolist())
    wanted = dtype.itemsize * math.prod(shape)
    available = size * DEFLATE_LIMIT if packed else size - 4 - len(sizes)
    if wanted > available or not packed and wanted < available:
        found = f"{size:,} gzipped bytes cannot hold that" if packed else f"{available:,} follow"
        raise ValueError(f"its header promises {_promise(shape, wanted)}, but {found}")
    return dtype, shape


def _promise(shape: tuple[int, ...], size: int) -> str:
    return f"{' x '.join(map(str, shape))} values ({size:,} bytes)"
