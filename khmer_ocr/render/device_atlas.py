"""The atlas where a GPU draws: its rasters are sent there once and stay.

Letters: E entries, N pixels, K new entries.
"""

from typing import Any

import numpy.typing as npt
import torch
from torch import Tensor

from khmer_ocr.io.transfer import pinned
from khmer_ocr.render.glyph_atlas import GlyphAtlas


class DeviceAtlas:
    """Copy of an atlas on a device, brought up to date before each batch.

    Args:
        device: any device of torch's.

    Attributes:
        pixels_N: uint8 coverage of rasters, and free space behind it.
        entries_E5: int32 rows (offset, width, height, left, top), and free space behind them.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.pixels_N = torch.empty(0, dtype=torch.uint8, device=device)
        self.entries_E5 = torch.empty((0, 5), dtype=torch.int32, device=device)
        self._of: tuple[GlyphAtlas | None, int] = (None, 0)
        self._used_bytes = self._count = 0

    def sync(self, atlas: GlyphAtlas, count: int) -> None:
        """Send what the first entries of an atlas need and is not there yet; all of it once the atlas was emptied.

        Args:
            atlas: what to copy.
            count: how many of its entries.

        Raises:
            torch.cuda.OutOfMemoryError: the device has no memory left; what was there before still is.
        """
        if self._of != (atlas, atlas.cleared):
            self._of, self._used_bytes, self._count = (atlas, atlas.cleared), 0, 0
        new_K5 = atlas.entries_E5[self._count : count]
        if not len(new_K5):
            return
        # An atlas adds at its ends only, pixels before entries: up to here all pixels are there, and stay as they are.
        used_bytes = max(self._used_bytes, int((new_K5[:, 0] + new_K5[:, 1] * new_K5[:, 2]).max()))
        self.pixels_N = _with(self.pixels_N, self._used_bytes, atlas.pixels_N[self._used_bytes : used_bytes])
        self.entries_E5 = _with(self.entries_E5, self._count, new_K5)
        self._used_bytes, self._count = used_bytes, count


def _with(held: Tensor, used: int, new: npt.NDArray[Any]) -> Tensor:
    """Rows held so far with new ones after the first `used`, in at least twice the space where they do not fit."""
    needed = used + len(new)
    if needed > len(held):
        grown = torch.empty((max(needed, 2 * len(held)), *held.shape[1:]), dtype=held.dtype, device=held.device)
        grown[:used] = held[:used]
        held = grown
    held[used:needed].copy_(pinned(new, held.device), non_blocking=True)
    return held
