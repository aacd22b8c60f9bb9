"""Recipes of kornia ops over ragged lines: padded batches of like widths, each op on the lines it happens to.

How lines are put into batches depends on their widths alone, so that a call gives the same bytes wherever and whenever
it is made: on one device and one version of torch, for no op draws anything and torch is held to one thread.

Letters: B lines of the call, b lines of a batch, H rows, W columns.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from khmer_ocr_kernels.arrays import I32, I64
from khmer_ocr_kernels.pad_normalize import pad_normalize
from khmer_ocr_kernels.ragged import RaggedLines
from khmer_ocr_kernels.reference import BACKGROUND
from torch import Tensor

from khmer_ocr.augment.determinism import exactly
from khmer_ocr.augment.limits import DRAWN
from khmer_ocr.augment.recipe import AugmentPlan, Recipe
from khmer_ocr.augment.torch_ops.apply import apply
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines
from khmer_ocr.io.transfer import out_of_memory, upload, warn_of_memory

BATCH_LINES, BATCH_COLUMNS = 64, 1 << 16
"""Most lines and padded columns of one batch."""


def augment_lines(
    lines: RaggedLines, recipe: Recipe, augment_plan: AugmentPlan, device: str | torch.device = "cpu"
) -> RaggedLines:
    """Apply a recipe to lines.

    Args:
        lines: a tensor is augmented where it is.
        recipe: whose steps `augment_plan` decided on.
        augment_plan: what happens to each line.
        device: where an array is augmented.

    Returns:
        The augmented lines, in memory of the kind given; some ops change widths.
    """
    if not len(lines):
        return lines
    where = torch.device(device) if isinstance(lines.pixels_N, np.ndarray) else lines.pixels_N.device
    images: list[Any] = [None] * len(lines)
    with exactly(where), torch.inference_mode():
        for batch in batches(lines.width_B):
            for i, image in zip(batch.tolist(), _augment_batch(lines, recipe, augment_plan, where, batch), strict=True):
                images[i] = image
        return RaggedLines.of_images(images)


def batches(width_B: I32) -> Iterator[I64]:
    """Numbers of lines that share a batch, by width."""
    order = np.argsort(width_B, kind="stable")
    begin = 0
    while begin < len(order):
        end = min(begin + BATCH_LINES, len(order))
        while end > begin + 1 and int(width_B[order[end - 1]]) * (end - begin) > BATCH_COLUMNS:
            end -= 1
        yield order[begin:end]
        begin = end


def _augment_batch(
    lines: RaggedLines, recipe: Recipe, augment_plan: AugmentPlan, device: torch.device, batch: I64
) -> list[Any]:
    """Image (H, W) of each augmented line."""
    try:
        augmented = augment_ink(_to_ink(lines, batch, device), recipe, augment_plan, batch)
        return _from_ink(augmented, isinstance(lines.pixels_N, np.ndarray))
    except RuntimeError as error:
        if len(batch) == 1 or not out_of_memory(error):
            raise
    # Not within `except`: an exception being handled holds on to the tensors of what failed.
    warn_of_memory(len(batch))
    halves = np.split(batch, [len(batch) // 2])
    return [image for half in halves for image in _augment_batch(lines, recipe, augment_plan, device, half)]


def _to_ink(lines: RaggedLines, batch: I64, device: torch.device) -> PaddedLines:
    width_b = lines.width_B[batch].astype(np.int64)
    grey_b1HW = pad_normalize(lines, int(width_b.max()), order_b=batch)
    if isinstance(grey_b1HW, np.ndarray):
        grey_b1HW = upload(grey_b1HW, device)
    return PaddedLines((BACKGROUND - grey_b1HW.float()).div_(BACKGROUND), upload(width_b, device))


def _from_ink(lines: PaddedLines, to_host: bool) -> list[Any]:
    grey_bHW = (1 - lines.ink_B1HW[:, 0]).mul_(BACKGROUND).round_().clamp_(0, BACKGROUND).to(torch.uint8)
    grey = grey_bHW.cpu().numpy() if to_host else grey_bHW
    ragged = RaggedLines.of_padded(grey, lines.width_B.cpu().numpy().astype(np.int32))
    return [ragged.image(line) for line in range(len(ragged))]


def augment_ink(lines: PaddedLines, recipe: Recipe, augment_plan: AugmentPlan, batch: I64) -> PaddedLines:
    """Apply a recipe to one padded batch.

    Args:
        lines: the batch, on any device; its ink is written over.
        recipe: whose steps `augment_plan` decided on.
        augment_plan: what happens to all lines of the call.
        batch: int64 (b,) numbers of these lines in `augment_plan`.

    Returns:
        The augmented batch, padded to its widest line.
    """
    device = lines.width_B.device
    key_b2 = upload(augment_plan.key_B2[batch].astype(np.int64), device)
    for step, values, active_B in zip(recipe.steps, augment_plan.values_S, augment_plan.active_SB, strict=True):
        chosen = np.flatnonzero(active_B[batch])
        if step.op in DRAWN or not len(chosen):
            continue
        at = upload(chosen, device)
        value_b = {name: upload(value_B[batch[chosen]], device) for name, value_B in values.items()}
        part = apply(step.op, _picked(lines, at), {name: value.float() for name, value in value_b.items()}, key_b2[at])
        lines = _put_back(lines, at, part)
    return lines


def _picked(lines: PaddedLines, at: Tensor) -> PaddedLines:
    width_b = lines.width_B.index_select(0, at)
    return PaddedLines(lines.ink_B1HW[..., : int(width_b.max())].index_select(0, at), width_b)


def _put_back(lines: PaddedLines, at: Tensor, part: PaddedLines) -> PaddedLines:
    """The batch with some lines replaced in place; as wide as its widest line."""
    width_B = lines.width_B.index_copy(0, at, part.width_B)
    ink_B1HW, had, columns = lines.ink_B1HW, lines.ink_B1HW.shape[3], part.ink_B1HW.shape[3]
    if columns > had:
        ink_B1HW = torch.nn.functional.pad(ink_B1HW, (0, columns - had))
    ink_B1HW[..., :columns].index_copy_(0, at, part.ink_B1HW)
    ink_B1HW[..., columns:].index_fill_(0, at, 0)
    return PaddedLines(ink_B1HW[..., : int(width_B.max())], width_B)
