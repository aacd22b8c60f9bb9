"""How fast batches came, how much of them was padding, and who waited for whom."""

from dataclasses import dataclass


@dataclass
class LoadStatistics:
    """What a loader has delivered since it was opened or since `reset`.

    Attributes:
        batches: batches delivered.
        samples: lines in them.
        line_px: sum of their true widths.
        padded_px: sum of their padded widths.
        left_out: lines that could not be read.
        wait_s: time in which the consumer waited for a batch.
        use_s: time in which the consumer had one in hand.
        full_s: time in which the reader waited for the consumer, its queue being full.
    """

    batches: int = 0
    samples: int = 0
    line_px: int = 0
    padded_px: int = 0
    left_out: int = 0
    wait_s: float = 0.0
    use_s: float = 0.0
    full_s: float = 0.0

    def reset(self) -> None:
        """Begin anew."""
        self.__init__()  # type: ignore[misc]

    @property
    def rate_samples_per_s(self) -> float:
        """Lines delivered per second, consumer included."""
        elapsed_s = self.wait_s + self.use_s
        return self.samples / elapsed_s if elapsed_s else 0.0

    @property
    def padding_waste(self) -> float:
        """Share of all columns that is padding."""
        return 1 - self.line_px / self.padded_px if self.padded_px else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of time in which the consumer waited."""
        elapsed_s = self.wait_s + self.use_s
        return self.wait_s / elapsed_s if elapsed_s else 0.0

    def __str__(self) -> str:
        return (
            f"{self.samples:,} lines in {self.batches:,} batches, {self.rate_samples_per_s:,.0f} lines/s, "
            f"padding {100 * self.padding_waste:.1f} %, consumer waited {100 * self.waiting_share:.1f} % of the time, "
            f"reader waited {self.full_s:.2f} s for room, {self.left_out} left out"
        )
