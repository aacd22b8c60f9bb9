"""Raw text to `train.txt`, `val.txt`, `test.txt`: normalised, cut to lines, without duplicates, split by document.

A document goes whole to the split its seeded hash names; of its lines only near-copies of lines in another split move
there (see `filter`). When the documents are too few to fill three splits, lines are divided one by one instead.
"""

import os
import time
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm import tqdm

from khmer_ocr.corpus.exclusion import Exclusion
from khmer_ocr.corpus.filter import FilterCounts, LineFilter
from khmer_ocr.corpus.input_files import scan_input_files
from khmer_ocr.corpus.readers import read_documents, text_documents
from khmer_ocr.corpus.remote_files import InputPath, size_bytes
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.corpus.split_writer import (
    SplitReport,
    SplitWriter,
    check_place,
    check_run,
    sole_run,
)
from khmer_ocr.corpus.synthesis.recombine import SHARES, recombine_lines
from khmer_ocr.corpus.synthesis.source_lines import MAX_LINES, index_source_lines
from khmer_ocr.corpus.synthesis.syllable_lines import coverage, synthesize_lines
from khmer_ocr.dataset.layout import SPLITS
from khmer_ocr.errors import CorpusError, RunConflictError
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.samples import sample_text
from khmer_ocr.text.normalize import NORMALIZER_VERSION

_MANY_LINES = 20_000
"""From here on several processes recombine faster than one."""


@dataclass(frozen=True)
class CorpusReport:
    """What a run of `process_corpus` wrote and what it left out."""

    output_dir: Path
    splits: Mapping[str, SplitReport]
    documents: Mapping[str, int]
    lines_read: int
    dropped: Mapping[str, int]
    moved_near_copies: int
    split_by: str
    warnings: tuple[str, ...]
    elapsed_s: float
    unreadable: int = 0
    """Paths that the system refused: they were left out and are named in `warnings`."""

    @property
    def lines(self) -> int:
        """Lines in all splits."""
        return sum(split.lines for split in self.splits.values())

    def __str__(self) -> str:
        rows = list(self._rows())
        name_chars = max(len(name) for name, _, _ in rows)
        count_chars = max(len(f"{count:,}") for _, count, _ in rows)
        lines = [f"Corpus in {self.output_dir}"]
        lines += [f"  {name:<{name_chars}}  {count:>{count_chars},}  {note}".rstrip() for name, count, note in rows]
        if self.split_by == "line":
            lines.append("Divided line by line: there are too few documents for three splits.")
        lines += [f"Warning: {warning}" for warning in self.warnings]
        return "\n".join([*lines, f"Next: khmer-ocr generate --corpus-dir {self.output_dir}"])

    def _rows(self) -> Iterator[tuple[str, int, str]]:
        """Name, count and note of each line of the printed report."""
        for what, count in self.documents.items():
            yield f"documents {what.replace('_', ' ')}", count, ""
        yield "lines read", self.lines_read, ""
        rate_lines_per_s = self.lines / max(self.elapsed_s, 1e-3)
        yield "lines written", self.lines, f"in {self.elapsed_s:.1f} s, {rate_lines_per_s:,.0f} lines/s"
        for split, written in self.splits.items():
            yield f"  {split}", written.lines, f"{100 * written.lines / self.lines:4.1f} %"
        yield "near-copies moved", self.moved_near_copies, "to the split of the line they resemble"
        yield "dropped", sum(self.dropped.values()), ""
        for reason, count in sorted(self.dropped.items(), key=lambda item: -item[1]):
            yield f"  {reason.replace('_', ' ')}", count, ""


def process_corpus(config: CorpusConfig, *, progress: bool = True) -> CorpusReport:
    """Turn raw text into the three text files of a corpus and their statistics.

    Args:
        config: what is read and where the result goes.
        progress: whether to show bars on stderr.

    Returns:
        Counts per split, what was dropped by reason, and warnings for the user.

    Raises:
        CorpusError: an input is unusable, or no Khmer line survived.
        OutputError: the output folder cannot be written or lies inside an input.
        RunConflictError: the output folder holds another corpus and `overwrite` is not set, or another run is at work
            there.
    """
    started = time.perf_counter()
    inputs = scan_input_files(config.input)
    files = inputs.files
    if not files and not config.sample and not config.synthesize:
        raise CorpusError(f"Nothing is left to read. {' '.join(inputs.notes())}")
    check_place(config.output_dir, inputs)
    exclusion = Exclusion(config.exclude)
    run = _run_identity(config, files, exclusion)
    advice = "name another --output-dir", "Nothing was changed."
    with output_errors(config.output_dir, *advice), sole_run(config.output_dir):
        stored = None if config.overwrite else check_run(config.output_dir, run)
        for split_by in ("document", "line"):
            with closing(SplitWriter(config.output_dir)) as writer:
                counts = _filter_into(writer, config, files, exclusion, progress, by_line=split_by == "line")
                # By document is nearly always enough; a handful of documents can leave a split empty.
                if split_by == "document" and writer.lines and not all(writer.lines[split] for split in SPLITS):
                    continue
                stats = _statistics(run, config, writer, counts, split_by)
                _refuse_change(config.output_dir, stored, stats)
                writer.commit(stats)
                break
    empty = [split for split in SPLITS if not writer.lines[split]]
    return CorpusReport(
        output_dir=config.output_dir,
        splits=writer.report(),
        documents=dict(counts.documents),
        lines_read=counts.lines_read,
        dropped=dict(counts.dropped),
        moved_near_copies=counts.moved,
        split_by=split_by,
        warnings=(
            *(f"{split}.txt is empty: there are too few different lines. Add text." for split in empty),
            *inputs.notes(),
        ),
        elapsed_s=time.perf_counter() - started,
        unreadable=len(inputs.unreadable),
    )


