"""What becomes of what an output folder holds already, split by split: gone on with, refused, or cleared away."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.metadata import read_header
from khmer_ocr.dataset.metadata_writer import write_overall
from khmer_ocr.dataset.repair_advice import begun_here, has_our_keys
from khmer_ocr.errors import DatasetError, OutputError, RunConflictError
from khmer_ocr.generate import split_text
from khmer_ocr.generate.fingerprint import NORMAL_FORM, as_known, renormalised_lines
from khmer_ocr.generate.journal import RECORDED_ROOT, Journal, by_split, complete_splits, read_overall
from khmer_ocr.generate.split_text import SplitText
from khmer_ocr.io.atomic import partial_of, remove_file
from khmer_ocr.io.run_record import differences

log = logging.getLogger(__name__)
Runs = dict[str, dict[str, Any]]
"""Run records by the split that each is of; those of one folder differ in nothing else."""
_DIFFERENCES_SHOWN = 20
_ANY = 1 << 62
"""As many samples as a split may have had where nothing says how many."""


def _compared(known: Runs, run: dict[str, Any], texts: Mapping[str, SplitText]) -> tuple[dict[str, Any], list[str]]:
    """A run with the versions that a folder's was begun with, and in what it differs from what is known of its splits.

    Splits that it does not draw, and those that nothing is known of, don't count.
    """
    if not known:
        return run, []
    first = next(iter(known.values()))
    run = as_known(first, run, texts.values())
    before = {key: value for key, value in first.items() if key != RECORDED_ROOT}
    before["splits"] = {name: known[name]["splits"][name] for name in run["splits"] if name in known}
    return run, differences(before, {**run, "splits": {name: run["splits"][name] for name in before["splits"]}})


def is_complete(journal: Journal, run: dict[str, Any], texts: Mapping[str, SplitText]) -> bool:
    """Whether all that a run asks for stands there, made the same way, and no process writes there."""
    if journal.leftovers():
        return False
    try:
        known = by_split(read_overall(journal.root).get("run"))
        if not known or not run["splits"].keys() <= complete_splits(journal.root).keys():
            return False
        if _compared(known, run, texts)[1]:
            return False
        for name in sorted(run["splits"]):
            read_header(journal.root / name / layout.SPLIT_METADATA)
    except (OutputError, DatasetError) as damage:
        log.debug("%s; `resume` decides what becomes of it", damage)
        return False
    return True


def resume(
    journal: Journal, run: dict[str, Any], texts: Mapping[str, SplitText], root_as_given: str, *, overwrite: bool
) -> Runs:
    """Decide under the journal's exclusive lock how each split goes on, and record it in the journal.

    Args:
        journal: of the output folder.
        run: what is to be drawn; see `fingerprint`.
        texts: by split.
        root_as_given: the output folder as the user wrote it.
        overwrite: replace what can't be gone on with.

    Returns:
        The records of the splits that are not complete.

    Raises:
        RunConflictError: the folder holds something else, and `overwrite` is not set.
        OutputError, DatasetError: what it holds is damaged, and `overwrite` is not set.
    """
    overall, known, gone = dict[str, Any](), Runs(), set[str]()
    try:
        overall = read_overall(journal.root)
        known = by_split(overall.get("run")) | journal.under_way()
    except OutputError as damage:
        if not overwrite or not begun_here(journal.root):
            raise
        log.warning("%s; everything is drawn again", damage)
        overall, gone = {}, set(layout.SPLITS)
    as_begun, different = _compared(known, run, texts)
    if different:
        if not overwrite and not _is_bare(journal):
            note = _note_on_lines(next(iter(known.values())), run, texts)
            raise RunConflictError(_conflict(journal.root, different, note))
        of_splits = all(line.startswith("splits.") for line in different)
        gone = {line.split(".")[1] for line in different} if of_splits else set(layout.SPLITS)
    ours = _stored_by_us(journal, known)
    gone |= _unaccounted(journal.root, ours, known, run, overwrite=overwrite)
    if overall:
        gone |= _damaged(journal.root, run, overwrite=overwrite)
    anew = gone >= set(layout.SPLITS)
    if gone:
        _clear(journal, {name: ours[name] for name in gone & ours.keys()}, whole=anew)
    recorded = [root for each in known.values() if (root := each.get(RECORDED_ROOT))]
    recorded += [root for root in [overall.get("generation_config", {}).get("output_dir")] if root and known]
    root = root_as_given if anew or not recorded else str(recorded[0])
    complete = complete_splits(journal.root)
    begun = {name: each for name, each in journal.under_way().items() if name not in gone | complete.keys()}
    to_draw = by_split({**(run if anew else as_begun), RECORDED_ROOT: root})
    to_draw = {name: each for name, each in to_draw.items() if name not in complete}
    journal.begin(begun | to_draw)
    for name in complete:
        journal.forget(name)
    return to_draw


def _is_bare(journal: Journal) -> bool:
    """Whether a run was begun and stored nothing: it was stopped early, say, or no line of its text can be drawn."""
    stored = any(split_text.stored_anything(journal.root, name) for name in layout.SPLITS)
    return not stored and not (journal.root / layout.GENERATION_METADATA).exists() and journal.is_alone()


def _note_on_lines(known: dict[str, Any], run: dict[str, Any], texts: Mapping[str, SplitText]) -> str:
    """Say how many lines a newer normal form concerns, where that is why a run can't go on."""
    before = known.get("versions")
    version = before.get(NORMAL_FORM) if isinstance(before, dict) else None
    lines = renormalised_lines(version, texts.values())
    if not lines:
        return ""
    return (
        f"\n{lines:,} of the lines to be drawn are written otherwise in normal form {run['versions'][NORMAL_FORM]}"
        f" than in {version}. A data set without such lines would have gone on."
    )


