"""Damages checkpoints and loads them: each is refused with everything unchanged, or loads and trains one finite step.

    python tools/fuzz_checkpoints.py [--count 2000] [--seed 0] [--out FOLDER]

Files of several nets and of all optimizers, as `.npz` and as `.safetensors`, are cut, spliced, have bits flipped, and
get hostile values in their notes, headers and tables of contents; some are bombs. One number makes one file. The first
file that does anything else than the line above says is written to the folder, and the exit status is 1.
"""

import argparse
import copy
import io
import json
import sys
import tempfile
import time
import tracemalloc
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy

sys.path.insert(0, str(Path(__file__).parents[1]))

import mtorch  # noqa: E402
from mtorch import Module, MSELoss, Sequential, layers, optim  # noqa: E402
from mtorch.checkpoint import read_notes, safetensors  # noqa: E402

NOTES, SUMS = "__mtorch__", "__mtorch__.crc32"
MEMORY, SECONDS = 16 * 2**20, 1.0  # beyond the module's own size; of processor time, for a file of 1 MB


# ---------------------------------------------------------------------- nets, optimizers and their files


def chain(rng: int) -> tuple[Module, Any]:
    nn = layers.on(rng=rng)
    net = Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Tanh(), nn.Dropout(0.3), nn.Linear(3, 2))
    return Module(net), numpy.ones((5, 4), "float32")


def images(rng: int) -> tuple[Module, Any]:
    nn = layers.on(rng=rng)
    return Module(Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2))), numpy.ones((2, 1, 6, 6), "float32")


def sequence(rng: int) -> tuple[Module, Any]:
    nn = layers.on(rng=rng)
    net = Sequential(nn.LSTM(3, 4, num_layers=2, dropout=0.2), nn.Linear(4, 1))
    return Module(net), numpy.ones((5, 2, 3), "float32")


def attention(rng: int) -> tuple[Module, Any]:
    nn = layers.on(rng=rng)
    net = Sequential(nn.MultiHeadAttention(4, 2, dropout=0.1), nn.LayerNorm(4))
    return Module(net), numpy.ones((3, 2, 4), "float32")


NETS = (chain, images, sequence, attention)
OPTIMIZERS = [
    (cls, options)
    for cls in (optim.SGD, optim.Adagrad, optim.RMSprop, optim.Adadelta, optim.Adam, optim.AdamW)
    for options in cls.examples()
]


class Base(NamedTuple):
    """A healthy file, and how to make what loads it."""

    name: str
    data: bytes
    make: Callable[[int], tuple[Module, Any]]
    optimizer: Callable[[Module], Any]
    steps: int = 2

    def entries(self) -> tuple[dict[str, numpy.ndarray], Any]:
        """(the arrays, the notes) in it."""
        if self.name.endswith(".npz"):
            with numpy.load(io.BytesIO(self.data)) as file:
                found = dict(file)
            return found, json.loads(found.pop(NOTES).tobytes())
        length = int.from_bytes(self.data[:8], "little")
        table, found = json.loads(self.data[8 : 8 + length]), {}
        notes = json.loads(table.pop("__metadata__")[NOTES])
        for name, entry in table.items():
            begin, end = (8 + length + place for place in entry["data_offsets"])
            dtype = safetensors.KINDS[entry["dtype"]]
            found[name] = numpy.frombuffer(self.data[begin:end], dtype).reshape(entry["shape"])
        return found, notes


def train(module: Module, optimizer: Any, x: Any, steps: int = 1) -> None:
    loss_func = MSELoss(module)
    for _ in range(steps):
        y = module(x)
        loss_func(y, numpy.zeros(y.shape, y.dtype)).backward()
        optimizer.step()


