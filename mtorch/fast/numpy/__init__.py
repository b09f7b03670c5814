"""Bodies for NumPy: each of these modules registers what it replaces."""

# ruff: noqa: I001

from mtorch.fast.numpy import attention  # noqa: F401
from mtorch.fast.numpy import batch_norm  # noqa: F401
from mtorch.fast.numpy import convolution  # noqa: F401
from mtorch.fast.numpy import flat  # noqa: F401
from mtorch.fast.numpy import gru  # noqa: F401
from mtorch.fast.numpy import layer_norm  # noqa: F401
from mtorch.fast.numpy import linear  # noqa: F401
from mtorch.fast.numpy import lstm  # noqa: F401
from mtorch.fast.numpy import optim  # noqa: F401
from mtorch.fast.numpy import pooling  # noqa: F401
from mtorch.fast.numpy import relu  # noqa: F401
from mtorch.fast.numpy import rnn  # noqa: F401
from mtorch.fast.numpy import update  # noqa: F401
from mtorch.fast.numpy import windows  # noqa: F401
