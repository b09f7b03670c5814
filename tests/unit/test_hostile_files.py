"""Files made to harm, and places where files cannot be: nothing is let in, nothing is lost, nobody waits.

`tools/fuzz_checkpoints.py` damages files by the thousand; here stand the kinds of fault, each by itself.
"""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys
import types
import warnings
import zipfile

import fuzz_checkpoints as fuzz
import numpy
import pytest

import mtorch
from mtorch import Module, Sequential, layers, optim
from mtorch.checkpoint import atomic, lock, notes, read_notes, safetensors, write_atomically
from mtorch.checks import plain

posix = pytest.mark.skipif(os.name != "posix", reason="a POSIX system's files")
NOTES = fuzz.NOTES


def net(seed=0):
    nn = layers.on(rng=seed)
    return Module(Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)))


def trained(cls=optim.SGD, options=None, seed=0):
    module = net(seed)
    optimizer = cls(module, **(options or {"lr": 0.1, "momentum": 0.9}))
    fuzz.train(module, optimizer, numpy.ones((5, 4)), 2)
    return module, optimizer


def refused(path, module=None, optimizer=None, match=None, kind=ValueError):
    """`load` and `read_notes` name the file, and nothing is changed."""
    module = module or net(1)
    optimizer = optimizer or optim.SGD(module, lr=0.1)
    before = fuzz.fixed(fuzz.everything(module, optimizer))
    with pytest.raises(kind, match=match) as caught:
        mtorch.load(path, module, optimizer)
    assert path.name in str(caught.value) and fuzz.fixed(fuzz.everything(module, optimizer)) == before
    return str(caught.value)


@pytest.fixture(params=[".npz", ".safetensors"])
def saved(tmp_path, request):
    """A checkpoint of each format."""
    path = tmp_path / f"model{request.param}"
    mtorch.save(path, *trained(), epoch=2, table=numpy.eye(3))
    return path


def rewritten(path, change):
    """The checkpoint with what `change(entries, notes)` makes of it, and with right checksums."""
    entries, notes = fuzz.Base(path.name, path.read_bytes(), fuzz.chain, None).entries()
    notes = change(entries, notes) or notes
    path.write_bytes(
        fuzz.packed(fuzz.Base(path.name, b"", fuzz.chain, None), entries, notes, numpy.random.default_rng(5))
    )


# ---------------------------------------------------------------------- bombs

MEASURE = """
import resource, sys, time, tracemalloc
import mtorch
from mtorch import Module, Sequential, layers, optim
from mtorch.checkpoint import read_notes
module = Module(Sequential(layers.Linear(4, 3, rng=0), layers.Tanh(), layers.Linear(3, 2, rng=0)))
optimizer = optim.Adam(module)
unit = 1 if sys.platform == "darwin" else 1024
def attempt(call):
    try:
        call()
    except ValueError as error:
        assert path.rpartition("/")[2] in str(error), error
    else:
        assert call is not strict, path
for path in sys.argv[1:]:
    strict = lambda: mtorch.load(path, module, optimizer)
    calls = [strict, lambda: mtorch.load(path, module), lambda: read_notes(path)]
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    for call in calls:
        attempt(call)
    spent = time.process_time() - began
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * unit
    tracemalloc.start()
    for call in calls:
        attempt(call)
    print(path, spent, grown, tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


def bombs():
    """Small files that would be large in memory, or keep a reader busy."""
    zeros, flat = 2**30, fuzz.npy((2**28,))
    state = net().state_dict()
    members = {f"{name}.npy": fuzz.npy(value.shape, value.tobytes()) for name, value in state.items()}

    def noted(text, **bomb):
        text = text if isinstance(text, str) else json.dumps(text)
        return fuzz.archive_of(members | {f"{NOTES}.npy": fuzz.npy((len(text),), text.encode(), "|u1")}, bomb or None)

    aside = {NOTES: f"{NOTES}.0"}
    yield "weights.npz", fuzz.archive_of({}, {"0.weight.npy": (flat, zeros)})
    yield "announced.npz", fuzz.archive_of({}, {"0.weight.npy": (fuzz.npy((3, 4)), zeros)})
    yield "header.npz", fuzz.archive_of({}, {"0.weight.npy": (b"\x93NUMPY\2\0\xff\xff\xff\x3f", zeros)})
    yield "notes.npz", fuzz.archive_of(members, {f"{NOTES}.npy": (fuzz.npy((zeros,), descr="|u1"), zeros)})
    yield "more.npz", noted({"more": {"a": aside}}, **{f"{NOTES}.0.npy": (flat, zeros)})
    yield "state.npz", noted({"optimizer": {"0.weight.exp_avg": aside}}, **{f"{NOTES}.0.npy": (flat, zeros)})
    yield "elsewhere.npz", noted({"optimizer": {"a.b": aside}}, **{f"{NOTES}.0.npy": (flat, zeros)})
    yield "many.npz", fuzz.archive_of({f"{n}.npy": b"" for n in range(10_000)})
    for name, inner in (
        ("lists", "[],"),
        ("dicts", "{},"),
        ("rows", '{"a":1},'),
        ("texts", '"ab",'),
        ("deep", "[[[]]],"),
    ):
        yield f"{name}.npz", noted('{"optimizer": [' + inner * (900_000 // len(inner)) + "0]}")
    keys = ",".join(f'"{n:x}":1.5' for n in range(90_000))
    yield "keys.npz", noted('{"optimizer": {' + keys + "}}")
    yield "nested.npz", noted("[" * 900_000)
    yield "wide.npz", noted('{"optimizer": ["' + "a" * 900_000 + '\\ud83d\\ude00"]}')
    header = b'{"a":[' + b"[]," * 300_000 + b"[]]}"
    yield "lists.safetensors", len(header).to_bytes(8, "little") + header
    header = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[],"data_offsets":[0,0]}' % n for n in range(18_000)) + b"}"
    yield "tensors.safetensors", len(header).to_bytes(8, "little") + header
    yield "long.safetensors", (2**40).to_bytes(8, "little") + b"{}"


def test_a_bomb_takes_neither_memory_nor_time(tmp_path):
    """16 MiB beyond the module, and a second of processor time for the three calls together."""
    pytest.importorskip("resource")
    for name, data in bombs():
        (tmp_path / name).write_bytes(data)
        assert len(data) <= 1_100_000, name
    paths = [str(path) for path in sorted(tmp_path.iterdir())]
    done = subprocess.run([sys.executable, "-c", MEASURE, *paths], capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    rows = [line.split() for line in done.stdout.splitlines()]
    assert len(rows) == len(paths)
    for path, spent, grown, traced in rows:
        assert float(spent) < 3 and int(grown) < 2**24 and int(traced) < 2**24, (path, spent, grown, traced)


# ---------------------------------------------------------------------- tables of contents


def changed_table(data, field, value):
    """The archive with another number at that place of its first member's entry in the table of contents."""
    place = data.index(b"PK\1\2") + field
    return data[:place] + value + data[place + len(value) :]


