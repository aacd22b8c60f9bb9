"""Recipes of kornia ops over ragged lines: padded batches of like widths, each op on the lines it happens to.

How lines are put into batches depends on their widths alone, so that a call gives the same bytes wherever and whenever
it is made: on one device and one version of torch, for no op draws anything and torch is held to one thread.

Letters: B lines of the call, b lines of a batch, H rows, W columns, N pixels.
"""

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from khmer_ocr.augment.kornia_ops import apply
from khmer_ocr.augment.lines import Lines
from khmer_ocr.augment.recipe import Recipe, Wear

log = logging.getLogger(__name__)
BATCH_LINES, BATCH_COLUMNS = 64, 1 << 16
"""Most lines and padded columns of one batch."""
PAPER = 255


@contextmanager
def one_thread() -> Iterator[None]:
    """Hold torch to one thread: sums are then added in one order on every machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def wear_lines(
    pixels_N: npt.NDArray[np.uint8],
    width_B: npt.NDArray[np.int32],
    height_px: int,
    recipe: Recipe,
    wear: Wear,
    device: str = "cpu",
) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int32]]:
    """Apply a recipe to ragged lines.

    Args:
        pixels_N: uint8 pixels of all lines, paper 255.
        width_B: int32 widths in px.
        height_px: height of every line.
        recipe: whose steps `wear` decided on.
        wear: what happens to each line.
        device: where torch works.

    Returns:
        uint8 pixels of all lines, and their int32 widths: some ops change them.
    """
    begin_B = np.cumsum(width_B.astype(np.int64) * height_px) - width_B.astype(np.int64) * height_px
    images: list[npt.NDArray[np.uint8]] = [np.zeros((0, 0), np.uint8)] * len(width_B)
    with one_thread(), torch.inference_mode():
        for batch in batches(width_B):
            lines = [
                pixels_N[begin_B[i] : begin_B[i] + width_B[i] * height_px].reshape(height_px, -1)
                for i in batch.tolist()
            ]
            for i, image in zip(batch.tolist(), _wear_batch(lines, recipe, wear, batch, device), strict=True):
                images[i] = image
    flat = [image.ravel() for image in images]
    return np.concatenate(flat) if flat else pixels_N[:0], np.array([image.shape[1] for image in images], np.int32)


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


def _wear_batch(
    lines: list[npt.NDArray[np.uint8]], recipe: Recipe, wear: Wear, batch: npt.NDArray[np.int64], device: str
) -> list[npt.NDArray[np.uint8]]:
    try:
        return _to_images(wear_ink(_to_ink(lines, device), recipe, wear, batch))
    except torch.cuda.OutOfMemoryError:
        if len(batch) == 1:
            raise
        torch.cuda.empty_cache()
        _say_once(len(batch))
        half = len(batch) // 2
        return _wear_batch(lines[:half], recipe, wear, batch[:half], device) + _wear_batch(
            lines[half:], recipe, wear, batch[half:], device
        )


_said = set[str]()


def _say_once(lines: int) -> None:
    if not _said:
        log.warning(
            "The GPU has no memory for %d lines at once: the batch is halved. Lines that show pieces of their "
            "neighbours may differ from those of a larger GPU. Fewer --workers leave more memory to each.",
            lines,
        )
        _said.add("memory")


def _to_ink(lines: list[npt.NDArray[np.uint8]], device: str) -> Lines:
    widths = [line.shape[1] for line in lines]
    paper_BHW = np.full((len(lines), lines[0].shape[0], max(widths)), PAPER, np.uint8)
    for row_HW, line_HW in zip(paper_BHW, lines, strict=True):
        row_HW[:, : line_HW.shape[1]] = line_HW
    pixels_BHW = torch.from_numpy(paper_BHW).to(device)
    ink_B1HW = (PAPER - pixels_BHW.float()).div_(PAPER).unsqueeze(1)
    return Lines(ink_B1HW, torch.tensor(widths, device=device))


def _to_images(lines: Lines) -> list[npt.NDArray[np.uint8]]:
    grey_BHW = (1 - lines.ink_B1HW[:, 0]).mul_(PAPER).round_().clamp_(0, PAPER).to(torch.uint8).cpu().numpy()
    return [grey_HW[:, :width] for grey_HW, width in zip(grey_BHW, lines.width_B.tolist(), strict=True)]


def wear_ink(lines: Lines, recipe: Recipe, wear: Wear, batch: npt.NDArray[np.int64]) -> Lines:
    """Apply a recipe to one padded batch.

    Args:
        lines: the batch, on any device.
        recipe: whose steps `wear` decided on.
        wear: what happens to all lines of the call.
        batch: int64 (b,) numbers of these lines in `wear`.

    Returns:
        The worn batch, padded to its widest line.
    """
    device = lines.width_B.device
    key_b2 = torch.from_numpy(wear.key_B2[batch].astype(np.int64)).to(device)
    for step, values, active_B in zip(recipe.steps, wear.values_S, wear.active_SB, strict=True):
        chosen = np.flatnonzero(active_B[batch])
        if not len(chosen):
            continue
        at = torch.from_numpy(chosen).to(device)
        value_b = {name: torch.from_numpy(value_B[batch[chosen]]).to(device) for name, value_B in values.items()}
        part = apply(step.op, _picked(lines, at), {name: value.float() for name, value in value_b.items()}, key_b2[at])
        lines = _put_back(lines, at, part)
    return lines


def _picked(lines: Lines, at: Tensor) -> Lines:
    width_b = lines.width_B[at]
    return Lines(lines.ink_B1HW[at, :, :, : int(width_b.max())], width_b)


def _put_back(lines: Lines, at: Tensor, part: Lines) -> Lines:
    """The batch with some lines replaced; as wide as its widest line."""
    width_B = lines.width_B.clone()
    width_B[at] = part.width_B
    widest, columns = int(width_B.max()), part.ink_B1HW.shape[3]
    ink_B1HW = torch.nn.functional.pad(lines.ink_B1HW, (0, max(columns, widest) - lines.ink_B1HW.shape[3]))
    ink_B1HW[at] = 0
    ink_B1HW[at, :, :, :columns] = part.ink_B1HW
    return Lines(ink_B1HW[..., :widest], width_B)
