"""The door to every op of a recipe as batched torch and kornia, on any device.

Nothing here draws a parameter: the caller does, and passes one value a line. A line comes out the same, up to the
rounding of float32 (well below 1/255), alone and in any batch, unless its op looks at other lines of the batch.

Letters: b lines, H rows, W columns.
"""

from collections.abc import Callable, Mapping

from torch import Tensor

from khmer_ocr.augment import camera, geometry, optics, paper, surroundings, toner
from khmer_ocr.augment.limits import LIMITS
from khmer_ocr.augment.lines import Lines
from khmer_ocr.errors import ConfigError

__all__ = ["OPS", "Lines", "apply"]

Op = Callable[[Lines, Mapping[str, Tensor], Tensor], Lines]


OPS: Mapping[str, Op] = {
    "underline": surroundings.underline,
    "morphology": toner.morphology,
    "patchy_ink": toner.patchy_ink,
    "toner_fade": toner.toner_fade,
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


def apply(op: str, lines: Lines, values: Mapping[str, Tensor], key_b2: Tensor) -> Lines:
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
        raise ConfigError(f"there is no op {op!r}; wanted one of {', '.join(OPS)}")
    wanted = LIMITS[op]
    if values.keys() != wanted.keys():
        raise ConfigError(f"{op} got parameters {sorted(values)}; wanted exactly {sorted(wanted)}")
    if lines.ink_B1HW.numel() == 0:
        return lines
    return OPS[op](lines, {name: value.to(lines.ink_B1HW.dtype) for name, value in values.items()}, key_b2)