def repeated(data, times, rename=False):
    """The archive with its first member that many times in the table of contents."""
    file = io.BytesIO(data)
    with zipfile.ZipFile(file, "a") as archive:
        first = archive.filelist[0]
        for number in range(times):
            twin = zipfile.ZipInfo(f"{number}.npy" if rename else first.filename)
            for name in ("header_offset", "CRC", "compress_size", "file_size"):
                setattr(twin, name, getattr(first, name))
            archive.filelist.append(twin)
        archive._didModify = True
    return file.getvalue()


def archive_in(method):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, value in net().state_dict().items():
            archive.writestr(f"{name}.npy", fuzz.npy(value.shape, value.tobytes()))
    return file.getvalue()


TABLES = {
    "bzip2": (lambda data: archive_in(zipfile.ZIP_BZIP2), "packed in another way"),
    "lzma": (lambda data: archive_in(zipfile.ZIP_LZMA), "packed in another way"),
    "encrypted": (lambda data: changed_table(data, 8, b"\1\0"), "packed in another way"),
    "patched": (lambda data: changed_table(data, 8, b"\x20\0"), "packed in another way"),
    "two sizes": (lambda data: changed_table(data, 24, b"\xff\xff\xff\0"), "two sizes"),
    "listed twice": (lambda data: repeated(data, 1), "twice"),
    "listed often": (lambda data: repeated(data, 5000), "twice|table of contents"),
    "under other names": (lambda data: repeated(data, 3, rename=True), "overlaps"),
    "in the table": (lambda data: changed_table(data, 20, b"\xff\xff\0\0\xff\xff\0\0"), "overlaps"),
}


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_of_contents_that_no_writer_makes_is_refused_by_itself(tmp_path, monkeypatch, kind):
    change, match = TABLES[kind]
    path = tmp_path / "model.npz"
    numpy.savez(path, **net().state_dict())
    path.write_bytes(change(path.read_bytes()))
    monkeypatch.setattr(zipfile.ZipFile, "open", lambda *args, **options: pytest.fail("a member was opened"))
    refused(path, match=match)
    with pytest.raises(ValueError, match=match):
        read_notes(path)


@pytest.mark.parametrize("dtype", ["complex64", "float64", "int8"])
def test_notes_are_bytes_and_no_other_numbers(tmp_path, dtype):
    path = tmp_path / "model.npz"
    mtorch.save(path, net())
    with numpy.load(path) as file:
        entries = dict(file)
    numpy.savez(path, **entries | {NOTES: entries[NOTES].astype(dtype)})
    refused(path, match=f"notes have dtype {dtype}, not uint8")
    with pytest.raises(ValueError, match="model.npz"):
        read_notes(path)


