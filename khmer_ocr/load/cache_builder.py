"""Decode a split once and store it as the one file that `khmer_ocr.load.cache` reads.

Letters: N lines of the split, C lines of a chunk, M bytes of pixels.
"""

import json
import logging
import os
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import xxhash
from khmer_ocr_kernels.arrays import I64, U8
from tqdm import tqdm

from khmer_ocr.dataset.layout import CHUNK
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.errors import DatasetError
from khmer_ocr.io import locks
from khmer_ocr.io.atomic import refuse_links, remove_file, replacing
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.load.cache import (
    FORMAT,
    HEADER_BYTES,
    NAME,
    SUFFIX,
    VERSION,
    PackedCache,
    cache_file,
    line_begins,
    line_sums,
    tree_key,
)
from khmer_ocr.load.line_source import LineSource
from khmer_ocr.load.read_errors import ReadErrorLog

log = logging.getLogger(__name__)
_CHUNKS_A_THREAD = 2


def build_cache(
    index: SplitIndex, *, skip: bool = False, overwrite: bool = False, progress: bool = True, workers: int = 0
) -> Path:
    """Decode, check and pack every line of a split; a cache that is whole already is left as it is.

    Args:
        index: the whole split.
        skip: leave out lines that can't be read, up to 1 %, and note them in the cache; False raises at the first.
        overwrite: build anew even where there is a whole cache.
        progress: show a bar.
        workers: threads that decode; 0 takes every core this process may use.

    Returns:
        The file. Caches of earlier contents of the split are deleted.

    Raises:
        DatasetError: a line is unreadable, or differs from what is recorded, by more than `skip` allows.
        OutputError: the split's folder can't be written, is full, or is or holds a symbolic link where the cache goes.
    """
    key = tree_key(index)
    path = cache_file(index, key)
    lock = path.with_name(f".{NAME}lock")
    # Before hours of decoding, and before a link that was handed over could lead what is written elsewhere.
    refuse_links(index.root, path, lock, *path.parent.glob(f"{NAME}*{SUFFIX}"))
    # One process builds while others of the same run wait for what it makes.
    with output_errors(path, then="The cache lies beside the images."), locks.held(lock):
        if overwrite or not _is_whole(index):
            _write(path, index, key, skip, progress, workers or len(os.sched_getaffinity(0)))
            for other in path.parent.glob(f"{NAME}*{SUFFIX}"):
                if other != path:
                    remove_file(index.root, other)
    return path


def open_or_build(index: SplitIndex, *, skip: bool = False, progress: bool = True) -> PackedCache:
    """Open the cache of a split; build it first where there is none, or an unusable one."""
    try:
        cache = PackedCache.open(index)
    except DatasetError as fault:
        if cache_file(index, tree_key(index)).exists():
            log.warning("%s. It is built anew.", str(fault).partition(". Run: ")[0])
        build_cache(index, skip=skip, progress=progress)
        cache = PackedCache.open(index)
    for message in cache.faults.values() if skip else ():
        log.warning("Left out: %s", message)
    return cache


def _is_whole(index: SplitIndex) -> bool:
    try:
        cache = PackedCache.open(index)
    except DatasetError:
        return False
    return not cache.damaged()


def _write(path: Path, index: SplitIndex, key: str, skip: bool, progress: bool, workers: int) -> None:
    lines = LineSource([index])
    begins_N1 = line_begins(index.widths, lines.height_px)
    sums_N, faults = np.empty(len(index), np.uint64), ReadErrorLog("skip" if skip else "raise", len(index))
    starts = iter(range(0, len(index), CHUNK))
    with (
        replacing(path, index.root) as partial,
        partial.open("wb") as file,
        tqdm(total=len(index), desc=f"cache {index.split}", unit="line", disable=not progress) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):
        file.seek(HEADER_BYTES)
        while batch := list(islice(starts, _CHUNKS_A_THREAD * workers)):
            done = pool.map(lambda start: _chunk(lines, begins_N1, start), batch)
            for start, (pixels_M, found) in zip(batch, done, strict=True):
                stop = min(start + CHUNK, len(index))
                faults.add(found)
                begins_C, bytes_C = begins_N1[start:stop] - begins_N1[start], np.diff(begins_N1[start : stop + 1])
                sums_N[start:stop] = line_sums(pixels_M.view(np.uint64), begins_C, bytes_C)
                file.write(pixels_M.data)
                bar.update(stop - start)
        tail = begins_N1[:-1].tobytes() + sums_N.tobytes() + json_bytes(faults.messages)
        file.write(tail)
        header = {
            "format": FORMAT,
            "version": VERSION,
            "key": key,
            "split": index.split,
            "samples": len(index),
            "height_px": lines.height_px,
            "pixel_bytes": int(begins_N1[-1]),
            "tail_bytes": len(tail),
            "tail_hash": xxhash.xxh3_64_hexdigest(tail),
        }
        file.seek(0)
        file.write(json.dumps(header).encode().ljust(HEADER_BYTES))
        file.flush()
        os.fsync(file.fileno())


def _chunk(lines: LineSource, begins_N1: I64, start: int) -> tuple[U8, dict[int, str]]:
    """Pixels of a chunk as they are stored, zeros where a line can't be read, and the faults of these."""
    stop = min(start + CHUNK, len(lines))
    pixels_M = np.zeros(begins_N1[stop] - begins_N1[start], np.uint8)
    faults = {}
    for i in range(start, stop):
        try:
            pixels_HW = lines.pixels(i)
        except DatasetError as fault:
            faults[i] = str(fault)
        else:
            at = begins_N1[i] - begins_N1[start]
            pixels_M[at : at + pixels_HW.size] = pixels_HW.reshape(-1)
    return pixels_M, faults
