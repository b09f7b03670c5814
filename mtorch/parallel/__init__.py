"""What uses several processes or machines."""

from mtorch.parallel.data_parallel import DataParallel

__all__ = ["DataParallel"]
