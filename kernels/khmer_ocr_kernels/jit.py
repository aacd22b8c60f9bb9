"""How kernels are compiled: once per machine, kept on disk, without Python's lock."""

from collections.abc import Callable
from typing import TypeVar, cast

import numba

_Kernel = TypeVar("_Kernel", bound=Callable[..., object])


def compiled(function: _Kernel) -> _Kernel:
    """Compile a function with numba; its types stay visible to a type checker."""
    return cast(_Kernel, numba.njit(cache=True, nogil=True)(function))
