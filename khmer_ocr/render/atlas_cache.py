"""Raster files of the atlas on disk: a cache that checks itself and may always be thrown away.

Letters: K rasters, N pixels.
"""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import xxhash
from khmer_ocr_kernels.arrays import I32, I64, U8

from khmer_ocr.io.atomic import replacing

log = logging.getLogger(__name__)


def _checksum(file: Path, *arrays: npt.NDArray[Any]) -> int:
    """Of the rasters and of whose they are: a file under another face's name does not check out."""
    digest = xxhash.xxh3_64(os.fsencode(file.name))
    for array in arrays:
        digest.update(f"{array.dtype.str}{array.shape}".encode())
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.intdigest()


def read_rasters(file: Path) -> tuple[I64, I32, U8] | None:
    """Read keys, entries and pixels from a cache file; a damaged one is deleted and None comes back."""
    why = "it does not match its checksum"
    try:
        with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
            keys_K, entries_K5, pixels_N = stored["keys"], stored["entries"], stored["pixels"]
            if int(stored["check"]) == _checksum(file, keys_K, entries_K5, pixels_N):
                return keys_K, entries_K5, pixels_N
    except Exception as error:
        # Damaged bytes make zipfile, zlib and numpy raise nearly anything; whatever it is, the cache can go.
        why = str(error) or repr(error)
    log.warning("raster cache %s is damaged (%s); its glyphs are drawn anew", file, why)
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        log.debug("%s can't be removed (%s): it is read, and found damaged, again next time", file, error)
    return None


def write_rasters(file: Path, keys_K: I64, entries_K5: I32, pixels_N: U8) -> None:
    """Write a cache file atomically; a folder that can't be written costs a warning, never the run."""
    check = np.uint64(_checksum(file, keys_K, entries_K5, pixels_N))
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with replacing(file) as partial, partial.open("wb") as stream:
            np.savez(stream, keys=keys_K, entries=entries_K5, pixels=pixels_N, check=check)
    except OSError as error:
        log.warning("raster cache %s can't be written (%s); its glyphs will be drawn again next time", file, error)
