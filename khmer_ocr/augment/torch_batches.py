"""Recipes of kornia ops over ragged lines: padded batches of like widths, each op on the lines it happens to.

How lines are put into batches depends on their widths alone, so that a call gives the same bytes wherever and whenever
it is made: on one device and one version of torch, for no op draws anything and torch is held to one thread.

Letters: B lines of the call, b lines of a batch, H rows, W columns, N pixels.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from khmer_ocr_kernels.reference import BACKGROUND, line_offsets
from torch import Tensor

from khmer_ocr.augment.determinism import exactly
from khmer_ocr.augment.limits import DRAWN
from khmer_ocr.augment.recipe import AugmentPlan, Recipe
from khmer_ocr.augment.torch_ops.apply import apply
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines
from khmer_ocr.io.transfer import out_of_memory, upload, warn_of_memory

_Pixels = TypeVar("_Pixels", npt.NDArray[np.uint8], Tensor)
BATCH_LINES, BATCH_COLUMNS = 64, 1 << 16
"""Most lines and padded columns of one batch."""


@dataclass(frozen=True)
class _Call:
    """What one call of `augment_lines` is about."""

    pixels_N: Any
    begin_B: npt.NDArray[np.int64]
    width_B: npt.NDArray[np.int32]
    height_px: int
    recipe: Recipe
    augment_plan: AugmentPlan
    device: torch.device


def augment_lines(
    pixels_N: _Pixels,
    width_B: npt.NDArray[np.int32],
    height_px: int,
    recipe: Recipe,
    augment_plan: AugmentPlan,
    device: str | torch.device = "cpu",
) -> tuple[_Pixels, npt.NDArray[np.int32]]:
    """Apply a recipe to ragged lines.

    Args:
        pixels_N: uint8 pixels of all lines, background 255; a tensor is augmented where it is.
        width_B: int32 widths in px.
        height_px: height of every line.
        recipe: whose steps `augment_plan` decided on.
        augment_plan: what happens to each line.
        device: where an array is augmented.

    Returns:
        uint8 pixels of all lines, of the kind given, and their int32 widths: some ops change them.
    """
    where = torch.device(device) if isinstance(pixels_N, np.ndarray) else pixels_N.device
    call = _Call(pixels_N, line_offsets(width_B, height_px)[:-1], width_B, height_px, recipe, augment_plan, where)
    lines: list[Any] = [pixels_N[:0]] * len(width_B)
    with exactly(where), torch.inference_mode():
        for batch in batches(width_B):
            for i, line in zip(batch.tolist(), _augment_batch(call, batch), strict=True):
                lines[i] = line
        widths_B = np.array([len(line) // height_px for line in lines], np.int32)
        if not lines:
            return pixels_N, widths_B
        return np.concatenate(lines) if isinstance(pixels_N, np.ndarray) else torch.cat(lines), widths_B


def batches(width_B: npt.NDArray[np.int32]) -> Iterator[npt.NDArray[np.int64]]:
    """Numbers of lines that share a batch, by width."""
    order = np.argsort(width_B, kind="stable")
    begin = 0
    while begin < len(order):
        end = min(begin + BATCH_LINES, len(order))
        while end > begin + 1 and int(width_B[order[end - 1]]) * (end - begin) > BATCH_COLUMNS:
            end -= 1
        yield order[begin:end]
        begin = end


def _augment_batch(call: _Call, batch: npt.NDArray[np.int64]) -> list[Any]:
    """Pixels of each augmented line, row by row."""
    try:
        return _from_ink(augment_ink(_to_ink(call, batch), call.recipe, call.augment_plan, batch), call)
    except RuntimeError as error:
        if len(batch) == 1 or not out_of_memory(error):
            raise
    # Not within `except`: an exception being handled holds on to the tensors of what failed.
    warn_of_memory(len(batch))
    half = len(batch) // 2
    return _augment_batch(call, batch[:half]) + _augment_batch(call, batch[half:])


def _to_ink(call: _Call, batch: npt.NDArray[np.int64]) -> PaddedLines:
    width_b = upload(call.width_B[batch].astype(np.int64), call.device)
    pad = _padded_array if isinstance(call.pixels_N, np.ndarray) else _padded_tensor
    ink_B1HW = (BACKGROUND - pad(call, batch).float()).div_(BACKGROUND).unsqueeze(1)
    return PaddedLines(ink_B1HW, width_b)


def _padded_array(call: _Call, batch: npt.NDArray[np.int64]) -> Tensor:
    """uint8 (b, H, W) on the call's device."""
    width_b = call.width_B[batch]
    grey_bHW = np.full((len(batch), call.height_px, int(width_b.max())), BACKGROUND, np.uint8)
    for row_HW, begin, width in zip(grey_bHW, call.begin_B[batch].tolist(), width_b.tolist(), strict=True):
        row_HW[:, :width] = call.pixels_N[begin : begin + call.height_px * width].reshape(call.height_px, width)
    return upload(grey_bHW, call.device)


def _padded_tensor(call: _Call, batch: npt.NDArray[np.int64]) -> Tensor:
    """The same as `_padded_array` in one gather: copies of single lines would take longer to ask for than to make."""
    width_b = call.width_B[batch].astype(np.int64)
    column_W = torch.arange(int(width_b.max()), device=call.device)
    row_H1 = torch.arange(call.height_px, device=call.device).view(-1, 1)
    begin_b11, width_b11 = (upload(array, call.device).view(-1, 1, 1) for array in (call.begin_B[batch], width_b))
    place_bHW = (begin_b11 + row_H1 * width_b11 + column_W).clamp_(max=len(call.pixels_N) - 1)
    return torch.where(column_W < width_b11, call.pixels_N[place_bHW], BACKGROUND)


def _from_ink(lines: PaddedLines, call: _Call) -> list[Any]:
    grey_bHW = (1 - lines.ink_B1HW[:, 0]).mul_(BACKGROUND).round_().clamp_(0, BACKGROUND).to(torch.uint8)
    widths = lines.width_B.tolist()
    if isinstance(call.pixels_N, np.ndarray):
        return [grey_HW[:, :width].ravel() for grey_HW, width in zip(grey_bHW.cpu().numpy(), widths, strict=True)]
    inside_bHW = lines.inside()[:, 0].expand_as(grey_bHW)
    return list(grey_bHW[inside_bHW].split([width * call.height_px for width in widths]))


def augment_ink(
    lines: PaddedLines, recipe: Recipe, augment_plan: AugmentPlan, batch: npt.NDArray[np.int64]
) -> PaddedLines:
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
