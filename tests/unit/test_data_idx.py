"""IDX files and FileDataset: what is read, and how damaged files are refused before they cost memory."""

import gzip
import os
import pathlib
import tracemalloc

import numpy
import pytest

from mtorch.data import DataLoader, FileDataset, read_idx, standardise
from mtorch.data.idx import idx_sha256, read_idx_header

CODES = {"u1": 0x08, "i1": 0x09, "i2": 0x0B, "i4": 0x0C, "f4": 0x0D, "f8": 0x0E}


def idx(array, code=None):
    code = CODES[array.dtype.str[1:]] if code is None else code
    header = bytes([0, 0, code, array.ndim]) + numpy.array(array.shape, ">u4").tobytes()
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


@pytest.fixture
def images():
    return numpy.random.default_rng(0).integers(0, 256, (5, 4, 3)).astype("uint8")


def write(path, content, packed):
    path.write_bytes(gzip.compress(content) if packed else content)
    return path


both = pytest.mark.parametrize("packed", [False, True], ids=["raw", "gz"])


@both
@pytest.mark.parametrize("dtype", list(CODES))
def test_every_type_is_read_as_a_native_writable_array(tmp_path, packed, dtype):
    array = (numpy.arange(24).reshape(2, 3, 4) - (0 if dtype == "u1" else 12)).astype(dtype)
    read = read_idx(write(tmp_path / "file", idx(array), packed))
    assert read.dtype == dtype and read.dtype.isnative and read.flags.writeable
    numpy.testing.assert_array_equal(read, array)


@both
def test_the_content_decides_whether_a_file_is_gzipped_not_its_name(tmp_path, images, packed):
    for name in ("a-idx3-ubyte", "a-idx3-ubyte.gz"):
        path = write(tmp_path / name, idx(images), packed)
        numpy.testing.assert_array_equal(read_idx(str(path)), images)
        assert read_idx_header(path) == (numpy.uint8, (5, 4, 3))


def test_a_gzip_file_of_several_members_is_read(tmp_path, images):
    content = idx(images)
    path = tmp_path / "two.gz"
    path.write_bytes(gzip.compress(content[:30]) + gzip.compress(content[30:]))
    numpy.testing.assert_array_equal(read_idx(path), images)


def test_an_empty_array_is_read(tmp_path):
    assert read_idx(write(tmp_path / "none", idx(numpy.zeros((0, 4, 3), "u1")), False)).shape == (0, 4, 3)


def test_the_sha256_of_an_array_is_that_of_its_file(images):
    import hashlib

    assert idx_sha256(images) == hashlib.sha256(idx(images)).hexdigest()


def damaged(content):
    yield "empty", b"", "no IDX file"
    yield "half a magic number", content[:3], "no IDX file"
    yield "html", b"<!DOCTYPE html><html>503</html>", "no IDX file"
    yield "zeros missing", b"\1" + content[1:], "no IDX file"
    yield "unknown type", content[:2] + b"\x07" + content[3:], "no IDX file"
    yield "no dimensions", content[:3] + b"\x00" + content[4:], "no IDX file"
    yield "too many dimensions", content[:3] + b"\xff" + content[4:], "no IDX file"
    yield "header cut off", content[:10], "header is cut off"
    yield "no values", content[:16], "promises"
    yield "truncated", content[:-1], "promises 5 x 4 x 3"
    yield "goes on", content + b"\0", "promises 5 x 4 x 3"
    yield "bit flipped in the header", content[:7] + bytes([content[7] ^ 1]) + content[8:], "promises 4 x 4 x 3"
    yield "huge", content[:4] + b"\xff" * 12 + content[16:], "promises 4294967295 x 4294967295 x 4294967295"
    yield "huge and empty", content[:4] + b"\0\0\0\0" + b"\xff" * 8, "huge_and_empty"


@both
@pytest.mark.parametrize("case", range(14))
def test_a_damaged_file_is_an_error_that_names_it(tmp_path, images, packed, case):
    name, content, text = list(damaged(idx(images)))[case]
    path = write(tmp_path / name.replace(" ", "_"), content, packed)
    with pytest.raises(ValueError, match=text) as error:
        read_idx(path)
    assert str(path) in str(error.value)


