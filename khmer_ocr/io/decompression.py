"""Compressed files by their suffix; gzip, bzip2, xz and Zstandard."""

import bz2
import gzip
import lzma
import sys
import zlib
from collections.abc import Callable
from typing import IO, cast

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

OPENERS = cast(
    dict[str, Callable[[IO[bytes]], IO[bytes]]],
    {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open, ".zst": zstd.open},
)
"""From suffix to what opens a compressed stream for reading."""
DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError, zstd.ZstdError)
"""What reading a damaged or cut stream raises; an `OSError` that comes of the data has no `errno`."""
