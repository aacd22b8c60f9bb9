"""The folder of a processed corpus: refused when it holds another one, written whole or not at all."""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from khmer_ocr.corpus.input_files import InputFiles
from khmer_ocr.dataset.layout import SPLITS
from khmer_ocr.errors import OutputError, RunConflictError
from khmer_ocr.io import locks
from khmer_ocr.io.atomic import create_fresh, refuse_links
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.io.run_record import differences

STATS = "corpus_stats.json"
LOCK = ".lock"
_OUTPUTS = (*(f"{split}.txt" for split in SPLITS), STATS)


@dataclass(frozen=True)
class SplitReport:
    """What one split's text file holds."""

    lines: int
    chars: int
    sha256: str


@contextmanager
def sole_run(folder: Path) -> Iterator[None]:
    """Keep other runs out of an output folder, made if need be; the lock dies with its process.

    Args:
        folder: the output folder.

    Raises:
        RunConflictError: another run writes there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / LOCK
    # Before hours of reading, and before a link could lead what is written elsewhere.
    refuse_links(folder, file, *(folder / name for name in _OUTPUTS))
    refusal = f"Another run writes to {folder} at this moment. Wait for its end, or name another --output-dir."
    with locks.sole(file, RunConflictError(refusal)):
        yield


def check_place(folder: Path, inputs: InputFiles) -> None:
    """Refuse an output folder inside an input folder, and outputs that would replace an input.

    Args:
        folder: the output folder.
        inputs: the files that will be read, and the folders they were found in, also through links.

    Raises:
        OutputError: writing there would change what is read.
    """
    place = folder.resolve()
    for above in (place, *place.parents):
        if (path := inputs.folders.get(str(above))) is not None:
            raise OutputError(
                f"The output folder {folder} lies inside the input folder {path}: the next run would read its own "
                "output. Name an --output-dir outside of it."
            )
    outputs = {place / f"{split}.txt" for split in SPLITS}
    for file in inputs.files:
        if isinstance(file, Path) and file.resolve() in outputs:
            raise OutputError(f"{file} is an input and would be overwritten by the output. Name another --output-dir.")


def check_run(folder: Path, run: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Refuse a folder that holds a corpus made from other inputs or with another configuration.

    Args:
        folder: the output folder.
        run: what decides the result: configuration, inputs, versions; JSON values only.

    Returns:
        The statistics stored there, or None where there is no corpus yet.

    Raises:
        RunConflictError: shows what differs.
    """
    overwrite = "Use --overwrite to replace it, or name another --output-dir."
    try:
        stored = json.loads((folder / STATS).read_bytes())
        before = {name: stored[name] for name in run}
        _ = stored["splits"]
    except (FileNotFoundError, NotADirectoryError):
        foreign = [f"{split}.txt" for split in SPLITS if (folder / f"{split}.txt").exists()]
        if foreign:
            raise RunConflictError(f"{folder} holds {', '.join(foreign)} but no {STATS}. {overwrite}") from None
        return None
    except (ValueError, KeyError, TypeError) as error:
        raise RunConflictError(f"{folder / STATS} is not readable ({error!r}). {overwrite}") from error
    if different := differences(before, run):
        raise RunConflictError(f"{folder} holds another corpus: {'; '.join(different)}. {overwrite}")
    return dict(stored)


class SplitWriter:
    """The three text files under temporary names, with their running statistics."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.lines: Counter[str] = Counter()
        self.chars: Counter[str] = Counter()
        self.characters: Counter[str] = Counter()
        self.lengths: Counter[int] = Counter()
        self._digests = {split: hashlib.sha256() for split in SPLITS}
        self._files: dict[str, IO[bytes]] = {}
        try:
            for split in SPLITS:
                self._files[split] = os.fdopen(create_fresh(_temporary(folder / f"{split}.txt")), "wb")
        except BaseException:
            self.close()
            raise

    def write(self, split: str, lines: Sequence[str]) -> None:
        """Append lines to a split."""
        if not lines:
            return
        text = "\n".join(lines) + "\n"
        data = text.encode()
        self._files[split].write(data)
        self._digests[split].update(data)
        self.lines[split] += len(lines)
        self.chars[split] += len(text) - len(lines)
        self.characters.update(text)
        self.lengths.update(map(len, lines))

    def written(self, split: str) -> Iterator[str]:
        """Read back the lines of a split so far."""
        self._files[split].flush()
        with _temporary(self.folder / f"{split}.txt").open("rb") as file:
            for line in file:
                yield line.decode().removesuffix("\n")

    def report(self) -> dict[str, SplitReport]:
        """Tell what each split holds so far."""
        return {
            split: SplitReport(self.lines[split], self.chars[split], self._digests[split].hexdigest())
            for split in SPLITS
        }

    def commit(self, stats: Mapping[str, Any]) -> None:
        """Give the files their names; the statistics, which hold their hashes, come last."""
        for file in self._files.values():
            file.flush()
            os.fsync(file.fileno())
            file.close()
        refuse_links(self.folder, *(self.folder / name for name in _OUTPUTS))
        with open(create_fresh(_temporary(self.folder / STATS)), "wb") as file:
            file.write(json_bytes(stats, indent=2) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        for name in _OUTPUTS:
            _temporary(self.folder / name).replace(self.folder / name)

    def close(self) -> None:
        """Remove what was not committed."""
        for file in self._files.values():
            # A full disk can refuse the last buffer; what is thrown away need not be complete.
            try:
                file.close()
            except OSError:
                continue
        for name in _OUTPUTS:
            _temporary(self.folder / name).unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")
