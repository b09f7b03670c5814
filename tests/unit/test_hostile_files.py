"""Files made to harm, and places where files cannot be: nothing is let in, nothing is lost, nobody waits.

`tools/fuzz_checkpoints.py` damages files by the thousand; here stand the kinds of fault, each by itself.
"""

import errno
import io
import json
import multiprocessing
import os
import shutil
import subprocess
import sys
import time
import zipfile
import zlib

import fuzz_checkpoints as fuzz
import numpy
import pytest

import mtorch
from mtorch import Module, Sequential, layers, optim
from mtorch.checkpoint import atomic, lock, read_notes, safetensors, write_atomically
from mtorch.checks import shown

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


def refused(path, module=None, optimizer=None, match="", kind=ValueError):
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
    path.write_bytes(fuzz.packed(fuzz.Base(path.name, b"", fuzz.chain, None), entries, notes, numpy.random.default_rng(5)))


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
    for name, inner in (("lists", "[],"), ("dicts", "{},"), ("rows", '{"a":1},'), ("texts", '"ab",'), ("deep", "[[[]]],")):
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
