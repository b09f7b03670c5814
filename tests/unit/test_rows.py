"""Sums along short rows."""

import numpy
import pytest

from mtorch.fast.numpy.rows import row_dots, row_sums


@pytest.mark.parametrize("columns", range(1, 34))
def test_row_sums_raise_no_false_alarm(columns):
    """A signalling NaN left on the stack must not be met: OpenBLAS copies a strided vector there and leaves it."""
    signalling = numpy.full(512, 0x7FA00000, numpy.uint32).view("float32")[::2]
    rows, one = numpy.ones((9, 256), "float32"), numpy.ones(columns, "float32")
    x = numpy.arange(7 * columns, dtype="float32").reshape(7, columns)
    expected = row_sums(x)
    numpy.testing.assert_array_equal(expected, x.sum(axis=1))
    for sums in (row_sums, lambda x: row_dots(x, one)):
        with numpy.errstate(invalid="ignore"):
            rows.dot(signalling)
        with numpy.errstate(invalid="raise"):
            numpy.testing.assert_array_equal(sums(x), expected)
