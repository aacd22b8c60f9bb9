"""Learning rate and moving average, as functions of how far a run has come."""

import math

import torch
from torch import nn


def learning_rate(step: int, progress: float, peak: float, warmup_steps: int, final_share: float) -> float:
    """Rise linearly over the first steps, then fall along a cosine to a share of the peak.

    Args:
        step: updates done.
        progress: share of the run that is done, 0 to 1.
        peak: highest rate.
        warmup_steps: updates of the rise.
        final_share: rate at the end, as a share of the peak.
    """
    rise = min(1.0, (step + 1) / (warmup_steps + 1))
    fall = final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    return peak * rise * fall


class MovingAverage:
    """Exponential moving average of a model's weights and of what its normalisations have seen.

    Args:
        model: whose values it starts with and follows; they must stay the same tensors, as optimisers keep them.
        decay: share that stays at each step; lower in the first steps, (1 + step) / (10 + step).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        values = model.state_dict()
        self.state = {name: value.detach().clone() for name, value in values.items()}
        pairs = [(self.state[name], value.detach()) for name, value in values.items()]
        self._floats = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the model's values after update number `step`, from 0."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_([mine for mine, _ in self._floats], [theirs for _, theirs in self._floats], 1 - decay)
        for mine, theirs in self._counts:
            mine.copy_(theirs)
