"""Images put together on a white sheet, and the one way to write a picture."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from khmer_ocr.io.atomic import replacing
from khmer_ocr.io.os_errors import output_errors

MARGIN_PX = 10
WIDEST_PX = 900
"""A line or label is cut at this width on a sheet; stored lines are not touched."""

Grey = npt.NDArray[np.uint8]


def paste(sheet_HW: Grey, image_HW: Grey, top: int, left: int) -> None:
    """Put an image on a sheet where it belongs, darkest wins."""
    height, width = image_HW.shape
    place = sheet_HW[top : top + height, left : left + width]
    np.minimum(place, image_HW, out=place)


def stack(parts: Sequence[Grey]) -> Grey:
    """Put images (height, width) one below another; wider ones are cut at `WIDEST_PX`."""
    parts = [part[:, :WIDEST_PX] for part in parts]
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
    height, width = sum(heights) + MARGIN_PX * (len(rows) + 1), sum(widths) + 2 * MARGIN_PX * (len(widths) + 1)
    sheet_HW = np.full((height, width), 255, np.uint8)
    top = MARGIN_PX
    for row, row_height in zip(rows, heights, strict=True):
        left = 2 * MARGIN_PX
        for cell, cell_width in zip(row, widths, strict=False):
            paste(sheet_HW, cell, top, left)
            left += cell_width + 2 * MARGIN_PX
        top += row_height + MARGIN_PX
    return sheet_HW


def save(sheet: Image.Image | Grey, output: Path) -> None:
    """Write a picture, as PNG unless the file's name ends with another format's suffix.

    Raises:
        OutputError: it can't be written.
    """
    image = sheet if isinstance(sheet, Image.Image) else Image.fromarray(sheet)
    with output_errors(output, "give a .png file in a folder that exists"), replacing(output) as partial:
        image.save(partial, format=Image.registered_extensions().get(output.suffix.lower(), "PNG"))
