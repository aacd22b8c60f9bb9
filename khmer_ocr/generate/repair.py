"""Repair a stored data set from what it says of itself: draw, compare, replace only what is damaged and now matches.

Every sample of a damaged chunk is drawn again from each text that anything records for it. It is believed where the
drawn pixels have the hash that the metadata record, or are those of the stored image. Then its image, label, shard
members and metadata are set right, each by itself; whatever can't be proven is left as it stands and named.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, cached_property
from itertools import groupby
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, cast

from tqdm import tqdm

from khmer_ocr.augment.recipe import NONE, Recipe, parse_recipe
from khmer_ocr.dataset import layout, paths, shards
from khmer_ocr.dataset.layout import Sample
from khmer_ocr.dataset.metadata import iter_samples, read_header
from khmer_ocr.dataset.metadata_writer import split_facts, write_overall, write_split
from khmer_ocr.dataset.verify import SHOWN, VerifyReport
from khmer_ocr.errors import ConfigError, DatasetError, FontError, KhmerOcrError
from khmer_ocr.generate.chunk_renderer import ChunkRenderer
from khmer_ocr.generate.fingerprint import deciding_versions, fingerprint
from khmer_ocr.generate.generator import SyntheticImageGenerator
from khmer_ocr.generate.journal import Journal, header_of, read_overall
from khmer_ocr.generate.repair_evidence import Row, corpus_texts, salvaged
from khmer_ocr.generate.repair_redraw import Redrawer
from khmer_ocr.generate.repair_storage import StoredFiles, StoredShards
from khmer_ocr.io.atomic import remove_file, replace
from khmer_ocr.io.json_bytes import json_bytes
from khmer_ocr.render.settings import RenderConfig

log = logging.getLogger(__name__)
_DRAWN_KEYS = ("text", "font", "image_width", "image_height", "pixel_hash", "size_ppem", "augmentation")


@dataclass
class RepairReport:
    """What a repair did.

    Attributes:
        written: images, labels, shard members and indexes that were replaced.
        metadata: metadata files that were written anew.
        left: what stays as it is, and why.
    """

    written: int = 0
    metadata: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        anew = f", and wrote {', '.join(self.metadata)} anew" if self.metadata else ""
        lines = [f"Repair replaced {self.written:,} files or shard members{anew}."]
        if self.left:
            lines.append(f"{len(self.left):,} could not be made again as recorded, and were left as they are:")
            lines += [f"  {each}" for each in self.left[:SHOWN]]
        if len(self.left) > SHOWN:
            lines.append(f"  ... and {len(self.left) - SHOWN:,} more")
        return "\n".join(lines)


def repair(root: Path, report: VerifyReport, *, progress: bool = True) -> RepairReport:
    """Set right what a report calls damaged, as far as that can be proven to be what was there.

    Args:
        root: the data set's folder; it may have been moved.
        report: from `verify`.
        progress: show bars.

    Returns:
        What was replaced, and what was left.

    Raises:
        DatasetError: the data set does not say how it was made.
        FontError: a font of the run is missing or is another version.
        OutputError: a folder or a metadata file is a symbolic link, or can't be written.
    """
    splits = [split for split in layout.SPLITS if any(problem.split == split for problem in report.problems)]
    paths.refuse_links_of(root, splits)
    done = RepairReport()
    for split in sorted({problem.split for problem in report.problems} - {"", *layout.SPLITS}):
        done.left.append(f"{split!r}: splits that are drawn are {', '.join(layout.SPLITS)}; this one is not touched")
    overall = read_overall(root)
    run = overall.get("run")
    if not isinstance(run, dict):
        raise DatasetError(
            f"{root}/{layout.GENERATION_METADATA} does not say how the data set was made; what is damaged can't be "
            "made again. Restore it from where it came from."
        )
    repairer = _Repair(root, overall, done, progress=progress)
    with Journal(root).locked(0, 1):
        for leftover in report.leftovers():
            remove_file(root, leftover)
        for split in splits:
            repairer.repair(split, report)
        repairer.close()
    return done


def _renderer(root: Path, overall: Mapping[str, Any]) -> tuple[Path, ChunkRenderer]:
    """Folder of the corpus, and what draws as the data set says that it was drawn."""
    run, settings = overall["run"], overall["generation_config"]
    known = type(run["seed"]) is int and run["format"] in layout.FORMATS and type(settings["image_height"]) is int
    if not known:
        raise ValueError(f"seed {run['seed']!r}, format {run['format']!r}, height {settings['image_height']!r}")
    generator = SyntheticImageGenerator(
        settings["corpus_dir"], root, fonts=settings.get("font_files"), random_seed=run["seed"]
    )
    by_name = {face.name: face for face in generator.faces}
    for name, sha256 in run["fonts"].items():
        if name not in by_name:
            raise FontError(f"Font {name} of this data set is missing. Run: khmer-ocr fonts install")
        if by_name[name].sha256 != sha256:
            raise FontError(f"Font {name} is another version than the one this data set was drawn with.")
    generator.faces = [by_name[name] for name in run["fonts"]]
    generator.render = RenderConfig(**run["render"])
    recipe, device = _recipe_of(run["recipe"]), str(run["versions"].get("device", "cpu"))
    now = fingerprint(generator.faces, generator.render, run["format"], run["seed"], {}, recipe, device)
    if deciding_versions(now["versions"]) != deciding_versions(run["versions"]):
        raise ConfigError(
            f"The data set was made with {run['versions']}, here is {now['versions']}: its bytes can't be made again. "
            "Install those versions, or generate anew with --overwrite."
        )
    job = generator.job(run["format"], settings["output_dir"], recipe, device)
    return generator.corpus_dir, ChunkRenderer(job)


def _recipe_of(known: Any) -> Recipe | None:
    """The recipe as a run records it; a file of the same name may hold another by now."""
    if known == NONE:
        return None
    content = {key: value for key, value in known.items() if key != "strength"}
    return parse_recipe(content, known["strength"], layout.GENERATION_METADATA)


def _corrected(row: Row) -> Sample:
    """The record of a proven sample: as it was, but for what is drawn otherwise; no key comes or goes."""
    assert row.drawn is not None
    record: dict[str, Any] = {**row.records[0]}
    sample: dict[str, Any] = {**row.drawn[0]}
    record.update({key: sample[key] for key in _DRAWN_KEYS if key in record and key in sample})
    return cast(Sample, record)


class _Repair:
    """Repairs one split after the other."""

    def __init__(self, root: Path, overall: dict[str, Any], done: RepairReport, *, progress: bool) -> None:
        self._root, self._overall, self._done, self._progress = root, overall, done, progress

    @cached_property
    def _drawing(self) -> tuple[Path, ChunkRenderer]:
        """See `_renderer`; set up when the first sample has to be drawn."""
        try:
            return _renderer(self._root, self._overall)
        except KhmerOcrError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError) as fault:
            raise DatasetError(
                f"{self._root}/{layout.GENERATION_METADATA} is damaged in what says how the data set was made "
                f"({fault!r}). Restore it from where it came from."
            ) from fault

    def close(self) -> None:
        """Keep the rasters of what was drawn."""
        if "_drawing" in vars(self):
            self._drawing[1].close()

    def repair(self, split: str, report: VerifyReport) -> None:
        """Set one split right."""
        self._indexes(split, report)
        if split in report.damaged_metadata():
            if split not in self._overall["splits"]:
                self._left(split, layout.SPLIT_METADATA, "the split was never completed: run the command that draws it")
            else:
                self._rebuild(split)
        elif chunks := report.damaged_chunks().get(split):
            self._repair_chunks(split, chunks)

    def _left(self, split: str, name: str, why: str) -> None:
        self._done.left.append(f"{split}/{name}: {why}")

    def _indexes(self, split: str, report: VerifyReport) -> None:
        """Write indexes of whole shards anew; those of damaged ones come with their shard."""
        for name in (Path(problem.filename) for problem in report.problems if problem.split == split):
            if name.parent != Path(layout.SHARDS) or name.suffix != ".idx":
                continue
            index = self._root / split / name
            try:
                members = shards.tar_members(self._root, index.with_suffix(".tar"))
            except DatasetError as fault:
                log.debug("%s: %s", index, fault)  # the shard is a problem of its own
                continue
            replace(index, shards.dali_index(members), self._root, tag="")
            self._done.written += 1

    def _stored(self, split: str) -> StoredFiles:
        kind = StoredFiles if self._overall["run"]["format"] == "files" else StoredShards
        return kind(self._root, split)

    def _repair_chunks(self, split: str, chunks: Sequence[int]) -> None:
        """Repair the damaged chunks of a split whose metadata are in order."""
        metadata, expected = self._root / split / layout.SPLIT_METADATA, set(chunks)
        redrawer, fixes = Redrawer(self._drawing[1], split), dict[int, Sample]()
        stored = self._stored(split)
        numbered = groupby(enumerate(iter_samples(metadata)), key=lambda pair: pair[0] // layout.CHUNK)
        for chunk, pairs in tqdm(numbered, desc=f"repair {split}", unit="chunk", disable=not self._progress):
            if chunk not in expected:
                continue
            rows = [Row(number, [record]) for number, record in pairs]
            stored.read(rows)
            redrawer.prove(chunk, rows)
            records = {row.number: _corrected(row) for row in rows if row.drawn is not None}
            self._replace(split, stored, rows, records)
            fixes |= {
                row.number: records[row.number]
                for row in rows
                if not row.whole and records.get(row.number) not in (None, row.records[0])
            }
        if fixes:
            lines = (json_bytes(fixes.get(number, record)) for number, record in enumerate(iter_samples(metadata)))
            header = {key: value for key, value in read_header(metadata).items() if key != "samples"}
            self._write_metadata(split, header, lines)

    def _replace(self, split: str, stored: StoredFiles, rows: list[Row], records: Mapping[int, Sample]) -> None:
        """Replace what is proven and damaged; name what is damaged and not proven."""
        self._done.written += stored.write([row for row in rows if row.link is None], records)
        for row in rows:
            if not row.whole and (row.link is not None or row.drawn is None):
                self._left(split, layout.stem(split, row.number), row.why)

    def _rebuild(self, split: str) -> None:
        """Write a split's metadata anew if every sample is proven; damaged samples are repaired on the way."""
        corpus_dir, renderer = self._drawing
        run, facts, stored = self._overall["run"], self._overall["splits"][split], self._stored(split)
        records = salvaged(self._root, split)
        corpus = cache(lambda: corpus_texts(corpus_dir, run, split, renderer.plan))
        total = count = max((*records, *stored.numbers(), -1)) + 1
        if facts["total_samples"] != count:
            # The corpus says which is right; without it, what is drawn shows whether there are so few or so many.
            total = len(corpus()) or count
        redrawer, fonts, stored_bytes = Redrawer(renderer, split), Counter[str](), 0
        with TemporaryFile() as lines:
            starts = range(0, total, layout.CHUNK)
            for first in tqdm(starts, desc=f"repair {split}", unit="chunk", disable=not self._progress):
                numbers = range(first, min(first + layout.CHUNK, total))
                rows = [Row(number, records.pop(number, [])) for number in numbers]
                stored.read(rows)
                for row in rows:
                    row.spare = None if row.texts else next(iter(corpus()[row.number : row.number + 1]), None)
                redrawer.prove(first // layout.CHUNK, rows)
                anew = {row.number: row.drawn[0] for row in rows if row.drawn is not None}
                self._replace(split, stored, rows, anew)
                stored_bytes += stored.bytes_of(rows)
                fonts.update(sample["font"] for sample in anew.values())
                lines.writelines(json_bytes(sample) + b"\n" for sample in anew.values())
            short = count < facts["total_samples"] and not corpus()
            if fonts.total() < total or not total or short:
                said = max(total, facts["total_samples"])
                why = f"{fonts.total():,} of {said:,} samples are proven; it is written anew when all are"
                self._left(split, layout.SPLIT_METADATA, why)
                return
            lines.seek(0)
            rejected, settings = facts.get("rejected", {}), self._overall["generation_config"]
            header = header_of(split, fonts.total(), fonts, rejected, run, settings)
            self._write_metadata(split, header, (line.rstrip(b"\n") for line in lines))
        splits = {**self._overall["splits"], split: split_facts(header, fonts, stored_bytes)}
        if splits != self._overall["splits"]:
            write_overall(self._root, self._overall, splits)
            self._overall = read_overall(self._root)
            self._done.metadata.append(layout.GENERATION_METADATA)

    def _write_metadata(self, split: str, header: Mapping[str, Any], lines: Iterable[bytes]) -> None:
        write_split(self._root, split, header, lines)
        self._done.metadata.append(f"{split}/{layout.SPLIT_METADATA}")
