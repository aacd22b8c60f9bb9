"""Bytes on disk to decoded text, in bounded pieces: decompression, UTF-8, lines."""

import codecs
import io
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import IO

from khmer_ocr.corpus.remote_files import InputPath, unreadable
from khmer_ocr.errors import CorpusError
from khmer_ocr.io.decompression import DAMAGED, OPENERS
from khmer_ocr.text.letters import COENG

COMPRESSIONS = (".gz", ".bz2", ".zst")
CHUNK_BYTES = 1 << 18
MAX_LINE_CHARS = 1 << 16
"""A longer line is cut where text may be cut; nothing of it is lost."""

Advance = Callable[[int], object]
"""Called with the number of bytes just read from disk, before decompression."""

_MARKS = frozenset(map(chr, (*range(0x17B4, 0x17D4), 0x17DD)))
_BREAKS = (" ", "\u200b", "។")


class _CountedFile(io.RawIOBase):
    """A file that reports how many of its bytes were read."""

    def __init__(self, file: IO[bytes], path: InputPath, advance: Advance) -> None:
        self._file, self._path, self._advance = file, path, advance

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        try:
            count: int = self._file.readinto(buffer)  # type: ignore[attr-defined]
        except Exception as error:  # what a file system of fsspec raises has no common base
            raise unreadable(self._path, error) from error
        self._advance(count)
        return count


@contextmanager
def open_bytes(path: InputPath, advance: Advance) -> Iterator[IO[bytes]]:
    """Open a plain or compressed file for reading from its start.

    Args:
        path: the file; .gz, .bz2 and .zst are decompressed as they are read.
        advance: called with the bytes read from disk.

    Yields:
        The decompressed bytes as a stream.

    Raises:
        CorpusError: the file cannot be read, or its compression is damaged or cut short; also raised inside the block.
    """
    suffix = path.suffix.lower()
    try:
        file = path.open("rb", buffering=0) if isinstance(path, Path) else path.open()
    except Exception as error:
        raise unreadable(path, error) from error
    try:
        with file, io.BufferedReader(_CountedFile(file, path, advance), CHUNK_BYTES) as raw:
            yield OPENERS[suffix](raw) if suffix in COMPRESSIONS else raw
    except DAMAGED as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise unreadable(path, error) from error
        raise _damaged(path, suffix, error) from error


def _damaged(path: InputPath, suffix: str, error: Exception) -> CorpusError:
    tool = {".gz": "gzip -t", ".bz2": "bzip2 -t", ".zst": "zstd -t"}.get(suffix, "file")
    return CorpusError(
        f"{path} is damaged or cut short ({error}). Test it with `{tool} {path.name}` and fetch it again."
    )


def encoding_error(path: InputPath, offset: int, data: bytes, start: int) -> CorpusError:
    """Say where a file stops being UTF-8 text and how to convert it.

    Args:
        path: the file.
        offset: byte offset of the fault in the decompressed file.
        data: bytes around the fault.
        start: position of the fault in `data`.
    """
    if data[start : start + 1] == b"\0":
        seen = "a NUL byte: this is binary data or UTF-16, not UTF-8 text"
    elif offset < 2 and data[start : start + 1] in (b"\xff", b"\xfe"):
        seen = "a UTF-16 byte-order mark"
    else:
        seen = f"bytes that are not UTF-8 ({data[start : start + 4].hex(' ')})"
    return CorpusError(
        f"{path}: {seen} at byte {offset}. UTF-8 text is expected. Convert it, for example with "
        f"`iconv -f UTF-16 -t UTF-8 {path.name} > utf8.txt`; text typed in a legacy font (Limon, ABC) needs a "
        "Khmer legacy-to-Unicode converter."
    )


def decoded(path: InputPath, stream: IO[bytes]) -> Iterator[str]:
    """Decode a stream of UTF-8, with or without byte-order mark, in pieces of at most `CHUNK_BYTES` characters.

    Raises:
        CorpusError: a byte is not UTF-8 text; names the file and the offset.
    """
    decoder = codecs.getincrementaldecoder("utf-8")()
    consumed = 0
    while chunk := stream.read(CHUNK_BYTES):
        pending = decoder.getstate()[0]
        if (nul := chunk.find(b"\0")) >= 0:
            raise encoding_error(path, consumed + nul, chunk, nul)
        try:
            text = decoder.decode(chunk)
        except UnicodeDecodeError as error:
            raise encoding_error(path, consumed - len(pending) + error.start, pending + chunk, error.start) from error
        yield text.removeprefix("\ufeff") if consumed == 0 else text
        consumed += len(chunk)
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise encoding_error(path, consumed - len(error.object), error.object, 0) from error


def split_lines(chunks: Iterable[str]) -> Iterator[str]:
    """Join pieces of text and cut them into lines of at most `MAX_LINE_CHARS` characters.

    Args:
        chunks: consecutive pieces of text; lines end in LF, CRLF or CR.

    Returns:
        The lines without their ends.
    """
    newlines = io.IncrementalNewlineDecoder(None, translate=True)
    tail = ""
    for chunk in chain(chunks, [None]):
        text = newlines.decode("" if chunk is None else chunk, final=chunk is None)
        *lines, tail = (tail + text).split("\n")
        for line in lines:
            yield from _bounded(line)
        if len(tail) > MAX_LINE_CHARS:
            *pieces, tail = _bounded(tail)
            yield from pieces
    if tail:
        yield tail


def _bounded(line: str) -> list[str]:
    if len(line) <= MAX_LINE_CHARS:
        return [line]
    pieces, start = [], 0
    while len(line) - start > MAX_LINE_CHARS:
        end = _cut_before(line, start, start + MAX_LINE_CHARS)
        pieces.append(line[start:end])
        start = end
    return [*pieces, line[start:]]


def _cut_before(line: str, start: int, end: int) -> int:
    natural = max(line.rfind(mark, start, end) for mark in _BREAKS) + 1
    if natural > start:
        return natural
    for position in range(end, start + 1, -1):
        if line[position] not in _MARKS and line[position - 1] != COENG:
            return position
    return end
