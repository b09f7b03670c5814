"""The strict array module: seeded leaks are caught, values are NumPy's, host synchronisations are counted."""

import copy
import json
import math
import pickle
from pathlib import Path

import numpy
import pytest

from mtorch import layers
from mtorch.testing import strict
from mtorch.testing import strict as xp

ROOT = Path(__file__).parents[2]
PACKAGED = Path(strict.__file__).with_name("cupy_api_14.2.json")


def given(*shape, seed=0):
    return numpy.random.default_rng(seed).standard_normal(shape).astype(numpy.float32)


@pytest.fixture
def x():
    return xp.asarray(given(3, 4))


# ---------------------------------------------------------------------- leaks

LEAKS = {
    "a ufunc of NumPy": lambda x: numpy.exp(x),
    "a binary ufunc of NumPy": lambda x: numpy.add(x, x),
    "a function of NumPy": lambda x: numpy.sum(x),
    "numpy.asarray": lambda x: numpy.asarray(x),
    "numpy.asarray of a list": lambda x: numpy.asarray([x, x]),
    "numpy.array with a dtype": lambda x: numpy.array(x, dtype="float32"),
    "a host array on the right": lambda x: x + numpy.zeros((3, 4), "float32"),
    "a host array on the left": lambda x: numpy.zeros((3, 4), "float32") + x,
    "a host array of no dimension": lambda x: x * numpy.array(2.0),
    "a host array multiplied by": lambda x: x @ numpy.zeros((4, 2), "float32"),
    "a host array compared with": lambda x: x == numpy.zeros((3, 4), "float32"),
    "a host array in place": lambda x: x.__iadd__(numpy.ones((3, 4), "float32")),
    "a device array into a host array": lambda x: numpy.zeros((3, 4), "float32").__iadd__(x),
    "a host array in a ufunc": lambda x: xp.maximum(x, numpy.zeros(4)),
    "a host array as out": lambda x: xp.exp(x, out=numpy.empty((3, 4), "float32")),
    "a host array in a list": lambda x: xp.concatenate([x, numpy.zeros((1, 4), "float32")]),
    "a host array in where": lambda x: xp.where(x > 0, x, numpy.zeros((3, 4))),
    "a host array as condition": lambda x: xp.where(numpy.ones((3, 4), bool), x, 0.0),
    "a host array written": lambda x: x.__setitem__(0, numpy.zeros(4)),
    "a host array scattered": lambda x: xp.add.at(x, [0], numpy.zeros((1, 4), "float32")),
    "a host index": lambda x: x[numpy.array([0, 1])],
    "a host index among others": lambda x: x[:, numpy.array([0, 1])],
    "a host index to write": lambda x: x.__setitem__(numpy.array([0]), 0.0),
    "a list for an array": lambda x: xp.sum([1.0, 2.0]),
    "a list in a ufunc": lambda x: xp.add(x, [1.0, 2.0, 3.0, 4.0]),
    "a list as operand": lambda x: x + [1.0, 2.0, 3.0, 4.0],
    "a list written": lambda x: x.__setitem__(0, [1.0, 2.0, 3.0, 4.0]),
    "numbers where CuPy wants an array": lambda x: xp.prod((2, 3)),
    "None compared with": lambda x: x == None,  # noqa: E711
    "a shape read from the device": lambda x: xp.zeros(x[0, 0].astype("int32")),
    "a loop bound read from the device": lambda x: range(x[0, 0].astype("int32")),
    "where= of a reduction": lambda x: xp.sum(x, where=x > 0),
    "initial= of a reduction": lambda x: x.max(initial=0.0),
    "where= of a ufunc": lambda x: xp.exp(x, where=x > 0),
    "out= of einsum": lambda x: xp.einsum("ij->ij", x, out=xp.empty_like(x)),
    "mode= of take": lambda x: xp.take(x, [0], axis=0, mode="clip"),
    "casting= of astype": lambda x: x.astype("int32", casting="unsafe"),
    "stable= of argsort": lambda x: xp.argsort(x, stable=True),
    "an axis left out where CuPy needs it": lambda x: xp.take_along_axis(x, xp.asarray([[0]])),
    "too many arguments": lambda x: xp.zeros_like(x, "float32", "C", None, None, None),
    "longdouble from the host": lambda x: xp.asarray(numpy.longdouble(1)),
    "longdouble by name": lambda x: x.astype("longdouble"),
    "longdouble by promotion": lambda x: x * numpy.longdouble(2),
    "an array of objects": lambda x: xp.asarray([None]),
    "an array of text": lambda x: xp.asarray("text"),
    "dot with another dtype": lambda x: xp.dot(x, x.T, out=xp.empty((3, 3), "float64")),
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS.values(), ids=LEAKS)
def test_a_seeded_leak_is_a_type_error(x, leak):
    if leak is LEAKS["dot with another dtype"]:
        with pytest.raises(ValueError):
            leak(x)
    else:
        with pytest.raises(TypeError):
            leak(x)


