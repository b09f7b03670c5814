"""Checkpoints: what goes in comes out, and whatever happens to a file or a writer, nothing half is ever seen."""

import json
import multiprocessing
import os
import signal
import time
import zipfile
from pathlib import Path

import make_old_checkpoints as old
import numpy
import pytest

import mtorch
from mtorch import SGD, Module, Sequential, SquareLoss, layers
from mtorch.checkpoint import read_notes, write_atomically

SUFFIXES = [".npz", ".safetensors"]


def net(seed=0, **options):
    nn = layers.on(rng=seed, **options)
    return Module(Sequential(nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)))


def train(module, optimizer, steps):
    rng = numpy.random.default_rng(5)
    loss_func = SquareLoss(module)
    for _ in range(steps):
        loss_func(module(rng.standard_normal((8, 4))), rng.standard_normal((8, 2))).backward()
        optimizer.step()


def same(a, b):
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        numpy.testing.assert_array_equal(a[name], b[name])


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_layer_comes_back(tmp_path, suffix):
    def mixed(seed):
        nn = layers.on(rng=seed)
        return Module(Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5), nn.Linear(3, 2)))

    module, twin = mixed(0), mixed(1)
    train(module, SGD(module, lr=0.1), 3)
    mtorch.save(tmp_path / f"model{suffix}", module)
    mtorch.load(tmp_path / f"model{suffix}", twin)
    assert twin.state_dict()["1.num_batches_tracked"] == 3
    same(module.state_dict(), twin.state_dict())
    for each in (module, twin):
        train(each, SGD(each, lr=0.1), 1)
    same(module.state_dict(), twin.state_dict())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_parameters_optimizer_and_more_come_back(tmp_path, suffix):
    module = net()
    optimizer = SGD(module, lr=0.1, momentum=0.9)
    train(module, optimizer, 3)
    path = tmp_path / f"model{suffix}"
    more = {"epoch": 3, "rate": 0.1, "name": "α net", "ok": True, "history": [{"loss": 1.5}], "table": numpy.eye(2)}
    mtorch.save(path, module, optimizer, **more)
    twin = net(seed=1)
    twin_optimizer = SGD(twin, lr=0.1, momentum=0.9)
    back = mtorch.load(path, twin, twin_optimizer)
    table, expected = back.pop("table"), more.pop("table")
    numpy.testing.assert_array_equal(table, expected)
    assert back == more
    train(module, optimizer, 2)
    train(twin, twin_optimizer, 2)
    same(module.state_dict(), twin.state_dict())


@pytest.mark.parametrize("dtype", ["float64", "longdouble"])
def test_wide_types_keep_every_bit(tmp_path, dtype):
    module = net(dtype=dtype)
    mtorch.save(tmp_path / "model.npz", module)
    twin = net(seed=1, dtype=dtype)
    mtorch.load(tmp_path / "model.npz", twin)
    same(module.state_dict(), twin.state_dict())


def test_bfloat16_of_other_programs_is_read_as_float32(tmp_path):
    """Every bit pattern of that type is the upper half of a float32."""
    weight, bias = numpy.array([[1.5, -2.0, 3.0e38]], "float32"), numpy.array([0.25], "float32")
    brief = (weight.view("uint32") >> 16).astype("<u2")
    header = {
        "__metadata__": {"dtype": "BF16"},
        "weight": {"dtype": "BF16", "shape": [1, 3], "data_offsets": [0, 6]},
        "bias": {"dtype": "F32", "shape": [1], "data_offsets": [6, 10]},
    }
    text = json.dumps(header).encode()
    content = len(text).to_bytes(8, "little") + text + brief.tobytes() + bias.tobytes()
    (tmp_path / "theirs.safetensors").write_bytes(content)
    layer = layers.Linear(3, 1, rng=0)
    assert mtorch.load(tmp_path / "theirs.safetensors", layer) == {}
    assert layer.weight.value.tolist() == (brief.astype("uint32") << 16).view("float32").tolist()
    assert layer.weight.value == pytest.approx(weight, rel=2**-8) and layer.bias.value.tolist() == [0.25]
    (tmp_path / "theirs.safetensors").write_bytes(content[:-1])
    with pytest.raises(ValueError, match="theirs.safetensors is damaged"):
        mtorch.load(tmp_path / "theirs.safetensors", layer)


