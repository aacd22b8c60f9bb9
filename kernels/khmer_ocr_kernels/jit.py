"""How kernels are compiled: once per machine, kept on disk, without Python's lock.

numba loads what it kept without a look at it: a changed bit in a file is a traceback, a crash, or another result. So
each file begins with a digest of its name and content here; one that does not match is compiled anew and said.
"""

import hashlib
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.caching import FunctionCache, IndexDataCacheFile

log = logging.getLogger(__name__)
_Kernel = TypeVar("_Kernel", bound=Callable[..., object])
_DIGEST_BYTES = 16
_said = set[str]()


def compiled(function: _Kernel) -> _Kernel:
    """Compile a function with numba; its types stay visible to a type checker."""
    dispatcher = numba.njit(nogil=True)(function)
    try:
        dispatcher._cache = _CheckedCache(function)
    except RuntimeError as error:  # no folder of this user's can be written
        _say_once("kernels can't be kept (%s); they are compiled in every process", error)
    return cast(_Kernel, dispatcher)


def _say_once(message: str, *seen: object) -> None:
    """Warn once a process: what is wrong with one of sixty kernels mostly is so with all."""
    log.log(logging.DEBUG if message in _said else logging.WARNING, message, *seen)
    _said.add(message)


class _CheckedFile(IndexDataCacheFile):  # type: ignore[misc]  # numba has no types
    """numba's pair of index and data files with a digest before each."""

    def save(self, key: Any, data: Any) -> None:
        """Keep compiled code; where it can't be kept the next process compiles again."""
        try:
            super().save(key, data)
        except OSError as error:
            _say_once("compiled kernels can't be kept in %s (%s)", self._cache_path, error)

    def _load_index(self) -> dict[Any, str]:
        content = _checked(Path(self._index_path))
        if content is None:
            return {}
        version, stamp, overloads = pickle.loads(content)
        return cast(dict[Any, str], overloads) if (version, stamp) == (self._version, self._source_stamp) else {}

    def _save_index(self, overloads: dict[Any, str]) -> None:
        self._write(self._index_path, self._dump((self._version, self._source_stamp, overloads)))

    def _load_data(self, name: str) -> Any:
        content = _checked(Path(self._data_path(name)))
        return None if content is None else pickle.loads(content)

    def _save_data(self, name: str, data: Any) -> None:
        self._write(self._data_path(name), self._dump(data))

    def _write(self, path: str, content: bytes) -> None:
        with self._open_for_write(path) as file:
            file.write(_digest(Path(path), content) + content)


class _CheckedCache(FunctionCache):  # type: ignore[misc]
    """numba's cache of a function's compiled code over checked files, under names that numba's own do not have."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__(function)
        stamp = self._impl.locator.get_source_stamp()
        self._cache_file = _CheckedFile(self._cache_path, f"{self._impl.filename_base}-checked", stamp)


def _digest(path: Path, content: bytes) -> bytes:
    return hashlib.blake2b(path.name.encode(errors="surrogateescape") + content, digest_size=_DIGEST_BYTES).digest()


def _checked(path: Path) -> bytes | None:
    """What a file keeps; None where there is none, or where it is not what was written."""
    try:
        stored = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        _say_once("compiled kernel %s can't be read (%s); it is compiled anew", path, error)
        return None
    content = stored[_DIGEST_BYTES:]
    if stored[:_DIGEST_BYTES] == _digest(path, content):
        return content
    _say_once("compiled kernel %s is damaged (it does not match its digest); it is compiled anew", path)
    return None
