"""Report cards of faces: what each covers after shaping, how large it fits, what is wrong with it."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.preview.canvas import grid, save
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.face_metrics import UNIT_NAMES
from khmer_ocr.render.measured_faces import measure_all
from khmer_ocr.render.shaping import EM16

HEIGHT_PX = 32
SPECIMEN = "ក្ខ្យុំ ស្ត្រី កម្ពុជា ឆ្នាំ២០២៦ ញ្ញ ឡើង ព្រឹទ្ធាចារ្យ ៛១២៣៤៥៦៧៨៩០ Hamburg 0123456789 «។៖៕»"
_PICTURE_SIZE_PX = 26


def font_table(faces: Sequence[FontFace]) -> str:
    """Faces in columns: name, family, style, role, licence, file."""
    rows = [("face", "family", "style", "role", "licence", "file")]
    rows += [(f.name, f.family, f.style, f.role, f.licence, _files(f)) for f in faces]
    families = len({face.family for face in faces})
    heldout = sum(face.role == "heldout" for face in faces)
    return f"{_columns(rows)}\n\n{len(faces)} faces of {families} families; {heldout} held out of training"


def _files(face: FontFace) -> str:
    return " + ".join(file.name for file in face.files)


def _columns(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def report_card(faces: Sequence[FontFace], *, progress: bool = True) -> str:
    """Measure faces and describe them.

    Args:
        faces: the faces to judge.
        progress: show a bar while fonts not yet known are measured.

    Returns:
        One row a face (lengths in px at the largest size that fits 32 px), then the faults in words.
    """
    metrics = measure_all(faces, progress=progress)
    rows = [("face", "role", "licence", "ppem", "KA px", "stroke px", "exact by", "missing", "verdict")]
    notes = []
    for face in faces:
        m = metrics[face.name]
        if m.fatal:
            rows.append((face.name, face.role, face.licence, "", "", "", "", "", "NOT USED"))
            notes.append(f"{face.name}: {m.fatal}")
            continue
        ppem = (HEIGHT_PX - 2) * EM16 / max(m.ascent_em16 + m.descent_em16, 1)
        faults = [*m.faults, *([f"draws {' '.join(face.faulty)} wrongly (known)"] if face.faulty else [])]
        cells = (f"{ppem:.1f}", f"{m.ka_height_em16 * ppem / EM16:.1f}", f"{m.stroke_em16 * ppem / EM16:.2f}")
        verdict = "ok" if not faults else "ok, see below"
        rows.append((face.name, face.role, face.licence, *cells, UNIT_NAMES[m.unit], str(len(m.missing)), verdict))
        notes += [f"{face.name}: {fault}" for fault in faults]
    explained = "\nmissing: characters of the probe lines, after shaping; a line that needs one goes to another face"
    return _columns(rows) + "\n" + explained + ("\n\n" + "\n".join(notes) if notes else "")


def report_picture(faces: Sequence[FontFace], output: Path) -> None:
    """Draw a specimen in every face, its name before it, faces one below another.

    Args:
        faces: the faces to show; those that can't be used are left out.
        output: PNG file to write.
    """
    metrics = measure_all(faces, progress=False)
    usable = [face for face in faces if not metrics[face.name].fatal]
    renderer = LineRenderer(usable, metrics)
    writer = max(range(len(usable)), key=lambda n: -len(metrics[usable[n].name].missing))
    size64 = _PICTURE_SIZE_PX * 64
    everyone = np.arange(len(usable), dtype=np.int32)
    names = renderer.draw_at(
        [face.name for face in usable],
        np.full(len(usable), writer, np.int32),
        np.full(len(usable), 14 * 64, np.int64),
    )
    lines = renderer.draw_at([SPECIMEN] * len(usable), everyone, np.full(len(usable), size64, np.int64))
    heights = [max(name.shape[0], line.shape[0]) for name, line in zip(names, lines, strict=True)]
    names = [
        np.pad(name, (((height - len(name)) // 2, 0), (0, 0)), constant_values=255)
        for name, height in zip(names, heights, strict=True)
    ]
    sheet_HW = grid([cell for pair in zip(names, lines, strict=True) for cell in pair], 2)
    save(sheet_HW, output)
