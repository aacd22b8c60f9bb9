"""What to do about a data set that is incomplete or damaged, in words that can't destroy it.

Only where `generation_metadata.json` records the run that drew a split may a message propose to repair or to draw it.
Everybody else's data set comes from somewhere, and there it has to be restored from. Pieces of advice end without a
stop, since some end with a command that is copied.
"""

from functools import lru_cache
from pathlib import Path

from khmer_ocr.dataset import layout
from khmer_ocr.dataset.generation_metadata import read_overall

_HEAD_BYTES = 1 << 16
_FOREIGN = "khmer-ocr did not draw it"
_FORGOTTEN = "Nothing here says any more how it was drawn"
_OPENINGS = (". Run: ", f". {_FOREIGN}", f". {_FORGOTTEN}", ". Run the same ")


def drawn_here(root: str | Path, split: str | None = None) -> bool:
    """Whether `generation_metadata.json` records a run of ours that drew a data set, or one split of it.

    Args:
        root: the data set's root.
        split: name of a split; None asks for any.
    """
    splits = _drawn_splits(Path(root))
    return bool(splits) if split is None else split in splits


def _drawn_splits(root: Path) -> frozenset[str]:
    try:
        status = (root / layout.GENERATION_METADATA).stat()
    except (OSError, ValueError):
        return frozenset()
    # Asked for every damaged line of a split: reading it each time would cost more than finding the damage.
    return _splits_of_run(root, (status.st_mtime_ns, status.st_size, status.st_ino))


@lru_cache(maxsize=8)
def _splits_of_run(root: Path, state: tuple[int, ...]) -> frozenset[str]:
    try:
        run = read_overall(root)["run"]
        return frozenset(run["splits"]) if "normalizer" in run["versions"] else frozenset()
    except (ValueError, KeyError, TypeError):
        return frozenset()


def begun_here(root: str | Path) -> bool:
    """Whether anything in a folder shows that a run of ours wrote there: its journal, or our own keys in metadata."""
    root = Path(root)
    metadata = (root / split / layout.SPLIT_METADATA for split in layout.SPLITS)
    return _has_journal(root) or drawn_here(root) or any(map(has_our_keys, metadata))


def _has_journal(root: Path) -> bool:
    """Whether a run was begun: every process that looks leaves locks, only a run leaves more."""
    try:
        return any(not entry.name.endswith((".lock", ".holder")) for entry in (root / layout.JOURNAL).iterdir())
    except OSError:
        return False


def has_our_keys(path: Path) -> bool:
    """Whether a split's metadata, whole or cut, begins as a run of ours writes them."""
    try:
        if not path.is_file():  # a pipe of that name would never end
            return False
        with path.open("rb") as file:
            head = file.read(_HEAD_BYTES)
    except (OSError, ValueError):
        return False
    return b'"schema_version": ' in head.partition(b'"samples"')[0]


def advice_to_repair(root: str | Path, split: str | None = None) -> str:
    """Say what to do about something that is damaged or missing in a data set, once its message has named that."""
    if drawn_here(root, split):
        return f"Run: khmer-ocr verify {root} --repair"
    if _has_journal(Path(root)):
        return "Run the same `khmer-ocr generate` command again: it goes on where it stopped"
    if has_our_keys(Path(root) / split / layout.SPLIT_METADATA) if split else begun_here(root):
        return f"{_FORGOTTEN}: restore what is missing or damaged from a copy, {layout.GENERATION_METADATA} first"
    return f"{_FOREIGN}: restore what is missing or damaged from where this data set came from"


def advice_to_create(root: str | Path, split: str | None = None) -> str:
    """Say what to do where a data set, or one of its splits, is not there."""
    root = Path(root)
    if not root.exists() or drawn_here(root) or _is_empty(root):
        more = "" if split is None else f" --splits {split}"
        return f"Run: khmer-ocr generate --output-dir {root}{more}"
    name = split or layout.SPLITS[0]
    return (
        f"{_FOREIGN}: lines of your own belong in {root / name / layout.IMAGES}, their texts in "
        f"{root / name / layout.LABELS}; or name another folder or split"
    )


def _is_empty(folder: Path) -> bool:
    try:
        return next(folder.iterdir(), None) is None
    except OSError:
        return False


def advice_to_start_over(root: str | Path) -> str:
    """Say what to do where a folder that is to be written to holds something damaged."""
    if begun_here(root):
        return "Run the same command with --overwrite to draw everything again"
    return f"{_FOREIGN}: restore the file from where it came from, or choose another --output-dir"


def without_advice(message: str) -> str:
    """A message of ours without what it says there is to do, for reports that say so once."""
    for opening in _OPENINGS:
        message = message.partition(opening)[0]
    return message.removesuffix(".")
