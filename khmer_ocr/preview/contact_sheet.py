"""Contact sheets: stored lines as they are, each with its label below, drawn in a face that can."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from khmer_ocr import rng
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.errors import ConfigError, OutputError
from khmer_ocr.fonts.discovery import find_faces
from khmer_ocr.preview.font_card import paste
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import measure_all

LABEL_FACE = "NotoSansKhmer-Regular"
_LABEL_SIZE_PX = 15
NOTE_SIZE_PX = 11
_MARGIN_PX = 10
_LABEL_GREY = 110
_WIDEST_PX = 900
"""A line or label is cut at this width on the sheet; stored lines are not touched."""

Grey = npt.NDArray[np.uint8]


def contact_sheet(
    directory: Path, output: Path, *, split: str = "train", count: int = 24, columns: int = 2, seed: int = 0
) -> str:
    """Draw samples of a split picked at random, in order, with number, label and face.

    Args:
        directory: the data set's folder.
        output: PNG file to write.
        split: which split.
        count: how many samples, all if there are fewer.
        columns: samples side by side.
        seed: another seed picks other samples.

    Returns:
        A sentence that says what was drawn.

    Raises:
        ConfigError: count or columns below 1.
        DatasetError: a sample can't be read.
        OutputError: the picture can't be written.
    """
    if count < 1 or columns < 1:
        raise ConfigError(f"count is {count} and columns is {columns}; expected 1 or more of each")
    index = load_index(directory, split)
    order = rng.draws(rng.key(seed, split, "preview"), np.arange(len(index), dtype=np.uint64), 1)[:, 0]
    picked = np.sort(np.argsort(order, kind="stable")[:count]).tolist()
    cells = [stack([index.image(i), *labels]) for i, labels in zip(picked, _labels(index, picked), strict=True)]
    sheet_HW = grid(cells, columns)
    save(sheet_HW, output)
    return f"{output}: {len(picked)} of {len(index):,} {split} samples, {sheet_HW.shape[1]} x {sheet_HW.shape[0]} px"


def _labels(index: SplitIndex, picked: list[int]) -> list[tuple[Grey, Grey]]:
    """For each sample its label, and a line with its number and face."""
    writer = Writer()
    texts = writer.write([index.text(i) for i in picked], _LABEL_SIZE_PX)
    notes = writer.write([f"{index.filename(i)}  {index.font(i)}" for i in picked], NOTE_SIZE_PX)
    return list(zip(texts, notes, strict=True))


class Writer:
    """Writes labels in a face that is always there."""

    def __init__(self) -> None:
        faces = find_faces([LABEL_FACE])
        self._renderer = LineRenderer(faces, measure_all(faces))

    def write(self, texts: Sequence[str], size_px: int) -> list[Grey]:
        """Draw labels, grey, so that none is taken for a sample.

        Args:
            texts: what they say.
            size_px: size of the letters.

        Returns:
            Images (height, width), each as high as its ink.
        """
        lines = [_drawable(self._renderer, text) for text in texts]
        face_B = np.zeros(len(lines), np.int32)
        images = self._renderer.draw_at(lines, face_B, np.full(len(lines), size_px * 64, np.int64))
        return [_tint(image) for image in images]


def _drawable(renderer: LineRenderer, text: str) -> str:
    """The text with characters missing in the label's face as code points, and bytes that are no UTF-8 escaped."""
    text = text.encode("utf-8", "backslashreplace").decode()
    if renderer.planner.rejections([text])[0] == 0:
        return text
    spelled = "".join(c if renderer.planner.rejections([c])[0] == 0 or c == " " else f"<U+{ord(c):04X}>" for c in text)
    return spelled if renderer.planner.rejections([spelled])[0] == 0 else ascii(text)


def _tint(image_HW: Grey) -> Grey:
    """Make black ink grey."""
    return (255 - (255 - image_HW.astype(np.int32)) * (255 - _LABEL_GREY) // 255).astype(np.uint8)


def stack(parts: Sequence[Grey], widest_px: int = _WIDEST_PX) -> Grey:
    """Put images one below another.

    Args:
        parts: images (height, width).
        widest_px: wider ones are cut.
    """
    parts = [part[:, :widest_px] for part in parts]
    cell_HW = np.full((sum(part.shape[0] for part in parts), max(part.shape[1] for part in parts)), 255, np.uint8)
    top = 0
    for part in parts:
        paste(cell_HW, part, top, 0)
        top += part.shape[0]
    return cell_HW


def grid(cells: Sequence[Grey], columns: int) -> Grey:
    """Put images side by side in columns as wide as their widest, row by row.

    Args:
        cells: images (height, width).
        columns: cells of a row.
    """
    rows = [cells[start : start + columns] for start in range(0, len(cells), columns)]
    widths = [max(row[n].shape[1] for row in rows if n < len(row)) for n in range(min(columns, len(cells)))]
    heights = [max(cell.shape[0] for cell in row) for row in rows]
    height, width = sum(heights) + _MARGIN_PX * (len(rows) + 1), sum(widths) + 2 * _MARGIN_PX * (len(widths) + 1)
    sheet_HW = np.full((height, width), 255, np.uint8)
    top = _MARGIN_PX
    for row, row_height in zip(rows, heights, strict=True):
        left = 2 * _MARGIN_PX
        for cell, cell_width in zip(row, widths, strict=False):
            paste(sheet_HW, cell, top, left)
            left += cell_width + 2 * _MARGIN_PX
        top += row_height + _MARGIN_PX
    return sheet_HW


def save(sheet_HW: Grey, output: Path) -> None:
    """Write a picture.

    Args:
        sheet_HW: the picture.
        output: PNG file.

    Raises:
        OutputError: it can't be written.
    """
    try:
        Image.fromarray(sheet_HW).save(output)
    except (OSError, ValueError) as error:
        raise OutputError(f"{output} can't be written ({error}). Give a .png file in a folder that exists.") from error