@pytest.mark.parametrize(
    "name",
    "vecdot matvec errstate longdouble frompyfunc emath ma einsum_path seterr nditer random maximum.reduce".split(),
)
def test_names_that_cupy_lacks_are_attribute_errors(name):
    head, *tail = name.split(".")
    if tail:
        with pytest.raises(NotImplementedError):
            getattr(getattr(xp, head), tail[0])(xp.ones(3, "int32"))
    else:
        assert not hasattr(xp, head)
        with pytest.raises(AttributeError, match=head):
            getattr(xp, head)


@pytest.mark.parametrize("name", ["numpy", "json", "sys", "Path", "Any", "contextmanager"])
def test_the_imports_of_the_module_are_no_names_of_it(name):
    assert not hasattr(xp, name)


def test_public_names_are_cupys_and_four_more():
    own = {"read_only", "frozen", "count_synchronisations", "synchronisations"}
    public = {name for name in vars(strict) if not name.startswith("_")}
    assert public - own <= set(json.loads(PACKAGED.read_text())["names"])


@pytest.mark.parametrize("name", ["setflags", "byteswap", "newbyteorder", "__array_interface__", "ctypes", "vecdot"])
def test_attributes_that_cupys_arrays_lack_or_hide_are_attribute_errors(x, name):
    assert not hasattr(x, name)


def test_every_attribute_of_the_arrays_is_one_of_cupys():
    names = {name for name in vars(strict.ndarray) if not name.startswith("_")}
    assert names <= set(json.loads(PACKAGED.read_text())["ndarray"])


def test_flags_cannot_be_made_read_only_as_in_cupy(x):
    assert x.flags.c_contiguous and not hasattr(x.flags, "writeable")


@pytest.mark.parametrize("index", [3, -4, [0, 3], (slice(None), [4]), (0, 4)])
def test_an_index_out_of_range_is_an_index_error(x, index):
    with pytest.raises(IndexError):
        x[index]
    with pytest.raises(IndexError):
        x[index] = 0.0


def test_indices_out_of_range_on_the_device_are_index_errors(x):
    far = xp.asarray([0, 7])
    for leak in (
        lambda: x[far],
        lambda: x.take(far, axis=0),
        lambda: xp.take(x, far, axis=1),
        lambda: xp.add.at(x, far, 1.0),
        lambda: xp.take_along_axis(x, far[None], axis=1),
        lambda: x.__setitem__(far, 0.0),
        lambda: x.put(xp.asarray([100]), 1.0),
    ):
        with pytest.raises(IndexError):
            leak()


def test_negative_indices_count_from_the_end(x):
    assert (x[xp.asarray([-1])] == x[2:]).all()