def _run_identity(config: CorpusConfig, files: list[InputPath], exclusion: Exclusion) -> dict[str, Any]:
    """Collect what decides the result; paths are left out, so that a project can be moved."""
    settings = asdict(config)
    for name in ("input", "output_dir", "overwrite", "exclude"):
        del settings[name]
    if config.exclude:
        settings["exclude"] = exclusion.digest
    return {
        "config": settings,
        "inputs": [{"name": file.name, "size_bytes": size_bytes(file)} for file in files],
        "normalizer_version": NORMALIZER_VERSION,
    }


def _filter_into(
    writer: SplitWriter,
    config: CorpusConfig,
    files: list[InputPath],
    exclusion: Exclusion,
    progress: bool,
    *,
    by_line: bool,
) -> FilterCounts:
    """Read everything through a filter into temporary files, which the caller commits or discards."""
    filtered = LineFilter(
        writer,
        min_chars=config.min_chars,
        max_chars=config.max_chars,
        seed=config.seed,
        by_line=by_line,
        exclusion=exclusion,
    )
    _feed_files(filtered, writer, files, progress)
    if config.sample:
        for text in text_documents(sample_text().splitlines()):
            filtered.add_document(text)
    filtered.flush()
    real_lines = writer.lines["train"]
    if config.synthesize:
        for line in tqdm(_synthesized(config), total=config.synthesize, unit="line", disable=not progress):
            filtered.add_line(line)
    filtered.flush()
    if config.recombine and real_lines:
        _recombine(config, filtered, writer, real_lines, progress)
    return filtered.counts


def _recombine(
    config: CorpusConfig, filtered: LineFilter, writer: SplitWriter, real_lines: int, progress: bool
) -> None:
    """Add lines made of the first `real_lines` of the training split, none a near-copy of a line of another split."""
    pool = index_source_lines(islice(writer.written("train"), 0, real_lines, -(-real_lines // MAX_LINES)))
    blocks = recombine_lines(
        pool,
        config.recombine,
        seed=config.seed,
        min_chars=config.min_chars,
        max_chars=config.max_chars,
        refuse=lambda lines: filtered.refuse(lines, "train"),
        workers=len(os.sched_getaffinity(0)) if config.recombine >= _MANY_LINES else 1,
    )
    with tqdm(total=config.recombine, unit="line", disable=not progress) as bar:
        for lines in blocks:
            writer.write("train", lines)
            bar.update(len(lines))


def _feed_files(filtered: LineFilter, writer: SplitWriter, files: list[InputPath], progress: bool) -> None:
    total_bytes = sum(map(size_bytes, files))
    with tqdm(total=total_bytes, unit="B", unit_scale=True, disable=not progress or not files) as bar:
        for file in files:
            bar.set_description(file.name, refresh=False)
            for number, document in enumerate(
                read_documents(file, advance=bar.update, dropped=filtered.counts.dropped)
            ):
                filtered.add_document(document.text)
                if number % 256 == 0:
                    rate_lines_per_s = writer.lines.total() / max(bar.format_dict["elapsed"], 1e-3)
                    bar.set_postfix_str(f"{rate_lines_per_s:,.0f} lines/s", refresh=False)


def _synthesized(config: CorpusConfig) -> Iterator[str]:
    return synthesize_lines(config.synthesize, seed=config.seed, min_chars=config.min_chars, max_chars=config.max_chars)


def _statistics(
    run: Mapping[str, Any], config: CorpusConfig, writer: SplitWriter, counts: FilterCounts, split_by: str
) -> dict[str, Any]:
    dropped = dict(sorted(counts.dropped.items()))
    if not writer.lines:
        reasons = ", ".join(f"{reason} {count:,}" for reason, count in dropped.items()) or "nothing was there to read"
        raise CorpusError(
            f"No Khmer line survived: {reasons}. "
            "Check that the input is Khmer in Unicode, and --min-chars and --max-chars."
        )
    characters = sorted(writer.characters.items(), key=lambda item: (-item[1], item[0]))
    stats: dict[str, Any] = {
        **run,
        "splits": {split: asdict(report) for split, report in writer.report().items()},
        "split_by": split_by,
        "documents": dict(sorted(counts.documents.items())),
        "dropped": dropped,
        "moved_near_copies": counts.moved,
        "length_histogram": {str(length): count for length, count in sorted(writer.lengths.items())},
        "characters": {f"U+{ord(char):04X} {char}": count for char, count in characters if char != "\n"},
    }
    if config.synthesize:
        # Generated anew rather than kept: the lines are a pure function of the seed.
        stats["synthesized"] = asdict(coverage(_synthesized(config)))
    if config.recombine:
        stats["recombined"] = {"lines": config.recombine, "shares_percent": SHARES}
    return stats


def _refuse_change(folder: Path, stored: Mapping[str, Any] | None, stats: Mapping[str, Any]) -> None:
    """Refuse to replace a corpus when inputs of the same names and sizes gave another text."""
    changed = [split for split in SPLITS if stored and stored["splits"].get(split) != stats["splits"][split]]
    if changed:
        raise RunConflictError(
            f"{folder} holds another corpus: the inputs have the same names and sizes but other content "
            f"({', '.join(changed)} would change). Use --overwrite to replace it, or name another --output-dir."
        )