def bases(folder: Path) -> list[Base]:
    found = []
    for number, (cls, options) in enumerate(OPTIMIZERS):
        make = NETS[number % len(NETS)]
        for suffix in (".npz", ".safetensors"):
            path = folder / f"{number}{suffix}"
            module, x = make(0)
            optimizer = cls(module, **options)
            train(module, optimizer, x, 2)
            more = {"epoch": 2, "table": numpy.eye(3), "history": [{"loss": 0.5, "name": "first"}]}
            mtorch.save(path, module, optimizer, **more)
            found.append(Base(path.name, path.read_bytes(), make, lambda m, c=cls, o=options: c(m, **o)))
    return found


def packed(base: Base, entries: dict[str, numpy.ndarray], notes: Any, rng: numpy.random.Generator) -> bytes:
    """A file with these arrays and notes and with right checksums."""
    text = notes if isinstance(notes, str) else json.dumps(notes)
    if base.name.endswith(".npz"):
        file, write = io.BytesIO(), numpy.savez_compressed if rng.integers(3) == 0 else numpy.savez
        write(file, **entries, **{NOTES: numpy.frombuffer(text.encode("utf-8", "surrogatepass"), "uint8")})
        return file.getvalue()
    return b"".join(bytes(part) for part in safetensors.content(base.name, entries, text))


# ---------------------------------------------------------------------- bytes


