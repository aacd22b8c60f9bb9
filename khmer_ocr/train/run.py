"""From settings to weights: epochs of steps, with validation, checkpoints, and a clean way out at any moment."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from khmer_ocr import __version__
from khmer_ocr.errors import TrainingError
from khmer_ocr.model.weights import save_model
from khmer_ocr.train.checkpoint import BEST, LAST, epoch_name
from khmer_ocr.train.journal import RunLog
from khmer_ocr.train.ranks import leave
from khmer_ocr.train.settings import TrainConfig, plain
from khmer_ocr.train.trainer import Trainer
from khmer_ocr.train.validate import validate

WEIGHTS = "model"
_PLACES = ("synthetic_dir", "checkpoint_dir", "log_dir", "init", "resume")
"""Settings that name places of one machine, which say nothing to who gets the weights."""
_CHECK_STEPS, _CHECK_LOSS = 400, 0.15
"""A sound reader learns one batch by heart in so many steps, down to such a loss a token."""


class _Stop:
    """Whether a signal or the clock has asked for the end."""

    def __init__(self) -> None:
        self.why: str | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM and SIGINT instead of dying of them; a second one is obeyed at once."""
        before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def note(number: int, frame: FrameType | None) -> None:
            self.why = signal.Signals(number).name
            signal.signal(number, before[number])

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(config: TrainConfig) -> Path:
    """Train a reader; what is needed to go on is in `checkpoint_dir` whenever this ends.

    Args:
        config: the settings.

    Returns:
        Folder with the weights for reading (`model` in the checkpoint folder): the moving average at the end.

    Raises:
        TrainingError: the loss is no number any more; the last good checkpoint is kept.
        SplitNotFoundError, DatasetError, ConfigError, ModelError: see `Trainer`.
        OutputError: a checkpoint can't be written; the one before it is whole.
    """
    stop = _Stop()
    trainer = Trainer(config)
    log = RunLog(config.log_dir if trainer.ranks.first else None)
    try:
        with stop.listening():
            if config.check:
                overfit_one_batch(trainer, lambda: stop.why is not None)
            log.event("settings", trainer.step, **plain(config), version=__version__, parameters=_size(trainer))
            return _Run(trainer, log, stop).go()
    finally:
        log.close()
        trainer.loader.close()
        leave()


