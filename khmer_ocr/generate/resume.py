"""What becomes of what an output folder holds already: gone on with, refused, or cleared away."""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.metadata import read_header
from khmer_ocr.dataset.repair_advice import begun_here, has_our_keys
from khmer_ocr.errors import DatasetError, OutputError, RunConflictError
from khmer_ocr.generate import split_text
from khmer_ocr.generate.finalise import complete_splits, read_overall, write_overall
from khmer_ocr.generate.fingerprint import NORMAL_FORM, as_known, renormalised_lines
from khmer_ocr.generate.journal import Journal, differences
from khmer_ocr.generate.split_text import SplitText
from khmer_ocr.io.atomic import partial_of, remove_file

log = logging.getLogger(__name__)
RECORDED_ROOT = "output_dir"
"""Key of `run.json`: the folder as it was first given, which the metadata carry wherever the folder is mounted."""
_DIFFERENCES_SHOWN = 20
_ANY = 1 << 62
"""As many samples as a split may have had where nothing says how many."""


def merged(
    known: dict[str, Any], identity: dict[str, Any], texts: Mapping[str, SplitText]
) -> tuple[dict[str, Any], list[str]]:
    """The identity of a run that goes on, with all its splits, and in what it differs from the one known."""
    identity = as_known(known, identity, texts.values())
    splits = {**known.get("splits", {}), **identity["splits"]}
    whole = {**identity, "splits": {name: splits[name] for name in layout.SPLITS if name in splits}}
    before = {key: value for key, value in known.items() if key != RECORDED_ROOT}
    same_splits = {name: splits[name] for name in before.get("splits", {}) if name in splits}
    return whole, differences(before, {**whole, "splits": same_splits})


def is_complete(journal: Journal, identity: dict[str, Any], texts: Mapping[str, SplitText]) -> bool:
    """Whether all that a run asks for stands there, made the same way, and nobody is at work."""
    if journal.leftovers():
        return False
    expected = set(identity["splits"])
    try:
        known = journal.known_run()
        if known is None or not expected <= set(complete_splits(journal.root)) or merged(known, identity, texts)[1]:
            return False
        for name in sorted(expected):
            read_header(journal.root / name / layout.SPLIT_METADATA)
    except (OutputError, DatasetError) as damage:
        log.debug("%s; `take_over` decides what becomes of it", damage)
        return False
    return True


def take_over(
    journal: Journal,
    identity: dict[str, Any],
    texts: Mapping[str, SplitText],
    root_as_given: str,
    *,
    overwrite: bool,
) -> str:
    """Decide under the journal's exclusive lock how to go on, and record it in the journal.

    Args:
        journal: of the output folder.
        identity: what the run is made of.
        texts: what it draws, by split.
        root_as_given: the output folder as the user wrote it.
        overwrite: replace what can't be gone on with.

    Returns:
        The output folder as the metadata carry it.

    Raises:
        RunConflictError: the folder holds something else, and `overwrite` is not set.
        OutputError, DatasetError: what it holds is damaged, and `overwrite` is not set.
    """
    known, overall = None, dict[str, Any]()
    run, gone = identity, set[str]()
    try:
        known, overall = journal.known_run(), read_overall(journal.root)
    except OutputError as damage:
        if not overwrite or not begun_here(journal.root):
            raise
        log.warning("%s; everything is drawn again", damage)
        known, gone = None, set(layout.SPLITS)
    if known is not None:
        run, different = merged(known, identity, texts)
        if different and not overwrite and not _is_bare(journal):
            note = _note_on_lines(known, identity, texts)
            raise RunConflictError(_conflict(journal.root, different, note))
        if all(line.startswith("  splits.") for line in different):
            gone = {line.split(".")[1] for line in different}
        else:
            gone, run = set(layout.SPLITS), identity
    ours = _stored_by_us(journal, known or {})
    gone |= _unaccounted(journal, ours, (known or {}).get("splits", {}), identity, overwrite=overwrite)
    if overall:
        gone |= _damaged(journal, identity, overwrite=overwrite)
    recorded = (known or {}).get(RECORDED_ROOT) or overall.get("generation_config", {}).get("output_dir")
    if gone:
        _clear(journal, {name: ours[name] for name in gone & ours.keys()}, whole=gone >= set(layout.SPLITS))
    recorded = recorded if recorded and run is not identity else root_as_given
    journal.begin({**run, RECORDED_ROOT: recorded})
    return str(recorded)


