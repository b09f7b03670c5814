"""MNIST from a folder, the cache or a mirror; the mirrors of these tests are on this machine."""

import gzip
import hashlib
import http.server
import io
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
import pytest

from mtorch.data import FileDataset, download, load_digits_data, mnist, mnist_files

NAMES = list(mnist_files.FILES)
FIRST = f"{NAMES[0]}.gz"


def idx(array):
    return bytes([0, 0, 8, array.ndim]) + numpy.array(array.shape, ">u4").tobytes() + array.tobytes()


@pytest.fixture
def contents(monkeypatch):
    """Four small files that pass for MNIST's, uncompressed."""
    rng = numpy.random.default_rng(0)
    arrays = []
    for count in (7, 4):
        arrays += [rng.integers(0, 256, (count, 28, 28)).astype("u1"), rng.integers(0, 10, count).astype("u1")]
    contents = dict(zip(NAMES, map(idx, arrays), strict=True))
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    monkeypatch.setattr(mnist_files, "FILES", hashes)
    return contents


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch, tmp_path):
    """No test here reads the real cache, MTORCH_DATA or a proxy, or asks a real mirror."""
    for name in ("MTORCH_DATA", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MTORCH_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(mnist_files, "MIRRORS", [])
    monkeypatch.setattr(download, "ANSWER", 1.0)
    monkeypatch.setattr(download, "PATIENCE", 5.0)


def fill(folder, contents, packed=True):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        path = folder / (f"{name}.gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)
    return folder


def is_fake_mnist(data):
    return data.name == "mnist" and len(data.train_images) == 7 and len(data.test_labels) == 4


# A folder


@pytest.mark.parametrize("wrong", [3, 2.5, True, ["digits"], numpy.zeros(2)], ids=str)
def test_what_is_neither_name_nor_folder_is_refused(wrong):
    for load in (load_digits_data, mnist):
        with pytest.raises(TypeError, match=f"^{load.__name__} expected .* folder, got"):
            load(wrong)


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("form", ["{dotted}", "{dashed}/{dashed}", "{dashed}/{dotted}", "{dotted}/{dotted}"])
def test_the_files_have_every_name_that_unpackers_write(tmp_path, contents, packed, form):
    for name, content in contents.items():
        path = tmp_path / (form.format(dashed=name, dotted=name.replace("-idx", ".idx")) + (".gz" if packed else ""))
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(gzip.compress(content) if packed else content)
    assert is_fake_mnist(mnist(tmp_path))


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
@pytest.mark.parametrize("inside", [".", "mnist"])
def test_a_folder_holds_the_files_itself_or_in_a_folder_mnist(tmp_path, contents, packed, inside):
    fill(tmp_path / "data" / inside, contents, packed)
    root = tmp_path / "data"
    for data in (load_digits_data(root), load_digits_data(str(root)), mnist(root)):
        assert is_fake_mnist(data)
        assert data.train_images.shape == (7, 28, 28) and data.train_images.dtype == numpy.uint8
        assert data.test_labels.shape == (4,) and data.test_labels.dtype == numpy.int64
        assert idx(data.test_images) == contents[NAMES[2]]


def test_mtorch_data_names_the_folder_for_auto_and_mnist_but_not_for_digits(tmp_path, contents, monkeypatch):
    monkeypatch.setenv("MTORCH_DATA", str(fill(tmp_path / "data", contents)))
    assert is_fake_mnist(load_digits_data()) and is_fake_mnist(load_digits_data("mnist"))
    assert load_digits_data("digits").name == "digits"
    with pytest.raises(FileNotFoundError, match="other"):
        load_digits_data(tmp_path / "other")


def test_other_data_in_the_same_format_go_by_the_name_of_their_folder(tmp_path, contents):
    contents[NAMES[1]] = idx(numpy.zeros(7, "u1"))
    assert load_digits_data(fill(tmp_path / "fashion", contents)).name == "fashion"


def test_a_missing_folder_a_file_and_a_folder_without_the_files_are_errors_that_say_what_was_expected(tmp_path):
    file = tmp_path / "file"
    file.touch()
    (tmp_path / "empty").mkdir()
    cases = (tmp_path / "no", FileNotFoundError), (file, NotADirectoryError), (tmp_path / "empty", FileNotFoundError)
    for path, error in cases:
        with pytest.raises(error, match=f"{path}: .*{NAMES[0]}.*t10k-labels-idx1-ubyte; each may end in .gz"):
            load_digits_data(path)


def test_a_wrong_mtorch_data_is_an_error_not_the_built_in_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("MTORCH_DATA", str(tmp_path / "gone"))
    with pytest.raises(FileNotFoundError, match="gone"):
        load_digits_data("auto")


def test_one_missing_file_is_named(tmp_path, contents):
    folder = fill(tmp_path / "data", contents)
    (folder / f"{NAMES[3]}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=f"data: of MNIST's files there is no {NAMES[3]}; each"):
        load_digits_data(folder)


def damages(contents):
    images = contents[NAMES[0]]
    packed = gzip.compress(images)
    flipped = bytearray(packed)
    flipped[len(packed) // 2] ^= 4
    yield "truncated", packed[:-20]
    yield "flipped", bytes(flipped)
    yield "html", b"<!DOCTYPE html>"
    yield "truncated raw", images[:-1]
    yield "huge", images[:4] + b"\xff" * 12 + images[16:]
    yield "labels", gzip.compress(contents[NAMES[1]])
    yield "too small", gzip.compress(idx(numpy.zeros((7, 8, 8), "u1")))
    yield "floats", idx(numpy.zeros((7, 28, 28), "f4")).replace(b"\x08", b"\x0d", 1)
    yield "too few", gzip.compress(idx(numpy.zeros((6, 28, 28), "u1")))


@pytest.mark.parametrize("case", range(9))
def test_a_damaged_file_in_a_folder_is_an_error_that_names_it_or_the_labels_that_do_not_fit(tmp_path, contents, case):
    folder = fill(tmp_path / "data", contents)
    name, content = list(damages(contents))[case]
    (folder / FIRST).write_bytes(content)
    with pytest.raises(ValueError, match=NAMES[1] if name == "too few" else FIRST):
        load_digits_data(folder)


def test_a_label_above_nine_and_a_folder_in_place_of_a_file_are_errors(tmp_path, contents):
    folder = fill(tmp_path / "data", {**contents, NAMES[3]: idx(numpy.array([0, 1, 10, 2], "u1"))})
    with pytest.raises(ValueError, match=f"{NAMES[3]}.gz: expected labels from 0 to 9, got 10"):
        load_digits_data(folder)
    (folder / f"{NAMES[3]}.gz").write_bytes(idx(numpy.zeros(4, "i1")).replace(b"\x08", b"\x09", 1))
    with pytest.raises(ValueError, match=f"{NAMES[3]}.gz: expected 4 labels, got int8"):
        load_digits_data(folder)
    (folder / f"{NAMES[3]}.gz").unlink()
    (folder / f"{NAMES[3]}.gz").mkdir()
    with pytest.raises(OSError, match=NAMES[3]):
        load_digits_data(folder)


def test_a_folder_with_no_sample_in_its_files_is_an_error(tmp_path, contents):
    nothing = {NAMES[2]: idx(numpy.zeros((0, 28, 28), "u1")), NAMES[3]: idx(numpy.zeros(0, "u1"))}
    with pytest.raises(ValueError, match=f"{NAMES[3]}.gz: expected at least one"):
        load_digits_data(fill(tmp_path / "data", {**contents, **nothing}))


def test_a_home_folder_may_be_written_as_a_tilde(tmp_path, contents, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    fill(tmp_path / "data", contents)
    assert is_fake_mnist(load_digits_data("~/data"))


# The cache, and what happens without a network


def test_the_cache_folder_is_mtorch_cache_or_xdg_or_home(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert mnist_files.cache_folder() == tmp_path / "cache" / "mnist"
    monkeypatch.delenv("MTORCH_CACHE")
    assert mnist_files.cache_folder() == Path("/xdg/mtorch/mnist")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert mnist_files.cache_folder() == Path.home() / ".cache" / "mtorch" / "mnist"


@pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])
def test_files_in_the_cache_are_used_without_asking_a_mirror(tmp_path, contents, packed):
    fill(tmp_path / "cache" / "mnist", contents, packed)
    told = []
    assert is_fake_mnist(load_digits_data("auto", say=told.append)) and told == []


def test_auto_falls_back_to_the_built_in_digits_and_says_so_visibly(capsys):
    data = load_digits_data()
    assert data.name == "digits" and data.train_images.shape == (1257, 28, 28)
    err = capsys.readouterr().err
    assert "MNIST IS NOT HERE: going on with the built-in digits instead" in err and "--data DIR" in err


def test_auto_falls_back_to_the_raw_scans_for_models_that_read_them():
    data = load_digits_data("auto", size=8, say=lambda line: None)
    assert data.train_images.shape == (1257, 8, 8) and data.train_images.max() == 16
    assert load_digits_data("digits", size=8).test_images.shape == (540, 8, 8)


def test_mnist_makes_a_missing_mnist_an_error():
    with pytest.raises(FileNotFoundError, match=f"no mirror delivered {FIRST} .*MTORCH_DATA=DIR"):
        load_digits_data("mnist", say=lambda line: None)


def test_a_cache_that_cannot_be_written_is_no_reason_to_fail(tmp_path, contents):
    (tmp_path / "cache").write_text("a file where a folder should be")
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits"
    assert "MTORCH_CACHE=DIR" in told[-1]


def denied(*args, **options):
    raise PermissionError(13, "Permission denied", "somewhere")


def read_only(*args, **options):
    raise OSError(30, "Read-only file system", "somewhere")


@pytest.mark.parametrize(
    "method, failure",
    [("is_file", denied), ("mkdir", denied), ("mkdir", read_only), ("glob", denied)],
    ids=["unsearchable", "unwritable", "read-only", "unreadable"],
)
def test_a_cache_that_the_system_refuses_is_no_reason_to_fail(monkeypatch, tmp_path, method, failure):
    """The error is injected, because root may do everything."""
    monkeypatch.setattr(Path, method, failure)
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits"
    assert "Why: " in told[-1] and "MTORCH_CACHE=DIR" in told[-1] and str(tmp_path / "cache") in "".join(told)
    with pytest.raises(FileNotFoundError, match="MTORCH_CACHE=DIR"):
        load_digits_data("mnist", say=told.append)


def test_a_file_of_the_cache_that_may_not_be_read_is_no_reason_to_fail(monkeypatch, tmp_path, contents):
    fill(tmp_path / "cache" / "mnist", contents)
    monkeypatch.setattr(mnist_files, "read_up_to", denied)
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits" and "Why: " in told[-1]


@pytest.mark.parametrize("home", ["nowhere", "{file}", "{long}"])
def test_with_a_broken_home_there_are_still_the_built_in_digits(monkeypatch, tmp_path, home):
    (tmp_path / "file").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MTORCH_CACHE")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", home.format(file=tmp_path / "file", long=tmp_path / ("x" * 300)))
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits"
    assert "MTORCH_CACHE" in told[-1] and os.listdir(tmp_path) == ["file"]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="this system has no device that is always full")
def test_a_full_disk_is_told_with_the_file_and_not_as_the_fault_of_a_mirror(server, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("good"))
    part = tmp_path / "x.part"
    monkeypatch.setattr(download.tempfile, "mkstemp", lambda **options: (os.open("/dev/full", os.O_WRONLY), str(part)))
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits"
    assert f"cannot write {tmp_path / 'cache' / 'mnist' / FIRST}: No space left" in told[-1]
    assert "127.0.0.1" not in told[-1]


def test_what_a_mirror_says_reaches_the_terminal_escaped_and_in_bounds(server, monkeypatch):
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("rude"))
    told = []
    load_digits_data("auto", say=told.append)
    assert "\\x1b[31m" in told[-1] and len(told[-1]) < 800
    assert all(line.isprintable() for line in told[-1].splitlines())


@pytest.mark.parametrize("length", ["1" * 5000, "1" * 300, "\u00b2", "-1", "a"])
def test_an_absurd_length_from_a_mirror_is_no_reason_to_fail(server, monkeypatch, length):
    server.length = length
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("absurd", "good"))
    assert is_fake_mnist(load_digits_data("mnist", say=lambda line: None))