def test_duplicate_indices_in_an_update_are_an_index_error(x):
    twice = xp.asarray([1, 1])
    with pytest.raises(IndexError, match="add.at"):
        x[twice] += 1.0
    with pytest.raises(IndexError, match="add.at"):
        x[twice, xp.asarray([2, -2])] = xp.ones(2, "float32")
    with pytest.raises(IndexError):
        xp.put_along_axis(x, xp.asarray([[1, 1]] * 3), xp.ones((3, 2), "float32"), axis=1)
    with pytest.raises(IndexError):
        x.put(twice, xp.asarray([1.0, 2.0]))


def test_duplicate_indices_are_fine_where_cupy_is_defined(x):
    host = x.get()
    twice = xp.asarray([1, 1])
    x[twice] = 5.0  # one value: any order gives the same
    host[1] = 5.0
    xp.add.at(x, twice, 1.0)
    host[1] += 2.0
    x[xp.asarray([0, 1]), twice] += xp.ones(2, "float32")  # no entry twice
    host[[0, 1], [1, 1]] += 1.0
    assert (x.get() == host).all()


def test_scatters_exist_for_the_dtypes_that_cupy_has():
    xp.add.at(xp.zeros(2, "int64"), xp.asarray([0]), 1)
    for leak in (
        lambda: xp.add.at(xp.zeros(2, "int8"), xp.asarray([0]), 1),
        lambda: xp.subtract.at(xp.zeros(2, "float32"), xp.asarray([0]), 1.0),
        lambda: xp.multiply.at(xp.ones(2, "float32"), xp.asarray([0]), 2.0),
    ):
        with pytest.raises(TypeError):
            leak()


def test_a_strided_view_cannot_leave_its_memory(x):
    as_strided = xp.lib.stride_tricks.as_strided
    assert as_strided(x, (2, 2), x.strides).shape == (2, 2)
    with pytest.raises(ValueError, match="memory"):
        as_strided(x, (4, 4), x.strides)
    with pytest.raises(ValueError, match="memory"):
        as_strided(x[1:], (3, 4), x.strides)


def test_fresh_memory_shows_when_it_is_used():
    assert xp.isnan(xp.empty((2, 3), "float32")).all() and xp.isnan(xp.empty_like(xp.ones(3))).all()
    with pytest.raises(IndexError):
        xp.ones(3)[xp.empty(1, "int32")]


def test_a_product_must_not_write_over_its_own_arguments():
    a = xp.asarray(given(3, 3))
    for leak in (
        lambda: xp.matmul(a, a, out=a),
        lambda: xp.dot(a, a, out=a),
        lambda: xp.sum(a, axis=0, out=a[0]),
    ):
        with pytest.raises(ValueError, match="own arguments"):
            leak()
    xp.exp(a, out=a)
    a.clip(0.0, 1.0, out=a)


# ---------------------------------------------------------------------- values