def test_a_checkpoint_is_a_plain_npz_and_a_plain_npz_is_a_checkpoint(tmp_path):
    module, twin = net(), net(seed=1)
    mtorch.save(tmp_path / "ours.npz", module)
    with numpy.load(tmp_path / "ours.npz", allow_pickle=False) as file:
        assert set(module.state_dict()) <= set(file.files)
    numpy.savez_compressed(tmp_path / "plain.npz", **module.state_dict())
    assert mtorch.load(tmp_path / "plain.npz", twin) == {}
    same(module.state_dict(), twin.state_dict())
    with pytest.raises(ValueError, match=r"plain\.npz.*optimizer"):
        mtorch.load(tmp_path / "plain.npz", twin, SGD(twin, lr=0.1))


def test_dropout_goes_on_where_it_was(tmp_path):
    def dropping(seed):
        return Module(Sequential(layers.Linear(4, 4, rng=0), layers.Dropout(0.5, rng=seed)))

    module, twin, x = dropping(1), dropping(2), numpy.ones((6, 4))
    module(x)
    mtorch.save(tmp_path / "model.npz", module)
    mtorch.load(tmp_path / "model.npz", twin)
    numpy.testing.assert_array_equal(module(x), twin(x))


def test_the_same_state_is_the_same_file(tmp_path):
    module = net()
    mtorch.save(tmp_path / "a.npz", module, epoch=1)
    time.sleep(0.01)
    mtorch.save(tmp_path / "b.npz", module, epoch=1)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


# ---------------------------------------------------------------------- files of format 1

OLD = numpy.load(old.FILE)
every_old_file = pytest.mark.parametrize("case", old.CASES)


def from_old_file(path, case, dtype="float64", load=True):
    """A net and its optimizer, and with `load` what the file of that case holds in them."""
    name, options = old.CASES[case]
    path.write_bytes(OLD[f"{case}{path.suffix}"].tobytes())
    module = old.net(dtype)
    optimizer = getattr(mtorch, name)(module, **options)
    if load:
        assert mtorch.load(path, module, optimizer) == {"case": case}
    return module, optimizer


@every_old_file
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_checkpoint_of_before_goes_on_as_it_did_then(tmp_path, case, suffix):
    module, optimizer = from_old_file(tmp_path / f"model{suffix}", case)
    old.train(module, optimizer, range(3, 6))
    for name, value in module.state_dict().items():
        numpy.testing.assert_allclose(value, OLD[f"{case} {name}"], rtol=1e-13, atol=1e-14)


@every_old_file
def test_a_state_of_before_has_the_numbers_of_now(tmp_path, case):
    """They are those of a run from the start, to rounding."""
    _, optimizer = from_old_file(tmp_path / "model.npz", case)
    module, straight = from_old_file(tmp_path / "model.npz", case, load=False)
    old.train(module, straight, range(3))
    found, expected = optimizer.state_dict(), straight.state_dict()
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        numpy.testing.assert_allclose(found[name], value, rtol=1e-13, atol=1e-15, err_msg=name)


def test_a_checkpoint_of_before_keeps_the_dtype_and_one_of_now_is_written(tmp_path):
    module, optimizer = from_old_file(tmp_path / "model.npz", "Adam", "float32")
    assert optimizer.state_dict()["0.weight.exp_avg"].dtype == "float32"
    mtorch.save(tmp_path / "new.npz", module, optimizer)
    twin, resumed = from_old_file(tmp_path / "model.npz", "Adam", "float32", load=False)
    mtorch.load(tmp_path / "new.npz", twin, resumed)
    numpy.testing.assert_equal(resumed.state_dict(), optimizer.state_dict())


def test_an_optimizer_loads_a_state_dict_of_before():
    module = net(dtype="float64")
    optimizer, shapes = mtorch.Adam(module), {name: p.value.shape for name, p in module.parameters().items()}
    state = {"steps": 7} | {f"{name}.steps": 7 for name in shapes}
    state |= {
        f"{name}.{slot}": numpy.ones(shape) for name, shape in shapes.items() for slot in ("gradient_sum", "square_sum")
    }
    optimizer.load_state_dict(state)
    found = optimizer.state_dict()
    for name in shapes:
        numpy.testing.assert_allclose(found[f"{name}.exp_avg"], 0.1)
        numpy.testing.assert_allclose(found[f"{name}.exp_avg_sq"], 0.001)
    with pytest.raises(ValueError, match=r"unexpected: .*gradient_sum"):
        mtorch.Adagrad(module).load_state_dict(state)
    numpy.testing.assert_equal(optimizer.state_dict(), found)


