"""Data sets: samples by integer, slice and index array; unequal or unsuitable data refused at construction."""

import numpy
import pytest

from mtorch.data import ArrayDataset, DataLoader, Dataset
from mtorch.testing import strict


@pytest.fixture
def pairs():
    return ArrayDataset(numpy.arange(12.0, dtype="float32").reshape(6, 2), numpy.arange(6))


def test_a_sample_is_a_row_of_each_array(pairs):
    x, y = pairs[4]
    assert x.tolist() == [8, 9] and y == 4 and len(pairs) == 6
    assert pairs[-1][1] == 5


def test_slices_and_index_arrays_and_lists_and_masks_give_several_samples(pairs):
    for index in (slice(1, 4), numpy.array([1, 2, 3]), [1, 2, 3], numpy.array([0, 1, 1, 1, 0, 0], bool)):
        x, y = pairs[index]
        assert x.tolist() == [[2, 3], [4, 5], [6, 7]] and y.tolist() == [1, 2, 3]


def test_one_array_gives_bare_rows():
    assert ArrayDataset([[1, 2], [3, 4]])[1].tolist() == [3, 4]


def test_dtypes_stay_but_byte_order_becomes_native():
    for dtype in ("uint8", "int64", "float16", "float32", "longdouble", "bool"):
        assert ArrayDataset(numpy.zeros((3, 2), dtype))[numpy.array([0])].dtype == dtype
    assert ArrayDataset(numpy.arange(3, dtype=">i4"))[numpy.array([2])].dtype.isnative


@pytest.mark.parametrize(
    "make",
    [
        lambda x: numpy.asfortranarray(x),
        lambda x: x[::-1],
        lambda x: numpy.repeat(x, 2, axis=1)[:, ::2],
        lambda x: numpy.broadcast_to(x[:1], x.shape),
        lambda x: x.tolist(),
    ],
    ids=["fortran", "reversed", "strided", "broadcast", "list"],
)
def test_batches_are_contiguous_whatever_the_layout_of_the_data(make):
    x = make(numpy.arange(12.0).reshape(4, 3))
    data = ArrayDataset(x)
    assert data.arrays[0].flags.c_contiguous  # else every batch would copy all of it
    batch = data[numpy.array([3, 1])]
    assert batch.flags.c_contiguous and batch.flags.writeable
    numpy.testing.assert_array_equal(batch, numpy.asarray(x)[[3, 1]])


def test_read_only_data_give_writable_batches():
    x = numpy.arange(4)
    x.flags.writeable = False
    assert ArrayDataset(x)[numpy.array([0, 1])].flags.writeable


def test_unequal_lengths_are_refused_at_construction():
    with pytest.raises(ValueError, match=r"ArrayDataset .*equal length.*\[3, 4\]"):
        ArrayDataset(numpy.zeros((3, 2)), numpy.zeros(4))


@pytest.mark.parametrize(
    "data, error, text",
    [
        ((), TypeError, "at least one array"),
        ((3.0,), ValueError, "argument 0 has no axes"),
        ((numpy.zeros(2), [[1, 2], [3]]), ValueError, "argument 1 is a ragged list"),
        ((numpy.array([None, 1]),), TypeError, "argument 0 has dtype object"),
        ((["a", "b"],), TypeError, "argument 0 has dtype <U1"),
        ((numpy.zeros(2, complex),), TypeError, "complex"),
    ],
)
def test_what_is_no_data_is_refused_with_the_name_of_the_class(data, error, text):
    with pytest.raises(error, match=f"ArrayDataset .*{text}"):
        ArrayDataset(*data)


def test_an_index_out_of_range_or_over_two_axes_is_an_error(pairs):
    for index in (6, numpy.array([0, 6]), numpy.array([-7])):
        with pytest.raises(IndexError):
            pairs[index]
    with pytest.raises(TypeError, match="ArrayDataset expected an integer"):
        pairs[1, 0]


def test_data_on_another_array_module_stay_there():
    x = strict.asarray(numpy.arange(6.0).reshape(3, 2))
    data = ArrayDataset(x, numpy.arange(3))
    batch, labels = data[numpy.array([2, 0])]
    assert type(batch) is strict.ndarray and batch.get().tolist() == [[4, 5], [0, 1]] and labels.tolist() == [2, 0]
    with pytest.raises(IndexError, match="ArrayDataset of 3 samples"):
        data[numpy.array([0, 3])]


def test_your_own_data_set_needs_only_a_length_and_an_index():
    class Squares(Dataset):
        def __len__(self):
            return 7

        def __getitem__(self, index):
            return numpy.square(index), index % 2

    class Duck:
        __len__, __getitem__ = Squares.__len__, Squares.__getitem__

    for data in (Squares(), Duck()):
        assert [batch[0].tolist() for batch in DataLoader(data, batch_size=3)] == [[0, 1, 4], [9, 16, 25], [36]]


def test_the_repr_tells_samples_shapes_and_dtypes(pairs):
    assert repr(pairs) == "ArrayDataset(6 samples of (2,) float32, () int64)"
