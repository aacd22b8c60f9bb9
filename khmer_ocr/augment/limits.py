"""What the ops of a recipe are called, what they do, and how far each parameter may go.

The order of `LIMITS` is the order in which ops can be applied: what happens to the ink, to the sheet, in the lens, to
the paper under the light, in the sensor and in the file. Ops up to `resolution_loss` take what is beyond the edge for
white paper, so they have to come before the paper gets a tone. Nothing here needs torch.
"""

from collections.abc import Mapping
from types import MappingProxyType

Range = tuple[float, float]


def _frozen(table: dict[str, dict[str, Range]]) -> Mapping[str, Mapping[str, Range]]:
    return MappingProxyType({op: MappingProxyType(ranges) for op, ranges in table.items()})


TWO_PARTS = "two_parts"
DRAWN = (TWO_PARTS,)
"""Ops that happen while a line is drawn, not to its image."""

LIMITS: Mapping[str, Mapping[str, Range]] = _frozen(
    {
        TWO_PARTS: {"place": (0, 1)},
        "underline": {"gap_px": (0, 6), "thickness_px": (0.5, 3), "darkness": (0.2, 1)},
        "morphology": {"weight": (-1, 1)},
        "patchy_ink": {"weight": (-1, 1)},
        "toner_fade": {"depth": (0, 0.8), "streaks": (0, 0.8)},
        "geometry": {
            "rotation_deg": (-2, 2),
            "shear": (-0.35, 0.35),
            "perspective_x": (-0.2, 0.2),
            "perspective_y": (-0.08, 0.08),
            "wave_px": (0, 3),
            "stretch": (0.8, 1.25),
            "scale": (0.6, 1.5),
            "left_px": (0, 64),
            "right_px": (0, 64),
            "place": (0, 1),
        },
        "neighbour_lines": {"above_px": (0, 12), "below_px": (0, 12), "darkness": (0.2, 1)},
        "table_rules": {"thickness_px": (0.5, 3), "darkness": (0.2, 1)},
        "bleed_through": {"darkness": (0, 0.4)},
        "blur": {"sigma_px": (0, 5)},
        "defocus": {"radius_px": (0, 2.5)},
        "motion_blur": {"length_px": (0, 6), "angle_deg": (-180, 180)},
        "resolution_loss": {"factor": (0.25, 1)},
        "contrast": {"paper": (0, 0.6), "contrast": (0.3, 1)},
        "paper_texture": {"smooth": (0, 0.4), "fine": (0, 0.4)},
        "uneven_light": {"slope_x": (-0.6, 0.6), "slope_y": (-0.4, 0.4), "field": (0, 0.5)},
        "blobs": {"share": (0, 0.05), "darkness": (-1, 1)},
        "speckle": {"density": (0, 12), "size_px": (1, 3), "salt": (0, 1)},
        "noise": {"sd_grey": (0, 64)},
        "threshold": {"bias": (0.1, 0.9), "gain": (1, 32)},
        "jpeg": {"quality": (5, 100)},
    }
)
"""Op -> parameter -> lowest and highest value allowed."""

ABOUT: Mapping[str, str] = MappingProxyType(
    {
        TWO_PARTS: "drawn in two parts, cut at a space, each in a face and size of its own",
        "underline": "a rule under the text, gap_px below its lowest ink, where there is room for one",
        "morphology": "ink spread (weight > 0) or lost (weight < 0) by that share of a 3x3 step",
        "patchy_ink": "the same, but more in some places than in others",
        "toner_fade": "toner pale in patches and grains (depth) and in streaks across the line (streaks)",
        "geometry": "rotation, slant, keystone, waves, size and margins in one resampling; all ink stays inside",
        "neighbour_lines": "pieces of the lines above and below in rows that are free of ink",
        "table_rules": "rules above, below, left or right of the text, in rows and columns that are free of ink",
        "bleed_through": "another line, mirrored and blurred, seen through the paper",
        "blur": "Gaussian blur",
        "defocus": "blur by a disc, as a lens out of focus does",
        "motion_blur": "blur along a short straight path",
        "resolution_loss": "sampled down by the factor and up again",
        "contrast": "paper darker than white, and toner lighter than black by the share of contrast left",
        "paper_texture": "clouds (smooth) and fibres (fine) in the paper, in shares of black",
        "uneven_light": "light that falls off along the line, across it, and in clouds",
        "blobs": "stains (darkness > 0) or pale spots (darkness < 0) over a share of the area",
        "speckle": "dots of 1 to size_px px, density per 1,000 px; the share salt of them is white",
        "noise": "Gaussian noise of a standard deviation in grey levels of 255",
        "threshold": "fax: ink where darker than bias between paper and toner, edges gain times steeper",
        "jpeg": "the loss of a grey JPEG file of that quality",
    }
)
"""Op -> what it does, for users."""
