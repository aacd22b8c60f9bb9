"""What a run tells: one JSON object a line, TensorBoard curves and pictures, a line in the terminal."""

import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from khmer_ocr.errors import EXTRA_OF, install_hint
from khmer_ocr.io.json_bytes import json_bytes

METRICS = "metrics.jsonl"


class RunLog:
    """Writes `metrics.jsonl` and TensorBoard files; silent where this process is not the one that writes.

    Args:
        folder: where to, made if it does not exist; None writes nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self._lines: Any = None
        self._board: Any = None
        if folder is None:
            return
        folder.mkdir(parents=True, exist_ok=True)
        self._lines = (folder / METRICS).open("ab")
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            hint = install_hint(EXTRA_OF["tensorboard"])
            self.event("note", 0, message=f"tensorboard is not installed: no curves. {hint}")
        else:
            self._board = SummaryWriter(str(folder))

    def event(self, kind: str, step: int, **values: Any) -> None:
        """Note what happened at a step; numbers become curves named `kind/name`."""
        if self._lines is not None:
            self._lines.write(json_bytes({"kind": kind, "step": step, "time": time.time(), **values}) + b"\n")
            self._lines.flush()
        if self._board is not None:
            for name, value in values.items():
                if isinstance(value, int | float):
                    self._board.add_scalar(f"{kind}/{name}", value, step)

    def sample(
        self, step: int, number: int, pixels_HW: npt.NDArray[np.uint8], look_LT: npt.NDArray[np.float32], text: str
    ) -> None:
        """Show a line of val: its image, where the decoder looked for each token (rows), and the texts."""
        if self._board is None:
            return
        self._board.add_image(f"val {number}/line", pixels_HW, step, dataformats="HW")
        self._board.add_image(
            f"val {number}/attention", look_LT / max(float(look_LT.max()), 1e-9), step, dataformats="HW"
        )
        self._board.add_text(f"val {number}/text", text, step)

    def close(self) -> None:
        """Close the files."""
        if self._lines is not None:
            self._lines.close()
        if self._board is not None:
            self._board.close()