class Unseekable(io.RawIOBase):
    """A pipe: sizes are written behind the data."""

    def __init__(self):
        self.data = bytearray()

    def writable(self):
        return True

    def write(self, data):
        self.data += bytes(data)
        return len(data)


@pytest.mark.parametrize("write", [numpy.savez, numpy.savez_compressed])
@pytest.mark.parametrize("way", ["file", "pipe", "comment", "big-endian", "by columns"])
def test_what_numpy_writes_is_loaded(tmp_path, write, way):
    path, module, twin = tmp_path / "plain.npz", net(), net(1)
    state = module.state_dict()
    if way == "big-endian":
        state = {name: value.astype(">f8") for name, value in state.items()}
    if way == "by columns":
        state = {name: numpy.asfortranarray(value) for name, value in state.items()}
    if way == "pipe":
        pipe = Unseekable()
        write(pipe, **state)
        path.write_bytes(pipe.data)
    else:
        write(path, **state)
    if way == "comment":
        with zipfile.ZipFile(path, "a") as archive:
            archive.comment = b"of a run in May"
    assert mtorch.load(path, twin) == {}
    numpy.testing.assert_equal(twin.state_dict(), module.state_dict())


def test_a_checkpoint_that_is_packed_anew_is_one(tmp_path):
    """With an array that takes far less room packed."""
    path, (module, optimizer) = tmp_path / "model.npz", trained()
    mtorch.save(path, module, optimizer, table=numpy.zeros(200_000))
    with numpy.load(path) as file:
        entries = dict(file)
    numpy.savez_compressed(path, **entries)
    twin = net(1)
    assert mtorch.load(path, twin, optim.SGD(twin, lr=0.1, momentum=0.9))["table"].shape == (200_000,)
    assert not read_notes(path)["table"].any()


def test_dense_notes_come_back(saved, monkeypatch):
    """A text that costs much memory is made as long as that."""
    monkeypatch.setattr(notes, "FREE", 100)
    more = {"pairs": [[n, 0.5] for n in range(1000)], "empty": [[] for _ in range(1000)]}
    mtorch.save(saved, net(), **more)
    assert read_notes(saved) == mtorch.load(saved, net(1)) == more


def test_more_arrays_than_load_would_look_through_are_refused_by_save(tmp_path):
    path, few = tmp_path / "model.npz", [numpy.zeros(1)] * 1000
    mtorch.save(path, net(), few=few)
    assert len(read_notes(path)["few"]) == len(mtorch.load(path, net(1))["few"]) == 1000
    with pytest.raises(ValueError, match=r"model\.npz cannot hold 13004 arrays"):
        mtorch.save(path, net(), many=[numpy.zeros(1)] * 13_000)


def test_numbers_that_do_not_fit_the_dtype_are_refused(tmp_path):
    state = {name: value.astype("float64") for name, value in net().state_dict().items()}
    state["0.weight"][0, 0] = 1e300
    numpy.savez(tmp_path / "wide.npz", **state)
    with pytest.raises(ValueError, match=r"wide\.npz .*0\.weight holds numbers that float32 cannot hold"):
        mtorch.load(tmp_path / "wide.npz", net(1))


def test_load_allocates_what_the_module_holds_once(tmp_path):
    import tracemalloc

    module = Module(Sequential(layers.Linear(700, 700, rng=0)))
    size = sum(value.nbytes for value in module.state_dict().values())
    mtorch.save(tmp_path / "model.npz", module)
    numpy.savez_compressed(tmp_path / "wide.npz", **{n: v.astype(float) for n, v in module.state_dict().items()})
    for name in ("model.npz", "wide.npz"):
        tracemalloc.start()
        mtorch.load(tmp_path / name, module)
        assert tracemalloc.get_traced_memory()[1] < size + 2**20
        tracemalloc.stop()


# ---------------------------------------------------------------------- the optimizer's state, random states

COUNTS = [None, True, -1, 2.0, 2**53, 10**400, float("inf"), float("nan"), "3", [3]]
ARRAYS = [None, 0, "x", [[None]], numpy.nan, numpy.inf, -numpy.inf, -1.0, 1e38]


RICHEST = {cls: max(cls.examples(), key=lambda options: len(cls(net(), **options).slots)) for cls, _ in fuzz.OPTIMIZERS}


