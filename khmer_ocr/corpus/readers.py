"""Raw text in, documents out: streaming readers for .txt, .jsonl, .parquet and MediaWiki dumps, plain or compressed.

No file is ever held whole: memory is bounded by the limits below, whatever the file's size or its longest line.
"""

import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from khmer_ocr.corpus.input_files import find_input_files, format_of
from khmer_ocr.corpus.mediawiki import read_pages
from khmer_ocr.corpus.remote_files import InputPath
from khmer_ocr.corpus.text_streams import (
    COMPRESSIONS,
    Advance,
    decoded,
    encoding_error,
    open_bytes,
    split_lines,
)
from khmer_ocr.errors import CorpusError, missing_extra

RUN_LINES = 200
"""Lines after which a document of a .txt file ends even without a blank line."""
MAX_DOCUMENT_CHARS = 1 << 20
"""Characters after which a document of a .txt file ends even without a blank line."""
MAX_RECORD_BYTES = 1 << 24
"""A longer line of a .jsonl file is passed over and counted."""
_PARQUET_BATCH_ROWS = 64


@dataclass(frozen=True)
class Document:
    """One document as it was found: raw text, lines divided by line feeds."""

    source: InputPath
    index: int
    text: str


def read_documents(
    path: InputPath | str, *, advance: Advance | None = None, dropped: Counter[str] | None = None
) -> Iterator[Document]:
    """Stream the documents of a file, or of all files of a folder, in bounded memory.

    Args:
        path: a .txt, .jsonl, .parquet or MediaWiki .xml file, plain or with .gz, .bz2 or .zst, or a folder of such;
            also as a URL that fsspec can open.
        advance: called with the bytes read from disk (before decompression) as they are read.
        dropped: counts what was passed over: "record_too_long", "record_without_text", "page_too_long".

    Returns:
        Documents: blocks between blank lines (at most `RUN_LINES` lines) of .txt, records of .jsonl and .parquet,
        articles of a dump.

    Raises:
        CorpusError: missing, unknown format, wrongly encoded, damaged; names the file, the place and the cure.
    """
    advance = advance or (lambda _bytes: None)
    dropped = Counter() if dropped is None else dropped
    for file in find_input_files([path]):
        for index, text in enumerate(_read_file(file, advance, dropped)):
            yield Document(file, index, text)


def text_documents(lines: Iterable[str]) -> Iterator[str]:
    """Group lines into documents, ended by a blank line, `RUN_LINES` lines or `MAX_DOCUMENT_CHARS` characters."""
    block: list[str] = []
    chars = 0
    for line in lines:
        blank = not line.strip()
        if block and (blank or len(block) == RUN_LINES or chars + len(line) > MAX_DOCUMENT_CHARS):
            yield "\n".join(block)
            block, chars = [], 0
        if not blank:
            block.append(line)
            chars += len(line)
    if block:
        yield "\n".join(block)


def _read_file(path: InputPath, advance: Advance, dropped: Counter[str]) -> Iterator[str]:
    suffix = format_of(path)
    if suffix == ".parquet":
        yield from _read_parquet(path, advance, dropped)
        return
    with open_bytes(path, advance) as stream:
        if suffix == ".jsonl":
            yield from _read_jsonl(path, stream, dropped)
        elif suffix == ".xml":
            yield from read_pages(path, stream, dropped)
        else:
            yield from text_documents(split_lines(decoded(path, stream)))


def _read_jsonl(path: InputPath, stream: IO[bytes], dropped: Counter[str]) -> Iterator[str]:
    offset = number = 0
    while record := stream.readline(MAX_RECORD_BYTES):
        number += 1
        start = offset
        offset += len(record)
        if len(record) == MAX_RECORD_BYTES and not record.endswith(b"\n"):
            while record and not record.endswith(b"\n"):
                record = stream.readline(MAX_RECORD_BYTES)
                offset += len(record)
            dropped["record_too_long"] += 1
            continue
        text = _record_text(path, number, start, record)
        if text is None:
            dropped["record_without_text"] += 1
        elif text:
            yield text


def _record_text(path: InputPath, number: int, offset: int, record: bytes) -> str | None:
    """Return the field `text` of one JSON line, "" for a blank line, None for a null."""
    if (nul := record.find(b"\0")) >= 0:
        raise encoding_error(path, offset + nul, record, nul)
    try:
        line = record.decode().removeprefix("\ufeff").strip()
        fields = json.loads(line) if line else {"text": ""}
    except UnicodeDecodeError as error:
        raise encoding_error(path, offset + error.start, record, error.start) from error
    except (ValueError, RecursionError) as error:
        raise CorpusError(
            f"{path}, line {number} (byte {offset}) is not JSON: {error}. Each line must be one object such as "
            '{"text": "..."}.'
        ) from error
    if not isinstance(fields, dict) or "text" not in fields:
        seen = f"the fields {', '.join(map(str, fields))}" if isinstance(fields, dict) else type(fields).__name__
        raise CorpusError(
            f"{path}, line {number} (byte {offset}) has {seen:.200}; an object with the field `text` is expected."
        )
    text = fields["text"]
    if text is not None and not isinstance(text, str):
        raise CorpusError(f"{path}, line {number}: the field `text` is {type(text).__name__}; a string is expected.")
    return text


def _read_parquet(path: InputPath, advance: Advance, dropped: Counter[str]) -> Iterator[str]:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as error:
        raise missing_extra(f"Reading {path}", "pyarrow", seen=str(error)) from error
    if isinstance(path, Path) and path.suffix.lower() not in COMPRESSIONS:
        with path.open("rb") as file:
            yield from _parquet_texts(path, file, path.stat().st_size, advance, dropped, pa, parquet)
        return
    # Parquet is read from its end, where no decompressor and no stream from afar gets at once.
    with tempfile.TemporaryFile() as file:
        with open_bytes(path, advance) as stream:
            shutil.copyfileobj(stream, file, 1 << 20)
        yield from _parquet_texts(path, file, 0, advance, dropped, pa, parquet)


def _parquet_texts(
    path: InputPath, file: IO[bytes], size_bytes: int, advance: Advance, dropped: Counter[str], pa: Any, parquet: Any
) -> Iterator[str]:
    try:
        table = parquet.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
        names = table.schema_arrow.names
        if "text" not in names:
            raise CorpusError(f"{path} has the columns {', '.join(names)}; a column `text` of strings is expected.")
        rows, done = max(table.metadata.num_rows, 1), 0
        for batch in table.iter_batches(batch_size=_PARQUET_BATCH_ROWS, columns=["text"]):
            values = batch.column(0).to_pylist()
            advance(size_bytes * (done + len(values)) // rows - size_bytes * done // rows)
            done += len(values)
            for value in values:
                if value is None:
                    dropped["record_without_text"] += 1
                elif isinstance(value, str):
                    yield value
                else:
                    raise CorpusError(f"{path}: the column `text` holds {type(value).__name__}; strings are expected.")
    except (pa.ArrowException, UnicodeDecodeError, OSError) as error:
        raise CorpusError(f"{path} is damaged or no Parquet file ({error}). Fetch or write it again.") from error