@pytest.mark.parametrize("number", [3, 1.5, "2", None])
def test_a_format_that_is_not_known_is_refused(saved, number):
    forged(saved, format=number)
    refused(saved, match=r"model\.npz is damaged or no checkpoint: it has format .*up to 2")


# ---------------------------------------------------------------------- what is refused


@pytest.fixture
def saved(tmp_path):
    module = net()
    path = tmp_path / "model.npz"
    mtorch.save(path, module, epoch=1)
    return path


def refused(path, module=None, kind=ValueError, match=None):
    """Loading is refused with the file's name, and the module is as it was."""
    module = module or net(seed=1)
    before = module.state_dict()
    with pytest.raises(kind, match=match or path.name.replace(".", r"\.")):
        mtorch.load(path, module)
    same(before, module.state_dict())


@pytest.mark.parametrize("keep", [0, 1, 100, 700, -1, -30])
def test_a_truncated_file_is_one_clear_error(saved, keep):
    saved.write_bytes(saved.read_bytes()[:keep])
    refused(saved)


def test_any_flipped_byte_is_noticed_or_harmless(saved):
    data = saved.read_bytes()
    expected = net().state_dict()
    for position in range(0, len(data), 7):
        broken = bytearray(data)
        broken[position] ^= 0x55
        saved.write_bytes(broken)
        module = net(seed=1)
        before = module.state_dict()
        try:
            mtorch.load(saved, module)
        except ValueError as error:
            assert "model.npz" in str(error)
            same(before, module.state_dict())
        else:
            same(expected, module.state_dict())


def test_a_damaged_table_of_contents_is_a_value_error(saved):
    data = bytearray(saved.read_bytes())
    where = data.rindex(b"PK\x05\x06") + 16  # where the archive's table of contents says that it begins
    data[where : where + 4] = b"\xf0\xff\xff\x7f"
    saved.write_bytes(data)
    refused(saved)


def forged(path, **changes):
    """The checkpoint with other notes beside the same arrays."""
    with numpy.load(path) as archive:
        entries = dict(archive)
    notes = json.loads(entries["__mtorch__"].tobytes()) | changes
    entries["__mtorch__"] = numpy.frombuffer(json.dumps(notes).encode(), "uint8")
    numpy.savez(path, **entries)


WRONG_NOTES = [
    {"random": []},
    {"random": None},
    {"random": {"1.": None}},
    {"random": {"1.": {"seed": 1}}},
    {"random": {"1.": {"seed": -1, "counter": 0}}},
    {"random": {"1.": {"seed": 2**64, "counter": 0}}},
    {"random": {"1.": {"seed": 1.5, "counter": 0}}},
    {"optimizer": None},
    {"optimizer": [1]},
    {"optimizer": {"steps": "many"}},
    {"optimizer": {"__mtorch__": ["a"]}},
    {"more": 3},
    {"more": {"table": {"__mtorch__": "nowhere"}}},
    {"more": {"table": {"__mtorch__": []}}},
]


@pytest.mark.parametrize("changes", WRONG_NOTES, ids=str)
def test_wrong_notes_are_refused_and_change_nothing(tmp_path, changes):
    def everything():
        draws = [layer.random_state() for _, layer in module.walk()]
        return module.state_dict() | optimizer.state_dict(), draws

    nn, path = layers.on(rng=0), tmp_path / "model.npz"
    module = Module(Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 2)))
    optimizer = SGD(module, lr=0.1, momentum=0.9)
    mtorch.save(path, module, optimizer)
    train(module, optimizer, 1)
    before, draws = everything()
    forged(path, **changes)
    with pytest.raises(ValueError, match="model.npz"):
        mtorch.load(path, module, optimizer)
    after, draws_after = everything()
    numpy.testing.assert_equal(after, before)
    assert draws_after == draws
    if "more" in changes:
        with pytest.raises(ValueError, match="model.npz"):
            read_notes(path)


def test_notes_that_are_no_dict_or_too_deep_are_refused(saved):
    with numpy.load(saved) as archive:
        entries = dict(archive)
    for text in ("[]", "3", "null", "{", "[" * 100_000):
        numpy.savez(saved, **entries | {"__mtorch__": numpy.frombuffer(text.encode(), "uint8")})
        refused(saved)
        with pytest.raises(ValueError, match="model.npz"):
            read_notes(saved)


