"""Faster bodies of the reference functions, by array module. Skip this folder at first: see `README.md` beside it.

Everything here replaces a function that is marked `@accelerated` where it stands; without it the library is complete.
`MTORCH_FAST=0` in the environment leaves all of it out, `with mtorch.fast.disabled():` does for one thread.
"""

from mtorch.accelerate import ENABLED, disabled

if ENABLED:
    import mtorch.fast.numpy  # noqa: F401
    from mtorch.accelerate import Blas
    from mtorch.fast.memory import keep_freed_memory
    from mtorch.fast.threads import blas_is_held, with_one_thread_of_blas

    keep_freed_memory()
    Blas.held, Blas.limited = staticmethod(blas_is_held), staticmethod(with_one_thread_of_blas)

__all__ = ["ENABLED", "disabled"]
