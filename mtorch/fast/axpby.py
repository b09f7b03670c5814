"""Two scaled arrays added in one pass over memory (BLAS's axpby), where NumPy takes a pass for each operation."""

import numpy

from mtorch.arrays import Array
from mtorch.blas import address, cblas

Number = float | Array  # a number of Python, or an array without axes
LARGE = 1 << 15  # entries below which NumPy's passes, in cache, take no longer than this call
NEARLY_0 = 1e-40  # a factor that may be 0 in single precision, for which BLAS leaves its array out, with a NaN in it


def axpby(alpha: Number, x: Array, beta: Number, y: Array) -> bool:
    """y := alpha x + beta y; False where BLAS does not do it, and then nothing has happened.

    An overflow gives inf or NaN and raises nothing.
    """
    if y.size < LARGE or min(abs(alpha), abs(beta)) < NEARLY_0 or not _fit(x, y):
        return False
    function = cblas("?axpby", y.dtype.char, "inpinpi")
    if function is None:
        return False
    if y.flags.fnc:
        x, y = x.T, y.T
    x = numpy.ascontiguousarray(x)  # in C and in Fortran order, so that both give the same bits
    function(y.size, alpha, address(x), 1, beta, address(y), 1)
    return True


def _fit(x: Array, y: Array) -> bool:
    """Whether both have one shape and dtype and share no memory, and y has no gaps and may be written."""
    alike = isinstance(x, numpy.ndarray) and x.dtype == y.dtype and x.shape == y.shape
    apart = alike and y.flags.forc and y.flags.writeable and not numpy.may_share_memory(x, y)
    return apart and y.dtype.isnative