def test_what_is_no_checkpoint_is_refused(tmp_path):
    page = b"<html>404</html>" * 100
    for name, data in (("text.npz", b"hello"), ("html.npz", page), ("pickle.npz", b"\x80\x04K\x01.")):
        (tmp_path / name).write_bytes(data)
        refused(tmp_path / name)
    numpy.savez(tmp_path / "objects.npz", **{"0.weight": numpy.array([{}], dtype=object)})
    refused(tmp_path / "objects.npz")
    with zipfile.ZipFile(tmp_path / "foreign.npz", "w") as archive:
        archive.writestr("data.pkl", b"cos\nsystem\n(S'false'\ntR.")
    refused(tmp_path / "foreign.npz")


@pytest.mark.parametrize("header", ["{'descr': '<f4', 'shape': (2", "'''", "{'shape': (4L,)}", "{" * 3000, "3", ""])
def test_a_header_that_is_no_header_is_refused(tmp_path, header):
    path = tmp_path / "header.npz"
    for version, size in ((b"\1\0", 2), (b"\2\0", 4)):
        with zipfile.ZipFile(path, "w") as archive:
            text = header.encode() + b"\n"
            archive.writestr("0.weight.npy", b"\x93NUMPY" + version + len(text).to_bytes(size, "little") + text)
        refused(path)


def test_a_header_that_announces_more_than_there_is_allocates_nothing(tmp_path):
    path = tmp_path / "huge.npz"
    with zipfile.ZipFile(path, "w") as archive, archive.open("0.weight.npy", "w") as member:
        numpy.lib.format.write_array_header_1_0(
            member, {"descr": "<f4", "fortran_order": False, "shape": (10**6, 10**6)}
        )
    refused(path, match="huge")


def test_a_zip_bomb_is_refused(tmp_path):
    path = tmp_path / "bomb.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive, archive.open("0.weight.npy", "w") as member:
        numpy.lib.format.write_array_header_1_0(member, {"descr": "<f4", "fortran_order": False, "shape": (4 * 10**6,)})
        member.write(bytes(16 * 10**6))
    refused(path, match="bomb")


def test_missing_extra_renamed_and_misshapen_entries_are_listed_together(tmp_path):
    state = net().state_dict()
    state["0.wieght"] = state.pop("0.weight")
    state["2.bias"] = numpy.zeros(7)
    numpy.savez(tmp_path / "other.npz", **state)
    refused(tmp_path / "other.npz", match=r"missing: 0\.weight; unexpected: 0\.wieght; wrong shape: 2\.bias")


def test_no_file_and_a_folder_are_oserrors(tmp_path):
    refused(tmp_path / "nothing.npz", kind=FileNotFoundError)
    (tmp_path / "folder.npz").mkdir()
    refused(tmp_path / "folder.npz", kind=OSError, match="folder")
    with pytest.raises(OSError, match="folder"):
        mtorch.save(tmp_path / "folder.npz", net())
    with pytest.raises(OSError):
        mtorch.save(tmp_path / "no" / "such" / "folder.npz", net())


def test_keys_that_would_become_one_are_refused(saved):
    before = saved.read_bytes()
    with pytest.raises(ValueError, match=r"model\.npz cannot hold a dict"):
        mtorch.save(saved, net(), table={1: "a", "1": "b"})
    assert saved.read_bytes() == before


@pytest.mark.parametrize("suffix", SUFFIXES[1:])
def test_types_that_safetensors_does_not_know_are_a_type_error(tmp_path, suffix):
    for module, more in ((net(dtype="longdouble"), {}), (net(), {"names": numpy.array(["a"])})):
        with pytest.raises(TypeError, match=r"model.safetensors cannot hold this, a name that ends in \.npz could"):
            mtorch.save(tmp_path / f"model{suffix}", module, **more)
    assert os.listdir(tmp_path) == []


def test_what_a_file_cannot_hold_is_refused_before_the_old_one_is_touched(saved):
    before = saved.read_bytes()
    with pytest.raises(TypeError, match=r"model\.npz.*object"):
        mtorch.save(saved, net(), thing=object())
    assert saved.read_bytes() == before
    assert os.listdir(saved.parent) == [saved.name]


