"""Draw damaged samples of a stored data set again, from what the data set says of itself."""

from pathlib import Path
from typing import Any

from tqdm import tqdm

from khmer_ocr.augment.recipe import NONE, Recipe, parse_recipe
from khmer_ocr.dataset import layout
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.verify import VerifyReport
from khmer_ocr.errors import ConfigError, DatasetError, FontError
from khmer_ocr.generate.artist import Artist, Job
from khmer_ocr.generate.finish import read_overall
from khmer_ocr.generate.generator import SyntheticImageGenerator
from khmer_ocr.generate.identity import deciding_versions, run_identity
from khmer_ocr.generate.journal import Journal
from khmer_ocr.generate.sinks import open_sink
from khmer_ocr.render.atlas import cache_dir
from khmer_ocr.render.plan import RenderConfig


def repair(root: Path, report: VerifyReport, *, progress: bool = True) -> None:
    """Draw the chunks that a report calls damaged, and whole splits whose metadata are.

    A chunk needs the fonts of the run and nothing else: its texts stand in the metadata. A split without sound metadata
    needs its corpus too.

    Args:
        root: the data set's folder; it may have been moved.
        report: from `verify`.
        progress: show bars.

    Raises:
        DatasetError: the data set does not say how it was made.
        FontError: a font of the run is missing or is another version.
    """
    overall = read_overall(root)
    run = overall.get("run")
    if not isinstance(run, dict):
        raise DatasetError(
            f"{root}/{layout.GENERATION_METADATA} does not say how the data set was made; it can't be repaired. "
            "Generate it again with --overwrite."
        )
    generator = _generator_of(root, overall["generation_config"], run)
    lost = [split for split in report.damaged_metadata() if split]
    for split in lost:
        (root / split / layout.SPLIT_METADATA).unlink(missing_ok=True)
        max_lines = run["splits"][split]["max_lines"]
        settings = {"format": run["format"], "recipe": NONE, "device": _device_of(run)}
        generator.generate([split], max_lines, progress=progress, **settings)
    todo = {split: chunks for split, chunks in report.damaged_chunks().items() if split not in lost}
    with Journal(root).locked(0, 1):
        for leftover in report.leftovers():
            leftover.unlink(missing_ok=True)
        if todo:
            _draw_chunks(root, generator, overall, todo, progress=progress)


def _generator_of(root: Path, settings: dict[str, Any], run: dict[str, Any]) -> SyntheticImageGenerator:
    generator = SyntheticImageGenerator(
        settings["corpus_dir"],
        root,
        fonts=settings.get("font_files"),
        random_seed=run["seed"],
        augment_train=settings["augment_train"],
    )
    by_name = {face.name: face for face in generator.faces}
    for name, sha256 in run["fonts"].items():
        if name not in by_name:
            raise FontError(f"Font {name} of this data set is missing. Run: khmer-ocr fonts install")
        if by_name[name].sha256 != sha256:
            raise FontError(f"Font {name} is another version than the one this data set was drawn with.")
    generator.faces = [by_name[name] for name in run["fonts"]]
    generator.render = RenderConfig(**run["render"])
    recipe = generator.known_recipe = _recipe_of(run)
    now = run_identity(generator.faces, generator.render, run["format"], run["seed"], {}, recipe, _device_of(run))
    if deciding_versions(now["versions"]) != deciding_versions(run["versions"]):
        raise ConfigError(
            f"The data set was made with {run['versions']}, here is {now['versions']}: its bytes can't be made again. "
            "Install those versions, or generate anew with --overwrite."
        )
    return generator


def _recipe_of(run: dict[str, Any]) -> Recipe | None:
    """The recipe that a run records."""
    known = run["recipe"]
    if known == NONE:
        return None
    content = {key: value for key, value in known.items() if key != "strength"}
    return parse_recipe(content, known["strength"], layout.GENERATION_METADATA)


def _device_of(run: dict[str, Any]) -> str:
    """The device whose bytes a run holds; fused kernels give the same on all."""
    return str(run["versions"].get("device", "cpu"))


def _draw_chunks(
    root: Path,
    generator: SyntheticImageGenerator,
    overall: dict[str, Any],
    todo: dict[str, list[int]],
    *,
    progress: bool,
) -> None:
    run = overall["run"]
    artist = Artist(
        Job(
            faces=tuple(generator.faces),
            metrics=generator.metrics,
            render=generator.render,
            root=root.as_posix(),
            format=run["format"],
            seed=run["seed"],
            atlas_dir=cache_dir() / "atlas",
            recorded_root=overall["generation_config"]["output_dir"],
            recipe=generator.known_recipe,
            device=_device_of(run),
        )
    )
    pairs = [(split, chunk) for split, chunks in todo.items() for chunk in chunks]
    indexes = {split: load_index(root, split) for split in todo}
    for split, chunk in tqdm(pairs, desc="repair", unit="chunk", disable=not progress):
        index, first = indexes[split], chunk * layout.CHUNK
        texts = [index.text(i) for i in range(first, min(first + layout.CHUNK, len(index)))]
        samples, images = artist.drawn(split, chunk, texts)
        sink = open_sink(run["format"], root, split)
        sink.write(chunk, samples, images)
        sink.close()
    artist.close()
