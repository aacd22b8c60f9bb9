"""The state of a run on disk: written atomically, read without running code, enough to resume as if never stopped."""

from pathlib import Path
from typing import Any

import torch

from khmer_ocr.errors import ModelError, OutputError
from khmer_ocr.io.atomic import replacing
from khmer_ocr.io.os_errors import output_error
from khmer_ocr.model.weights import read_checkpoint

LAST, BEST = "last.pth", "best.pth"
FORMAT = 1
_KEYS = ("optimiser", "ema", "position", "config", "format")


def epoch_name(epoch: int) -> str:
    """File name after epoch `epoch`, which counts from 1, as users know it."""
    return f"checkpoint_epoch_{epoch:03d}.pth"


def write_checkpoint(path: Path, content: dict[str, Any]) -> None:
    """Write a checkpoint beside its place and move it there.

    Raises:
        OutputError: no space is left, the folder cannot be written, or a symbolic link stands there; what was there
            before is still there.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, path.parent) as partial:
            torch.save({"format": FORMAT, **content}, partial)
    except OutputError:
        raise
    except (OSError, RuntimeError) as fault:
        # torch's zip writer reports a full disk as a RuntimeError.
        raise output_error(fault, path, then="The last checkpoint written before is whole: resume from it.") from fault


def read_run(path: Path) -> dict[str, Any]:
    """Read a checkpoint to resume from.

    Raises:
        ModelError: missing, damaged, hostile, of another format, or without the state of a run.
    """
    content = read_checkpoint(path)
    if missing := [key for key in _KEYS if key not in content]:
        raise ModelError(
            f"{path} holds no run to go on with ({', '.join(missing)} missing). Begin one with --init {path}"
        )
    shapes = {"config": dict, "position": dict, "ema": dict, "optimiser": dict, "characters": list}
    if wrong := [key for key, kind in shapes.items() if type(content[key]) is not kind]:
        raise ModelError(f"{path} is damaged: {', '.join(wrong)} can't be what a run wrote. Resume from another one.")
    if content["format"] != FORMAT:
        raise ModelError(f"{path} is of format {content['format']!r}; this version goes on with format {FORMAT}.")
    return content
