"""Recipes on the fly: batches on their way to a model, augmented where they lie, every epoch in another way.

Letters: B lines of the batch, H rows, W columns of the widest line.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.arrays import F64
from khmer_ocr_kernels.pad_normalize import pad_normalize, to_unit
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND
from torch import Tensor

from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.determinism import exactly
from khmer_ocr.augment.recipe import Recipe
from khmer_ocr.dataset import layout
from khmer_ocr.errors import ConfigError

STROKE_PX, STROKE_HEIGHT_PX = 1.4, 32
"""Stroke thickness of unknown faces, in px at a height in px. Lines of the sample corpus, drawn at 32 px in the 72
faces that the catalogue installs for training, have a median of 1.49 (regular weights 1.45); augmenting
too little spoils no letter."""


class BatchAugmenter:
    """Augments training batches by a recipe.

    What comes out is a pure function of seed, epoch and batch: nothing is drawn from torch's generators, and a line of
    a recipe of fused kernels doesn't even depend on the rest of its batch or on the device.

    Args:
        recipe: what may happen to a line.
        seed: of all random numbers.
        device: where batches are moved to and augmented; None augments them where they are.

    Raises:
        ConfigError: the recipe needs kornia, and it is not installed.
    """

    def __init__(self, recipe: Recipe, seed: int = 42, device: str | torch.device | None = None) -> None:
        self.recipe, self.seed = recipe, seed
        self.device = None if device is None else torch.device(device)
        self._augmenter, self._seen_floats = Augmenter(recipe, seed), False
        # A table, as devices do not divide alike.
        grey_256 = torch.arange(256, dtype=torch.uint8)
        self._tables = {torch.uint8: grey_256, torch.float32: to_unit(grey_256)}

    def __call__(
        self,
        images_B1HW: Tensor,
        width_B: Tensor,
        index_B: Tensor | Sequence[int],
        epoch: int,
        stroke_px_B: F64 | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Augment a batch.

        Args:
            images_B1HW: uint8 with background 255, or float32 in 0..1 (rounded to 255 levels, as files are);
                what is beyond a line's width does not matter.
            width_B: integer widths in px; kept on the host they need not be waited for.
            index_B: number of each sample in the split.
            epoch: from 0; part of the address of the random numbers.
            stroke_px_B: float64 thickness of each line's strokes in px, which bounds how far ink spreads, thins and
                blurs; None takes `STROKE_PX`.

        Returns:
            Images of the dtype given, padded with background to the widest, each value k or k / 255; and their int64
            widths on the device of width_B. Some recipes change widths.

        Raises:
            ConfigError: another dtype or shape, widths beyond the images, a negative number.
        """
        width = torch.as_tensor(width_B).cpu().numpy()
        index = torch.as_tensor(index_B).cpu().numpy()
        _check_batch(images_B1HW, width, index, epoch)
        device = self.device or images_B1HW.device
        if not len(width):
            return images_B1HW.to(device), width_B.long()
        if stroke_px_B is None:
            stroke_px_B = np.full(len(width), STROKE_PX * images_B1HW.shape[2] / STROKE_HEIGHT_PX)
        elif stroke_px_B.shape != width.shape:
            raise ConfigError(
                f"stroke_px_B has shape {stroke_px_B.shape}; expected a thickness for each of {len(width)}"
            )
        augment_plan = self._augmenter.decide(
            layout.AUGMENTED_SPLIT, index.astype(np.uint64), stroke_px_B, f"augment/epoch {epoch}"
        )
        with torch.no_grad(), exactly(device):
            grey_BHW = self._to_grey(images_B1HW[:, 0].to(device))
            # On the host by numba, which takes arrays.
            grey: Any = grey_BHW if grey_BHW.is_cuda else grey_BHW.numpy()
            lines = self._augmenter.apply(RaggedLines.of_padded(grey, width.astype(np.int32)), augment_plan)
            table_256 = self._tables[images_B1HW.dtype].to(device)
            images = pad_normalize(
                lines, int(lines.width_B.max()), table_256 if grey_BHW.is_cuda else table_256.numpy()
            )
        return torch.as_tensor(images), torch.from_numpy(lines.width_B.astype(np.int64)).to(width_B.device)

    def _to_grey(self, images_BHW: Tensor) -> Tensor:
        if images_BHW.dtype == torch.uint8:
            return images_BHW
        if not self._seen_floats:
            # Only once: on a GPU it has to be waited for, and a pipeline that is wrong is wrong from the beginning.
            low, high = (float(end) for end in images_BHW.aminmax())
            if not (low >= 0 and high <= 1):
                raise ConfigError(
                    f"the images hold values from {low:g} to {high:g}; expected 0 (black) to 1 (background). Augment "
                    "lines before they are normalised."
                )
            self._seen_floats = True
        return (images_BHW * BACKGROUND).round_().to(torch.uint8)


def _check_batch(
    images_B1HW: Tensor, width_B: npt.NDArray[np.integer], index_B: npt.NDArray[np.integer], epoch: int
) -> None:
    shape, dtype = tuple(images_B1HW.shape), images_B1HW.dtype
    if dtype not in (torch.uint8, torch.float32) or len(shape) != 4 or shape[1] != 1:
        raise ConfigError(
            f"images are {dtype} {shape}; expected uint8 or float32 of shape (B, 1, H, W): lines are grey"
        )
    for name, number_B in (("width_B", width_B), ("index_B", index_B)):
        if number_B.shape != shape[:1] or (number_B.size and number_B.dtype.kind not in "iu"):
            raise ConfigError(
                f"{name} is {number_B.dtype} {number_B.shape}; expected a whole number for each of {shape[0]}"
            )
    if shape[0] and not 0 < width_B.min() <= width_B.max() <= shape[3]:
        raise ConfigError(
            f"widths run from {width_B.min()} to {width_B.max()} px; expected 1 to {shape[3]}, the images'"
        )
    if epoch < 0 or index_B.min(initial=0) < 0:
        raise ConfigError(f"epoch is {epoch}, the lowest index {index_B.min(initial=0)}; expected 0 or more")
