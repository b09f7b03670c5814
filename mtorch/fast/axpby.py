"""Two scaled arrays added in one pass over memory (BLAS's axpby), where NumPy takes a pass for each operation."""

from mtorch.arrays import Array
from mtorch.blas import address, cblas

Number = float | Array  # an array without axes
LARGE = 1 << 15  # entries below which NumPy's passes, in cache, take no longer than this call

NEARLY_0 = 1e-40  # a factor that may be 0 in single precision, for which BLAS leaves x out, with a NaN in it


def axpby(alpha: Number, x: Array, beta: Number, y: Array) -> bool:
    """y := alpha x + beta y; False where BLAS does not do it, and then nothing has happened.

    An overflow gives inf or NaN and raises nothing.
    """
    dtype = y.dtype
    if y.size < LARGE or x.dtype != dtype or not (x.flags.c_contiguous and y.flags.c_contiguous and dtype.isnative):
        return False
    function = cblas("?axpby", dtype.char, "inpinpi")
    if function is None or abs(alpha) < NEARLY_0:
        return False
    function(y.size, alpha, address(x), 1, beta, address(y), 1)
    return True