def test_an_optimizer_that_does_not_fit_changes_nothing(tmp_path):
    module = net()
    optimizer = SGD(module, lr=0.1, momentum=0.9)
    train(module, optimizer, 1)
    mtorch.save(tmp_path / "model.npz", module, optimizer)
    other = Module(Sequential(layers.Linear(4, 3, rng=3), layers.Tanh(), layers.Linear(3, 2, rng=3)))
    wrong = SGD(Module(Sequential(layers.Linear(9, 9))), lr=0.1, momentum=0.9)
    before = other.state_dict()
    with pytest.raises(ValueError, match="model.npz"):
        mtorch.load(tmp_path / "model.npz", other, wrong)
    same(before, other.state_dict())


def test_a_writer_that_fails_leaves_the_old_file_and_no_litter(saved):
    before = saved.read_bytes()

    def full_disk(file):
        file.write(b"half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OSError, match="No space left"):
        write_atomically(saved, full_disk)
    assert saved.read_bytes() == before and os.listdir(saved.parent) == [saved.name]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_error_names_the_file_that_was_asked_for(tmp_path, suffix):
    path = tmp_path / "nowhere" / f"net{suffix}"
    with pytest.raises(FileNotFoundError, match="No such file") as caught:
        mtorch.save(path, net())
    assert caught.value.filename == str(path) and str(caught.value).endswith(f"{str(path)!r}")


@pytest.mark.skipif(os.name != "posix", reason="links")
def test_a_link_stays_a_link(saved, tmp_path):
    latest = tmp_path / "elsewhere" / "latest.npz"
    latest.parent.mkdir()
    latest.symlink_to(saved)
    before = saved.read_bytes()
    mtorch.save(latest, net(), epoch=7)
    assert latest.is_symlink() and os.listdir(latest.parent) == [latest.name]
    assert saved.read_bytes() != before and read_notes(saved) == {"epoch": 7}


@pytest.mark.skipif(os.name != "posix", reason="special files")
def test_a_device_or_pipe_is_not_replaced_by_a_file(tmp_path):
    pipe = tmp_path / "pipe.npz"
    os.mkfifo(pipe)
    with pytest.raises(OSError, match="cannot write pipe.npz: it is no regular file"):
        mtorch.save(pipe, net())
    assert pipe.is_fifo() and os.listdir(tmp_path) == [pipe.name]


@pytest.mark.skipif(os.name != "posix", reason="file modes")
def test_the_mode_of_the_file_stays(saved):
    saved.chmod(0o600)
    mtorch.save(saved, net())
    assert saved.stat().st_mode & 0o777 == 0o600


def _write_forever(path):
    module = net()
    module.net.layers[0].weight.value[...] = 7
    while True:
        mtorch.save(path, module, table=numpy.zeros(100_000))


@pytest.mark.skipif(os.name != "posix", reason="kill")
def test_a_kill_in_the_middle_of_saving_never_leaves_half_a_file(saved):
    context = multiprocessing.get_context("spawn")
    writer = context.Process(target=_write_forever, args=(saved,), daemon=True)
    writer.start()
    first = saved.read_bytes()
    deadline = time.monotonic() + 20
    while saved.read_bytes() == first and time.monotonic() < deadline:
        time.sleep(0.01)
    for _ in range(20):
        mtorch.load(saved, net(seed=1))
    os.kill(writer.pid, signal.SIGKILL)
    writer.join()
    module = net(seed=1)
    assert mtorch.load(saved, module)["table"].shape == (100_000,)
    assert (module.net.layers[0].weight.value == 7).all()
    mtorch.save(saved, net())
    assert [p.name for p in Path(saved.parent).iterdir()] == [saved.name]


def test_a_file_that_calls_the_dropout_of_attention_thin_goes_on_drawing_where_it_was(tmp_path):
    """So it was called in version 0.1.0."""
    old, new = (Sequential(layers.MultiHeadAttention(4, 2, dropout=0.5, rng=seed)) for seed in (0, 1))
    x = numpy.ones((3, 2, 4), "float32")
    old(x)
    mtorch.save(tmp_path / "new.npz", old)
    with numpy.load(tmp_path / "new.npz") as file:
        entries = dict(file)
    text = entries["__mtorch__"].tobytes().decode()
    assert '"0.dropout."' in text
    entries["__mtorch__"] = numpy.frombuffer(text.replace('"0.dropout."', '"0.thin."').encode(), "uint8")
    numpy.savez(tmp_path / "old.npz", **entries)
    mtorch.load(tmp_path / "old.npz", new)
    assert (new(x) == old(x)).all()
