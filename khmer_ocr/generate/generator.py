"""Corpus splits to a stored data set: plan, draw, commit, and say what was made of what.

Every line is first asked whether any face can draw it (the planning pass), so that sample numbers have no gaps and shards
agree on them. Then chunks of 1,024 samples go to workers in any order; each chunk's bytes depend on nothing but the run.
"""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from khmer_ocr.dataset import layout
from khmer_ocr.errors import ConfigError, CorpusError, FontError, NoFontsError, OutputError, RunConflictError
from khmer_ocr.generate import source
from khmer_ocr.generate.finish import complete_splits, finish_split
from khmer_ocr.generate.identity import run_identity
from khmer_ocr.generate.journal import Journal, differences
from khmer_ocr.generate.pool import FontCrash, Pool, translate_os_error
from khmer_ocr.generate.worker import Job
from khmer_ocr.render.atlas import cache_dir
from khmer_ocr.render.fonts import FontFace, find_faces
from khmer_ocr.render.metrics import FaceMetrics, measure_all, quarantine
from khmer_ocr.render.plan import REASONS, RenderConfig

if TYPE_CHECKING:
    from khmer_ocr.config import ConfigManager

log = logging.getLogger(__name__)
PLAN_BLOCK = 8192


@dataclass(frozen=True)
class GenerateConfig:
    """How a data set is stored and by how many.

    Attributes:
        format: "files" (the known tree) or "webdataset" (tar shards of one chunk each, indexed for DALI).
        png_level: ISA-L level 0 to 3; 2 is smallest on text lines.
        workers: processes; 0 takes every core.
        shard: (i, n) draws every n-th chunk beginning with i; the last shard to finish completes the metadata.
        system_fonts: use the system's Khmer fonts too.
        overwrite: replace a run of another configuration.
        progress: show progress bars.
    """

    format: Literal["files", "webdataset"] = "files"
    png_level: int = 2
    workers: int = 0
    shard: tuple[int, int] = (0, 1)
    system_fonts: bool = False
    overwrite: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse what can't be done."""
        if self.format not in layout.FORMATS:
            raise ConfigError(f"format is {self.format!r}; wanted one of {', '.join(layout.FORMATS)}")
        if not 0 <= self.png_level <= 3:
            raise ConfigError(f"png_level is {self.png_level}; wanted 0 to 3")
        if self.workers < 0:
            raise ConfigError(f"workers is {self.workers}; wanted 1 or more, or 0 for every core")
        if len(self.shard) != 2 or not 0 <= self.shard[0] < self.shard[1]:
            raise ConfigError(f"shard is {self.shard}; wanted i/n with 0 <= i < n, for example 0/4")


@dataclass(frozen=True)
class SplitResult:
    """What a call did for one split."""

    samples: int
    drawn: int
    rejected: dict[str, int]
    complete: bool


def usable_faces(
    fonts: Sequence[str | Path] | None, *, fonts_dir: Path, system: bool
) -> tuple[list[FontFace], dict[str, FaceMetrics]]:
    """Find and measure faces, leaving out with a warning those that can't be used.

    Raises:
        NoFontsError: none is left.
        FontError: a font named by the user can't be used.
    """
    faces = find_faces(fonts, fonts_dir=fonts_dir, system=system)
    metrics = measure_all(faces)
    fatal = [face for face in faces if metrics[face.name].fatal]
    for face in fatal:
        log.warning("font %s (%s) is left out: %s", face.name, face.files[0], metrics[face.name].fatal)
    kept = [face for face in faces if not metrics[face.name].fatal]
    if not kept:
        reasons = "; ".join(f"{face.name}: {metrics[face.name].fatal}" for face in fatal)
        raise NoFontsError(f"No Khmer fonts found that can be used ({reasons}). Run: khmer-ocr fonts check")
    return kept, metrics