def _is_bare(journal: Journal) -> bool:
    """Whether a run was begun and stored nothing: it was stopped early, say, or no line of its text can be drawn."""
    stored = any(split_text.stored_anything(journal.root, name) for name in layout.SPLITS)
    return not stored and not (journal.root / layout.GENERATION_METADATA).exists() and journal.is_alone()


def _note_on_lines(known: dict[str, Any], identity: dict[str, Any], texts: Mapping[str, SplitText]) -> str:
    """Say how many lines a newer normal form concerns, where that is why a run can't go on."""
    before = known.get("versions")
    version = before.get(NORMAL_FORM) if isinstance(before, dict) else None
    lines = renormalised_lines(version, texts.values())
    if not lines:
        return ""
    return (
        f"\n{lines:,} of the lines to be drawn are written otherwise in normal form {identity['versions'][NORMAL_FORM]}"
        f" than in {version}. A data set without such lines would have gone on."
    )


def _conflict(root: Path, different: list[str], note: str = "") -> str:
    shown = different[:_DIFFERENCES_SHOWN]
    if len(shown) < len(different):
        shown.append(f"  ... and {len(different) - len(shown)} more")
    return (
        f"{root} holds a run of another configuration:\n"
        + "\n".join(shown)
        + note
        + "\nChoose another --output-dir, or give --overwrite to replace it."
    )


def _stored_by_us(journal: Journal, known: Mapping[str, Any]) -> dict[str, int]:
    """Splits that a run of ours drew or began to draw, and how many samples each may have, by what the run left."""
    recorded, cleared = known.get("splits", {}), journal.half_cleared()
    found = {}
    for name in layout.SPLITS:
        facts, metadata = recorded.get(name), journal.root / name / layout.SPLIT_METADATA
        if isinstance(facts, dict) and type(facts.get("lines")) is int:
            found[name] = facts["lines"]
        elif name in cleared:
            found[name] = cleared[name]
        elif (journal.folder / name).is_dir() or has_our_keys(metadata):
            found[name] = _ANY
    return found


def _unaccounted(
    journal: Journal, ours: Mapping[str, int], known: Mapping[str, Any], identity: dict[str, Any], *, overwrite: bool
) -> set[str]:
    """Splits to be drawn whose folders hold something that no run here accounts for."""
    names = {
        name for name in identity["splits"] if name not in known and split_text.stored_anything(journal.root, name)
    }
    what = f"{journal.root} holds images of {{}} that no run here accounts for."
    if foreign := sorted(names - ours.keys()):
        raise RunConflictError(
            f"{what.format(', '.join(foreign))} They are somebody's and stay, with --overwrite too: "
            "choose another --output-dir, or move them away."
        )
    if names and not overwrite:
        raise RunConflictError(
            f"{what.format(', '.join(sorted(names)))} Choose another --output-dir, or give --overwrite to replace them."
        )
    return names


def _damaged(journal: Journal, identity: dict[str, Any], *, overwrite: bool) -> set[str]:
    """Complete splits to be drawn again, since their metadata are not whole."""
    names = set()
    for name in sorted(complete_splits(journal.root).keys() & identity["splits"].keys()):
        try:
            read_header(journal.root / name / layout.SPLIT_METADATA)
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
    journal.clear_begins(ours)
    if whole:
        remove_file(root, overall_file)
    elif overall := read_overall(root):
        kept = {name: facts for name, facts in overall["splits"].items() if name not in ours}
        run = overall.get("run")
        if isinstance(run, dict):
            splits = {name: facts for name, facts in run.get("splits", {}).items() if name not in ours}
            overall["run"] = {**run, "splits": splits}
        write_overall(root, overall, kept)
    for name in sorted(ours):
        for file in (root / name / layout.SPLIT_METADATA, overall_file):
            partial_of(file).unlink(missing_ok=True)
        remove_file(root, root / name / layout.SPLIT_METADATA)
        journal.forget(name)
        if split_text.stored_anything(root, name):
            log.info("removing what %s holds of %s", root, name)
        split_text.remove_split(root, name, ours[name])
    journal.cleared()
