"""numpy's BLAS on one thread: how many share a product changes its last bits."""

import ctypes
from functools import cache
from pathlib import Path

import numpy as np

SETTERS = ("scipy_openblas_set_num_threads64_", "scipy_openblas_set_num_threads")


@cache
def one_thread() -> None:
    """Keep to one thread from now on in this process.

    This is for the OpenBLAS of numpy's wheels; another BLAS keeps what its environment says.
    """
    for path in Path(np.__file__).parent.with_name("numpy.libs").glob("*openblas*"):
        library = ctypes.CDLL(str(path))
        for setter in SETTERS:
            if hasattr(library, setter):
                getattr(library, setter)(1)