def test_a_gzip_file_that_is_cut_or_flipped_or_followed_by_garbage_is_an_error_that_names_it(tmp_path, images):
    packed = gzip.compress(idx(images))
    damages = [packed[:cut] for cut in (2, 9, 20, len(packed) // 2, len(packed) - 8, len(packed) - 1)]
    damages += [packed[:i] + bytes([packed[i] ^ 16]) + packed[i + 1 :] for i in (2, 15, 40, len(packed) - 6)]
    damages += [packed + b"garbage"]
    for damage in damages:
        path = tmp_path / "file.gz"
        path.write_bytes(damage)
        with pytest.raises(ValueError, match="file.gz"):
            read_idx(path)


def test_no_flipped_bit_of_a_gzip_file_goes_unnoticed(tmp_path, images):
    packed = gzip.compress(idx(images))
    path = tmp_path / "file.gz"
    for position in range(8 * len(packed)):
        damage = bytearray(packed)
        damage[position // 8] ^= 1 << position % 8
        path.write_bytes(damage)
        try:
            assert (read_idx(path) == images).all()  # a bit that means nothing, such as one of the time
        except ValueError as error:
            assert "file.gz" in str(error)


def test_a_file_of_many_pieces_is_checked_to_its_end(tmp_path, images, monkeypatch):
    monkeypatch.setattr("mtorch.data.idx.PIECE", 15)
    path = write(tmp_path / "good.gz", idx(images), True)
    numpy.testing.assert_array_equal(read_idx(path), images)
    content = bytearray(path.read_bytes())
    content[-6] ^= 1
    path.write_bytes(content)
    for wrong in (path, write(tmp_path / "longer.gz", idx(images) + b"1", True)):
        with pytest.raises(ValueError, match=wrong.name):
            read_idx(wrong)


def test_the_header_alone_is_compared_with_the_length_of_a_raw_file(tmp_path, images):
    for content in (idx(images)[:-1], idx(images) + b"1"):
        with pytest.raises(ValueError, match="file: its header promises"):
            read_idx_header(write(tmp_path / "file", content, False))


def peak_of_refusing(path):
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=path.name):
            read_idx(path)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@both
def test_a_huge_header_allocates_nothing(tmp_path, packed):
    header = bytes([0, 0, 8, 3]) + numpy.array([60000, 280, 280], ">u4").tobytes()
    path = write(tmp_path / "huge", header + numpy.random.default_rng(0).bytes(100_000), packed)
    assert peak_of_refusing(path) < 1_000_000


def test_a_header_that_promises_what_gzip_could_just_hold_costs_only_what_is_there(tmp_path):
    header = bytes([0, 0, 8, 1]) + numpy.array([90_000_000], ">u4").tobytes()
    path = write(tmp_path / "promise.gz", header + numpy.random.default_rng(0).bytes(100_000), True)
    assert peak_of_refusing(path) < 4_000_000


def test_a_bomb_behind_a_small_header_is_not_unpacked(tmp_path):
    header = bytes([0, 0, 8, 1]) + numpy.array([1000], ">u4").tobytes()
    path = write(tmp_path / "bomb.gz", header + bytes(50_000_000), True)
    assert peak_of_refusing(path) < 1_000_000


def test_missing_files_and_folders_are_os_errors_that_name_them(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_idx(tmp_path / "nowhere")
    with pytest.raises(OSError, match=tmp_path.name):
        read_idx(tmp_path)
    for path in (None, 0, b"bytes"):
        with pytest.raises(TypeError, match="path must be a str or a Path"):
            read_idx(path)


# FileDataset


@pytest.fixture
def files(tmp_path, images):
    labels = numpy.array([3, 0, 9, 1, 255], "u1")
    return write(tmp_path / "images.gz", idx(images), True), write(tmp_path / "labels", idx(labels), False)


def test_a_file_dataset_gives_standardised_rows_and_integer_labels(files, images):
    data = FileDataset(*files)
    x, y = data[numpy.array([4, 0])]
    assert len(data) == 5 and x.dtype == numpy.float32 and x.shape == (2, 12) and x.flags.c_contiguous
    assert y.dtype == numpy.int64 and y.tolist() == [255, 3]
    rows = images.reshape(5, 12).astype(float)[[4, 0]]
    expected = (rows - rows.mean(1, keepdims=True)) / rows.std(1, keepdims=True)
    numpy.testing.assert_allclose(x, expected, rtol=1e-5, atol=1e-6)
    assert data[1][0].shape == (12,) and data[1][1] == 0 and len(data[1:3][0]) == 2
    assert repr(data) == "FileDataset(5 samples of (12,) float32, () int64)"
    assert [len(labels) for _, labels in DataLoader(data, 2, shuffle=True, rng=0)] == [2, 2, 1]


def test_an_image_without_contrast_becomes_zeros():
    images = numpy.full((3, 28, 28), 7, "u1")
    images[1, 0, 0] = 8
    rows = standardise(images)
    assert (rows[[0, 2]] == 0).all() and numpy.isclose(rows[1].std(), 1, atol=1e-3)
    assert (standardise(numpy.full((2, 784), 0.1)) == 0).all()


def test_standardise_takes_more_images_than_one_block():
    images = numpy.random.default_rng(0).integers(0, 256, (1100, 3, 3)).astype("u1")
    rows = standardise(images)
    assert numpy.allclose(rows.mean(axis=1), 0, atol=1e-5) and numpy.allclose(rows.std(axis=1), 1, atol=1e-4)
    assert standardise(images[:0]).shape == (0, 9)


def test_standardise_refuses_what_is_no_images():
    for images in (numpy.zeros(3), 1.0, numpy.zeros((2, 2), complex)):
        with pytest.raises(ValueError, match="standardise expected images"):
            standardise(images)


def test_unequal_counts_are_refused_by_name_before_anything_is_read(tmp_path, files, monkeypatch):
    labels = write(tmp_path / "four", idx(numpy.zeros(4, "u1")), True)
    monkeypatch.setattr("mtorch.data.file_dataset.read_idx", None)
    with pytest.raises(ValueError, match=r"FileDataset .*5 images in .*images.gz and 4 labels in .*four"):
        FileDataset(files[0], labels)


def test_swapped_files_are_refused(files):
    with pytest.raises(ValueError, match=r"labels: FileDataset expected img_path .*magic 00 00 08 03"):
        FileDataset(files[1], files[0])
    with pytest.raises(ValueError, match=r"images.gz: FileDataset expected label_path .*magic 00 00 08 01"):
        FileDataset(files[0], files[0])


def test_images_of_another_type_are_refused(tmp_path, files):
    wide = write(tmp_path / "wide", idx(numpy.zeros((5, 2, 2), "f4")), False)
    with pytest.raises(ValueError, match="wide: FileDataset expected img_path to hold unsigned bytes"):
        FileDataset(wide, files[1])


def test_a_damaged_or_missing_or_foreign_file_is_refused_by_name(tmp_path, files):
    images, labels = files
    damaged_images = tmp_path / "damaged.gz"
    content = images.read_bytes()
    damaged_images.write_bytes(content[:-3])
    with pytest.raises(ValueError, match="damaged.gz"):
        FileDataset(damaged_images, labels)
    with pytest.raises(FileNotFoundError, match="absent"):
        FileDataset(images, tmp_path / "absent")
    with pytest.raises(OSError, match=pathlib.Path(tmp_path).name):
        FileDataset(tmp_path, labels)
    with pytest.raises(TypeError, match="FileDataset label_path"):
        FileDataset(images, None)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no named pipes")
@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_a_pipe_or_device_in_place_of_a_file_is_refused_at_once(tmp_path, kind):
    path = tmp_path / "images"
    os.mkfifo(path)
    path = path if kind == "fifo" else "/dev/zero"
    for read in (read_idx, lambda path: FileDataset(path, path)):
        with pytest.raises(OSError, match=f"{path}: expected a regular file"):
            read(path)


def test_a_file_larger_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = tmp_path / "sparse"
    shape = (1 << 12, 1 << 10, 1 << 10)
    path.write_bytes(bytes([0, 0, 8, 3]) + numpy.array(shape, ">u4").tobytes())
    os.truncate(path, 16 + (1 << 32))  # of which the disk holds 16 bytes
    monkeypatch.setattr("mtorch.data.idx.physical_memory", lambda: 1 << 31)
    with pytest.raises(ValueError, match=r"sparse: its header promises 4096 x 1024 x 1024 values .* more than this"):
        read_idx(path)
