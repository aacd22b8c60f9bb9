"""From settings to weights: epochs of steps, with validation, checkpoints, and a clean way out at any moment."""

import math
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice, takewhile
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from tqdm import tqdm

from khmer_ocr.errors import KhmerOcrError, TrainingError, TrainingStopped
from khmer_ocr.io.atomic import make_folder, refuse_links
from khmer_ocr.load.loader import Batch
from khmer_ocr.model.weights import save_model
from khmer_ocr.train.checkpoint import BEST, LAST, epoch_name
from khmer_ocr.train.distributed import leave
from khmer_ocr.train.existing_run import MODEL
from khmer_ocr.train.run_log import METRICS, RunLog
from khmer_ocr.train.settings import TrainConfig, plain
from khmer_ocr.train.trainer import LOCK, Trainer
from khmer_ocr.train.validate import validate
from khmer_ocr.version import __version__

_PLACES = ("synthetic_dir", "checkpoint_dir", "log_dir", "init", "resume", "overwrite")
"""Settings that name places on one machine, which mean nothing where the weights are used."""
_CHECK_STEPS, _CHECK_LOSS = 400, 0.15
"""A sound model overfits one batch in so many steps, down to such a loss a token."""


class _StopSignal:
    """Whether a signal has asked for the end.

    Attributes:
        number: of the signal, 0 for none; the one that came to any of the processes, once they have agreed.
    """

    def __init__(self) -> None:
        self.number = 0

    @property
    def why(self) -> str:
        """Name of the signal."""
        return signal.Signals(self.number).name

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Note SIGTERM, SIGINT and SIGUSR1 (Slurm's warning) instead of dying of them.

        A second SIGTERM or SIGINT is obeyed at once. SIGUSR1 is not: schedulers send it to a script and its children,
        and scripts pass it on.
        """
        numbers = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
        before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

        def note(number: int, frame: FrameType | None) -> None:
            self.number = self.number or number
            if number != signal.SIGUSR1:
                signal.signal(number, before[number])

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def train(config: TrainConfig) -> Path:
    """Train a model; what is needed to resume is in `checkpoint_dir` whenever this ends.

    Args:
        config: the settings.

    Returns:
        Folder with the weights for reading (`model` in the checkpoint folder): the moving average at the end.

    Raises:
        TrainingStopped: a signal (SIGTERM, SIGINT, SIGUSR1) asked for the end; what was learned is saved.
        TrainingError: the loss is no number any more, and the last good checkpoint is kept; or nothing was learned.
        RunConflictError: the checkpoint folder holds another run, or the data are others than those of the run.
        SplitNotFoundError, DatasetError, ConfigError, ModelError: see `Trainer`.
        OutputError: a checkpoint can't be written (the one before it is whole), or a symbolic link stands in its place.
    """
    stop = _StopSignal()
    # Said now and not when the first checkpoint is due: nothing is written through what was handed over as a link.
    refuse_links(config.checkpoint_dir, *(config.checkpoint_dir / name for name in (LAST, BEST, MODEL, LOCK)))
    refuse_links(config.log_dir, config.log_dir / METRICS)
    trainer = Trainer(config)
    log = RunLog(config.log_dir if trainer.distributed.first else None, trainer.run_id, trainer.replaced)
    try:
        with trainer.locked_folder(), stop.listening():
            if config.check:
                overfit_one_batch(trainer, lambda: stop.number != 0)
            parameters = sum(each.numel() for each in trainer.model.parameters())
            log.event("settings", trainer.step, **plain(config), version=__version__, parameters=parameters)
            return _Run(trainer, log, stop).run()
    finally:
        log.close()
        trainer.loader.close()
        leave()


class _Run:
    def __init__(self, trainer: Trainer, log: RunLog, stop: _StopSignal) -> None:
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
        if self.trainer.distributed.world > 1:
            # All must take the same rate and stop at the same step, and clocks differ.
            by_clock = self.trainer.distributed.sum(torch.tensor(by_clock, device=self.trainer.device)).item()
            by_clock /= self.trainer.distributed.world
        return max(self.trainer.step / max(self.total, 1), by_clock)

    def run(self) -> Path:
        trainer, config = self.trainer, self.config
        with tqdm(
            total=self.total,
            initial=trainer.step,
            unit="step",
            disable=not (config.progress and trainer.distributed.first),
            dynamic_ncols=True,
        ) as bar:
            while trainer.epoch < config.num_epochs and self.progress < 1 and not self._stop_requested():
                if self._epoch(bar):
                    # A run that is stopped in here resumes at the end of the epoch, and validates then.
                    if not self._stop_requested():
                        self._validate(trainer.epoch + 1)
                    if self._stop_requested():
                        break
                    trainer.epoch, trainer.batch = trainer.epoch + 1, 0
                    trainer.save(LAST)
                    trainer.save(epoch_name(trainer.epoch))
                    self._save_weights()
        stopped = self._stop_requested()
        if not trainer.step:
            self._nothing_learned(stopped)
        trainer.save(LAST)
        if not stopped and trainer.batch:
            self._validate(trainer.epoch)
            stopped = self._stop_requested()
        weights = self._save_weights()
        if stopped:
            self.log.event("stopped", trainer.step, why=self.stop.why)
        trainer.distributed.wait()
        if stopped:
            raise TrainingStopped(
                f"stopped by {self.stop.why} at step {trainer.step:,}, saved in {config.checkpoint_dir / LAST}; go on "
                "with --resume last.",
                self.stop.number,
            )
        return weights

    def _nothing_learned(self, stopped: bool) -> None:
        """Leave without weights that are as they began."""
        if stopped:
            raise TrainingStopped(
                f"stopped by {self.stop.why} before the first update; nothing was learned, nothing is saved. The same "
                "command begins anew.",
                self.stop.number,
            )
        raise TrainingError("The time of --max-minutes was over before the first update; nothing was learned or saved.")

    def _epoch(self, bar: Any) -> bool:
        """Go through the rest of an epoch; whether its end was reached."""
        trainer, config = self.trainer, self.config
        batches = trainer.loader.epoch(trainer.epoch, trainer.batch)
        sums, lines, since = torch.zeros(3, device=trainer.device), 0, time.monotonic()
        steps = 0
        try:
            while (group := self._next_batches(batches)) != []:
                progress = self.progress
                if progress >= 1 or self._stop_requested() or group is None:
                    self._refuse_nan(sums)
                    return False
                loss_3, rate = trainer.update(group, trainer.epoch, progress)
                sums += loss_3
                steps += 1
                trainer.batch = group[-1]["number"] + 1
                count = sum(len(batch["texts"]) for batch in group) * trainer.distributed.world
                lines, trainer.lines_seen = lines + count, trainer.lines_seen + count
                bar.update()
                if trainer.step % config.log_steps == 0:
                    self._report(bar, sums / steps, rate, lines / (time.monotonic() - since))
                    sums, lines, since, steps = torch.zeros_like(sums), 0, time.monotonic(), 0
                if time.monotonic() - self.saved_s > config.save_minutes * 60:
                    self._refuse_nan(sums)
                    trainer.save(LAST)
                    self.saved_s = time.monotonic()
            self._refuse_nan(sums)
            return True
        finally:
            batches.close()  # type: ignore[attr-defined]

    def _next_batches(self, batches: Iterator[Batch]) -> list[Batch] | None:
        """Batches of the next update: none at the end of the epoch, None where a signal took what loads them along."""
        try:
            return list(islice(batches, self.config.accumulate))
        except (RuntimeError, KhmerOcrError):
            # A signal to the whole process group reaches worker processes too.
            if self.stop.number:
                return None
            raise

    def _stop_requested(self) -> bool:
        """Whether any process has been asked to stop, so that all do at the same step."""
        if self.trainer.distributed.world == 1:
            return self.stop.number != 0
        asked = torch.tensor(float(self.stop.number), device=self.trainer.device)
        agreed = int(self.trainer.distributed.largest(asked).item())
        # A signal that came while the processes agreed is for the next time: it must not be forgotten.
        self.stop.number = agreed or self.stop.number
        return agreed != 0

    def _refuse_nan(self, loss: torch.Tensor) -> None:
        """Stop before spoilt weights are saved."""
        if not torch.isfinite(loss).all():
            raise TrainingError(
                f"The loss is no number any more, at or before step {self.trainer.step:,}. The last good checkpoint in "
                f"{self.config.checkpoint_dir} is kept: resume from it with a lower --learning-rate by --init."
            )

    def _report(self, bar: Any, loss_3: torch.Tensor, rate: float, lines_per_s: float) -> None:
        self._refuse_nan(loss_3)
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

    def _validate(self, epochs: int) -> None:
        """Read val with the moving average, after so many whole epochs; forgotten where a signal comes."""
        trainer = self.trainer
        if not trainer.distributed.first:
            return
        loader = trainer.validation_loader()
        try:
            lines = takewhile(lambda _: not self.stop.number, loader.epoch(0))
            scores = validate(trainer.averaged(), lines, trainer.charset, trainer.device, self.log, trainer.step)
        finally:
            loader.close()
        if self.stop.number:
            return
        ctc, decoder = scores["ctc"], scores["greedy"]
        self.cer = min(ctc.cer, decoder.cer)
        self.log.event(
            "val",
            trainer.step,
            cer_ctc=ctc.cer,
            cer_decoder=decoder.cer,
            exact_ctc=ctc.exact_share,
            exact_decoder=decoder.exact_share,
            syllables=ctc.syllable_error_rate,
            epoch=epochs,
        )
        line = (
            f"epoch {epochs}, step {trainer.step:,}: val CER {ctc.cer:.3%} by CTC, "
            f"{decoder.cer:.3%} by the decoder, {ctc.exact_share:.1%} of lines exact"
        )
        tqdm.write(line)
        if self.cer <= trainer.best:
            trainer.best = self.cer
            trainer.save(BEST)

    def _save_weights(self) -> Path:
        """Write the weights for recognising: the moving average at the end."""
        trainer, folder = self.trainer, self.config.checkpoint_dir / MODEL
        if trainer.distributed.first:
            card = {
                "preset": trainer.model.config.preset,
                "steps": trainer.step,
                "lines_seen": trainer.lines_seen,
                "minutes": round(trainer.elapsed_s / 60, 1),
                "val_cer": None if math.isnan(self.cer) else self.cer,
                "training": {name: value for name, value in plain(self.config).items() if name not in _PLACES},
                "khmer_ocr": __version__,
            }
            make_folder(self.config.checkpoint_dir, folder)
            save_model(folder, trainer.averaged(), trainer.charset, card)
        return folder


def overfit_one_batch(trainer: Trainer, asked: Callable[[], bool] = lambda: False) -> None:
    """Overfit one batch, which a sound model and sound labels allow; the weights are restored thereafter.

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
            f"One batch could not be overfitted: loss {loss:.3f} a token after {_CHECK_STEPS} steps, expected "
            f"below {_CHECK_LOSS}. Look at the data (khmer-ocr verify, khmer-ocr preview) and at the learning rate."
        )
    print(f"Check: one batch overfitted, loss {loss:.3f} a token after {step + 1} steps.", flush=True)
