"""Recipes applied to drawn lines, for the generator and for training alike.

Letters: B lines, S steps.
"""

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from khmer_ocr_kernels.arrays import F64, U64
from khmer_ocr_kernels.ragged import RaggedLines

from khmer_ocr import rng
from khmer_ocr.augment import fused
from khmer_ocr.augment.recipe import FUSED_OPS, AugmentPlan, Recipe
from khmer_ocr.errors import missing_extra

if TYPE_CHECKING:
    import torch

_SPREAD_PER_STROKE, _LOSS_PER_STROKE = 0.45, 0.3
"""Weights of a 3x3 step that a stroke of 1 px bears: it may grow by nine tenths of its width or lose six tenths."""
_MOST_LOSS = 0.45
"""Thick strokes come with hairlines, which bear no more however thick the strokes are."""
_SPREAD_TIMES_STROKE = 0.8
"""Thick strokes leave narrow counters: from 1.4 px on, the thicker a stroke, the less it may grow (3 px by 0.5 px)."""
_BLUR_PER_STROKE = 0.7
"""Share of a blur's sigma that a stroke of 1 px bears: small type in thin faces stays legible; 1.4 px bear it all."""
_THIN_PX, _FIRM_PX = 0.6, 1.2
"""From 1.2 px on strokes bear all of a recipe; at 0.6 px toner does not fade, nothing is sampled down, noise is half:
hairlines would be gone, and the label would lie."""
_MORPHOLOGY = ("morphology", "patchy_ink")


class Augmenter:
    """Applies one recipe.

    Args:
        recipe: what may happen.
        seed: the run's seed.
        device: "cpu" or a torch device, where recipes of kornia ops augment arrays; tensors stay where they are.

    Raises:
        MissingExtraError: the recipe needs torch and kornia, and they are not installed.
    """

    def __init__(self, recipe: Recipe, seed: int, device: "str | torch.device" = "cpu") -> None:
        self.recipe, self.seed, self.device = recipe, seed, device
        if recipe.engine == "kornia":
            try:
                from khmer_ocr.augment import torch_batches  # noqa: F401
            except ImportError as error:
                raise missing_extra(
                    f"The recipe {recipe.name}",
                    "torch",
                    "kornia",
                    seen=str(error),
                    otherwise="The recipe basic does without.",
                ) from error

    def augment(
        self, lines: RaggedLines, split: str, address_B: U64, stroke_px_B: F64
    ) -> tuple[RaggedLines, list[dict[str, Any]]]:
        """Augment lines.

        Args:
            lines: array or CUDA tensor.
            split: its name is part of the address of the random numbers.
            address_B: uint64 sample numbers.
            stroke_px_B: thickness of the face's strokes at the line's size; ink spreads and thins in proportion.

        Returns:
            The augmented lines, in memory of the kind given, and for each what happened to it.
        """
        augment_plan = self.decide(split, address_B, stroke_px_B)
        return self.apply(lines, augment_plan), [self.recipe.record(augment_plan, n) for n in range(len(lines))]

    def decide(self, split: str, address_B: U64, stroke_px_B: F64, stage: str = "augment") -> AugmentPlan:
        """Decide what happens to lines; see `augment`. Another stage of the same run draws other random numbers."""
        return self._bounded(self.recipe.draw(rng.key(self.seed, split, stage), address_B), stroke_px_B)

    def apply(self, lines: RaggedLines, augment_plan: AugmentPlan) -> RaggedLines:
        """Do to lines what was decided; see `augment`."""
        if self.recipe.engine == "fused":
            return self._fused(lines, augment_plan)
        from khmer_ocr.augment.torch_batches import augment_lines

        return augment_lines(lines, self.recipe, augment_plan, self.device)

    def _bounded(self, augment_plan: AugmentPlan, stroke_px_B: F64) -> AugmentPlan:
        """Parameters as strokes of that thickness bear them: neither do counters close nor strokes vanish."""
        values_S = list(augment_plan.values_S)
        firm_B = np.clip((stroke_px_B - _THIN_PX) / (_FIRM_PX - _THIN_PX), 0, 1)
        for number, step in enumerate(self.recipe.steps):
            values = values_S[number]
            if step.op in _MORPHOLOGY:
                spread_B = np.minimum(
                    _SPREAD_PER_STROKE * stroke_px_B, _SPREAD_TIMES_STROKE / np.maximum(stroke_px_B, 1)
                )
                loss_B = np.minimum(_LOSS_PER_STROKE * stroke_px_B, _MOST_LOSS)
                weight_B = values["weight"] * np.where(values["weight"] > 0, spread_B, loss_B)
                values_S[number] = {**values, "weight": np.round(weight_B, 4)}
            elif step.op == "blur":
                sigma_px_B = values["sigma_px"] * np.minimum(_BLUR_PER_STROKE * stroke_px_B, 1)
                values_S[number] = {**values, "sigma_px": np.round(sigma_px_B, 4)}
            elif step.op == "toner_fade":
                values_S[number] = {name: np.round(value_B * firm_B, 4) for name, value_B in values.items()}
            elif step.op == "resolution_loss":
                values_S[number] = {"factor": np.round(1 - (1 - values["factor"]) * firm_B, 4)}
            elif step.op == "noise":
                values_S[number] = {"sd_grey": np.round(values["sd_grey"] * (1 + firm_B) / 2, 4)}
        return replace(augment_plan, values_S=tuple(values_S))

    def _fused(self, lines: RaggedLines, augment_plan: AugmentPlan) -> RaggedLines:
        amount = {op: np.zeros(len(lines)) for op in FUSED_OPS}
        for step, values, active_B in zip(
            self.recipe.steps, augment_plan.values_S, augment_plan.active_SB, strict=True
        ):
            (value_B,) = values.values()
            amount[step.op] = np.where(active_B, value_B, 0.0)
        weight_B, sigma_px_B, sd_grey_B = (amount[op] for op in FUSED_OPS)
        return fused.augment(lines, weight_B, sigma_px_B, sd_grey_B, augment_plan.key_B2)