def pairs():
    a, b = given(3, 4, seed=1), given(3, 4, seed=2)
    i = numpy.array([2, 0, 1])
    m = given(4, 5, seed=3)
    t = given(2, 3, 4, seed=4)
    one = {
        "add": lambda xp, a, b: a + b,
        "radd": lambda xp, a, b: 2.0 + a,
        "rsub": lambda xp, a, b: 1 - a,
        "rtruediv": lambda xp, a, b: 1.0 / (abs(a) + 1.0),
        "numpy scalar left": lambda xp, a, b: numpy.float32(2) * a,
        "numpy scalar right": lambda xp, a, b: a * numpy.float32(2),
        "power": lambda xp, a, b: a**2 + abs(a) ** 0.5 + abs(a) ** -1.5,
        "rpow": lambda xp, a, b: 2.0**a,
        "floordiv mod divmod": lambda xp, a, b: divmod(a, 0.7) + (a // 0.7, a % 0.7),
        "comparison": lambda xp, a, b: (a < b, a >= b, a == a, a != b),
        "logic": lambda xp, a, b: (~(a < b) & (a > 0)) | (b > 0) ^ (a > 1),
        "neg pos": lambda xp, a, b: -a + +b,
        "exp": lambda xp, a, b: xp.exp(a),
        "log1p": lambda xp, a, b: xp.log1p(xp.abs(a)),
        "sqrt": lambda xp, a, b: xp.sqrt(xp.square(a)),
        "tanh": lambda xp, a, b: xp.tanh(a),
        "maximum": lambda xp, a, b: xp.maximum(a, 0.0),
        "positional out": lambda xp, a, b: xp.subtract(a, b, xp.zeros_like(a)),
        "modf": lambda xp, a, b: xp.modf(a),
        "where": lambda xp, a, b: xp.where(a > 0, a, 0.0),
        "clip": lambda xp, a, b: xp.clip(a, -0.5, 0.5),
        "method clip": lambda xp, a, b: a.clip(-0.5, 0.5),
        "isfinite": lambda xp, a, b: xp.isfinite(a),
        "sign copysign": lambda xp, a, b: xp.copysign(xp.sign(a), b),
        "sum": lambda xp, a, b: (a.sum(), a.sum(axis=0), xp.sum(a, axis=(0, 1), keepdims=True)),
        "sum dtype": lambda xp, a, b: a.sum(dtype="float64"),
        "mean var std": lambda xp, a, b: (a.mean(1), xp.var(a, axis=0), a.std(axis=1, ddof=1)),
        "max min": lambda xp, a, b: (a.max(), a.min(axis=1), xp.amax(a, axis=0)),
        "argmax argmin": lambda xp, a, b: (a.argmax(), xp.argmax(a, axis=1), a.argmin(axis=0)),
        "argmax keepdims": lambda xp, a, b: a.argmax(axis=1, keepdims=True),
        "prod cumsum": lambda xp, a, b: (a.prod(axis=0), xp.cumsum(a, axis=1), xp.cumprod(a, axis=0)),
        "any all": lambda xp, a, b: ((a > 0).any(), (a > 0).all(axis=0)),
        "count_nonzero": lambda xp, a, b: xp.count_nonzero(a > 0),
        "allclose": lambda xp, a, b: (xp.allclose(a, a), xp.array_equal(a, b), xp.isclose(a, b)),
        "matmul": lambda xp, a, b: a @ b.T,
        "dot": lambda xp, a, b: (xp.dot(a.T, b), a.dot(b.T)),
        "dot out": lambda xp, a, b: xp.dot(a.T, b, out=xp.zeros((4, 4), "float32")),
        "tensordot outer": lambda xp, a, b: (xp.tensordot(a, b, axes=([1], [1])), xp.outer(a[0], b[0])),
        "add.outer": lambda xp, a, b: xp.add.outer(a[0], b[0]),
        "add.reduce": lambda xp, a, b: (xp.add.reduce(a, axis=1), xp.add.reduce(a, axis=0, keepdims=True)),
        "einsum": lambda xp, a, b: xp.einsum("ij,kj->ik", a, b),
        "norm": lambda xp, a, b: xp.linalg.norm(a, axis=1),
        "reshape": lambda xp, a, b: (a.reshape(4, 3), a.reshape((2, -1)), xp.reshape(a, (12,)), a.ravel(), a.flatten()),
        "transpose": lambda xp, a, b: (a.T, a.transpose(1, 0), xp.swapaxes(a, 0, 1), xp.moveaxis(a, 0, 1), a.mT),
        "slices": lambda xp, a, b: (a[1:, ::-1], a[:, None], a[..., 2], a[0], a[-1, -1]),
        "lists as index": lambda xp, a, b: (a[[2, 0]], a[:, [1, 1]], a[[]]),
        "concatenate stack": lambda xp, a, b: (
            xp.concatenate([a, b], axis=1), xp.stack((a, b), axis=1), xp.vstack([a, b]),
        ),
        "split": lambda xp, a, b: (xp.split(a, 2, axis=1), xp.array_split(a, 2), xp.split(a, [1, 3], axis=1)),
        "pad roll flip tile repeat": lambda xp, a, b: (
            xp.pad(a, ((1, 0), (0, 2))), xp.pad(a, 1, constant_values=-1.0), xp.roll(a, 1, axis=1), xp.flip(a, 0),
            xp.tile(a, (2, 1)), xp.repeat(a, 2, axis=0),
        ),
        "broadcast": lambda xp, a, b: (xp.broadcast_to(a[0], (2, 4)), xp.expand_dims(a, 0), a[None].squeeze(0)),
        "sort argsort": lambda xp, a, b: (xp.sort(a, axis=0), xp.argsort(a, axis=1)),
        "tril eye arange": lambda xp, a, b: (
            xp.tril(a), xp.eye(3, dtype="float32"), xp.arange(5), xp.arange(0, 1, 0.25, dtype="float32"),
            xp.linspace(0.0, 1.0, 5), xp.full((2, 2), 0.5, "float32"), xp.ones_like(a), xp.zeros((2,), "int32"),
        ),
        "windows": lambda xp, a, b: xp.lib.stride_tricks.sliding_window_view(a, 2, axis=1).sum(axis=2),
        "astype view": lambda xp, a, b: (a.astype("int32"), a.astype("float64"), a.view("int32")),
        "gradient of a slice": lambda xp, a, b: xp.diff(a, axis=1),
        "meshgrid": lambda xp, a, b: xp.meshgrid(a[0], b[0], indexing="ij"),
        "nan_to_num": lambda xp, a, b: xp.nan_to_num(a),
        "iteration": lambda xp, a, b: tuple(row * 2.0 for row in a),
    }  # fmt: skip
    more = {
        "gather": (lambda xp, a, i: (a[i], a[i, i], a[:, i], xp.take(a, i, axis=0), a.take(i, axis=1)), (a, i)),
        "take_along_axis": (lambda xp, a, i: xp.take_along_axis(a, i[:, None], axis=1), (a, i)),
        "batched matmul": (lambda xp, t, m: (t @ m, xp.matmul(t, m, out=xp.zeros((2, 3, 5), "float32"))), (t, m)),
    }
    return {name: (function, (a, b)) for name, function in one.items()} | more


PAIRS = pairs()


def on_host(result):
    if isinstance(result, tuple | list):
        return [on_host(part) for part in result]
    return result.get() if isinstance(result, strict.ndarray) else result


@pytest.mark.parametrize("function, arguments", PAIRS.values(), ids=PAIRS)
def test_values_and_dtypes_are_numpys(function, arguments):
    expected = function(numpy, *(each.copy() for each in arguments))
    result = function(xp, *map(xp.asarray, arguments))
    flat_result, flat_expected = on_host(result), expected

    def compare(got, want):
        if isinstance(got, list):
            assert len(got) == len(want)
            for mine, theirs in zip(got, want, strict=True):
                compare(mine, theirs)
        else:
            assert isinstance(got, numpy.ndarray)  # also what NumPy gives as a scalar: CuPy has 0-d arrays
            want = numpy.asarray(want)
            assert got.shape == want.shape and got.dtype == want.dtype
            numpy.testing.assert_array_equal(got, want)

    compare(flat_result, flat_expected)


def test_python_numbers_keep_float32_and_float64_scalars_do_not(x):
    assert (x * 2.0 + 1 - math.pi).dtype == numpy.float32
    assert xp.maximum(x, 0.0).dtype == numpy.float32
    assert (x * numpy.sqrt(2.0)).dtype == numpy.float64


def test_slices_are_views_and_gathers_are_copies(x):
    x[0] = 0.0
    x[1:2, ::2] += 1.0
    row = x[2]
    row *= 0.0
    entry = x[0, 0]
    entry[...] = 7.0
    assert x[0].get().tolist() == [7, 0, 0, 0] and x[2].get().tolist() == [0, 0, 0, 0]
    gathered = x[xp.asarray([0])]
    gathered += 1.0
    assert x[0, 0].item() == 7.0


def test_in_place_operators_and_out_keep_the_object(x):
    same = x
    x += 1.0
    x *= x
    x /= 2.0
    x **= 2
    assert x is same
    out = xp.empty_like(x)
    assert xp.exp(x, out=out) is out and xp.add(x, x, out) is out
    assert xp.sum(x, axis=0, out=out[0]).shape == (4,) and xp.divmod(x, 2.0, out=(out, x))[0] is out
    with pytest.raises(TypeError):
        xp.add(x, x, out=xp.empty(x.shape, "int32"))


def test_copies_never_share_memory_with_the_host():
    host = given(3)
    x = xp.asarray(host)
    host[:] = 0.0
    assert x.get().any()
    x.get()[:] = 0.0
    assert x.any()
    assert xp.asarray(x) is x and xp.array(x) is not x
    x.set(host)
    assert not x.any()


def test_arrays_copy_and_pickle(x):
    for twin in (copy.copy(x), copy.deepcopy(x), pickle.loads(pickle.dumps(x)), x.copy()):
        assert type(twin) is strict.ndarray and (twin == x).all()
        twin += 1.0
        assert not (twin == x).any()
    assert pickle.loads(pickle.dumps(xp.maximum)) is xp.maximum
    with pytest.raises(TypeError):
        hash(x)


def test_unknown_operands_get_their_turn(x):
    class Other:
        __array_ufunc__ = None

        def __radd__(self, other):
            return "theirs"

    assert x + Other() == "theirs"
    with pytest.raises(TypeError):
        x + object()


# ---------------------------------------------------------------------- host synchronisations

READS = {
    "float": (float, 1),
    "int": (int, 1),
    "bool": (bool, 1),
    "item": (lambda s: s.item(), 1),
    "get": (lambda s: s.get(), 1),
    "tolist": (lambda s: s.tolist(), 1),
    "asnumpy": (lambda s: xp.asnumpy(s), 1),
    "str": (str, 1),
    "repr": (repr, 1),
    "format": (lambda s: f"{s:.2f}", 1),
    "pickle": (pickle.dumps, 1),
    "if": (lambda s: 1 if (s > 0).all() else 2, 1),
    "round trip": (lambda s: xp.asarray(s.get()).tolist(), 2),
    "nonzero": (lambda s: xp.nonzero(s[None]), 1),
    "where of one": (lambda s: xp.where(s[None] > 0), 1),
    "mask": (lambda s: s[None][s[None] > 0], 1),
    "mask written": (lambda s: s[None].__setitem__(s[None] > 0, 1.0), 1),
    "unique": (lambda s: xp.unique(s), 1),
    "allclose": (lambda s: bool(xp.allclose(s, s)), 1),
    "arithmetic": (lambda s: xp.exp(s * 2.0) + s.sum(), 0),
    "where": (lambda s: xp.where(s > 0, s, 0.0), 0),
    "a gather": (lambda s: s[None][xp.zeros(3, "int32")], 0),
    "a scatter": (lambda s: xp.add.at(s[None], xp.zeros(3, "int32"), 1.0), 0),
    "deepcopy": (copy.deepcopy, 0),
    "upload": (lambda s: xp.asarray(numpy.zeros(3)), 0),
    "shape": (lambda s: (s.shape, len(s[None]), s.dtype, s.size), 0),
    "asnumpy of a host array": (lambda s: xp.asnumpy(numpy.zeros(3)), 0),
}


@pytest.mark.parametrize("read, count", READS.values(), ids=READS)
def test_synchronisations_are_counted_exactly(read, count):
    scalar = xp.asarray(numpy.float32(1.5))
    before = xp.synchronisations
    with strict.count_synchronisations() as places:
        read(scalar)
    assert len(places) == count and xp.synchronisations == before + count


def test_a_synchronisation_is_reported_with_its_place_in_the_code():
    with strict.count_synchronisations() as places:
        with strict.count_synchronisations() as inner:
            float(xp.ones(()))
        int(xp.ones(()))
    assert len(places) == 2 and places[0] == inner[0] and len(inner) == 1
    assert "float at" in places[0] and "test_strict.py" in places[0]


# ---------------------------------------------------------------------- read-only memory


def writes(x):
    return {
        "a[i] = v": lambda: x.__setitem__(0, 1.0),
        "in place": lambda: x.__imul__(2.0),
        "out of a ufunc": lambda: xp.exp(xp.ones_like(x), out=x),
        "positional out": lambda: xp.exp(xp.ones_like(x), x),
        "out of a function": lambda: xp.sum(xp.ones((2, 3, 4), "float32"), axis=0, out=x),
        "out of a product": lambda: xp.matmul(xp.ones((3, 4), "float32"), xp.ones((4, 4), "float32"), out=x),
        "a scatter": lambda: xp.add.at(x, [0], 1.0),
        "fill": lambda: x.fill(1.0),
        "sort": lambda: x.sort(),
        "copyto": lambda: xp.copyto(x, 1.0),
        "put_along_axis": lambda: xp.put_along_axis(x, xp.zeros((3, 1), "int32"), 1.0, axis=1),
        "fill_diagonal": lambda: xp.fill_diagonal(x, 1.0),
        "set": lambda: x.set(numpy.ones((3, 4), "float32")),
        "through a view": lambda: x[:, 1:].T.__iadd__(1.0),
        "through a reshape": lambda: x.reshape(-1).__iadd__(1.0),
    }


@pytest.mark.parametrize("name", writes(None))
def test_what_is_read_only_cannot_be_written_by_any_way(x, name):
    before = x.get()
    with strict.read_only((x, None)):
        with pytest.raises(ValueError, match="read-only"):
            writes(x)[name]()
        assert (x.get() == before).all()
    writes(x)[name]()


def test_other_parts_of_the_same_memory_stay_writable(x):
    with strict.read_only(x[:, :2]):
        x[:, 2:] = 0.0
        x[0, 3:] += 1.0
        with pytest.raises(ValueError, match="read-only"):
            x[0, 1:] += 1.0


def test_what_layers_remember_is_frozen_until_backward():
    layer = layers.Linear(4, 2, xp=strict, rng=0)
    x = xp.asarray(given(3, 4))
    with strict.frozen():
        y = layer(x)
        with pytest.raises(ValueError, match="read-only"):
            x += 1.0
        layer.backward(xp.ones_like(y))
        x += 1.0  # recalled: the caller's again
        layer.predict(x)
        x += 1.0  # forgotten at once
        layer(x)
        layer(x)
        layer.discard()
        x += 1.0
        layer(x)
    x += 1.0  # outside nothing is frozen
    layer.backward(xp.ones_like(y))
    assert strict._array._held == {}


def test_a_layer_that_writes_into_its_argument_is_found():
    class Doubles(layers.Identity):
        def forward(self, x):
            x *= 2.0
            return x

    x = xp.asarray(given(3))
    with strict.read_only(x), pytest.raises(ValueError, match="read-only"):
        Doubles(xp=strict)(x)


# ---------------------------------------------------------------------- the table


def test_the_script_writes_the_table_of_an_installed_cupy(tmp_path):
    cupy = pytest.importorskip("cupy")
    if not cupy.__version__.startswith("14.2."):
        pytest.skip("another CuPy than the table's")
    import runpy

    script = runpy.run_path(str(ROOT / "tools" / "make_cupy_api.py"))
    script["main"]([str(tmp_path / "table.json")])
    assert (tmp_path / "table.json").read_text() == PACKAGED.read_text()


def test_layers_pickle_the_module_by_name():
    layer = layers.Linear(2, 2, xp=strict, rng=0)
    twin = pickle.loads(pickle.dumps(layer))
    assert twin.xp is strict and (twin.weight.value == layer.weight.value).all()
