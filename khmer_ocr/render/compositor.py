"""Texts and a plan to ragged lines of pixels: layout in integers, rasters from the atlas, the compose kernel.

Letters: B lines, P parts of lines (a spliced line has two), Q quads (glyphs placed), T segments, R shaped runs.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, U8, U32, U64, Bools
from khmer_ocr_kernels.compose import compose
from khmer_ocr_kernels.jit import compiled
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.errors import NoFontsError
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.io.transfer import Download, upload
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.glyph_atlas import GlyphAtlas, keys
from khmer_ocr.render.planner import WORDS, LinePlan, Planner
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.render.shaping_cache import ShapingCache
from khmer_ocr.render.splice import splice

if TYPE_CHECKING:
    import torch

    from khmer_ocr.render.device_atlas import DeviceAtlas


@compiled
def _lay_out(
    runs_T: I32, offsets_B1: I64, glyph_span_R2: I32, advance_R: I32, glyph_G: I32, place_G2: I32, size64_B: I64
) -> tuple[I64, I64, I64, I32, I64]:
    """Glyph, size and phase of every quad, its pixel place from the line's pen origin, and each line's first quad."""
    total = 0
    for run in runs_T:
        total += glyph_span_R2[run, 1] - glyph_span_R2[run, 0]
    glyph_Q, size64_Q = np.empty(total, np.int64), np.empty(total, np.int64)
    phase_Q, place_Q2 = np.empty(total, np.int64), np.empty((total, 2), np.int32)
    quad_offsets_B1 = np.zeros(len(offsets_B1), np.int64)
    q = 0
    for b in range(len(offsets_B1) - 1):
        size64, pen = size64_B[b], np.int64(0)
        for t in range(offsets_B1[b], offsets_B1[b + 1]):
            run = runs_T[t]
            for g in range(glyph_span_R2[run, 0], glyph_span_R2[run, 1]):
                # 1/65536 em x 26.6 size = 2**22 units a pixel; quarter pixels, rounded half up.
                x_q2 = ((pen + place_G2[g, 0]) * size64 + (1 << 19)) >> 20
                y_q2 = (place_G2[g, 1] * size64 + (1 << 19)) >> 20
                glyph_Q[q], size64_Q[q] = glyph_G[g], size64
                phase_Q[q] = (x_q2 & 3) | ((y_q2 & 3) << 2)
                place_Q2[q, 0], place_Q2[q, 1] = x_q2 >> 2, y_q2 >> 2
                q += 1
            pen += advance_R[run]
        quad_offsets_B1[b + 1] = q
    return glyph_Q, size64_Q, phase_Q, place_Q2, quad_offsets_B1


@compiled
def _shift_to_ink(
    place_Q2: I32, entry_Q: I32, quad_offsets_B1: I64, entries_E5: I32, left_B: I32, right_B: I32
) -> tuple[I32, I32]:
    """Quads measured from the line's left edge, margin included, and each line's width."""
    quads_Q3 = np.empty((len(entry_Q), 3), np.int32)
    width_B = np.empty(len(left_B), np.int32)
    for b in range(len(left_B)):
        low, high = np.int64(1 << 40), np.int64(-(1 << 40))
        for q in range(quad_offsets_B1[b], quad_offsets_B1[b + 1]):
            entry = entry_Q[q]
            if entries_E5[entry, 1]:
                x = np.int64(place_Q2[q, 0]) + entries_E5[entry, 3]
                low, high = min(low, x), max(high, x + entries_E5[entry, 1])
        if high < low:
            low = high = np.int64(0)
        width_B[b] = high - low + left_B[b] + right_B[b]
        for q in range(quad_offsets_B1[b], quad_offsets_B1[b + 1]):
            quads_Q3[q, 0] = entry_Q[q]
            quads_Q3[q, 1] = place_Q2[q, 0] - low + left_B[b]
            quads_Q3[q, 2] = place_Q2[q, 1]
    return quads_Q3, width_B


class LineRenderer:
    """Draws batches of lines with a fixed set of faces.

    Args:
        faces: the faces; their order matters to nothing but their numbers.
        metrics: by face name, from `measured_faces.measure_all`; faces with `fatal` must be left out before.
        config: how to draw.
        atlas_dir: folder where rasters are kept between runs; None keeps nothing.
        device: "cpu" draws arrays; "cuda", or any device of torch's, draws tensors there. The bytes are the same.
    """

    def __init__(
        self,
        faces: Sequence[FontFace],
        metrics: dict[str, FaceMetrics],
        config: RenderConfig | None = None,
        atlas_dir: Path | None = None,
        device: "str | torch.device" = "cpu",
    ) -> None:
        if not faces:
            raise NoFontsError("No Khmer fonts found: a renderer needs at least one face. Run: khmer-ocr fonts install")
        self.faces, self.config = list(faces), config or RenderConfig()
        measured = [metrics[face.name] for face in faces]
        bad = [face.faulty + m.malformed + m.cramped for face, m in zip(faces, measured, strict=True)]
        self.shaping_cache = ShapingCache(faces, [m.unit for m in measured], bad)
        # A folder per height: the sizes of other runs would only be read to be thrown away.
        folder = atlas_dir / f"{self.config.image_height}px" if atlas_dir else None
        self.atlas = GlyphAtlas(faces, self.shaping_cache.glyph_base, folder)
        self.planner = Planner(faces, measured, self.config, self.shaping_cache)
        self._device_atlas = None if device == "cpu" else _device_atlas(device)

    def plan(self, texts: Sequence[str], address_B: U64, key_2: U32) -> LinePlan:
        """Choose face, size and place of each line from its address.

        Args:
            texts: normalised lines that passed `planner.rejections`.
            address_B: uint64 sample numbers or text hashes.
            key_2: from `rng.key(seed, split, "plan")`.
        """
        return self.planner.choose(texts, rng.draws(key_2, address_B, WORDS))

    def draw(self, texts: Sequence[str], plan: LinePlan) -> RaggedLines:
        """Draw lines as planned.

        Args:
            texts: the lines of the plan.
            plan: from `plan`.

        Returns:
            The lines, tensors where the renderer is on a device.

        Raises:
            AssertionError: ink fell outside an image: a fault of ours, never of the input.
        """
        lines, clipped_B = self.submit(texts, plan)
        self.refuse_clipped(texts, plan, Download(clipped_B).take())
        return lines

    def submit(
        self, texts: Sequence[str], plan: LinePlan, second_P: Bools | None = None
    ) -> "tuple[RaggedLines, I64 | torch.Tensor]":
        """`draw` without waiting for a device.

        Args:
            texts: the lines of the plan.
            plan: from `plan`.
            second_P: true for texts that are the second part of a spliced line (`splice.splice`); there are then fewer
                lines than texts. None: every text is a line.

        Returns:
            The lines, and int64 counts (B,) for `refuse_clipped`, on the device.

        Raises:
            torch.cuda.OutOfMemoryError: the device has no room for so many lines at once.
        """
        return self._compose(texts, plan, self.config.image_height, self._device_atlas, second_P)

    def refuse_clipped(self, texts: Sequence[str], plan: LinePlan, clipped_B: I64) -> None:
        """Raise AssertionError if ink of a batch fell outside an image.

        Args:
            texts: the lines of the plan.
            plan: from `plan`.
            clipped_B: how many ink pixels of each line.
        """
        if clipped_B.any():
            worst = int(clipped_B.argmax())
            raise AssertionError(
                f"{clipped_B[worst]} ink pixels of {texts[worst]!r} in {self.faces[plan.face_B[worst]].name} "
                f"at {plan.size64_B[worst] / 64} ppem fell outside the image"
            )

    def draw_at(self, texts: Sequence[str], face_B: I32, size64_B: I64, margin_px: int = 2) -> list[U8]:
        """Draw lines in given faces at given sizes on the CPU, each as high as it needs, even with glyphs missing.

        Args:
            texts: B normalised lines; a character that a face does not have becomes its `.notdef`.
            face_B: int32 numbers of faces.
            size64_B: int64 sizes in 26.6 ppem.
            margin_px: background left and right of the ink.

        Returns:
            uint8 images (height, width), dark ink on white background.
        """
        shaped = self.shaping_cache.look_up(texts, face_B)
        seen = self.shaping_cache.measure(shaped)
        above_B = np.maximum(self.planner.ascent_px(seen.ascent_L, face_B, size64_B), 1)
        below_B = np.maximum(self.planner.ascent_px(seen.descent_L, face_B, size64_B), 0)
        margin_B, baseline = np.full(len(texts), margin_px, np.int32), int(above_B.max(initial=1))
        plan = LinePlan(face_B, size64_B, np.full(len(texts), baseline, np.int32), margin_B, margin_B, shaped)
        lines, _ = self._compose(texts, plan, baseline + int(below_B.max(initial=0)))
        rows = zip((baseline - above_B).tolist(), (baseline + below_B).tolist(), strict=True)
        return [lines.image(line)[top:end] for line, (top, end) in enumerate(rows)]

    def _compose(
        self,
        texts: Sequence[str],
        plan: LinePlan,
        height_px: int,
        device_atlas: "DeviceAtlas | None" = None,
        second_P: Bools | None = None,
    ) -> "tuple[RaggedLines, I64 | torch.Tensor]":
        """The lines, drawn on the CPU or where the device's atlas is, and how many of their ink pixels fell outside."""
        cache, atlas = self.shaping_cache, self.atlas
        shaped = cache.look_up(texts, plan.face_B, plan.shaped)
        tables = (cache.glyph_span_R2, cache.advance_R, cache.glyph_G, cache.place_G2)
        glyph_Q, size64_Q, phase_Q, place_Q2, quad_offsets_B1 = _lay_out(
            shaped.runs_T, shaped.offsets_L1, *tables, plan.size64_B
        )
        entry_Q = atlas.entries_of(keys(glyph_Q, size64_Q, phase_Q), np.unique(plan.face_B).tolist())
        margins = (plan.left_B, plan.right_B)
        quads_Q3, width_B = _shift_to_ink(place_Q2, entry_Q, quad_offsets_B1, atlas.entries_E5, *margins)
        baseline_B = plan.baseline_B
        if second_P is not None:
            quads_Q3, quad_offsets_B1, baseline_B, width_B = splice(
                quads_Q3, quad_offsets_B1, baseline_B, width_B, second_P
            )
        layout = (quads_Q3, quad_offsets_B1, baseline_B)
        if device_atlas is None:
            return compose(*layout, width_B, atlas.pixels_N, atlas.entries_E5, height_px)
        device_atlas.sync(atlas, int(entry_Q.max(initial=-1)) + 1)
        quads, starts, baselines = (upload(array, device_atlas.device) for array in layout)
        return compose(quads, starts, baselines, width_B, device_atlas.pixels_N, device_atlas.entries_E5, height_px)


def _device_atlas(device: "str | torch.device") -> "DeviceAtlas":
    import torch

    from khmer_ocr.render.device_atlas import DeviceAtlas

    return DeviceAtlas(torch.device(device))
