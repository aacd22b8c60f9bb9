"""Contact sheets: stored lines as they are, each with its label below, drawn in a face that can."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from khmer_ocr import rng
from khmer_ocr.dataset.index import load_index
from khmer_ocr.dataset.reader import SplitIndex
from khmer_ocr.errors import ConfigError
from khmer_ocr.fonts.discovery import find_faces
from khmer_ocr.preview.canvas import Grey, grid, save, stack
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import measure_all

LABEL_FACE = "NotoSansKhmer-Regular"
_LABEL_SIZE_PX = 15
NOTE_SIZE_PX = 11
_LABEL_GREY = 110


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
