"""Which face, size, baseline and margins a sample gets, and which lines no face can draw: decided before any pixel.

Policy (measured on real lines): a face's largest size lets the 99.5th percentile of its ink fit the image; samples take
one of a few steps in 0.8-1.0 of it; a line too tall for its step takes a smaller one, then another face; what no face
can draw is rejected and counted. The check is exact arithmetic on glyph boxes, rounded outwards: nothing is clipped.

Letters: B lines, F faces, S size steps, N random words.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, U8, U32, Bools

from khmer_ocr import rng
from khmer_ocr.fonts.discovery import FontFace
from khmer_ocr.render.face_metrics import FaceMetrics
from khmer_ocr.render.glyph_table import BROKEN, MISSING, NO_INK, OVERDRAWN
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.render.shaping import EM16
from khmer_ocr.render.shaping_cache import LineExtents, ShapedLines, ShapingCache, joined

# Steps below the chosen ones, for lines too tall for 0.8: a small line is better than a lost one.
RESCUE_STEPS = (0.6, 0.7)
# Crop "mixed": sizes beyond a face's usual largest, for lines that leave room. Few, so that rasters are used again.
TALL_STEPS = (1.2, 1.45, 1.75, 2.1)
RANDOM_ATTEMPTS = 8
WORDS = 4 + 2 * RANDOM_ATTEMPTS
# A quarter-pixel phase rounds by up to 1/8 px (8/64) and FreeType's scaled outline by up to 1/64 px.
_SLACK_26_6 = 8 + 2
# Scripts that run from right to left or need shaping of their own: here every script but Khmer is set letter by letter.
_UNSUPPORTED = re.compile(
    "[\u0590-\u109f\u1100-\u11ff\u1700-\u177f\u1800-\u18af\u1900-\u19df\u1a00-\u1c7f\u1cd0-\u1cff\ua800-\ua8ff"
    "\ua930-\ua9ff\uaa00-\uaadf\uabc0-\uabff\ud7b0-\ud7ff\ufb1d-\ufdff\ufe70-\ufefc\U00010800-\U00011fff]"
)

REASONS = (
    "",
    "empty",
    "too_long",
    "unsupported_script",
    "broken_syllable",
    "missing_glyph",
    "no_ink",
    "too_tall",
    "too_wide",
    "drawn_over_itself",
)
"""Why a line is rejected, by number; 0 is a line that can be drawn."""


@dataclass(frozen=True, slots=True)
class LinePlan:
    """How each of B lines is drawn: face number, size (26.6), baseline row, margins in px; its shaped runs if known."""

    face_B: I32
    size64_B: I64
    baseline_B: I32
    left_B: I32
    right_B: I32
    shaped: ShapedLines | None = None


class Planner:
    """Chooses for a fixed set of faces.

    Args:
        faces: the run's faces.
        metrics: their measurements.
        config: how to draw.
        cache: the shaping cache of the same faces.
    """

    def __init__(
        self, faces: Sequence[FontFace], metrics: Sequence[FaceMetrics], config: RenderConfig, cache: ShapingCache
    ) -> None:
        self.config, self.cache = config, cache
        height_px = config.image_height - 2
        shares = [*RESCUE_STEPS, *np.linspace(config.min_size, 1.0, config.size_steps)]
        largest = [64 * height_px * EM16 / (m.ascent_em16 + m.descent_em16) for m in metrics]
        self.size64_FS = np.array([[int(size * share) for share in shares] for size in largest], np.int64)
        self._ascent_F = np.array([m.ascent_em16 for m in metrics], np.int64)
        self._descent_F = np.array([m.descent_em16 for m in metrics], np.int64)
        self._slack_F = np.array([m.slack_em16 for m in metrics], np.int64)
        families = sorted({face.family for face in faces})
        members = [[n for n, face in enumerate(faces) if face.family == family] for family in families]
        self._member_FM = np.array([[m[k % len(m)] for k in range(max(map(len, members)))] for m in members], np.int32)
        self._members_F = np.array([len(m) for m in members], np.int64)
        self._by_coverage = sorted(range(len(faces)), key=lambda n: (len(metrics[n].missing), -self.size64_FS[n, 0], n))

    def ascent_px(self, ascent_B: I64, face_B: I32, size64_B: I64) -> I64:
        """Rows that ink may take above the baseline (or, given descents, below it), rounded outwards."""
        scaled = -(-(ascent_B + self._slack_F[face_B]) * size64_B // EM16)
        return -(-(scaled + _SLACK_26_6) // 64)

    def _width_px(self, advance_B: I64, size64_B: I64) -> I64:
        return (advance_B * size64_B // EM16) // 64 + 2 * self.config.max_margin + self.config.image_height

    def _fits(self, seen: LineExtents, face_B: I32, size64_B: I64) -> Bools:
        tall = self.ascent_px(seen.ascent_L, face_B, size64_B) + self.ascent_px(seen.descent_L, face_B, size64_B)
        fits_height = tall <= self.config.image_height
        return fits_height & (self._width_px(seen.advance_L, size64_B) <= self.config.max_width)

    def rejections(self, texts: Sequence[str]) -> U8:
        """Say for each line whether any face can draw it at any size.

        Args:
            texts: normalised lines.

        Returns:
            uint8 (B,) numbers of `REASONS`, 0 for lines that can be drawn.
        """
        reason_B = np.array([self._text_fault(text) for text in texts], np.uint8)
        pending = np.flatnonzero(reason_B == 0)
        worst = np.full(len(texts), REASONS.index("missing_glyph"), np.uint8)
        for face in self._by_coverage:
            if not len(pending):
                break
            face_B = np.full(len(pending), face, np.int32)
            seen = self.cache.measure(self.cache.look_up([texts[n] for n in pending.tolist()], face_B))
            broken = (seen.flags_L & BROKEN) > 0
            covered = (seen.flags_L & MISSING) == 0
            overdrawn = (seen.flags_L & OVERDRAWN) > 0
            inked = seen.ascent_L > NO_INK
            small_B = self.size64_FS[face_B, 0]
            narrow = self._width_px(seen.advance_L, small_B) <= self.config.max_width
            drawable = covered & ~overdrawn & inked & self._fits(seen, face_B, small_B)
            reason_B[pending[broken]] = REASONS.index("broken_syllable")
            worst[pending[covered & ~inked]] = REASONS.index("no_ink")
            worst[pending[covered & inked & narrow]] = REASONS.index("too_tall")
            worst[pending[covered & inked & ~narrow]] = REASONS.index("too_wide")
            worst[pending[covered & overdrawn]] = REASONS.index("drawn_over_itself")
            pending = pending[~(drawable | broken)]
        reason_B[pending] = worst[pending]
        return reason_B

    def _text_fault(self, text: str) -> int:
        if not text:
            return REASONS.index("empty")
        if len(text) > self.config.max_chars:
            return REASONS.index("too_long")
        return REASONS.index("unsupported_script") if _UNSUPPORTED.search(text) else 0

    def choose(self, texts: Sequence[str], words_BN: U32) -> LinePlan:
        """Choose how lines are drawn; every line must have passed `rejections`.

        Args:
            texts: B normalised lines.
            words_BN: uint32 (B, WORDS), random words of each line's own address.

        Returns:
            The plan.

        Raises:
            ValueError: a line can't be drawn by any face.
        """
        lines = len(texts)
        face_B, step_B, place_B = np.full(lines, -1, np.int32), np.zeros(lines, np.int64), np.zeros(lines, np.int64)
        top = len(RESCUE_STEPS) + rng.below(words_BN[:, 0], self.config.size_steps)
        pending, tried, tried_lines = np.arange(lines), list[ShapedLines](), 0
        for attempt in range(RANDOM_ATTEMPTS + len(self._by_coverage)):
            if not len(pending):
                break
            tried_B = self._face_of_attempt(attempt, words_BN[pending])
            tried.append(self.cache.look_up([texts[n] for n in pending.tolist()], tried_B))
            seen = self.cache.measure(tried[-1])
            usable = ((seen.flags_L & (BROKEN | MISSING | OVERDRAWN)) == 0) & (seen.ascent_L > NO_INK)
            largest = np.full(len(pending), -1, np.int64)
            for step in range(self.size64_FS.shape[1]):
                fits = usable & (step <= top[pending]) & self._fits(seen, tried_B, self.size64_FS[tried_B, step])
                largest[fits] = step
            done = largest >= 0
            at = pending[done]
            face_B[at], step_B[at], place_B[at] = tried_B[done], largest[done], tried_lines + np.flatnonzero(done)
            tried_lines += len(pending)
            pending = pending[~done]
        if len(pending):
            raise ValueError(f"no face draws {texts[pending[0]]!r}; ask `rejections` before `choose`")
        size64_B = self.size64_FS[face_B, step_B]
        shaped = self.cache.look_up(texts, face_B, joined(tried).take(place_B))
        seen = self.cache.measure(shaped)
        if self.config.crop == "tight":
            size64_B = self._tight(seen, face_B, size64_B)
        elif self.config.crop == "mixed":
            size64_B = self._taller(seen, face_B, size64_B, words_BN[:, 3])
        return self._place(seen, shaped, face_B, size64_B, words_BN)

    def _face_of_attempt(self, attempt: int, words_BN: U32) -> I32:
        """A random family and a random face of it; after some attempts all faces in the order of their coverage."""
        if attempt >= RANDOM_ATTEMPTS:
            return np.full(len(words_BN), self._by_coverage[attempt - RANDOM_ATTEMPTS], np.int32)
        family_B = rng.below(words_BN[:, 4 + 2 * attempt], len(self._members_F))
        member_B = rng.below(words_BN[:, 5 + 2 * attempt], self._members_F[family_B])
        chosen: I32 = self._member_FM[family_B, member_B]
        return chosen

    def _tight(self, seen: LineExtents, face_B: I32, size64_B: I64) -> I64:
        """The largest half ppem at which the line's own ink fits, up to 1.5 x its face's size."""
        tight_B = size64_B * 3 // 2 // 32 * 32
        while True:
            high = ~self._fits(seen, face_B, tight_B) & (tight_B > size64_B)
            if not high.any():
                return np.maximum(tight_B, size64_B)
            tight_B = np.where(high, tight_B - 32, tight_B)

    def _taller(self, seen: LineExtents, face_B: I32, size64_B: I64, word_B: U32) -> I64:
        """Half the lines as they are; the others at the largest of some first `TALL_STEPS` at which their ink fits.

        The word's upper bits choose a margin, so its lower 16 choose here.
        """
        steps_B = (word_B & 0xFFFF).astype(np.int64) * 2 * len(TALL_STEPS) >> 16
        for number, share in enumerate(TALL_STEPS):
            tall_B = (self.size64_FS[face_B, -1] * share).astype(np.int64)
            fits_B = (number < steps_B - len(TALL_STEPS) + 1) & self._fits(seen, face_B, tall_B)
            size64_B = np.where(fits_B, tall_B, size64_B)
        return size64_B

    def _place(self, seen: LineExtents, shaped: ShapedLines, face_B: I32, size64_B: I64, words_BN: U32) -> LinePlan:
        """Baseline: where the face's usual line is centred, moved at random, never so far that ink is cut."""
        height = self.config.image_height
        usual_top = self.ascent_px(self._ascent_F[face_B], face_B, size64_B)
        usual_low = self.ascent_px(self._descent_F[face_B], face_B, size64_B)
        reach = math.ceil(self.config.baseline_jitter * height / 32)
        jitter = rng.below(words_BN[:, 1], 2 * reach + 1) - reach
        centred_B = (height - usual_top - usual_low) // 2 + usual_top + jitter
        highest = self.ascent_px(seen.ascent_L, face_B, size64_B)
        lowest = height - self.ascent_px(seen.descent_L, face_B, size64_B)
        margin_choices = self.config.max_margin - self.config.min_margin + 1
        return LinePlan(
            face_B=face_B,
            size64_B=size64_B,
            baseline_B=np.minimum(np.maximum(centred_B, highest), lowest).astype(np.int32),
            left_B=(self.config.min_margin + rng.below(words_BN[:, 2], margin_choices)).astype(np.int32),
            right_B=(self.config.min_margin + rng.below(words_BN[:, 3], margin_choices)).astype(np.int32),
            shaped=shaped,
        )
