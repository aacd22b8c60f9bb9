"""Lines of one height and many widths as one value: pixels one after another, without padding.

Letters: B lines, N pixels of all lines, H rows, W columns of one line, X columns of a padded batch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from khmer_ocr_kernels.arrays import I32, I64


def line_offsets(width_B: I32, height_px: int) -> I64:
    """Where each line begins, and where the last one ends: int64 (B + 1,)."""
    offsets_B1 = np.zeros(len(width_B) + 1, np.int64)
    np.cumsum(width_B.astype(np.int64) * height_px, out=offsets_B1[1:])
    return offsets_B1


@dataclass(frozen=True, eq=False)
class RaggedLines:
    """Lines of text, dark ink on a background of 255; line b is `height_px` rows of `width_B[b]` pixels.

    Args:
        pixels_N: uint8 in one row and one piece: an array, or a tensor on any device.
        width_B: int32 array of widths in px, at least 0. It is on the host wherever the pixels are, so that nobody has
            to wait for a device to know how large anything is.
        height_px: at least 1.

    Raises:
        ValueError: another dtype or shape, or there are more or fewer pixels than the sizes say.
    """

    pixels_N: Any
    width_B: I32
    height_px: int

    def __post_init__(self) -> None:
        pixels_N, width_B = self.pixels_N, self.width_B
        object.__setattr__(self, "height_px", int(self.height_px))  # numpy's integers are nothing to a Triton kernel
        whole = pixels_N.flags.c_contiguous if isinstance(pixels_N, np.ndarray) else pixels_N.is_contiguous()
        dtype = str(pixels_N.dtype).removeprefix("torch.")
        if dtype != "uint8" or pixels_N.ndim != 1 or not whole:
            seen = f"{dtype}{tuple(pixels_N.shape)}{'' if whole else ' with gaps'}"
            raise ValueError(f"pixels_N is {seen}, expected uint8 in one row and one piece")
        if width_B.dtype != np.int32 or width_B.ndim != 1:
            raise ValueError(f"width_B is {width_B.dtype}{width_B.shape}, expected int32 in one row")
        if self.height_px < 1 or width_B.min(initial=0) < 0:
            raise ValueError(
                f"height {self.height_px} px, narrowest line {width_B.min(initial=0)} px: expected at least 1 and 0"
            )
        if len(pixels_N) != self.offsets_B1[-1]:
            raise ValueError(
                f"{len(pixels_N)} pixels; {len(width_B)} lines of these widths, {self.height_px} px high, have "
                f"{self.offsets_B1[-1]}"
            )

    @classmethod
    def of_images(cls, images: Sequence[Any]) -> "RaggedLines":
        """Put images (H, W) of one height, at least one, behind each other; all are arrays, or all are tensors."""
        width_B = np.array([image.shape[1] for image in images], np.int32)
        flat = [image.reshape(-1) for image in images]
        return cls(_joined(flat), width_B, int(images[0].shape[0]))

    @classmethod
    def of_padded(cls, images_BHX: Any, width_B: I32) -> "RaggedLines":
        """Take the padding off a batch, an array or a tensor, of lines of these widths in px."""
        if isinstance(images_BHX, np.ndarray) or not images_BHX.is_cuda:
            flat = [image[:, :width].reshape(-1) for image, width in zip(images_BHX, width_B.tolist(), strict=True)]
            return cls(_joined(flat or [images_BHX.reshape(-1)]), width_B, images_BHX.shape[1])
        import torch

        # In one go: copies of single lines would take longer to ask for than to make.
        width = torch.from_numpy(width_B).to(images_BHX.device, non_blocking=True)
        inside_BX = torch.arange(images_BHX.shape[2], device=width.device) < width[:, None]
        return cls(images_BHX[inside_BX[:, None].expand_as(images_BHX)], width_B, images_BHX.shape[1])

    @cached_property
    def offsets_B1(self) -> I64:
        """Where each line begins in `pixels_N`, and where the last one ends: int64."""
        return line_offsets(self.width_B, self.height_px)

    def __len__(self) -> int:
        return len(self.width_B)

    def image(self, line: int) -> Any:
        """Pixels (H, W) of one line, a view."""
        begin, end = self.offsets_B1[line : line + 2]
        return self.pixels_N[begin:end].reshape(self.height_px, int(self.width_B[line]))


def _joined(flat: list[Any]) -> Any:
    if isinstance(flat[0], np.ndarray):
        return np.concatenate(flat)
    import torch

    return torch.cat(flat)
