"""Every op of a recipe by its name, as batched torch and kornia, on any device.

Nothing here draws a parameter: the caller does, and passes one value a line. A line comes out the same, up to the
rounding of float32 (well below 1/255), alone and in any batch, unless its op looks at other lines of the batch.

Letters: b lines, H rows, W columns.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from khmer_ocr.augment.limits import LIMITS
from khmer_ocr.augment.torch_ops import camera, geometry, ink, optics, paper, surroundings
from khmer_ocr.augment.torch_ops.padded_lines import PaddedLines
from khmer_ocr.errors import ConfigError

__all__ = ["OPS", "PaddedLines", "apply"]

Op = Callable[[PaddedLines, Mapping[str, Tensor], Tensor], PaddedLines]


OPS: Mapping[str, Op] = {
    "underline": surroundings.underline,
    "morphology": ink.morphology,
    "patchy_ink": ink.patchy_ink,
    "toner_fade": ink.toner_fade,
    "geometry": geometry.geometry,
    "neighbour_lines": surroundings.neighbour_lines,
    "table_rules": surroundings.table_rules,
    "bleed_through": surroundings.bleed_through,
    "blur": optics.blur,
    "defocus": optics.defocus,
    "motion_blur": optics.motion_blur,
    "resolution_loss": optics.resolution_loss,
    "contrast": paper.contrast,
    "paper_texture": paper.paper_texture,
    "uneven_light": paper.uneven_light,
    "blobs": paper.blobs,
    "speckle": paper.speckle,
    "noise": camera.noise,
    "threshold": camera.threshold,
    "jpeg": camera.jpeg,
}
"""Every op of `limits.LIMITS` that happens to an image, in the same order."""


def apply(op: str, lines: PaddedLines, values: Mapping[str, Tensor], key_b2: Tensor) -> PaddedLines:
    """Apply one op to every line of a batch.

    Args:
        op: a name of `limits.LIMITS`.
        lines: float32 ink in 0..1 (b, 1, H, W), exactly 0 in columns from each line's width on.
        values: for each parameter of the op a float tensor (b,) within its limits, on the lines' device.
        key_b2: int64 (b, 2), uint32 Philox keys of the lines; ops use different counters of one key.

    Returns:
        Lines of the same height, likewise clear beyond their widths; new tensors.

    Raises:
        ConfigError: no such op, or parameters missing or not known to it.
    """
    if op not in OPS:
        raise ConfigError(f"there is no op {op!r}; expected one of {', '.join(OPS)}")
    expected = LIMITS[op]
    if values.keys() != expected.keys():
        raise ConfigError(f"{op} got parameters {sorted(values)}; expected exactly {sorted(expected)}")
    if lines.ink_B1HW.numel() == 0:
        return lines
    return OPS[op](lines, {name: value.to(lines.ink_B1HW.dtype) for name, value in values.items()}, key_b2)
