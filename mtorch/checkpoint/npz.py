"""The `.npz` format: a zip archive of `.npy` files, stored as they are or deflated."""

import io
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy

from mtorch.checkpoint.array_file import PIECE, RESERVED, ArrayFile, Header

if TYPE_CHECKING:
    import zipfile

LONGEST_HEADER = 10_000 + 12  # what NumPy accepts, and the bytes before it
LONGEST_NOTES = 2**28
STORED, DEFLATED = 0, 8
FLAGS = 0b1000_0000_1110  # how hard it was deflated, sizes repeated behind the data, names in UTF-8


class NpzFile(ArrayFile):
    """What `numpy.savez` and `numpy.savez_compressed` write. The archive's checksums are checked.

    longest_table: how many bytes its table of contents may have.
    """

    def __init__(self, file: BinaryIO, size: int, longest_table: int):
        import zipfile  # here, because it would be half the time of importing mtorch

        bounded: Any = _Bounded(file, size, longest_table)
        self.archive, self.size = zipfile.ZipFile(bounded), size
        self.members = _checked(self.archive)
        self.names = self.members.keys() - {RESERVED}
        self._found: dict[str, tuple[Header, int]] = {}

    def notes(self) -> str | None:
        if RESERVED not in self.members:
            return None
        if self.bytes_of(RESERVED) > min(max(self.size, 2**20), LONGEST_NOTES):
            raise ValueError("its notes are too long")
        if self.header(RESERVED).dtype != "uint8":
            raise ValueError(f"its notes have dtype {self.header(RESERVED).dtype}, not uint8")
        return self.read(RESERVED).tobytes().decode()

    def bytes_of(self, name: str) -> int:
        return self.members[name].file_size

    def header(self, name: str) -> Header:
        return self._header(name)[0]

    def pieces(self, name: str) -> Iterator[numpy.ndarray]:
        header, start = self._header(name)
        step = max(1, PIECE // header.dtype.itemsize)
        with self.archive.open(self.members[name]) as member:
            member.read(start)
            for first in range(0, header.size, step):
                size = min(step, header.size - first) * header.dtype.itemsize
                data = member.read(size)
                if len(data) < size:
                    raise ValueError(f"{name} ends early")
                yield numpy.frombuffer(data, header.dtype)

    def _header(self, name: str) -> tuple[Header, int]:
        """The header and its length, once it is held against the size of the member."""
        if name not in self._found:
            info = self.members[name]
            with self.archive.open(info) as member:
                begin = io.BytesIO(member.read(LONGEST_HEADER))
            header = _read_header(begin, name)
            if header.size * header.dtype.itemsize != info.file_size - begin.tell() or not header.dtype.itemsize:
                raise ValueError(f"{name} announces {header.shape} {header.dtype}, which is not what it holds")
            self._found[name] = header, begin.tell()
        return self._found[name]


class _Bounded:
    """A file of which so much is read at once and not more: a zip archive's table of contents is read at once."""

    def __init__(self, file: BinaryIO, size: int, most: int):
        self.size, self.most = size, max(most, 2**17)
        self.seek, self.tell, self.seekable, self._read = file.seek, file.tell, file.seekable, file.read

    def read(self, n: int = -1) -> bytes:
        n = self.size - self.tell() if n < 0 else n
        if n > self.most:
            raise ValueError(f"its table of contents has {n} bytes, which is too much for what it can hold")
        return self._read(n)


def _checked(archive: "zipfile.ZipFile") -> dict[str, "zipfile.ZipInfo"]:
    """The members by name, once the table of contents is checked: no two share a name or a byte of the file."""
    found: dict[str, zipfile.ZipInfo] = {}
    for info in archive.infolist():
        name = info.filename.removesuffix(".npy")
        if name == info.filename:
            raise ValueError(f"it holds {name!r}, which is no array")
        if name in found:
            raise ValueError(f"it holds {name} twice")
        if info.compress_type not in (STORED, DEFLATED) or info.flag_bits & ~FLAGS:
            raise ValueError(f"{name} is neither stored nor deflated, but packed in another way")
        if info.compress_type == STORED and info.file_size != info.compress_size:
            raise ValueError(f"{name} has two sizes")
        found[name] = info
    end = 0
    for name, info in sorted(found.items(), key=lambda item: item[1].header_offset):
        if info.header_offset < end:
            raise ValueError(f"{name} overlaps what is before it")
        end = info.header_offset + 30 + len(info.filename) + info.compress_size
    if end > archive.start_dir:
        raise ValueError("its last array overlaps the table of contents")
    return found


def _read_header(begin: io.BytesIO, name: str) -> Header:
    version = numpy.lib.format.read_magic(begin)
    read = {(1, 0): numpy.lib.format.read_array_header_1_0, (2, 0): numpy.lib.format.read_array_header_2_0}
    if version not in read:
        raise ValueError(f"{name} has the unknown format version {version}")
    try:
        shape, fortran, dtype = read[version](begin)
    except Exception as error:  # numpy lets through what Python's tokenizer raises
        raise ValueError(f"{name} has a damaged header: {error}") from error
    if dtype.hasobject:
        raise ValueError(f"{name} holds Python objects")
    return Header(shape, dtype, "F" if fortran else "C")