class SyntheticImageGenerator:
    """Draws a corpus as text-line images.

    Args:
        corpus_dir: folder with train.txt, val.txt, test.txt, one line of text a line.
        output_dir: the data set's folder.
        config_manager: settings of the stages `render` and `generate`; None takes the defaults.
        fonts: files, folders, families or faces; None takes `fonts/` and installed font packages.
        augment_train: wear training lines. Stored lines are clean until a recipe is named.
        random_seed: the run's seed; equal seeds give equal bytes.

    Raises:
        NoFontsError: no usable font.
    """

    def __init__(
        self,
        corpus_dir: str | Path = "data/processed",
        output_dir: str | Path = "data/synthetic",
        config_manager: "ConfigManager | None" = None,
        fonts: Sequence[str | Path] | None = None,
        augment_train: bool = True,
        random_seed: int = 42,
    ) -> None:
        self.corpus_dir, self.output_dir = Path(corpus_dir), Path(output_dir)
        self.render = config_manager.render if config_manager else RenderConfig()
        self.config = config_manager.generate if config_manager else GenerateConfig()
        self.augment_train, self.seed = augment_train, random_seed
        fonts_dir = config_manager.fonts_dir if config_manager else Path("fonts")
        self.faces, self.metrics = usable_faces(fonts, fonts_dir=fonts_dir, system=self.config.system_fonts)

    def generate(
        self, splits: Sequence[str] | None = None, max_lines: int | None = None, **settings: Any
    ) -> dict[str, SplitResult]:
        """Draw splits; killed at any moment, the same call goes on where it stopped.

        Args:
            splits: names out of train, val, test; None takes all three.
            max_lines: read at most this many lines of each split.
            settings: fields of `GenerateConfig` for this call only.

        Returns:
            What was done, by split.

        Raises:
            SplitNotFoundError: a split's text is missing.
            CorpusError: a split's text is empty or not UTF-8.
            RunConflictError: the folder holds a run of another configuration.
            OutputError: the folder can't be written, or no space is left; what is done stays done.
        """
        config = replace(self.config, **settings) if settings else self.config
        wanted = list(dict.fromkeys(splits or layout.SPLITS))
        unknown = [name for name in wanted if name not in layout.SPLITS]
        if unknown:
            raise ConfigError(f"unknown split {', '.join(unknown)}; known are {', '.join(layout.SPLITS)}")
        if max_lines is not None and max_lines < 1:
            raise ConfigError(f"max_lines is {max_lines}; wanted 1 or more")
        self._refuse_overlap()
        texts = {name: source.SplitText.open(self.corpus_dir, name, max_lines) for name in wanted}
        journal = Journal(self.output_dir)
        try:
            shard, shards = config.shard
            with journal.locked(f"shard-{shard}-of-{shards}"):
                return self._run(config, texts, journal)
        except RunConflictError:
            raise
        except FontCrash as crash:
            face = self.faces[crash.face]
            quarantine(face, str(crash))
            raise FontError(
                f"{crash}. The font ({face.files[0]}) is quarantined: the same command with --overwrite draws without it."
            ) from crash
        except OSError as error:
            if isinstance(error, OutputError | CorpusError):
                raise
            raise translate_os_error(error, str(self.output_dir)) from error

    def _refuse_overlap(self) -> None:
        output, corpus = self.output_dir.resolve(), self.corpus_dir.resolve()
        if output == corpus or corpus in output.parents or output in corpus.parents:
            raise OutputError(
                f"The output {self.output_dir} and the corpus {self.corpus_dir} lie one inside the other. "
                "Choose an --output-dir beside the corpus."
            )

    def _run(
        self, config: GenerateConfig, texts: dict[str, source.SplitText], journal: Journal
    ) -> dict[str, SplitResult]:
        identity = run_identity(self.faces, self.render, config.format, config.png_level, self.seed, texts)
        identity = self._continue_or_refuse(config, identity, journal)
        journal.begin(identity)
        job = Job(
            faces=tuple(self.faces),
            metrics=self.metrics,
            render=self.render,
            root=self.output_dir.as_posix(),
            format=config.format,
            png_level=config.png_level,
            seed=self.seed,
            atlas_dir=cache_dir() / "atlas",
        )
        done = complete_splits(self.output_dir)
        results = {
            name: SplitResult(facts["total_samples"], 0, facts.get("rejected", {}), True)
            for name, facts in done.items()
            if name in texts
        }
        todo = [name for name in texts if name not in done]
        if todo:
            with Pool(job, config.workers or os.cpu_count() or 1) as pool:
                for name in todo:
                    results[name] = self._split(config, texts[name], pool, journal, identity)
        if set(identity["splits"]) <= set(complete_splits(self.output_dir)):
            journal.close()
        return {name: results[name] for name in texts}

    def _continue_or_refuse(self, config: GenerateConfig, identity: dict[str, Any], journal: Journal) -> dict[str, Any]:
        """The identity to go on with: splits made before are kept, anything else that differs is refused."""
        known = journal.known_run()
        if known is None:
            taken = [name for name in layout.SPLITS if source.stored_anything(self.output_dir, name)]
            if taken and not config.overwrite:
                raise RunConflictError(
                    f"{self.output_dir} holds images of {', '.join(taken)} that no run here accounts for. "
                    "Choose another --output-dir, or give --overwrite to replace them."
                )
            if taken:
                self._clear(journal)
            return identity
        merged = {**identity, "splits": {**known.get("splits", {}), **identity["splits"]}}
        comparable = {**merged, "splits": {name: merged["splits"][name] for name in known.get("splits", {})}}
        different = differences(known, comparable)
        if not different:
            return merged
        if not config.overwrite:
            raise RunConflictError(
                f"{self.output_dir} holds a run of another configuration:\n"
                + "\n".join(different)
                + "\nChoose another --output-dir, or give --overwrite to replace it."
            )
        self._clear(journal)
        return identity

    def _clear(self, journal: Journal) -> None:
        for name in layout.SPLITS:
            journal.forget(name)
            source.remove_split(self.output_dir, name)
        (self.output_dir / layout.GENERATION_METADATA).unlink(missing_ok=True)

    def _split(
        self, config: GenerateConfig, text: source.SplitText, pool: Pool, journal: Journal, identity: dict[str, Any]
    ) -> SplitResult:
        reasons_L = self._plan(config, text, pool, journal)
        rejected = {REASONS[n]: count for n, count in Counter(reasons_L.tolist()).items() if n}
        accepted = int((reasons_L == 0).sum())
        if not accepted:
            raise CorpusError(f"No line of {text.path} can be drawn; rejected: {rejected or 'every line is empty'}")
        chunks = -(-accepted // layout.CHUNK)
        shard, shards = config.shard
        committed = journal.committed(text.split)
        mine = [chunk for chunk in range(chunks) if chunk % shards == shard and chunk not in committed]
        drawn = 0
        bar = self._bar(config, f"draw {text.split}", accepted, "img", accepted - self._samples(mine, accepted))
        with bar:
            tasks = self._chunk_tasks(text, reasons_L, set(mine))
            for _, (samples, _) in pool.imap(tasks):
                drawn += samples
                bar.update(samples)
        complete = len(journal.committed(text.split)) >= chunks
        if complete:
            with journal.finishing():
                if text.split not in complete_splits(self.output_dir):
                    finish_split(journal, text.split, chunks, rejected, identity, self._settings())
        return SplitResult(accepted, drawn, rejected, complete)

    def _settings(self) -> dict[str, Any]:
        """`generation_config` as users know it."""
        return {
            "corpus_dir": self.corpus_dir.as_posix(),
            "output_dir": self.output_dir.as_posix(),
            "image_height": self.render.image_height,
            "augment_train": self.augment_train,
            "fonts": [face.name for face in self.faces],
        }

    @staticmethod
    def _samples(chunks: list[int], accepted: int) -> int:
        return sum(min(layout.CHUNK, accepted - chunk * layout.CHUNK) for chunk in chunks)

    def _bar(self, config: GenerateConfig, what: str, total: int, unit: str, initial: int = 0) -> "tqdm[Any]":
        return tqdm(total=total, initial=initial, desc=what, unit=unit, unit_scale=True, disable=not config.progress)

    def _plan(
        self, config: GenerateConfig, text: source.SplitText, pool: Pool, journal: Journal
    ) -> npt.NDArray[np.uint8]:
        known = journal.read_plan(text.split, text.lines)
        if known is not None:
            return known
        reasons_L = np.zeros(text.lines, np.uint8)
        with self._bar(config, f"plan {text.split}", text.lines, "line") as bar:
            blocks = source.blocks(text.read(), PLAN_BLOCK)
            tasks = (("plan", text.split, first, lines, text.normalised) for first, lines in blocks)
            for (_, _, first, *_), reasons in pool.imap(tasks):
                reasons_L[first : first + len(reasons)] = np.frombuffer(reasons, np.uint8)
                bar.update(len(reasons))
        journal.write_plan(text.split, reasons_L)
        return reasons_L

    @staticmethod
    def _chunk_tasks(
        text: source.SplitText, reasons_L: npt.NDArray[np.uint8], wanted: set[int]
    ) -> Iterator[tuple[Any, ...]]:
        if not wanted:
            return
        accepted = (line for line, reason in zip(text.read(), reasons_L, strict=True) if not reason)
        for chunk in range(max(wanted) + 1):
            lines = list(islice(accepted, layout.CHUNK))
            if chunk in wanted:
                yield "chunk", text.split, chunk, lines, text.normalised

    def get_statistics(self) -> dict[str, Any]:
        """Counts, widths, lengths, fonts and rejections of what is stored, by split.

        Raises:
            DatasetError: nothing is stored yet, or it is damaged.
        """
        from khmer_ocr.dataset.stats import dataset_statistics

        return dataset_statistics(self.output_dir)