def flipped(base: Base, rng: numpy.random.Generator) -> bytes:
    data = bytearray(base.data)
    for place in rng.integers(len(data) * 8, size=int(rng.choice([1, 1, 1, 2, 8]))):
        data[place // 8] ^= 1 << place % 8
    return bytes(data)


def truncated(base: Base, rng: numpy.random.Generator) -> bytes:
    return base.data[: int(rng.integers(len(base.data)))]


def extended(base: Base, rng: numpy.random.Generator) -> bytes:
    junk = rng.bytes(int(rng.integers(1, 3000)))
    return base.data + junk if rng.integers(2) else junk + base.data


def zeroed(base: Base, rng: numpy.random.Generator) -> bytes:
    begin, length = int(rng.integers(len(base.data))), int(rng.integers(1, 500))
    return base.data[:begin] + bytes(len(base.data[begin : begin + length])) + base.data[begin + length :]


def spliced(base: Base, rng: numpy.random.Generator, other: Base) -> bytes:
    """The beginning of one file and the end of another."""
    return base.data[: int(rng.integers(len(base.data)))] + other.data[int(rng.integers(len(other.data))) :]


def headed(base: Base, rng: numpy.random.Generator, other: Base) -> bytes:
    """The header of one file before the arrays of another."""
    cut = 8 + int.from_bytes(base.data[:8], "little") if base.name.endswith(".safetensors") else 128
    tail = 8 + int.from_bytes(other.data[:8], "little") if other.name.endswith(".safetensors") else 128
    return base.data[:cut] + other.data[tail:]


# ---------------------------------------------------------------------- notes and arrays

HOSTILE: list[Any] = [
    None, True, False, -1, 0, 2**53, 2**63, 2**64, 2**80, 10**400, 0.5, -0.0, 1e308, float("inf"), float("-inf"),
    float("nan"), "", "many", "\x1b[2J\x07", "\u202e", "\ud800", "x" * 50_000, [], {}, [[]], [None], {"": None},
    [1, [2]], {NOTES: "nowhere"}, {NOTES: 3}, {NOTES: "__mtorch__.0"}, {NOTES: NOTES},
]  # fmt: skip


def places(item: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every entry of the notes."""
    for key, value in list(item.items() if isinstance(item, dict) else enumerate(item)):
        yield item, key
        if isinstance(value, dict | list):
            yield from places(value)


def noted(base: Base, rng: numpy.random.Generator) -> bytes:
    """Entries of the notes are replaced, removed or added."""
    entries, notes = base.entries()
    for _ in range(int(rng.integers(1, 4))):
        section = notes if rng.integers(4) == 0 else notes.get(str(rng.choice(["optimizer", "optimizer", "random"])))
        found = list(places(section)) if isinstance(section, dict | list) else []
        if not found:
            continue
        container, key = found[int(rng.integers(len(found)))]
        action = int(rng.integers(6))
        if action == 0:
            del container[key]
        elif action == 1 and isinstance(container, dict):
            container[str(key) + "\x1b[31m"] = container.pop(key)
        else:
            container[key] = copy.deepcopy(HOSTILE[int(rng.integers(len(HOSTILE)))])
    text = json.dumps(notes)
    if rng.integers(8) == 0:
        text = text.replace("2", str(rng.choice(["1e999", "-1e999", "1" * 5000, "2.0", "NaN"])), 1)
    return packed(base, entries, text, rng)


def arranged(base: Base, rng: numpy.random.Generator) -> bytes:
    """Arrays of the optimizer get numbers, shapes and dtypes that none can have; those of the net shapes and dtypes."""
    entries, notes = base.entries()
    name = str(rng.choice(sorted(entries)))
    array = numpy.array(entries[name])
    action = int(rng.integers(8))
    if action < 4 and name.startswith(NOTES) and array.size and array.dtype.kind == "f":
        value = float(rng.choice([numpy.nan, numpy.inf, -numpy.inf, -1.0, 1e38, -1e38, 1e-45, 3e38]))
        array.reshape(-1)[int(rng.integers(array.size))] = value
        if rng.integers(2):
            array[...] = value
        entries[name] = array
    elif action == 4:
        entries[name] = array.astype(str(rng.choice(["float64", "int8", "bool", "float16", "uint64", "complex64"])))
    elif action == 5:
        entries[name] = array.reshape(-1)[: int(rng.integers(array.size + 1))]
    elif action == 6:
        entries[str(rng.choice(["\x1b]0;title\x07", "a" * 300, "x\ny", "0.weight.npy", "__mtorch__.99"]))] = array
    else:
        del entries[name]
    return packed(base, entries, notes, rng)


def plain(base: Base, rng: numpy.random.Generator) -> bytes:
    """A file of another program: no notes, or null in their place."""
    entries, _ = base.entries()
    own = {name: array for name, array in entries.items() if not name.startswith(NOTES)}
    if base.name.endswith(".npz"):
        file = io.BytesIO()
        numpy.savez(file, **own)
        return file.getvalue()
    parts = safetensors.content(base.name, own, "")
    table = json.loads(parts[1])
    metadata = [None, {}, {"format": "pt"}, {NOTES: "null"}, [], {"a": 1}, 3][int(rng.integers(7))]
    table["__metadata__"] = metadata
    return with_header(table, b"".join(bytes(part) for part in parts[2:]))


# ---------------------------------------------------------------------- containers


def with_header(table: Any, arrays: bytes) -> bytes:
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + arrays


def tampered(base: Base, rng: numpy.random.Generator) -> bytes:
    """The table of contents says something else."""
    if base.name.endswith(".safetensors"):
        length = int.from_bytes(base.data[:8], "little")
        table, arrays = json.loads(base.data[8 : 8 + length]), base.data[8 + length :]
        found = list(places(table))
        container, key = found[int(rng.integers(len(found)))]
        values = [*HOSTILE, "F64", "BF16", "I32", "Q1", [0, 0], [0, 2**62], [2**62, 2**62], [3], [2**40, 0]]
        container[key] = values[int(rng.integers(len(values)))]
        return with_header(table, arrays)
    data, begin = bytearray(base.data), base.data.index(b"PK\1\2")
    records = [place for place in range(begin, len(data) - 4) if data[place : place + 4] in (b"PK\1\2", b"PK\5\6")]
    place = records[int(rng.integers(len(records)))]
    field = place + int(rng.integers(4, 46 if data[place + 2] == 1 else 22))
    width = int(rng.choice([1, 2, 4]))
    data[field : field + width] = bytes([int(rng.choice([0, 1, 127, 255])) for _ in range(width)])
    return bytes(data[: len(base.data)])


def listed(base: Base, rng: numpy.random.Generator) -> bytes:
    """An archive that lists one of its members again and again, under its own name or under others."""
    if base.name.endswith(".safetensors"):
        return tampered(base, rng)
    file = io.BytesIO(base.data)
    with zipfile.ZipFile(file, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        info = archive.infolist()[int(rng.integers(len(archive.infolist())))]
        for number in range(int(rng.choice([1, 10, 5000]))):
            twin = zipfile.ZipInfo(info.filename if rng.integers(2) else f"{number}.npy")
            for field in ("header_offset", "CRC", "compress_size", "file_size", "compress_type"):
                setattr(twin, field, getattr(info, field))
            archive.filelist.append(twin)
        archive._didModify = True
    return file.getvalue()


def npy(shape: tuple[int, ...], data: bytes = b"", descr: str = "<f4") -> bytes:
    """A `.npy` file that announces that shape."""
    file = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
    return file.getvalue() + data


def archive_of(members: dict[str, bytes], bombs: dict[str, tuple[bytes, int]] | None = None) -> bytes:
    """An archive with those members, deflated.  bombs: (the beginning, how many zero bytes follow it) by name."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
        for name, (begin, zeros) in (bombs or {}).items():
            deflate = zlib.compressobj(9, zlib.DEFLATED, -15)
            stream = deflate.compress(begin) + deflate.flush(zlib.Z_FULL_FLUSH)
            block = deflate.compress(bytes(2**20)) + deflate.flush(zlib.Z_FULL_FLUSH)
            stream += block * (zeros // 2**20) + deflate.flush()
            info = zipfile.ZipInfo(name)
            archive.writestr(info, stream)  # stored, and called deflated in both places below
            place = info.header_offset
            info.compress_type, info.file_size = zipfile.ZIP_DEFLATED, len(begin) + zeros // 2**20 * 2**20
            end = file.tell()
            file.seek(place)
            file.write(info.FileHeader())
            file.seek(end)
    return file.getvalue()


def bomb(base: Base, rng: numpy.random.Generator) -> bytes:
    """A small file that would be large in memory."""
    zeros = 2**28
    kinds = [
        lambda: archive_of({}, {"0.weight.npy": (npy((zeros // 4,)), zeros)}),
        lambda: archive_of({}, {f"{NOTES}.npy": (npy((zeros,), descr="|u1"), zeros)}),
        lambda: archive_of({}, {"0.weight.npy": (b"\x93NUMPY\2\0\xff\xff\xff\x0f", zeros)}),
        lambda: archive_of({f"{n}.npy": npy(()) for n in range(3000)}),
        lambda: packed(base, base.entries()[0], '{"more": [' + "[]," * 300_000 + "[]]}", rng),
        lambda: packed(base, base.entries()[0], '{"more": {"a": [' + '{"a":1},' * 100_000 + "{}]}}", rng),
        lambda: packed(base, base.entries()[0], "[" * 100_000, rng),
    ]
    return kinds[int(rng.integers(len(kinds)))]()


KINDS: dict[str, Callable[..., bytes]] = {
    kind.__name__: kind
    for kind in (flipped, truncated, extended, zeroed, spliced, headed, noted, arranged, plain, tampered, listed, bomb)
}
WEIGHTS = dict.fromkeys(KINDS, 1.0) | {
    "noted": 6.0,
    "flipped": 3.0,
    "arranged": 3.0,
    "tampered": 3.0,
    "listed": 0.4,
    "bomb": 0.2,
}


# ---------------------------------------------------------------------- one file


def everything(module: Module, optimizer: Any) -> Any:
    draws = [layer.random_state() for _, layer in module.walk()]
    return module.state_dict(), optimizer.state_dict(), draws


def fixed(item: Any) -> Any:
    """`item` as something that can be compared bit by bit."""
    if isinstance(item, dict):
        return {key: fixed(value) for key, value in item.items()}
    if isinstance(item, tuple | list):
        return [fixed(value) for value in item]
    return (item.dtype, item.shape, item.tobytes()) if isinstance(item, numpy.ndarray) else item


def fault_of(path: Path, base: Base, kind: str) -> tuple[str, str | None]:
    """(what happened, what is wrong with it) when that file is loaded."""
    (module, x), size = base.make(1), path.stat().st_size
    optimizer = base.optimizer(module)
    before = everything(module, optimizer)
    own = sum(value.nbytes for part in before[:2] for value in part.values() if isinstance(value, numpy.ndarray))
    tracemalloc.reset_peak()
    start, began = tracemalloc.get_traced_memory()[0], time.process_time()
    refusal = None
    try:
        read_notes(path)
    except (ValueError, OSError) as error:
        if path.name not in str(error):
            return "refused", f"read_notes does not name the file: {error}"
    try:
        mtorch.load(path, module, None if kind == "plain" else optimizer)
    except (ValueError, OSError) as error:
        refusal = str(error)
    spent, memory = time.process_time() - began, tracemalloc.get_traced_memory()[1] - start
    if memory > own + MEMORY + size:
        return "", f"it took {memory:,} bytes"
    if spent > 2 * SECONDS * max(1, size / 1e6):
        return "", f"it took {spent:.2f} s"
    if refusal is not None:
        if path.name not in refusal or len(refusal) > 10_000 or not refusal.isprintable():
            return "refused", f"this is no message: {refusal!r}"
        return "refused", "something changed" if fixed(before) != fixed(everything(module, optimizer)) else None
    if kind in ("flipped", "truncated", "zeroed"):
        twin, _ = base.make(2)
        path.write_bytes(base.data)
        other = base.optimizer(twin)
        mtorch.load(path, twin, other)
        if fixed(everything(module, optimizer)) != fixed(everything(twin, other)):
            return "loaded", "damage was loaded"
    train(module, optimizer, x)
    state, slots, _ = everything(module, optimizer)
    wrong = [name for name, value in (state | slots).items() if not numpy.isfinite(value).all()]
    if wrong and not all(name.endswith(("sum", "square_avg", "exp_avg_sq")) for name in wrong):
        return "loaded", f"not finite after a step: {', '.join(wrong)}"
    return "loaded", None


def case(number: int, seed: int, files: list[Base]) -> tuple[str, Base, bytes]:
    """The file of that number."""
    rng = numpy.random.default_rng([seed, number])
    base, other = (files[int(rng.integers(len(files)))] for _ in range(2))
    odds = numpy.array(list(WEIGHTS.values()))
    kind = str(rng.choice(list(KINDS), p=odds / odds.sum()))
    made = KINDS[kind](base, rng, *([other] if kind in ("spliced", "headed") else []))
    return kind, base, made


def fuzz(count: int, seed: int, folder: Path, out: Path) -> Counter[tuple[str, str]] | None:
    """How often which kind of file was refused and loaded; None when one did something else."""
    files, counts = bases(folder), Counter[tuple[str, str]]()
    tracemalloc.start()
    with numpy.errstate(all="ignore"):
        for number in range(count):
            kind, base, data = case(number, seed, files)
            path = folder / f"case{Path(base.name).suffix}"
            path.write_bytes(data)
            try:
                happened, fault = fault_of(path, base, kind)
            except Exception as error:
                happened, fault = "raised", f"{type(error).__name__}: {error}"
            counts[kind, happened] += 1
            if fault:
                out.mkdir(parents=True, exist_ok=True)
                kept = out / f"{seed}-{number}{path.suffix}"
                kept.write_bytes(data)
                print(f"file {number} ({kind} {base.name}): {fault}\nkept as {kept}", file=sys.stderr)
                return None
    tracemalloc.stop()
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("fuzz-failures"))
    args = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        counts = fuzz(args.count, args.seed, Path(folder), args.out)
    if counts is None:
        return 1
    for kind in KINDS:
        print(f"{kind:10} {counts[kind, 'refused']:>6} refused {counts[kind, 'loaded']:>6} loaded and trained")
    refused = sum(number for (_, happened), number in counts.items() if happened == "refused")
    print(f"{args.count} files: {refused} refused, {args.count - refused} loaded, {time.perf_counter() - began:.0f} s")
    return 0


if __name__ == "__main__":
    sys.exit(main())