def test_a_mirror_cannot_make_a_file_grow_in_memory(server, monkeypatch, tmp_path):
    """Its header promises a gigabyte, and it would deliver it."""
    header = bytes([0, 0, 8, 3]) + numpy.array((1 << 21, 28, 28), ">u4").tobytes()
    server.contents[NAMES[0]] = header + bytes(5 << 20)
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("good"))
    with pytest.raises(FileNotFoundError, match="more than this reads|cannot hold that"):
        load_digits_data("mnist", say=lambda line: None)
    path = tmp_path / "bomb.gz"
    path.write_bytes(gzip.compress(header + bytes(5 << 20)) + bytes(2 << 20))
    begin = time.monotonic()
    with pytest.raises(ValueError, match="bomb.gz: its header promises .* which is more than this reads"):
        mnist_files._genuine(NAMES[0], path)
    assert time.monotonic() - begin < 1


def test_without_a_home_folder_there_are_still_the_built_in_digits(monkeypatch):
    def homeless():
        raise RuntimeError("Could not determine home directory.")

    for name in ("MTORCH_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(Path, "home", homeless)
    told = []
    assert load_digits_data(say=told.append).name == "digits" and "set MTORCH_CACHE" in told[-1]


# Mirrors


class Mirror(http.server.BaseHTTPRequestHandler):
    """/good/, /plain/, … : each folder misbehaves in the way of its name."""

    def do_GET(self):  # noqa: N802
        _, folder, name = self.path.split("/")
        self.server.asked.append((folder, name))
        content = self.server.contents[name.removesuffix(".gz")]
        good = gzip.compress(content)
        flipped = bytearray(good)
        flipped[len(good) // 2] ^= 1
        statuses = {"forbidden": 403, "missing": 404, "busy": 503}
        bodies = {
            "good": good, "html": b"<!DOCTYPE html><title>moved</title>", "empty": b"", "cut": good[:-100],
            "flipped": bytes(flipped), "swapped": gzip.compress(self.server.contents[NAMES[3]]),
            "long": gzip.compress(content + b"1"), "bomb": gzip.compress(content + bytes(2_000_000)),
        }  # fmt: skip
        if folder == "hang":
            self.server.release.wait(20)
        elif folder == "stall":
            self.send_response(200)
            self.end_headers()
            self.wfile.write(good[:20])
            self.server.release.wait(20)
        elif folder == "garbage":
            self.wfile.write(b"\0\1\2 this is no HTTP\r\n\r\n")
        elif folder == "trickle":
            self.send_response(200)
            self.end_headers()
            for _ in range(400):
                self.wfile.write(b"\x1f")
                if self.server.release.wait(0.02):
                    break
        elif folder == "short":  # promises more than it sends
            self.send_response(200)
            self.send_header("Content-Length", str(len(good)))
            self.end_headers()
            self.wfile.write(good[:-50])
        elif folder == "rude":
            self.wfile.write(b"HTTP/1.0 500 \x1b[31mred\x07" + b"x" * 5000 + b"\r\n\r\n")
        elif folder == "absurd":
            self.send_response(200)
            self.send_header("Content-Length", self.server.length)
            self.end_headers()
            self.wfile.write(good)
        elif folder == "moved":
            self.send_response(302)
            self.send_header("Location", f"/good/{name}")
            self.end_headers()
        else:
            self.send_response(statuses.get(folder, 200))
            self.send_header("Content-Length", str(len(bodies.get(folder, b"no"))))
            self.end_headers()
            self.wfile.write(bodies.get(folder, b"no"))

    def log_message(self, *args):
        pass


class Quiet(http.server.ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Clients that hang up are what is tested."""


@pytest.fixture
def server(contents):
    with Quiet(("127.0.0.1", 0), Mirror) as server:
        server.contents, server.asked, server.release = contents, [], threading.Event()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        server.at = lambda *folders: [f"http://127.0.0.1:{server.server_port}/{folder}/" for folder in folders]
        yield server
        server.release.set()
        server.shutdown()
        thread.join()


def unused_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def test_missing_files_are_downloaded_checked_and_kept(server, monkeypatch, tmp_path):
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("good"))
    told = []
    assert is_fake_mnist(load_digits_data("mnist", say=told.append))
    cache = tmp_path / "cache" / "mnist"
    assert sorted(path.name for path in cache.iterdir()) == sorted(f"{name}.gz" for name in NAMES)
    assert str(cache) in told[0]
    assert stat.S_IMODE((cache / FIRST).stat().st_mode) == 0o644
    monkeypatch.setattr(mnist_files, "MIRRORS", [])
    assert is_fake_mnist(load_digits_data("mnist"))
    assert len(FileDataset(cache / FIRST, cache / f"{NAMES[1]}.gz")) == 7


BAD = [
    "forbidden", "missing", "busy", "html", "empty", "cut", "flipped", "swapped", "bomb", "long", "short", "garbage",
    "hang", "stall", "trickle",
]  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("bad", BAD)
def test_a_mirror_that_fails_is_passed_over_and_leaves_nothing(server, monkeypatch, tmp_path, bad):
    monkeypatch.setattr(mnist_files, "FILES", {NAMES[0]: mnist_files.FILES[NAMES[0]]})
    arguments = (NAMES[0], tmp_path / "cache", lambda line: None)
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at(bad))
    monkeypatch.setattr(download, "ANSWER", 0.3)
    with pytest.raises(mnist_files.MnistMissing, match=f"no mirror delivered {FIRST} \\(127.0.0.1:") as error:
        mnist_files._cached(*arguments)
    assert ".part" not in str(error.value) and ("timed out" in str(error.value) or bad != "stall")
    assert list((tmp_path / "cache").iterdir()) == []
    monkeypatch.setattr(download, "ANSWER", 2.0 if bad not in ("hang", "stall", "trickle") else 0.7)
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at(bad, "good"))
    assert mnist_files._cached(*arguments).shape == (7, 28, 28)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [FIRST]


def test_a_redirect_is_followed(server, monkeypatch):
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("moved"))
    assert is_fake_mnist(load_digits_data("mnist", say=lambda line: None))


def test_refused_connections_and_unknown_hosts_are_passed_over(server, monkeypatch):
    real = socket.getaddrinfo

    def look_up(host, *args, **options):
        if host == "nowhere.invalid":
            raise socket.gaierror(-2, "Name or service not known")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    dead = ["http://nowhere.invalid/mnist/", f"http://127.0.0.1:{unused_port()}/"]
    monkeypatch.setattr(mnist_files, "MIRRORS", dead + server.at("good"))
    assert is_fake_mnist(load_digits_data("mnist", say=lambda line: None))


def test_an_unreachable_network_is_named_once_for_hosts_with_one_reason(monkeypatch):
    def look_up(*args, **options):
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(mnist_files, "MIRRORS", ["http://a.invalid/", "http://b.invalid/"])
    told = []
    assert load_digits_data("auto", say=told.append).name == "digits"
    assert "a.invalid, b.invalid: [Errno -2] Name or service not known" in told[-1]


def test_a_name_look_up_that_hangs_is_given_up(monkeypatch):
    release = threading.Event()

    def look_up(*args, **options):
        release.wait(20)
        raise socket.gaierror(-2, "too late")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(mnist_files, "MIRRORS", ["http://slow.invalid/"])
    monkeypatch.setattr(download, "ANSWER", 0.2)
    with pytest.raises(mnist_files.MnistMissing, match="slow.invalid: does not answer"):
        load_digits_data("mnist", say=lambda line: None)
    release.set()


@pytest.mark.slow
def test_patience_is_for_all_mirrors_together_and_ends_within_seconds(server, monkeypatch):
    monkeypatch.setattr(download, "ANSWER", 0.4)
    monkeypatch.setattr(download, "PATIENCE", 1.0)
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at(*["hang"] * 20))
    with pytest.raises(mnist_files.MnistMissing):
        load_digits_data("mnist", say=lambda line: None)
    assert 2 <= len(server.asked) <= 3
    assert {name for _, name in server.asked} == {FIRST}
    monkeypatch.undo()
    assert download.PATIENCE + download.ANSWER < 15 and len(mnist_files.MIRRORS) >= 3
    assert all(mirror.startswith("https://") and mirror.endswith("/") for mirror in mnist_files.MIRRORS)


def test_a_body_without_end_is_cut_off(server, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "MAX_BYTES", 1000)
    with pytest.raises(download.DownloadError, match="sends more than 1,000 bytes"):
        download.download(FIRST, tmp_path / "new", server.at("good"), lambda part: None)


def test_a_damaged_file_in_the_cache_is_fetched_again(server, monkeypatch, tmp_path, contents):
    cache = fill(tmp_path / "cache" / "mnist", contents)
    (cache / FIRST).write_bytes(gzip.compress(contents[NAMES[2]]))
    (cache / NAMES[1]).write_bytes(contents[NAMES[1]][:-2])  # beside a .gz that is well
    third = f"{NAMES[2]}.gz"
    (cache / third).write_bytes(gzip.compress(contents[NAMES[2]].replace(b"\x08", b"\x09", 1)))  # signed bytes
    monkeypatch.setattr(mnist_files, "MIRRORS", server.at("good"))
    told = []
    assert is_fake_mnist(load_digits_data("mnist", say=told.append))
    assert server.asked == [("good", FIRST), ("good", third)] and f"{FIRST}: is not MNIST's {NAMES[0]}" in told[0]


def test_part_files_that_a_killed_process_left_are_swept_but_young_ones_stay(server, tmp_path):
    old, young = tmp_path / "a.part", tmp_path / "b.part"
    for path in (old, young):
        path.touch()
    os.utime(old, (time.time() - 2 * download.STALE,) * 2)
    download.download(FIRST, tmp_path, server.at("good"), lambda part: None)
    assert not old.exists() and young.exists()


def test_ctrl_c_leaves_no_part_file(server, tmp_path):
    def interrupted(part):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download.download(FIRST, tmp_path, server.at("good"), interrupted)
    assert list(tmp_path.glob("*.part")) == [] and not (tmp_path / FIRST).exists()


def test_the_network_is_imported_only_where_something_is_downloaded():
    code = "import sys, mtorch.data; assert not {'urllib.request', 'http.client', 'tqdm'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_progress_bar_is_drawn_on_a_terminal_only(server, monkeypatch, tmp_path):
    class Terminal(io.StringIO):
        def __init__(self, there):
            super().__init__()
            self.there = there

        def isatty(self):
            return self.there

    for there in (True, False):
        screen = Terminal(there)
        monkeypatch.setattr("sys.stderr", screen)
        download.download(FIRST, tmp_path, server.at("good"), lambda part: None)
        assert (FIRST in screen.getvalue()) is there


# The real one


@pytest.mark.skipif(not os.environ.get("MTORCH_DATA"), reason="MTORCH_DATA names no folder with MNIST")
def test_the_real_mnist_is_read_whole_and_recognised(monkeypatch):
    monkeypatch.undo()
    data = load_digits_data("mnist")
    if data.name != "mnist":
        pytest.skip(f"MTORCH_DATA holds {data.name}")
    assert data.train_images.shape == (60000, 28, 28) and data.test_images.shape == (10000, 28, 28)
    assert numpy.bincount(data.train_labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert numpy.bincount(data.test_labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