@pytest.mark.parametrize("cls, options", RICHEST.items(), ids=[cls.__name__ for cls in RICHEST])
def test_an_entry_of_the_optimizers_state_that_it_cannot_have_is_refused(tmp_path, cls, options):
    """Or it is one that training goes on from: a sum of squares may be infinite, as it is in float16."""
    path, (module, optimizer) = tmp_path / "model.npz", trained(cls, options)
    mtorch.save(path, module, optimizer)
    healthy, loaded = path.read_bytes(), 0
    keys = ["steps", "0.weight.steps"] + [f"2.bias.{slot}" for slot in optimizer.slots]
    cases = [(key, value) for key in keys for value in (COUNTS if key.endswith("steps") else ARRAYS)]
    for key, value in [*cases, *((key, fuzz) for key in keys)]:

        def change(entries, notes, key=key, value=value):
            state = notes["optimizer"]
            if value is fuzz:
                del state[key]
            elif isinstance(value, float) and not key.endswith("steps"):
                entries[state[key][NOTES]] = numpy.full(2, value, "float32")
            else:
                state[key] = value
                entries |= {}
            used = json.dumps(notes)
            for name in [name for name in entries if name.startswith(NOTES) and f'"{name}"' not in used]:
                del entries[name]

        path.write_bytes(healthy)
        rewritten(path, change)
        twin, other = trained(cls, options, seed=1)
        before = fuzz.fixed(fuzz.everything(twin, other))
        try:
            mtorch.load(path, twin, other)
        except ValueError as error:
            assert "model.npz" in str(error) and fuzz.fixed(fuzz.everything(twin, other)) == before
        else:
            loaded += 1
            assert isinstance(value, float) and not key.endswith("steps") and value >= -1, (key, value)
            fuzz.train(twin, other, numpy.ones((5, 4)))
            assert all(numpy.isfinite(p.value).all() for p in twin.parameters().values()), (key, value)
    assert loaded <= 2 * len(optimizer.slots)


def test_a_state_dict_with_such_an_entry_is_refused_too():
    _, optimizer = trained()
    state = optimizer.state_dict()
    for key, value in (("steps", None), ("0.weight.steps", 2**60), ("0.weight.momentum_buffer", [[numpy.nan] * 3] * 4)):
        with pytest.raises(ValueError, match=f"SGD cannot load this state: .*wrong: {key}"):
            optimizer.load_state_dict(state | {key: value})
    numpy.testing.assert_equal(optimizer.state_dict(), state)


def test_an_optimizer_of_ones_own_may_keep_what_it_likes(tmp_path):
    class Smallest(optim.base.Optimizer):
        slots = ("sum",)

        def rule(self, xp, g, state, t):
            state.sum = xp.full(g.shape, -xp.inf, g.dtype)
            return g

    module, optimizer = trained(Smallest, {"lr": 0.1})
    mtorch.save(tmp_path / "model.npz", module, optimizer)
    mtorch.load(tmp_path / "model.npz", module, optimizer)
    assert numpy.isneginf(optimizer.state_dict()["0.bias.sum"]).all()


def test_steps_for_which_the_schedule_has_no_rate_are_refused(saved):
    rewritten(saved, lambda entries, notes: notes["optimizer"].update(steps=2**40))
    module = net(1)
    rising = optim.SGD(module, lr=optim.schedules.ExponentialLR(0.1, 1.1), momentum=0.9)
    refused(saved, module, rising, match="learning rate")


@pytest.mark.parametrize("state", [None, True, [], {"seed": True, "counter": 0}, {"seed": 1, "counter": 2**64 - 1}])
def test_random_states_that_cannot_be_drawn_from_are_refused(saved, state):
    rewritten(saved, lambda entries, notes: notes["random"].update({"1.": state}))
    refused(saved, *trained(seed=1), match="random state")


# ---------------------------------------------------------------------- safetensors


