"""The `.safetensors` format: eight bytes that give the length of a JSON header, the header, the bytes of all arrays.

The header says of each array {"dtype": "F32", "shape": [4, 3], "data_offsets": [0, 48]}, counted from its own end; the
arrays follow each other without gaps. Its entry `__metadata__` holds texts. What we write has a CRC-32 of each
array and of the notes there, as zip archives do.
"""

import json
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO, TypeGuard

import numpy

from mtorch.checkpoint.array_file import PIECE, RESERVED, ArrayFile, Header
from mtorch.checkpoint.notes import check_weight, padded

LONGEST_HEADER = 100_000_000  # of the format
METADATA, SUMS = "__metadata__", f"{RESERVED}.crc32"
KINDS = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "|i1", "U64": "<u8",
    "U32": "<u4", "U16": "<u2", "U8": "|u1", "BOOL": "|b1", "C64": "<c8", "BF16": "<f4",
}  # fmt: skip
NAMES = {numpy.dtype(kind): name for name, kind in KINDS.items() if name != "BF16"}


class SafetensorsFile(ArrayFile):
    """An open file of that format. Checksums are checked where there are any. BF16 is read as float32."""

    def __init__(self, file: BinaryIO, size: int):
        self.file, self.size = file, size
        length = int.from_bytes(file.read(8), "little")
        if not 2 <= length <= min(size - 8, LONGEST_HEADER):
            raise ValueError(f"its header would have {length} bytes")
        text = file.read(length).decode()
        check_weight(text)
        table = json.loads(text)
        if not isinstance(table, dict):
            raise ValueError("its header is no dict")
        metadata = table.pop(METADATA, None)
        metadata = {} if metadata is None else metadata
        if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
            raise ValueError("its metadata are no texts")
        self.text: str | None = metadata.get(RESERVED)
        self.sums: dict[str, int] | None = json.loads(metadata[SUMS]) if SUMS in metadata else None
        if not isinstance(self.sums, dict | None):
            raise ValueError("its checksums are no dict")
        self.start, self.table = 8 + length, table
        for name in table:
            table[name] = _entry(name, table[name])
        self._check_places()
        self.names = table.keys()

    def _check_places(self) -> None:
        end = 0
        for begin, after in sorted((entry[2], entry[3]) for entry in self.table.values()):
            if begin != end:
                raise ValueError("its arrays overlap, or leave gaps")
            end = after
        if self.start + end != self.size:
            raise ValueError(f"it has {self.size} bytes, its header announces {self.start + end}")

    def notes(self) -> str | None:
        if self.sums is not None:
            self._check("", zlib.crc32((self.text or "").encode()))
        return self.text

    def bytes_of(self, name: str) -> int:
        return self.header(name).size * self.header(name).dtype.itemsize

    def header(self, name: str) -> Header:
        return self.table[name][1]

    def pieces(self, name: str) -> Iterator[numpy.ndarray]:
        kind, header, begin, end = self.table[name]
        crc = _begun(name, kind, header.shape)
        self.file.seek(self.start + begin)
        for place in range(begin, end, PIECE):
            data = self.file.read(min(PIECE, end - place))
            crc = zlib.crc32(data, crc)
            if kind == "BF16":  # the upper half of a float32
                yield (numpy.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
            else:
                yield numpy.frombuffer(data, header.dtype)
        if self.sums is not None:
            self._check(name, crc)

    def _check(self, name: str, crc: int) -> None:
        if self.sums is not None and self.sums.get(name) != crc:
            raise ValueError(f"the checksum of {name or 'its notes'} is wrong")


def _entry(name: str, entry: Any) -> tuple[str, Header, int, int]:
    """(the name of the dtype, the header, where it begins and ends) of what the table says of an array."""
    found: dict[str, Any] = entry if isinstance(entry, dict) else {}
    kind, shape, offsets = (found.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not (isinstance(kind, str) and _counts(shape) and _counts(offsets) and len(offsets) == 2):
        raise ValueError(f"its header says of {name} what it cannot say of an array")
    if kind not in KINDS:
        raise ValueError(f"{name} has the unknown dtype {kind}")
    header, width = Header(tuple(shape), numpy.dtype(KINDS[kind])), 2 if kind == "BF16" else None
    if header.size * (width or header.dtype.itemsize) != offsets[1] - offsets[0]:
        raise ValueError(f"{name} announces {header.shape} {kind}, which is not what it holds")
    return kind, header, offsets[0], offsets[1]


def _counts(item: Any) -> TypeGuard[list[int]]:
    """Whether it is a list of integers >= 0."""
    return isinstance(item, list) and all(type(n) is int and n >= 0 for n in item)


def _begun(name: str, kind: str, shape: tuple[int, ...]) -> int:
    """The checksum of an array before its bytes."""
    return zlib.crc32(json.dumps([name, kind, list(shape)]).encode())


def content(path: str, entries: dict[str, numpy.ndarray], text: str) -> list[Any]:
    """The bytes of a file that holds the arrays and the notes, in parts. TypeError for a dtype without a name."""
    table: dict[str, Any] = {}
    parts: list[Any] = []
    sums, end = {"": zlib.crc32(text.encode())}, 0
    for name in sorted(entries, key=lambda name: -entries[name].dtype.itemsize):  # so that each is aligned
        array = numpy.asarray(entries[name], entries[name].dtype.newbyteorder("<"), order="C")
        if array.dtype not in NAMES:
            raise TypeError(f"{path} cannot hold this, a name that ends in .npz could: {name} has dtype {array.dtype}")
        kind = NAMES[array.dtype]
        table[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [end, end + array.nbytes]}
        parts.append(array.reshape(-1).view("uint8").data)
        sums[name] = zlib.crc32(parts[-1], _begun(name, kind, array.shape))
        end += array.nbytes
    table[METADATA] = {RESERVED: text, SUMS: json.dumps(sums)}
    header = padded(json.dumps(table)).encode()
    header += b" " * (-len(header) % 8)
    if len(header) > LONGEST_HEADER:
        raise ValueError(f"{path} cannot hold notes of {len(text)} characters, a name that ends in .npz could")
    return [len(header).to_bytes(8, "little"), header, *parts]
