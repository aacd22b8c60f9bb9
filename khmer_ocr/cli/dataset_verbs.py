"""Verbs that make and look at data: corpus, fonts, generate, stats, verify, preview."""

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from khmer_ocr.cli.flags import Folder, given, overrides
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.dataset.layout import Split
from khmer_ocr.errors import ConfigError
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.render.settings import RenderConfig


def corpus(config: Annotated[CorpusConfig, tyro.conf.arg(name="")], quiet: bool = False) -> None:
    """Raw text to train.txt, val.txt and test.txt: normalised, cut to lines, without duplicates, split by document.

    Exit status 1 when a path was left out because it can't be read; the corpus of the others is written.

    Args:
        config: What is read and where it goes.
        quiet: No progress bar.
    """
    from khmer_ocr.corpus.pipeline import process_corpus

    report = process_corpus(config, progress=not quiet)
    print(report)
    if report.unreadable:
        raise SystemExit(1)


def fonts(
    action: Annotated[Literal["list", "check", "install"], tyro.conf.Positional],
    names: Annotated[tuple[str, ...], tyro.conf.Positional] = (),
    fonts_dir: Path = Path("fonts"),
    system_fonts: bool = False,
    output: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None,
    retry: bool = False,
    from_: Annotated[Path | None, tyro.conf.arg(name="from")] = None,
    quiet: bool = False,
) -> None:
    """List the Khmer faces at hand, check them (a report card, also as a picture), or install the known families.

    Args:
        action: What to do.
        names: For list and check: files, folders, families or faces; for install: packages. None takes all.
        fonts_dir: Where installed fonts lie.
        system_fonts: Look into the system's folders too.
        output: For check: write the report card as a picture (.png).
        retry: For check: measure fonts again that were put in quarantine because they crashed a process.
        from_: For install: a folder of archives (.tgz of npm, .deb) instead of the package clients. KHMER_OCR_NPM and
            KHMER_OCR_DEBIAN may give the base address of a registry or mirror to ask instead.
        quiet: No progress bar.
    """
    if retry and action != "check":
        raise ConfigError(
            f"--retry goes with fonts check, not with fonts {action}. Type: khmer-ocr fonts check --retry"
        )
    if action == "install":
        from khmer_ocr.fonts.install import install_fonts

        print(install_fonts(fonts_dir, only=names, progress=not quiet, archives=from_))
        return
    from khmer_ocr.fonts.discovery import find_faces
    from khmer_ocr.preview.font_card import font_table, report_card, report_picture

    faces = find_faces(names or None, fonts_dir=fonts_dir, system=system_fonts, heldout=True)
    if action == "list":
        print(font_table(faces))
        return
    if retry:
        from khmer_ocr.render.measured_faces import release

        released = ", ".join(face.name for face in release(faces))
        print(f"out of quarantine, measured again: {released or 'none was in it'}\n")
    print(report_card(faces, progress=not quiet))
    if output is not None:
        report_picture(faces, output)
        print(f"\n{output}")


def generate(
    render: Annotated[dict[str, Any], overrides(RenderConfig, "image_height", "crop")],
    storage: Annotated[
        dict[str, Any],
        overrides(
            GenerateConfig,
            *("workers", "shard", "format", "recipe", "strength", "device", "overwrite", "system_fonts"),
            shard=str,
        ),
    ],
    corpus_dir: Path = Path("data/processed"),
    output_dir: Path = Path("data/synthetic"),
    fonts: tuple[str, ...] = (),
    splits: tuple[Split, ...] = ("train", "val", "test"),
    max_lines: int | None = None,
    seed: int = 42,
    augment: bool = True,
    config: Path | None = None,
    stats: bool = False,
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO",
    quiet: bool = False,
) -> None:
    """Draw a corpus as text-line images. Killed at any moment, the same command goes on where it stopped.

    Args:
        render: How lines are drawn, where the YAML file is not to decide.
        storage: How they are stored, likewise.
        corpus_dir: Folder with train.txt, val.txt, test.txt.
        output_dir: The data set's folder.
        fonts: Font files, folders, families or faces; none takes fonts/ and installed font packages.
        splits: Which splits to draw.
        max_lines: Read at most this many lines of each split.
        seed: Equal seeds give equal bytes.
        augment: Degrade training lines by the recipe (--no-augment: leave them clean).
        config: YAML file with sections render, generate.
        stats: Print what the data set holds when done; alone with a complete one, only that.
        log_level: How much is logged.
        quiet: No progress bars.
    """
    from khmer_ocr.config import ConfigManager
    from khmer_ocr.generate.generator import SyntheticImageGenerator

    logging.getLogger().setLevel(log_level)
    manager = ConfigManager(config)
    manager.render = replace(manager.render, **render)
    manager.generate = replace(manager.generate, **storage)
    if quiet:
        manager.generate = replace(manager.generate, progress=False)
    generator = SyntheticImageGenerator(corpus_dir, output_dir, manager, list(fonts) or None, augment, seed)
    for split, result in generator.generate(splits, max_lines).items():
        rejected = ", ".join(f"{count} {reason}" for reason, count in sorted(result.rejected.items())) or "none"
        state = "complete" if result.complete else "not complete: other shards are still to come"
        done = f"{result.drawn} drawn now" if result.drawn else "nothing to do"
        print(f"{split}: {result.samples} samples, {done}, {state}; rejected: {rejected}")
    if stats:
        from khmer_ocr.dataset.stats import dataset_statistics, format_statistics

        print(format_statistics(dataset_statistics(output_dir)))


