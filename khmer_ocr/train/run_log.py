"""What a run logs: one JSON object a line, TensorBoard curves and pictures, a line in the terminal."""

import json
import time
from itertools import count
from pathlib import Path
from typing import IO, Any

from khmer_ocr_kernels.arrays import F32, U8

from khmer_ocr.errors import EXTRA_OF, install_hint
from khmer_ocr.io.atomic import refuse_links
from khmer_ocr.io.json_bytes import json_bytes

METRICS = "metrics.jsonl"
_CURVES = "events.out.tfevents.*"
_BEGINNINGS = ("settings", "note")
"""Kinds of lines that describe how a run begins; they are held back until it has done something."""


class RunLog:
    """Writes `metrics.jsonl` and TensorBoard files; silent where this process is not the one that writes.

    Nothing is written before the first event. Two runs never share a log: where `folder` holds that of
    another run, this one's goes to `run_002` in it (or the next that is free), as TensorBoard likes it.

    Args:
        folder: where to, made if it does not exist; None writes nothing.
        run_id: of the run; a log that begins with it is continued.
        replaced: the run that this one replaces, whose log goes with it; None replaces none.

    Attributes:
        folder: where the log lies, once something has been written.
    """

    def __init__(self, folder: Path | None, run_id: str = "", replaced: str | None = None) -> None:
        self._base, self._run_id, self._replaced = folder, run_id, replaced
        self.folder: Path | None = None
        self._held: list[bytes] = []
        self._lines: IO[bytes] | None = None
        self._board: Any = None

    def _begin(self) -> None:
        assert self._base is not None
        self.folder, owner = _folder_for(self._base, self._run_id, self._replaced)
        refuse_links(self._base, self.folder / METRICS)
        self.folder.mkdir(parents=True, exist_ok=True)
        if owner and owner == self._replaced:
            for path in (self.folder / METRICS, *self.folder.glob(_CURVES)):
                path.unlink(missing_ok=True)
        if self.folder != self._base:
            print(f"{self._base} holds the log of another run; this one's goes to {self.folder}.", flush=True)
        self._lines = (self.folder / METRICS).open("ab")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            hint = install_hint(EXTRA_OF["tensorboard"])
            self.event("note", 0, message=f"tensorboard is not installed: no curves. {hint}")
        else:
            self._board = SummaryWriter(str(self.folder))

    def event(self, kind: str, step: int, **values: Any) -> None:
        """Note what happened at a step; numbers become curves named `kind/name`."""
        if self._base is None:
            return
        line = {"kind": kind, "step": step, "time": time.time(), **values}
        if kind == "settings":
            line["run"] = self._run_id
        self._held.append(json_bytes(line) + b"\n")
        if self._lines is None:
            if kind in _BEGINNINGS:
                return
            self._begin()
        assert self._lines is not None
        self._lines.writelines(self._held)
        self._lines.flush()
        self._held.clear()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def sample(self, step: int, number: int, pixels_HW: U8, attention_LT: F32, text: str) -> None:
        """Show a line of val: its image, where the decoder looked for each token (rows), and the texts."""
        if self._base is not None and self._lines is None:
            self._begin()
        if self._board is None:
            return
        self._board.add_image(f"val {number}/line", pixels_HW, step, dataformats="HW")
        self._board.add_image(
            f"val {number}/attention", attention_LT / max(float(attention_LT.max()), 1e-9), step, dataformats="HW"
        )
        self._board.add_text(f"val {number}/text", text, step)

    def close(self) -> None:
        """Close the files."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()


def _folder_for(base: Path, run_id: str, replaced: str | None) -> tuple[Path, str | None]:
    """Folder for a run's log, and whose log lies there: its own, that of the run it replaces, or no run's (None)."""
    for number in count(1):
        folder = base if number == 1 else base / f"run_{number:03d}"
        owner = _owner(folder / METRICS)
        if owner in (None, run_id) or (owner and owner == replaced):
            break
    return folder, owner


def _owner(metrics: Path) -> str | None:
    """Run whose log a file is: "" where it does not say (older logs), None where nothing is logged there."""
    if not metrics.is_file():
        return None
    with metrics.open(encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                row = json.loads(line)
                if row["kind"] == "settings":
                    return str(row.get("run", ""))
            except (ValueError, KeyError, TypeError):
                return ""
    return None