def test_every_flipped_bit_of_a_safetensors_file_is_noticed_or_harmless(tmp_path):
    path, healthy = tmp_path / "model.safetensors", trained()
    mtorch.save(path, *healthy, epoch=2)
    data, noticed = path.read_bytes(), 0
    expected = fuzz.fixed(fuzz.everything(*healthy))
    arrays = 8 + int.from_bytes(data[:8], "little")
    for bit in [*range(0, 8 * len(data), 97), *range(8 * arrays, 8 * len(data), 17)]:
        broken = bytearray(data)
        broken[bit // 8] ^= 1 << bit % 8
        path.write_bytes(broken)
        twin, other = trained(seed=1)
        try:
            more = mtorch.load(path, twin, other)
        except ValueError as error:
            noticed += 1
            assert "model.safetensors" in str(error)
        else:
            assert bit < 8 * arrays and more == {"epoch": 2}
            assert fuzz.fixed(fuzz.everything(twin, other)) == expected
    assert noticed > 100


def headed(header, arrays=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + arrays


ENTRIES = {
    "weight": {"dtype": "F32", "shape": [1, 2], "data_offsets": [4, 12]},
    "bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
}
DATA = numpy.array([3, 1, 2], "<f4").tobytes()
LEGAL = {
    "null": {"__metadata__": None},
    "empty": {"__metadata__": {}},
    "unknown": {"__metadata__": {"format": "pt", "\x1b": "x"}},
    "none": {},
}


@pytest.mark.parametrize("kind", [*LEGAL, "padded", "indented", "last"])
def test_legal_headers_are_read(tmp_path, kind):
    path, layer = tmp_path / "theirs.safetensors", layers.Linear(2, 1, rng=0)
    header = LEGAL.get(kind, {}) | ENTRIES
    if kind == "last":
        header["__metadata__"] = {"format": "np"}
    text = json.dumps(header, indent=2 if kind == "indented" else None).encode()
    path.write_bytes(headed(text + b" " * 99 if kind == "padded" else text, DATA))
    assert mtorch.load(path, layer) == {} == read_notes(path)
    assert layer.weight.value.tolist() == [[1, 2]] and layer.bias.value.tolist() == [3]


ILLEGAL = {
    "a gap": {**ENTRIES, "bias": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]}},
    "an overlap": {**ENTRIES, "bias": {"dtype": "F32", "shape": [1], "data_offsets": [4, 8]}},
    "a wrong size": {**ENTRIES, "bias": {"dtype": "F64", "shape": [1], "data_offsets": [0, 4]}},
    "no dtype": {**ENTRIES, "bias": {"shape": [1], "data_offsets": [0, 4]}},
    "no list": {**ENTRIES, "bias": {"dtype": "F32", "shape": 1, "data_offsets": [0, 4]}},
    "three offsets": {**ENTRIES, "bias": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}},
    "a negative": {**ENTRIES, "bias": {"dtype": "F32", "shape": [-1], "data_offsets": [4, 0]}},
    "a truth": {**ENTRIES, "bias": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
    "no entry": {**ENTRIES, "bias": None},
    "a list": {**ENTRIES, "bias": [1]},
    "an unknown dtype": {**ENTRIES, "bias": {"dtype": "F6", "shape": [1], "data_offsets": [0, 4]}},
    "complex numbers": {**ENTRIES, "weight": {"dtype": "C64", "shape": [1], "data_offsets": [4, 12]}},
    "metadata": {**ENTRIES, "__metadata__": []},
    "numbers as metadata": {**ENTRIES, "__metadata__": {"a": 1}},
    "no dict": [ENTRIES],
}


@pytest.mark.parametrize("kind", ILLEGAL)
def test_illegal_headers_are_refused(tmp_path, kind):
    path, layer = tmp_path / "theirs.safetensors", layers.Linear(2, 1, rng=0)
    path.write_bytes(headed(ILLEGAL[kind], DATA))
    refused(path, layer, match="theirs")
    for broken in (headed(ENTRIES, DATA[:-1]), headed(ENTRIES, DATA + b"\0"), headed(b"{", DATA), b"", b"\0" * 8):
        path.write_bytes(broken)
        refused(path, layer, match="theirs")


def test_the_library_of_the_format_reads_ours_and_writes_what_we_read(tmp_path):
    library = pytest.importorskip("safetensors.numpy")
    kinds = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint64", "uint32", "uint16", "uint8")
    arrays = {kind: numpy.arange(6).reshape(2, 3).astype(kind) for kind in (*kinds, "bool")}
    arrays |= {"none": numpy.zeros((0, 3)), "one": numpy.array(7.5), "columns": numpy.asfortranarray(numpy.eye(3) * 2)}
    parts = safetensors.content("ours.safetensors", arrays | {"big": arrays["int32"].astype(">i4")}, "{}")
    (tmp_path / "ours.safetensors").write_bytes(b"".join(bytes(part) for part in parts))
    found = library.load_file(tmp_path / "ours.safetensors")
    for name, value in arrays.items():
        assert found[name].dtype == value.dtype
        numpy.testing.assert_array_equal(found[name], value)
    numpy.testing.assert_array_equal(found["big"], arrays["int32"])
    library.save_file({k: numpy.ascontiguousarray(v) for k, v in arrays.items()}, tmp_path / "theirs.safetensors")
    with open(tmp_path / "theirs.safetensors", "rb") as file:
        theirs = safetensors.SafetensorsFile(file, os.path.getsize(tmp_path / "theirs.safetensors"))
        for name, value in arrays.items():
            numpy.testing.assert_array_equal(theirs.read(name), value)


def test_a_checkpoint_of_before_has_no_checksums_and_loads(tmp_path):
    path, (module, optimizer) = tmp_path / "model.safetensors", trained()
    mtorch.save(path, module, optimizer, epoch=2)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    table = json.loads(data[8 : 8 + length])
    del table["__metadata__"][fuzz.SUMS]
    path.write_bytes(headed(table, data[8 + length :]))
    twin = net(1)
    assert mtorch.load(path, twin, optim.SGD(twin, lr=0.1, momentum=0.9)) == {"epoch": 2}
    numpy.testing.assert_equal(twin.state_dict(), module.state_dict())


