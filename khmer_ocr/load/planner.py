"""Epochs as plain arrays of positions: shuffled, cut to batches of like widths, dealt to ranks.

A plan is a pure function of the widths, the settings and the number of the epoch, so that a run resumes at any
(epoch, batch) without replaying what came before, and ranks agree without talking to each other.

Letters: N samples of the split, M samples of the plan, B batches, 1 = one more.
"""

from dataclasses import dataclass

import numpy as np
from khmer_ocr_kernels.arrays import I32, I64, U32

from khmer_ocr import rng
from khmer_ocr.errors import ConfigError
from khmer_ocr.load.settings import LoadConfig

BUCKET_PX = 16
"""Lines mix at random within so many px of width: finer buckets save little padding and mix lines less."""


@dataclass(frozen=True, eq=False)
class EpochPlan:
    """One rank's share of one epoch.

    Attributes:
        order_M: int64, positions in the split, batch after batch.
        batch_offsets_B1: int64, batch b is `order_M[batch_offsets_B1[b] : batch_offsets_B1[b + 1]]`.
        padded_B: int64, width of each batch in px.
        line_px: sum of the true widths of all lines.
    """

    order_M: I64
    batch_offsets_B1: I64
    padded_B: I64
    line_px: int

    def __len__(self) -> int:
        return len(self.padded_B)

    @property
    def samples(self) -> int:
        """Number of lines over all batches."""
        return len(self.order_M)

    @property
    def padding_waste(self) -> float:
        """Share of the columns of all batches that are padding."""
        padded_px = int(np.diff(self.batch_offsets_B1) @ self.padded_B)
        return 1 - self.line_px / padded_px if padded_px else 0.0

    def batch(self, b: int) -> I64:
        """Positions of the lines of batch b, 0 <= b < len(plan)."""
        if not 0 <= b < len(self):
            raise IndexError(f"batch {b} of a plan of {len(self)}")
        return self.order_M[self.batch_offsets_B1[b] : self.batch_offsets_B1[b + 1]]


def plan_epoch(widths_N: I32, config: LoadConfig, epoch: int, split: str = "train") -> EpochPlan:
    """Plan one epoch: over all ranks every sample stands in exactly one batch.

    Args:
        widths_N: int32, true widths of the split's lines in px.
        config: how to cut it.
        epoch: number of the epoch, at least 0.
        split: name of the split, which the shuffle depends on too.

    Returns:
        The share of `config.rank`; empty only where the split is.

    Raises:
        ConfigError: a negative epoch, or too few samples to give every rank the same number of batches.
    """
    if epoch < 0:
        raise ConfigError(f"epoch is {epoch}; epochs count from 0.")
    widths_M = np.asarray(widths_N[: config.max_samples], np.int64)
    order_M = _order(widths_M, config, split, epoch)
    offsets_B1 = _equal_counts(_cut(widths_M[order_M], config), config.world)
    steps = (len(offsets_B1) - 1) // config.world
    step_S = np.arange(steps)
    if config.shuffle and config.bucket:
        step_S = np.argsort(_words(config, split, "step", epoch, steps), kind="stable")
    mine_B = step_S * config.world + config.rank
    sizes_B = np.diff(offsets_B1)[mine_B]
    ends_B = np.cumsum(sizes_B)
    own_B1 = np.concatenate([np.zeros(1, np.int64), ends_B])
    from_M = np.repeat(offsets_B1[mine_B] - own_B1[:-1], sizes_B) + np.arange(own_B1[-1])
    own_M = order_M[from_M]
    own_widths_M = widths_M[own_M]
    widest_B = np.maximum.reduceat(own_widths_M, own_B1[:-1]) if steps else np.zeros(0, np.int64)
    return EpochPlan(own_M, own_B1, _multiple(widest_B, config.align_px), int(own_widths_M.sum()))


def _multiple(value: I64, of: int) -> I64:
    return -(-value // of) * of


def _words(config: LoadConfig, split: str, what: str, epoch: int, count: int) -> U32:
    """Draw one uniform word for each of `count` things: a stream of the epoch's own, four words a Philox block."""
    address_1 = np.array([epoch], np.uint64)
    return rng.draws(rng.key(config.seed, split, f"load {what}"), address_1, max(count, 1))[0, :count]


def _order(widths_M: I64, config: LoadConfig, split: str, epoch: int) -> I64:
    """Positions in the order in which batches are cut off them: wide buckets first, at random within a bucket."""
    rank_M = np.zeros(len(widths_M), np.uint64)
    if config.shuffle:
        rank_M |= _words(config, split, "order", epoch, len(widths_M))
    if config.bucket:
        bucket_M = -(-widths_M // (BUCKET_PX if config.shuffle else 1))
        rank_M |= (bucket_M.max(initial=0) - bucket_M).astype(np.uint64) << np.uint64(32)
    return np.argsort(rank_M, kind="stable").astype(np.int64)


def _cut(width_M: I64, config: LoadConfig) -> I64:
    """Offsets of batches in lines as ordered; with a budget their buckets' widths descend."""
    most = config.batch_size or len(width_M)
    if config.width_budget_px is None:
        return np.append(np.arange(0, len(width_M), most), len(width_M)).astype(np.int64)
    # No line after the first of a batch lies in a wider bucket, so the first one's bucket bounds the batch's width.
    bound_M = _multiple(_multiple(width_M, BUCKET_PX if config.shuffle else 1), config.align_px)
    fits = np.clip(config.width_budget_px // np.maximum(bound_M, 1), 1, most)
    offsets = [0]
    while offsets[-1] < len(width_M):
        offsets.append(min(offsets[-1] + int(fits[offsets[-1]]), len(width_M)))
    return np.array(offsets, np.int64)


def _equal_counts(offsets_B1: I64, world: int) -> I64:
    """Halve the largest batches until every rank gets as many."""
    batches = len(offsets_B1) - 1
    missing = -batches % world
    if batches + missing > offsets_B1[-1]:
        raise ConfigError(
            f"{offsets_B1[-1]} samples in {batches} batches can't be dealt to {world} ranks in equal numbers. "
            "Use fewer ranks, larger batches, or max_samples."
        )
    for _ in range(missing):
        largest = int(np.diff(offsets_B1).argmax())
        middle = (offsets_B1[largest] + offsets_B1[largest + 1]) // 2
        offsets_B1 = np.insert(offsets_B1, largest + 1, middle)
    return offsets_B1