def _conflict(root: Path, different: list[str], note: str = "") -> str:
    shown = [f"  {line}" for line in different[:_DIFFERENCES_SHOWN]]
    if len(shown) < len(different):
        shown.append(f"  ... and {len(different) - len(shown)} more")
    return (
        f"{root} holds a run of another configuration:\n"
        + "\n".join(shown)
        + note
        + "\nChoose another --output-dir, or give --overwrite to replace it."
    )


def _stored_by_us(journal: Journal, known: Runs) -> dict[str, int]:
    """Splits that a run of ours drew or began to draw, and how many samples each may have, by what the run left."""
    cleared, found = journal.half_cleared(), dict[str, int]()
    for name in layout.SPLITS:
        facts = known[name]["splits"][name] if name in known else None
        if isinstance(facts, dict) and type(facts.get("lines")) is int:
            found[name] = facts["lines"]
        elif name in cleared:
            found[name] = cleared[name]
        elif (journal.folder / name).is_dir() or has_our_keys(journal.root / name / layout.SPLIT_METADATA):
            found[name] = _ANY
    return found


def _unaccounted(root: Path, ours: Mapping[str, int], known: Runs, run: dict[str, Any], *, overwrite: bool) -> set[str]:
    """Splits to be drawn whose folders hold something that no run here accounts for."""
    names = {name for name in run["splits"] if name not in known and split_text.stored_anything(root, name)}
    what = f"{root} holds images of {{}} that no run here accounts for."
    if foreign := sorted(names - ours.keys()):
        raise RunConflictError(
            f"{what.format(', '.join(foreign))} They belong to somebody else and stay, with --overwrite too: "
            "choose another --output-dir, or move them away."
        )
    if names and not overwrite:
        raise RunConflictError(
            f"{what.format(', '.join(sorted(names)))} Choose another --output-dir, or give --overwrite to replace them."
        )
    return names


def _damaged(root: Path, run: dict[str, Any], *, overwrite: bool) -> set[str]:
    """Complete splits to be drawn again, since their metadata are not whole."""
    names = set()
    for name in sorted(complete_splits(root).keys() & run["splits"].keys()):
        try:
            read_header(root / name / layout.SPLIT_METADATA)
        except DatasetError as damage:
            if not overwrite:
                raise
            log.warning("%s; the split is drawn again", damage)
            names.add(name)
    return names


def _clear(journal: Journal, ours: Mapping[str, int], *, whole: bool) -> None:
    """Remove splits. What calls them complete goes first: killed half-way, nothing claims what is no longer there.

    Args:
        journal: of the output folder.
        ours: the splits, each with the number of samples that a run of ours may have stored.
        whole: no split stays complete.
    """
    root = journal.root
    overall_file = root / layout.GENERATION_METADATA
    with journal.clearing(ours):
        if whole:
            remove_file(root, overall_file)
            journal.begin({})
        elif overall := read_overall(root):
            write_overall(root, overall, {name: facts for name, facts in overall["splits"].items() if name not in ours})
        for name in sorted(ours):
            for file in (root / name / layout.SPLIT_METADATA, overall_file):
                partial_of(file).unlink(missing_ok=True)
            remove_file(root, root / name / layout.SPLIT_METADATA)
            journal.forget(name)
            if split_text.stored_anything(root, name):
                log.info("removing what %s holds of %s", root, name)
            split_text.remove_split(root, name, ours[name])