# ---------------------------------------------------------------------- writers beside each other


def leftovers(folder):
    return sorted(name for name in os.listdir(folder) if name.endswith(".part"))


def test_what_nobody_holds_is_removed_and_what_somebody_holds_stays(tmp_path):
    """Under the names of this and of former versions."""
    pytest.importorskip("fcntl")
    path = tmp_path / "model.npz"
    dead = [".model.npz.0123456789ab.part", ".model.npz.99999.0.part", f".model.npz.{os.getpid()}.3.part"]
    others = [".other.npz.0123456789ab.part", ".model.npz.notes.part", ".model.npz2.99999.0.part", "model.npz.1.1.part"]
    held = ".model.npz.ba9876543210.part"
    for name in (*dead, *others, held):
        (tmp_path / name).touch()
    with open(tmp_path / held, "r+b") as file:
        assert lock.take_lock(file)
        with open(tmp_path / held, "r+b") as second:
            assert lock.take_lock(second) is False
        mtorch.save(path, net())
        assert leftovers(tmp_path) == sorted([*others, held])
    mtorch.save(path, net())
    assert leftovers(tmp_path) == sorted(others)


@pytest.mark.parametrize(
    "error, answer", [(None, True), (PermissionError(13, "held"), False), (OSError(22, "no"), None)]
)
def test_the_lock_of_windows_is_on_a_byte_that_nobody_writes(tmp_path, monkeypatch, error, answer):
    asked = []

    def locking(handle, mode, count):
        asked.append((os.lseek(handle, 0, os.SEEK_CUR), mode, count))
        if error:
            raise error

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(LK_NBLCK=2, locking=locking))
    with open(tmp_path / "part", "xb") as file:
        assert lock.take_lock(file) is answer and file.tell() == 0
    assert asked == [(2**40, 2, 1)]


def test_a_link_or_a_folder_of_that_name_is_left_alone(tmp_path):
    (tmp_path / ".model.npz.0123456789ab.part").mkdir()
    if os.name == "posix":
        (tmp_path / "precious").touch()
        (tmp_path / ".model.npz.0123456789ac.part").symlink_to(tmp_path / "precious")
        os.mkfifo(tmp_path / ".model.npz.0123456789ad.part")
    before = leftovers(tmp_path)
    mtorch.save(tmp_path / "model.npz", net())
    assert leftovers(tmp_path) == before


@pytest.mark.parametrize("answer", [None, OSError(errno.ENOLCK, "no locks"), ImportError("no fcntl")], ids=repr)
def test_where_locks_do_not_work_only_old_leftovers_are_removed(tmp_path, monkeypatch, answer):
    old, new = (tmp_path / f".model.npz.{digit * 12}.part" for digit in "01")
    old.touch(), new.touch()
    os.utime(old, (1e9, 1e9))
    if answer is None:
        monkeypatch.setitem(sys.modules, "fcntl", None)
    else:
        fcntl = pytest.importorskip("fcntl")
        monkeypatch.setattr(fcntl, "flock", lambda *args: (_ for _ in ()).throw(answer))
    mtorch.save(tmp_path / "model.npz", net())
    assert leftovers(tmp_path) == [new.name]


def test_a_temporary_file_that_was_taken_for_a_leftover_is_made_anew(tmp_path, monkeypatch):
    """Another writer sees it between the moment it is made and the moment it is locked."""
    taken = []

    def late(file):
        if len(taken) < 2:
            taken.append(file.name)
            os.unlink(file.name)
        return True

    monkeypatch.setattr(atomic, "take_lock", late)
    mtorch.save(tmp_path / "model.npz", net(), epoch=1)
    assert len(set(taken)) == 2 and os.listdir(tmp_path) == ["model.npz"]
    assert read_notes(tmp_path / "model.npz") == {"epoch": 1}


WRITER = """
import os, sys, time
from mtorch.checkpoint import write_atomically
os.getpid = lambda: 1
folder, me, other = sys.argv[1:]
def write(file):
    file.write(me.encode() * 1000)
    file.flush()
    open(os.path.join(folder, me), "w").close()
    while not os.path.exists(os.path.join(folder, other)):
        time.sleep(0.001)
write_atomically(os.path.join(folder, "model.bin"), write)
"""


@pytest.mark.parametrize("way", ["same number", "namespaces"])
def test_two_writers_that_are_both_process_1_do_not_hinder_each_other(tmp_path, way):
    """As two containers are that share a folder; each is in the middle of writing while the other begins."""
    command = [sys.executable, "-c", WRITER, str(tmp_path)]
    if way == "namespaces":
        command = ["unshare", "--user", "--map-root-user", "--pid", "--fork", *command]
        try:
            subprocess.run([*command[:5], "true"], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            pytest.skip("no namespaces can be made here")
    writers = [subprocess.Popen([*command, *names], stderr=subprocess.PIPE) for names in ("ab", "ba")]
    errors = [writer.communicate(timeout=60)[1] for writer in writers]
    assert errors == [b"", b""]
    assert (tmp_path / "model.bin").read_bytes() in (b"a" * 1000, b"b" * 1000)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "model.bin"]


