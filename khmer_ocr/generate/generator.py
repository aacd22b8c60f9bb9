"""Corpus splits to a stored data set: plan, draw, commit, and say what was made of what.

Every line is first asked whether any face can draw it (the planning pass), so that sample numbers have no gaps and all
shards agree on them. Then chunks of 1,024 samples go to workers in any order; their bytes depend on the run alone.
"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.recipe import Recipe, load_recipe
from khmer_ocr.dataset import layout, paths
from khmer_ocr.errors import ConfigError, FontError, OutputError
from khmer_ocr.generate.chunk_renderer import RenderJob
from khmer_ocr.generate.fingerprint import fingerprint
from khmer_ocr.generate.journal import RECORDED_ROOT, Journal
from khmer_ocr.generate.local_executor import FontCrashError, LocalExecutor
from khmer_ocr.generate.resume import is_complete, resume
from khmer_ocr.generate.settings import DrawingSettings, GenerateConfig, SplitResult
from khmer_ocr.generate.split_run import SplitRun, result_of_complete
from khmer_ocr.generate.split_text import SplitText
from khmer_ocr.io.cache_dir import cache_dir
from khmer_ocr.io.devices import pick_device
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.render.measured_faces import quarantine, usable_faces
from khmer_ocr.render.settings import RenderConfig

log = logging.getLogger(__name__)


class SyntheticImageGenerator:
    """Draws a corpus as text-line images.

    Args:
        corpus_dir: folder with train.txt, val.txt, test.txt, one line of text a line.
        output_dir: the data set's folder.
        config_manager: settings of the stages `render` and `generate`; None takes the defaults.
        fonts: files, folders, families or faces; None takes `fonts/` and installed font packages.
        augment_train: augment training lines with the recipe of the settings (default `basic`).
        random_seed: the run's seed; equal seeds give equal bytes.

    Raises:
        NoFontsError: no usable font.
    """

    def __init__(
        self,
        corpus_dir: str | Path = "data/processed",
        output_dir: str | Path = "data/synthetic",
        config_manager: DrawingSettings | None = None,
        fonts: Sequence[str | Path] | None = None,
        augment_train: bool = True,
        random_seed: int = 42,
    ) -> None:
        self.corpus_dir, self.output_dir = Path(corpus_dir), Path(output_dir)
        self.render = config_manager.render if config_manager else RenderConfig()
        self.config = config_manager.generate if config_manager else GenerateConfig()
        self.augment_train, self.seed = augment_train, random_seed
        fonts_dir = config_manager.fonts_dir if config_manager else Path("fonts")
        self._font_sources = [str(name) for name in fonts or ()]
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
            FontError: a font kills the processes that draw with it; it is quarantined.
            OutputError: the folder can't be written, or no space is left; what is done stays done.
        """
        config = self.config.changed(settings)
        names = list(dict.fromkeys([splits] if isinstance(splits, str) else splits or layout.SPLITS))
        unknown = [name for name in names if name not in layout.SPLITS]
        if unknown:
            raise ConfigError(f"unknown split {', '.join(unknown)}; known are {', '.join(layout.SPLITS)}")
        if max_lines is not None and max_lines < 1:
            raise ConfigError(f"max_lines is {max_lines}; expected 1 or more")
        self._refuse_overlap()
        paths.refuse_links_of(self.output_dir, names)
        texts = {name: SplitText.open(self.corpus_dir, name, max_lines) for name in names}
        recipe, device = self._recipe(config)
        run = fingerprint(self.faces, self.render, config.format, self.seed, texts, recipe, device)
        journal = Journal(self.output_dir)
        then = "The same command goes on where it stopped."
        try:
            with output_errors(self.output_dir, "choose another --output-dir", then):
                if is_complete(journal, run, texts):
                    log.info("%s is complete: nothing to do", self.output_dir)
                    return {name: result_of_complete(self.output_dir, name) for name in names}
                with journal.locked(*config.shard):
                    return self._run(config, texts, journal, run, recipe, device)
        except FontCrashError as crash:
            face = self.faces[crash.face]
            quarantine(face, str(crash))
            raise FontError(
                f"{crash}. The font ({face.files[0]}) is quarantined: "
                "the same command with --overwrite draws without it, "
                f"khmer-ocr fonts check {face.name} --retry takes it out of quarantine."
            ) from crash

    def _recipe(self, config: GenerateConfig) -> tuple[Recipe | None, str]:
        """The recipe for training lines and where it is applied; what they need is made sure of first."""
        recipe = load_recipe(config.recipe, config.strength) if self.augment_train else None
        device = pick_device(config.device)
        if recipe:
            Augmenter(recipe, self.seed, device)
        return recipe, device

    def _refuse_overlap(self) -> None:
        output, corpus = self.output_dir.resolve(), self.corpus_dir.resolve()
        if output == corpus or corpus in output.parents or output in corpus.parents:
            raise OutputError(
                f"The output {self.output_dir} and the corpus {self.corpus_dir} lie one inside the other. "
                "Choose an --output-dir beside the corpus."
            )

    def _run(
        self,
        config: GenerateConfig,
        texts: dict[str, SplitText],
        journal: Journal,
        run: dict[str, Any],
        recipe: Recipe | None,
        device: str,
    ) -> dict[str, SplitResult]:
        with journal.exclusive():
            root = self.output_dir.as_posix()
            runs = resume(journal, run, texts, root, overwrite=config.overwrite)
        recorded_root = next((each[RECORDED_ROOT] for each in runs.values()), root)
        settings = self._generation_config(recorded_root)
        job = self.job(config.format, recorded_root, recipe, device)
        most_tasks = max(-(-text.lines // layout.CHUNK) for text in texts.values())
        workers = min(config.workers or len(os.sched_getaffinity(0)), most_tasks)
        with LocalExecutor(job, workers) as executor:
            splits = (SplitRun(text, journal, executor, progress=config.progress) for text in texts.values())
            return {each.name: each.draw(config.shard, runs.get(each.name, run), settings) for each in splits}

    def job(self, format_name: str, recorded_root: str, recipe: Recipe | None, device: str) -> RenderJob:
        """What workers need to draw a run of these faces and settings; see `RenderJob`."""
        return RenderJob(
            faces=tuple(self.faces),
            metrics=self.metrics,
            render=self.render,
            root=self.output_dir.as_posix(),
            format=format_name,
            seed=self.seed,
            atlas_dir=cache_dir() / "atlas",
            recorded_root=recorded_root,
            recipe=recipe,
            device=device,
        )

    def _generation_config(self, recorded_root: str) -> dict[str, Any]:
        """`generation_config` as users know it."""
        settings = {
            "corpus_dir": self.corpus_dir.as_posix(),
            "output_dir": recorded_root,
            "image_height": self.render.image_height,
            "augment_train": self.augment_train,
            "fonts": [face.name for face in self.faces],
        }
        if self._font_sources:
            settings["font_files"] = self._font_sources
        return settings

    def get_statistics(self) -> dict[str, Any]:
        """Counts, widths, lengths, fonts and rejections of what is stored, by split.

        Raises:
            DatasetError: nothing is stored yet, or it is damaged.
        """
        from khmer_ocr.dataset.stats import dataset_statistics

        return dataset_statistics(self.output_dir)
