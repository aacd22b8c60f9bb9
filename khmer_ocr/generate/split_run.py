"""One split of a run: planned, drawn chunk by chunk, and completed by the process that finds every chunk there."""

import logging
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from khmer_ocr.dataset import layout
from khmer_ocr.errors import CorpusError
from khmer_ocr.generate.journal import Journal, complete_splits
from khmer_ocr.generate.local_executor import LocalExecutor, Task
from khmer_ocr.generate.settings import SplitResult
from khmer_ocr.generate.split_text import SplitText, blocks
from khmer_ocr.render.planner import REASONS

log = logging.getLogger(__name__)


def result_of_complete(root: Path, split: str) -> SplitResult:
    """What is said of a split that was complete before."""
    facts = complete_splits(root)[split]
    return SplitResult(facts["total_samples"], 0, facts.get("rejected", {}), True)


class SplitRun:
    """Draws one split.

    Args:
        text: the split's lines.
        journal: of the output folder.
        executor: does the tasks.
        progress: show bars.

    Attributes:
        name: of the split.
    """

    def __init__(self, text: SplitText, journal: Journal, executor: LocalExecutor, *, progress: bool) -> None:
        self._text, self.name = text, text.split
        self._journal, self._executor, self._progress = journal, executor, progress

    def draw(self, shard: tuple[int, int], run: Mapping[str, Any], settings: Mapping[str, Any]) -> SplitResult:
        """Draw the chunks of one shard, and complete the split if no other is missing.

        Args:
            shard: (i, n): every n-th chunk beginning with i.
            run: the split's record.
            settings: `generation_config` as users know it.

        Raises:
            CorpusError: no line can be drawn.
        """
        split, journal = self.name, self._journal
        # Asked here and not before the first split: another shard may have completed this one since.
        if split in complete_splits(journal.root):
            return result_of_complete(journal.root, split)
        reasons_L = self._plan()
        counts = np.bincount(reasons_L, minlength=len(REASONS)).tolist()
        accepted, rejected = counts[0], {REASONS[n]: count for n, count in enumerate(counts) if n and count}
        if not accepted:
            why = ", ".join(f"{count:,} {reason}" for reason, count in rejected.items())
            raise CorpusError(
                f"No line of {self._text.path} can be drawn; rejected: {why}. Where the fonts are the cause, give more "
                "by --fonts, or none to take all; khmer-ocr fonts check says what each is missing."
            )
        chunks = range(-(-accepted // layout.CHUNK))
        mine = set(chunks[shard[0] :: shard[1]])
        bad = self._damaged(reasons_L, journal.committed(split) & set(chunks))
        with journal.exclusive():
            # Another shard may have completed the split meanwhile: its fragments are gone then, and not damaged.
            if split in complete_splits(journal.root):
                journal.forget(split)
                return result_of_complete(journal.root, split)
            journal.forget(split, bad & mine)
            missing = mine - journal.committed(split)
        drawn = self._draw(reasons_L, missing)
        with journal.exclusive():
            complete = split in complete_splits(journal.root)
            if not complete and journal.committed(split) >= set(chunks):
                if damaged := self._damaged(reasons_L, bad - mine) | journal.damaged(split, chunks):
                    journal.forget(split, damaged)
                    drawn += self._draw(reasons_L, damaged)
                journal.finalise(split, len(chunks), rejected, run, settings)
                complete = True
        return SplitResult(accepted, drawn, rejected, complete)

    def _plan(self) -> npt.NDArray[np.uint8]:
        """For each line the number of the reason why it is rejected, 0 for none."""
        text = self._text
        known = self._journal.read_plan(self.name, text.lines)
        if known is not None:
            return known
        reasons_L = np.zeros(text.lines, np.uint8)
        with self._bar("plan", text.lines, "line") as bar:
            every = blocks(text.read())
            tasks = (("plan", self.name, first, lines, text.normalised) for first, lines in every)
            for (_, _, first, *_), reasons in self._executor.imap(tasks):
                reasons_L[first : first + len(reasons)] = np.frombuffer(reasons, np.uint8)
                bar.update(len(reasons))
        reasons_L[sorted(text.overlong)] = REASONS.index("too_long")
        with self._journal.exclusive():  # not while another shard completes the split and removes its folder
            self._journal.write_plan(self.name, reasons_L)
        return reasons_L

    def _damaged(self, reasons_L: npt.NDArray[np.uint8], old: set[int]) -> set[int]:
        """Chunks of an earlier start whose files are no longer what was drawn."""
        bad: dict[int, str] = {}
        with self._bar("check", len(old), "chunk") as bar:
            for task, fault in self._executor.imap(self._chunk_tasks(reasons_L, old, "stored")):
                bar.update(1)
                if fault:
                    bad[task[2]] = fault
        if bad and self.name not in complete_splits(self._journal.root):
            log.warning(
                "%d chunks of %s that an earlier start had drawn are damaged since (%s); they are drawn again",
                len(bad),
                self.name,
                bad[min(bad)],
            )
        return set(bad)

    def _draw(self, reasons_L: npt.NDArray[np.uint8], chunks: set[int]) -> int:
        """Draw chunks; returns how many samples that were."""

        def committed(task: Task) -> tuple[int, int] | None:
            # A worker may die between its commit and its word; what is committed must not be written again, since
            # another shard may be reading it already.
            if not self._journal.is_committed(self.name, task[2]):
                return None
            summary = self._journal.summary(self.name, task[2])
            return summary["samples"], summary["bytes"]

        accepted = int((reasons_L == 0).sum())
        todo = sum(min(layout.CHUNK, accepted - chunk * layout.CHUNK) for chunk in chunks)
        drawn = 0
        with self._bar("draw", accepted, "img", accepted - todo) as bar:
            for _, (samples, _) in self._executor.imap(self._chunk_tasks(reasons_L, chunks), committed):
                drawn += samples
                bar.update(samples)
        return drawn

    def _bar(self, what: str, total: int, unit: str, initial: int = 0) -> "tqdm[Any]":
        name = f"{what} {self.name}"
        return tqdm(total=total, initial=initial, desc=name, unit=unit, unit_scale=True, disable=not self._progress)

    def _chunk_tasks(self, reasons_L: npt.NDArray[np.uint8], chunks: set[int], kind: str = "chunk") -> Iterator[Task]:
        if not chunks:
            return
        accepted = (line for line, reason in zip(self._text.read(), reasons_L, strict=True) if not reason)
        for chunk in range(max(chunks) + 1):
            lines = list(islice(accepted, layout.CHUNK))
            if chunk in chunks:
                yield kind, self.name, chunk, lines, self._text.normalised