def stats(directory: Folder) -> None:
    """Say what a data set holds: counts, widths, lengths, characters, fonts, rejections.

    Args:
        directory: The data set's folder.
    """
    from khmer_ocr.dataset.stats import dataset_statistics, format_statistics

    print(format_statistics(dataset_statistics(directory)))


def verify(directory: Folder, repair: bool = False, quiet: bool = False) -> None:
    """Check that images decode and are those recorded, labels equal the metadata, and nothing is missing or extra.

    Args:
        directory: The data set's folder.
        repair: Draw what is damaged again from what the data set says of itself (needs the fonts it was made from), and
            replace it where it then is what was recorded; all else is left as it is and named.
        quiet: No progress bar.
    """
    from khmer_ocr.dataset.verify import verify as check
    from khmer_ocr.load.cache_check import check_caches

    report, left = check(directory, progress=not quiet), False
    check_caches(report)
    if report.problems and repair:
        from khmer_ocr.generate.repair import repair as draw_again

        print(report)
        print(done := draw_again(directory, report, progress=not quiet))
        report = check(directory, progress=not quiet)
        check_caches(report)
        report.repaired, left = True, bool(done.left)
    print(report)
    if report.problems or left:
        raise SystemExit(1)


def preview(
    directory: Annotated[Path | None, tyro.conf.Positional] = None,
    output: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("preview.png"),
    split: Split | None = None,
    count: int | None = None,
    columns: int | None = None,
    seed: int = 0,
    recipe: str | None = None,
    strength: Literal["mild", "medium", "heavy"] | None = None,
    text: str | None = None,
    font: str | None = None,
) -> None:
    """Draw a contact sheet of a data set's samples; or, with --recipe or --text, what a recipe does to a line.

    Args:
        directory: The data set's folder.
        output: The picture to write (.png).
        split: Which split of the data set; default train.
        count: How many samples; default 24 of a data set, 6 of a recipe.
        columns: Samples side by side; default 2.
        seed: Another seed, other samples.
        recipe: "basic" (default), "scan", "train", or a YAML file: its ops one by one, then all together.
        strength: Show only this strength of the recipe; default all.
        text: The line that the recipe degrades; default one of the bundled sample.
        font: Font file, family or face for the line; default a plain text face.
    """
    of_recipe = given(recipe=recipe, text=text, strength=strength, font=font)
    of_data = given(DIRECTORY=directory, split=split, columns=columns)
    if of_recipe and of_data:
        raise ConfigError(
            f"preview got {', '.join(of_data)} and {', '.join(of_recipe)}: expected either a data set's folder, or a "
            "recipe and a text. Make two pictures."
        )
    if directory is not None:
        from khmer_ocr.preview.contact_sheet import contact_sheet

        print(contact_sheet(directory, output, seed=seed, **given(split=split, count=count, columns=columns)))
        return
    if recipe is None and text is None:
        raise ConfigError("preview got nothing to show: give a data set's folder, or --recipe NAME, or --text LINE")
    from khmer_ocr.preview.recipe_sheet import recipe_sheet

    of_recipe["name"] = of_recipe.pop("recipe", "basic")
    print(recipe_sheet(output=output, seed=seed, **given(count=count), **of_recipe))
