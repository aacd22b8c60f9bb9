"""Lines that a reader will be measured on are kept out of its training text, whole or in part.

Two texts share a passage where `RUN` characters in a row are the same in the view that print leaves (see `printed` in
`khmer_ocr.text.metrics`), without white space. A run is known by a hash of 64 bits, so that millions of lines are
looked up in batches. Lines of fewer characters can't be told from chance and stay.

Letters: N characters of a batch of lines, K known runs.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
import xxhash

from khmer_ocr.corpus.input_files import format_of
from khmer_ocr.corpus.readers import read_documents
from khmer_ocr.corpus.text_streams import decoded, open_bytes, split_lines
from khmer_ocr.errors import CorpusError
from khmer_ocr.text.metrics import printed
from khmer_ocr.text.normalize import normalize

RUN = 24
"""Characters in a row that two texts must share; shorter ones are phrases that anybody writes."""

_BLANKS = re.compile("[\\s\u200b\u200c\u200d\ufeff]+")
_FACTOR, _MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
_BATCH_LINES = 4096


class Exclusion:
    """The runs of the texts that are to be kept out.

    Args:
        files: texts and labels: any format that `corpus` reads, or lines of cells between TABs (image, TAB, text).

    Raises:
        CorpusError: a file can't be read, or none of them holds a text as long as a run.
    """

    def __init__(self, files: Iterable[Path]) -> None:
        self._known_K: npt.NDArray[np.uint64] = np.empty(0, np.uint64)
        cells = (cell for file in files for cell in _cells(file))
        batches = [_runs(batch)[0] for batch in iter(lambda: list(islice(cells, _BATCH_LINES)), [])]
        if batches:
            self._known_K = np.unique(np.concatenate(batches))
        if not len(self._known_K) and (named := ", ".join(map(str, files))):
            raise CorpusError(
                f"--exclude {named}: no text there is as long as {RUN} characters, so nothing would be excluded. Give "
                "texts, or labels (image, TAB, text)."
            )

    @property
    def digest(self) -> str:
        """What is excluded, in 16 hexadecimal digits: part of what decides a corpus."""
        return xxhash.xxh3_64_hexdigest(self._known_K.tobytes())

    def shared(self, lines: Sequence[str]) -> npt.NDArray[np.bool_]:
        """Tell which lines hold a run of the excluded texts.

        Args:
            lines: any texts.

        Returns:
            One answer a line.
        """
        answer_L = np.zeros(len(lines), np.bool_)
        if len(self._known_K) and len(lines):
            run_N, line_N = _runs(lines)
            place_N = np.searchsorted(self._known_K, run_N)
            place_N[place_N == len(self._known_K)] = 0
            answer_L[line_N[self._known_K[place_N] == run_N]] = True
        return answer_L


def _runs(lines: Sequence[str]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Hashes of all runs of some lines, and which line each is of."""
    folded = [_BLANKS.sub("", printed(line)) for line in lines]
    code_N = np.frombuffer("".join(folded).encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
    length_L = np.array([len(line) for line in folded], np.int64)
    count = max(len(code_N) - RUN + 1, 0)
    hash_N, mixed_N = np.zeros(count, np.uint64), (code_N + _MIX) * _FACTOR
    mixed_N ^= mixed_N >> np.uint64(29)
    for place in range(RUN):
        hash_N = hash_N * _FACTOR + mixed_N[place : place + count]
    line_N = np.repeat(np.arange(len(lines)), length_L)
    # A run that begins in one line and ends in the next is of neither.
    inside_N = line_N[:count] == line_N[RUN - 1 :]
    return hash_N[inside_N], line_N[:count][inside_N]


def _cells(file: Path) -> Iterator[str]:
    if file.is_dir() or format_of(file):
        for document in read_documents(file):
            yield from map(normalize, re.split("[\t\n]", document.text))
        return
    with open_bytes(file, lambda _bytes: None) as stream:
        for line in split_lines(decoded(file, stream)):
            yield from map(normalize, line.split("\t"))