@posix
def test_a_killed_writer_of_process_number_1_leaves_nothing_after_the_next_save(tmp_path):
    code = WRITER.replace("time.sleep(0.001)", "os._exit(9)")
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path), "a", "never"])
    assert done.returncode == 9 and len(leftovers(tmp_path)) == 1
    write_atomically(tmp_path / "model.bin", lambda file: file.write(b"whole"))
    assert sorted(os.listdir(tmp_path)) == ["a", "model.bin"]


NAMES = ["a[b]*?.npz", "[!a].npz", "x" * 251 + ".npz", "\u00e4" * 125 + ".npz", ".npz", "a.b.npz"]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file_is_written_and_swept(tmp_path, name):
    path = tmp_path / name
    if os.name != "posix" and set(name) & set('*?"<>|'):
        pytest.skip("no name on this system")
    (tmp_path / f".{atomic._shortened(name)}.0123456789ab.part").touch()
    if len(name) < 100:
        (tmp_path / f".{name}.4711.0.part").touch()
    mtorch.save(path, net(), epoch=3)
    mtorch.save(path, net(), epoch=4)
    assert os.listdir(tmp_path) == [name] and read_notes(path) == {"epoch": 4}


@posix
def test_a_folder_that_can_be_written_but_not_read_is_saved_to(tmp_path):
    """Root reads everything, so that this runs as somebody else."""
    folder = tmp_path / "drop"
    folder.mkdir()
    folder.chmod(0o333)
    for parent in folder.parents:
        if parent == tmp_path.parent.parent.parent:
            break
        parent.chmod(parent.stat().st_mode | 0o111)
    mtorch.save(folder / "warm.npz", net())  # everything is imported
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there are threads, which the child does without
        child = os.fork()
    if not child:
        try:
            if os.getuid() == 0:
                os.setgid(65534), os.setuid(65534)
            write_atomically(folder / "model.bin", lambda file: file.write(b"whole"))
        except BaseException as error:
            print(repr(error), file=sys.stderr, flush=True)
            os._exit(1)
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    folder.chmod(0o777)
    assert (folder / "model.bin").read_bytes() == b"whole" and leftovers(folder) == []


# ---------------------------------------------------------------------- no files, full disks, files with holes


READING = """
import sys, mtorch
from mtorch.checkpoint import read_notes
net = mtorch.layers.Linear(2, 1)
for path in sys.argv[1:]:
    for call in (read_notes, lambda path: mtorch.load(path, net)):
        try:
            call(path)
        except OSError as error:
            assert path.rpartition("/")[2] in str(error), error
        else:
            raise AssertionError(path)
"""


