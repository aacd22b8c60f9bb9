"""The run that a checkpoint folder holds already: found, not written over, replaced where that is asked."""

import re
from dataclasses import dataclass
from pathlib import Path

from khmer_ocr.errors import ModelError, RunConflictError
from khmer_ocr.io.atomic import refuse_links
from khmer_ocr.io.os_errors import output_errors
from khmer_ocr.model.weights import DESCRIPTION, WEIGHTS, read_checkpoint
from khmer_ocr.train.checkpoint import BEST, LAST

MODEL = "model"
"""Folder, in the checkpoint folder, of the weights for reading."""
_EPOCH_FILE = re.compile(r"checkpoint_epoch_\d{3,}\.pth")


@dataclass(frozen=True)
class ExistingRun:
    """What a checkpoint folder holds.

    Attributes:
        what: it in words, e.g. "a run at step 1,200".
        run_id: of the run, "" where it does not say (checkpoints of before it was recorded).
        resumable: whether `--resume last` goes on with it.
    """

    what: str
    run_id: str = ""
    resumable: bool = False


def existing_run(folder: Path) -> ExistingRun | None:
    """Look for the run whose files lie in a checkpoint folder; None where there is none."""
    last = folder / LAST
    if last.exists() or last.is_symlink():
        try:
            content = read_checkpoint(last)
            step = int(content["position"]["step"])
        except (ModelError, KeyError, TypeError, ValueError) as fault:
            return ExistingRun(f"a run whose {LAST} can't be read ({fault})")
        return ExistingRun(f"a run at step {step:,}", str(content.get("run", "")), resumable=True)
    if others := [path.name for path in run_files(folder)]:
        return ExistingRun(f"what is left of a run ({', '.join(others[:3])}{', ...' if len(others) > 3 else ''})")
    return None


def refuse_existing_run(folder: Path, resumed: Path | None, run_id: str) -> None:
    """Refuse to train where another run lies.

    Args:
        folder: the checkpoint folder.
        resumed: the checkpoint that the run goes on from; None where it begins anew.
        run_id: of the run that is to begin or go on.

    Raises:
        RunConflictError: the folder holds another run; the message says what to do.
    """
    refuse_links(folder, folder / MODEL)
    if resumed is not None and resumed.absolute().parent.resolve() == folder.resolve():
        return
    found = existing_run(folder)
    if found is None or (found.run_id and found.run_id == run_id):
        return
    if resumed is not None:
        raise RunConflictError(
            f"{folder} holds {found.what}, which {resumed} does not belong to. Go on in that run's own folder, "
            f"--checkpoint-dir {resumed.parent}, or in a new one."
        )
    go_on = "--resume last goes on with it, " if found.resumable else ""
    raise RunConflictError(
        f"{folder} holds {found.what}. {go_on}--overwrite replaces it, --checkpoint-dir ANOTHER leaves it alone."
    )


def run_files(folder: Path) -> list[Path]:
    """Files of a run in a checkpoint folder; what others put there is not among them."""
    if not folder.is_dir():
        return []
    names = sorted(path.name for path in folder.iterdir())
    files = [folder / name for name in names if name in (LAST, BEST) or _EPOCH_FILE.fullmatch(name)]
    weights = (folder / MODEL / name for name in (WEIGHTS, DESCRIPTION))
    return files + [path for path in weights if path.exists() or path.is_symlink()]


def remove_run(folder: Path) -> None:
    """Remove the files of a run from its checkpoint folder, and nothing else.

    Raises:
        OutputError: `model` is a link to elsewhere, or a file can't be removed.
    """
    refuse_links(folder, folder / MODEL)
    for path in run_files(folder):
        with output_errors(folder, then=f"{path} is of the run that is to be replaced."):
            path.unlink()
    if (folder / MODEL).is_dir() and not any((folder / MODEL).iterdir()):
        (folder / MODEL).rmdir()