class _Run:
    def __init__(self, trainer: Trainer, log: RunLog, stop: _Stop) -> None:
        self.trainer, self.log, self.stop, self.config = trainer, log, stop, trainer.config
        self.begin_s, self.saved_s = time.monotonic() - trainer.elapsed_s, time.monotonic()
        self.updates = -(-trainer.loader.batch_count(trainer.epoch) // self.config.accumulate)
        planned = self.updates * self.config.num_epochs
        self.total = min(planned, self.config.max_steps or planned)
        self.cer = math.nan

    @property
    def progress(self) -> float:
        """Share of the run that is done, by steps or by the clock, whichever is ahead."""
        self.trainer.elapsed_s = time.monotonic() - self.begin_s
        by_clock = self.trainer.elapsed_s / (self.config.max_minutes * 60) if self.config.max_minutes else 0.0
        if self.trainer.ranks.world > 1:
            # All must take the same rate and stop at the same step, and clocks differ.
            by_clock = self.trainer.ranks.sum(torch.tensor(by_clock, device=self.trainer.device)).item()
            by_clock /= self.trainer.ranks.world
        return max(self.trainer.step / max(self.total, 1), by_clock)

    def go(self) -> Path:
        trainer, config = self.trainer, self.config
        with tqdm(
            total=self.total,
            initial=trainer.step,
            unit="step",
            disable=not (config.progress and trainer.ranks.first),
            dynamic_ncols=True,
        ) as bar:
            while trainer.epoch < config.num_epochs and self.progress < 1 and not self._asked():
                if self._epoch(bar):
                    trainer.epoch, trainer.batch = trainer.epoch + 1, 0
                    self._validate()
                    trainer.save(LAST)
                    trainer.save(epoch_name(trainer.epoch))
                    self._keep()
        trainer.save(LAST)
        if self.stop.why:
            self.log.event("stopped", trainer.step, why=self.stop.why)
            print(f"Stopped by {self.stop.why} at step {trainer.step:,}; go on with --resume last.", flush=True)
        elif trainer.batch:
            self._validate()
        return self._keep()

    def _epoch(self, bar: Any) -> bool:
        """Go through the rest of an epoch; whether its end was reached."""
        trainer, config = self.trainer, self.config
        batches = trainer.loader.epoch(trainer.epoch, trainer.batch)
        sums, lines, since = torch.zeros(3, device=trainer.device), 0, time.monotonic()
        steps = 0
        try:
            while group := list(islice(batches, config.accumulate)):
                progress = self.progress
                if progress >= 1 or self._asked():
                    self._good(sums)
                    return False
                loss_3, rate = trainer.update(group, trainer.epoch, progress)
                sums += loss_3
                steps += 1
                trainer.batch = group[-1]["number"] + 1
                count = sum(len(batch["texts"]) for batch in group) * trainer.ranks.world
                lines, trainer.lines_seen = lines + count, trainer.lines_seen + count
                bar.update()
                if trainer.step % config.log_steps == 0:
                    self._report(bar, sums / steps, rate, lines / (time.monotonic() - since))
                    sums, lines, since, steps = torch.zeros_like(sums), 0, time.monotonic(), 0
                if time.monotonic() - self.saved_s > config.save_minutes * 60:
                    self._good(sums)
                    trainer.save(LAST)
                    self.saved_s = time.monotonic()
            self._good(sums)
            return True
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _asked(self) -> bool:
        """Whether any process has been asked to stop, so that all do at the same step."""
        if self.trainer.ranks.world == 1:
            return self.stop.why is not None
        asked = torch.tensor(float(self.stop.why is not None), device=self.trainer.device)
        if self.trainer.ranks.sum(asked).item() and not self.stop.why:
            self.stop.why = "another process"
        return self.stop.why is not None

    def _good(self, loss: torch.Tensor) -> None:
        """Stop before spoilt weights are saved."""
        if not torch.isfinite(loss).all():
            raise TrainingError(
                f"The loss is no number any more, at or before step {self.trainer.step:,}. The last good checkpoint in "
                f"{self.config.checkpoint_dir} is kept: resume from it with a lower --learning-rate by --init."
            )

    def _report(self, bar: Any, loss_3: torch.Tensor, rate: float, lines_per_s: float) -> None:
        self._good(loss_3)
        joint, ctc, decoder = loss_3.tolist()
        cer = "" if math.isnan(self.cer) else f"CER {self.cer:.2%}, "
        bar.set_postfix_str(f"epoch {self.trainer.epoch + 1}, loss {joint:.4f}, {cer}{lines_per_s:,.0f} lines/s")
        self.log.event(
            "train",
            self.trainer.step,
            loss=joint,
            ctc=ctc,
            decoder=decoder,
            learning_rate=rate,
            lines_per_s=lines_per_s,
            lines=self.trainer.lines_seen,
            minutes=self.trainer.elapsed_s / 60,
        )

    def _validate(self) -> None:
        trainer = self.trainer
        if not trainer.ranks.first:
            return
        loader = trainer.validation_loader()
        seen = validate(trainer.averaged(), loader.epoch(0), trainer.charset, trainer.device, self.log, trainer.step)
        loader.close()
        self.cer = min(seen.ctc.cer, seen.decoder.cer)
        self.log.event(
            "val",
            trainer.step,
            cer_ctc=seen.ctc.cer,
            cer_decoder=seen.decoder.cer,
            exact_ctc=seen.ctc.exact_share,
            exact_decoder=seen.decoder.exact_share,
            syllables=seen.ctc.syllable_error_rate,
            epoch=trainer.epoch,
        )
        line = (
            f"epoch {trainer.epoch}, step {trainer.step:,}: val CER {seen.ctc.cer:.3%} by CTC, "
            f"{seen.decoder.cer:.3%} by the decoder, {seen.ctc.exact_share:.1%} of lines exact"
        )
        tqdm.write(line)
        if self.cer <= trainer.best:
            trainer.best = self.cer
            trainer.save(BEST)

    def _keep(self) -> Path:
        """Write the weights that reading wants: of the moving average at the end."""
        trainer, folder = self.trainer, self.config.checkpoint_dir / WEIGHTS
        if trainer.ranks.first:
            card = {
                "preset": trainer.model.config.preset,
                "steps": trainer.step,
                "lines_seen": trainer.lines_seen,
                "minutes": round(trainer.elapsed_s / 60, 1),
                "val_cer": None if math.isnan(self.cer) else self.cer,
                "training": {name: value for name, value in plain(self.config).items() if name not in _PLACES},
                "khmer_ocr": __version__,
            }
            save_model(folder, trainer.averaged(), trainer.charset, card)
        return folder


def _size(trainer: Trainer) -> int:
    return sum(each.numel() for each in trainer.model.parameters())


def overfit_one_batch(trainer: Trainer, asked: Callable[[], bool] = lambda: False) -> None:
    """Learn one batch by heart, which a sound model and sound labels allow; the weights are as before thereafter.

    Args:
        trainer: the run.
        asked: whether to give up.

    Raises:
        TrainingError: the loss stays high.
    """
    kept = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    batch = next(iter(trainer.loader.epoch(0)))
    optimiser = torch.optim.AdamW(trainer.model.parameters(), lr=1e-3)
    trainer.model.train()
    loss = math.inf
    for step in range(_CHECK_STEPS):
        optimiser.zero_grad(set_to_none=True)
        losses = trainer.losses(batch, 0, smoothing=0.0)
        tokens = int(batch["target_lengths"].sum()) + len(batch["texts"])
        (losses.joint / tokens).backward()
        torch.nn.utils.clip_grad_norm_(trainer.model.parameters(), 1.0)
        optimiser.step()
        if asked():
            break
        if step % 20 == 19 and (loss := losses.joint.item() / tokens) < _CHECK_LOSS:
            break
    trainer.model.load_state_dict(kept)
    trainer.optimiser.zero_grad(set_to_none=True)
    if asked():
        return
    if not loss < _CHECK_LOSS:
        raise TrainingError(
            f"One batch could not be learned by heart: loss {loss:.3f} a token after {_CHECK_STEPS} steps, wanted "
            f"below {_CHECK_LOSS}. Look at the data (khmer-ocr verify, khmer-ocr preview) and at the learning rate."
        )
    print(f"Check: one batch learned by heart, loss {loss:.3f} a token after {step + 1} steps.", flush=True)