@posix
def test_what_is_no_file_is_an_error_at_once(tmp_path):
    import socket

    paths = []
    for suffix in (".npz", ".safetensors"):
        pipe, device, folder, plug = (tmp_path / f"{name}{suffix}" for name in ("pipe", "device", "folder", "socket"))
        os.mkfifo(pipe)
        device.symlink_to("/dev/zero")
        folder.mkdir()
        paths += [str(path) for path in (pipe, device, folder, plug)]
        with socket.socket(socket.AF_UNIX) as listener, contextlib.chdir(tmp_path):  # the whole path may be too long
            listener.bind(plug.name)
    done = subprocess.run([sys.executable, "-c", READING, *paths], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("number", ["ENOSPC", "EDQUOT", "EFBIG"])
@pytest.mark.parametrize("where", ["write", "fsync", "replace"])
def test_a_full_disk_names_file_and_folder(saved, monkeypatch, number, where):
    before = saved.read_bytes()

    def full(*args):
        raise OSError(getattr(errno, number), os.strerror(getattr(errno, number)))

    if where == "write":
        with pytest.raises(OSError) as caught:
            write_atomically(saved, full)
    else:
        monkeypatch.setattr(os, where, full)
        with pytest.raises(OSError) as caught:
            mtorch.save(saved, net())
    text = str(caught.value)
    assert caught.value.errno == getattr(errno, number) and caught.value.filename == str(saved)
    assert f"for a file in the folder {saved.parent}" in text and saved.name in text
    assert saved.read_bytes() == before and leftovers(saved.parent) == []


FILLING = """
import sys, numpy, mtorch
for path in sys.argv[1:]:
    try:
        mtorch.save(path, mtorch.layers.Linear(2, 1), table=numpy.ones(10**6))
    except OSError as error:
        print(error)
"""


@posix
def test_a_disk_that_is_full_indeed_names_file_and_folder(tmp_path):
    resource, paths = pytest.importorskip("resource"), [tmp_path / "model.npz", tmp_path / "model.safetensors"]
    for path in paths:
        path.write_bytes(b"before")

    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (10**6, 10**6))

    command = [sys.executable, "-c", FILLING, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    for path in paths:
        assert f"for a file in the folder {tmp_path}: '{path}'" in done.stdout, done
        assert path.read_bytes() == b"before" and leftovers(tmp_path) == []


@posix
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_a_file_with_a_hole_of_a_terabyte_is_a_value_error(tmp_path, suffix):
    path = tmp_path / f"holes{suffix}"
    heads = [b"", b"PK\3\4", (2**39).to_bytes(8, "little"), (1_000_000).to_bytes(8, "little") + b"{"]
    if suffix == ".safetensors":
        entry = {"dtype": "U8", "shape": [2**40], "data_offsets": [0, 2**40]}
        notes = json.dumps({"more": {"a": {NOTES: f"{NOTES}.0"}}})
        heads.append(headed({"__metadata__": {NOTES: notes}, f"{NOTES}.0": entry}))
        heads.append(headed({"0.weight": entry}))
    for head in heads:
        path.write_bytes(head)
        try:
            os.truncate(path, len(head) + 2**40)
        except OSError:
            pytest.skip("the file system knows no holes of that size")
        refused(path)
        if b"weight" not in head:
            with pytest.raises(ValueError, match="holes"):
                read_notes(path)
    path.unlink()


# ---------------------------------------------------------------------- what a message shows

NASTY = "\x1b]0;owned\x07\x1b[2J\r\u202e\ud800\u200b"


def test_a_text_from_a_file_is_shown_without_what_a_terminal_obeys():
    assert plain(NASTY) == r"\x1b]0;owned\x07\x1b[2J\r\u202e\ud800\u200b" and plain("\u03b1 net") == "\u03b1 net"
    assert plain("x" * 1000, 10) == "xxxxxxxxxx... (1000 characters)"


@pytest.mark.parametrize("place", ["name", "key", "value", "format", "state", "aside"])
def test_a_message_shows_names_and_texts_of_a_file_escaped_and_cut(saved, place):
    nasty = NASTY.replace("\ud800", "") if saved.suffix == ".npz" or place == "name" else NASTY
    nasty += "y" * 20_000

    def change(entries, notes):
        if place == "name":
            entries[nasty] = numpy.zeros(1)
        elif place == "key":
            notes["optimizer"][nasty] = 1
        elif place == "value":
            notes["optimizer"]["steps"] = nasty
        elif place == "format":
            notes["format"] = nasty
        elif place == "state":
            notes["random"]["1."] = nasty
        else:
            notes["more"] = {"a": {NOTES: nasty}}

    rewritten(saved, change)
    text = refused(saved, *trained(seed=1))
    assert text.isprintable() and len(text) < 10_000 and r"\x1b" in text


def test_so_does_the_message_of_a_state_dict():
    with pytest.raises(ValueError, match="unexpected") as caught:
        net().load_state_dict(net().state_dict() | {NASTY: 1, **{str(n): 1 for n in range(10_000)}})
    assert str(caught.value).isprintable() and len(str(caught.value)) < 3000


# ---------------------------------------------------------------------- interrupts, and everything together


def test_a_load_that_is_interrupted_is_whole(saved, monkeypatch):
    module, optimizer = trained(seed=1)
    real, calls = Module.load_state_dict, []

    def interrupted(self, state, strict=True):
        if not calls:
            calls.append(1)
            self.parameters()["0.weight"].value[...] = state["0.weight"]
            raise KeyboardInterrupt
        return real(self, state, strict)

    monkeypatch.setattr(Module, "load_state_dict", interrupted)
    with pytest.raises(KeyboardInterrupt):
        mtorch.load(saved, module, optimizer)
    assert fuzz.fixed(fuzz.everything(module, optimizer)) == fuzz.fixed(fuzz.everything(*trained()))


def test_forty_damaged_files(tmp_path):
    """`.ci/run` takes 2,000."""
    counts = fuzz.fuzz(40, 7, tmp_path, tmp_path / "failures")
    assert counts is not None and sum(counts.values()) == 40


def test_the_fuzz_run_keeps_the_file_that_fails(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(fuzz, "fault_of", lambda path, base, kind: ("loaded", "damage was loaded"))
    monkeypatch.setattr(sys, "argv", ["fuzz", "--count", "5", "--out", str(tmp_path / "kept")])
    assert fuzz.main() == 1
    assert len(os.listdir(tmp_path / "kept")) == 1 and "damage was loaded" in capsys.readouterr().err
