"""What becomes of lines that can't be read: the run stops, or goes on and says which were left out."""

import logging
from typing import Literal

from khmer_ocr.errors import DatasetError

log = logging.getLogger(__name__)
OnError = Literal["raise", "skip"]
SHOWN = 20


def limit_of(samples: int) -> int:
    """How many of so many samples may be left out: one in a hundred."""
    return samples // 100


class ReadErrorLog:
    """Faults of one epoch.

    Args:
        on_error: "raise" stops at the first fault; "skip" goes on until more than 1 % of the samples are left out.
        samples: how many the epoch has.
    """

    def __init__(self, on_error: OnError, samples: int) -> None:
        self._on_error, self._samples = on_error, samples
        self.messages: dict[int, str] = {}

    def add(self, faults: dict[int, str]) -> None:
        """Count the faults of a batch.

        Args:
            faults: position in the split to what is wrong there.

        Raises:
            DatasetError: the first of them, or there are too many.
        """
        for position, message in faults.items():
            if self._on_error == "raise":
                raise DatasetError(message)
            self.messages[position] = message
        if len(self.messages) > limit_of(self._samples):
            raise DatasetError(
                f"{len(self.messages)} of {self._samples} samples can't be read, more than 1 %. "
                f"The last one: {list(self.messages.values())[-1]}"
            )

    def report(self, where: str) -> None:
        """List what was left out, at the end of an epoch."""
        if not self.messages:
            return
        lines = [f"{where}: {len(self.messages)} of {self._samples} samples were left out:"]
        lines += [f"  {message}" for message in list(self.messages.values())[:SHOWN]]
        if len(self.messages) > SHOWN:
            lines.append(f"  ... and {len(self.messages) - SHOWN} more")
        log.warning("%s", "\n".join(lines))
