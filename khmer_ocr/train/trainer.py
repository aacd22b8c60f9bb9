"""One run: its model, optimiser and place, a step of it, and its state on disk.

Letters: B lines, T tokens.
"""

import math
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from khmer_ocr_kernels.arrays import I64
from khmer_ocr_kernels.pad_normalize import to_unit
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from khmer_ocr import rng
from khmer_ocr.augment.batch_augmenter import BatchAugmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.errors import KhmerOcrError, ModelError, RunConflictError
from khmer_ocr.io.atomic import refuse_links
from khmer_ocr.io.devices import keep_kernels, pick_device
from khmer_ocr.io.locks import let_go, take
from khmer_ocr.load.loader import Batch, LineLoader, LoadConfig, open_loader
from khmer_ocr.model.presets import ModelConfig, preset
from khmer_ocr.model.seq2seq import Seq2Seq, slots_for
from khmer_ocr.model.weights import read_state
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.checkpoint import LAST, read_run, write_checkpoint
from khmer_ocr.train.data_fingerprint import check_same_data, record
from khmer_ocr.train.distributed import join, share_normalisation
from khmer_ocr.train.existing_run import MODEL, existing_run, refuse_existing_run, remove_run
from khmer_ocr.train.label_checks import find_bad_labels, left_out
from khmer_ocr.train.losses import Losses, joint_losses, shifted
from khmer_ocr.train.preflight import charset_for, check_writable, open_splits, preflight
from khmer_ocr.train.schedule import MovingAverage, learning_rate
from khmer_ocr.train.settings import TrainConfig, check_same_run, plain

LOCK = ".lock"
"""In the checkpoint folder while a run is under way."""
_POSITION = {"step": int, "epoch": int, "batch": int, "best": float, "elapsed_s": float, "lines_seen": int}
"""What a checkpoint records of where a run is."""
State = tuple[ModelConfig, dict[str, torch.Tensor], Charset, dict[str, Any]]
"""Shape, weights, characters and card of a model, as `read_state` gives them."""
_TOKENS_STEP = 8
"""Texts with their ends are padded to a multiple of it: the first batch of every shape is slow on every device."""


class Trainer:
    """One run.

    Args:
        config: its settings.

    Raises:
        SplitNotFoundError, DatasetError: the data are missing, damaged or can't be learned.
        ConfigError: settings that contradict each other, or a GPU is asked for and absent.
        ModelError: weights or checkpoint are missing, damaged, hostile, or of another charset.
    """

    def __init__(self, config: TrainConfig) -> None:
        self.config = config
        keep_kernels()
        self.device = pick_device(config.device)
        self.distributed = join(self.device)
        self.splits = open_splits(config.synthetic_dir, config.max_samples, config.on_error)
        resumed = self._checkpoint_to_resume()
        content = read_run(resumed) if resumed is not None else {}
        held = Charset(tuple(content["characters"])) if content else None
        weights = None
        if config.init is not None:
            weights = read_state(config.init)
            held = weights[2]
        self.charset = charset_for(self.splits["train"], config.charset, held, resumed or config.init)
        self.align_px = config.align_px or (64 if self.device == "cuda" else 8)
        shape = preset(config.preset)
        if config.dropout is not None:
            shape = replace(shape, dropout=config.dropout)
        self.model = self._build_model(shape, weights)
        self.run_id = str(content.get("run", "")) if content else uuid.uuid4().hex[:12]
        self.replaced: str | None = None
        self._to_replace = config.overwrite
        if self.distributed.first:
            self._check_folders_and_data(resumed)
        self._data = {split: record(self.splits[split]) for split in ("train", "val")}
        self._left_out = self._labels_left_out()
        self.ema = MovingAverage(self.model, config.ema_decay)
        self.optimiser = torch.optim.AdamW(
            _groups(self.model, config.weight_decay), lr=config.learning_rate, fused=True
        )
        self.step, self.epoch, self.batch, self.best = 0, 0, 0, math.inf
        self.elapsed_s, self.lines_seen = 0.0, 0
        if resumed is not None:
            self._resume(resumed, content)
        self.trained: nn.Module = self.model
        if self.distributed.world > 1:
            share_normalisation(self.model)
            where = [self.distributed.local] if self.device == "cuda" else None
            self.trained = DistributedDataParallel(self.model, device_ids=where)
        if config.compile:
            self.trained = cast(nn.Module, torch.compile(self.trained, dynamic=True))
        self.loader = self._open("train", config.synthetic_dir)
        self.augmenter = None
        if (recipe := load_recipe(config.recipe, config.strength)) is not None:
            self.augmenter = BatchAugmenter(recipe, config.seed, self.device)

    def _labels_left_out(self) -> dict[str, list[I64]]:
        """Positions, in each data set, of the lines that `on_error` leaves out for their labels."""
        if self.config.on_error != "skip":
            return {}
        slots = self.model.config.slots
        found = {split: find_bad_labels(split, self.splits[split], slots) for split in ("train", "val")}
        return {split: left_out(bad, len(self.splits[split])) for split, bad in found.items()}

    def _build_model(self, shape: ModelConfig, weights: State | None) -> Seq2Seq:
        """A new model, with weights from the seed alone or from `init`."""
        with torch.random.fork_rng(devices=[]):
            torch.random.manual_seed(rng.word(rng.key(self.config.seed, "train", "weights"), 0))
            model = Seq2Seq(shape, len(self.charset))
        if weights is not None:
            _start_from(model, weights, self.config.init)
        model.to(self.device)
        if self.config.freeze_norms:
            model.encoder.freeze_norms()
        if shape.encoder == "conv":
            model.to(memory_format=torch.channels_last)
        return model

    def _open(self, split: str, roots: tuple[Path, ...]) -> LineLoader:
        config = self.config
        training = split == "train"
        settings = LoadConfig(
            engine=config.engine,
            batch_size=config.batch_size,
            width_budget_px=config.width_budget_px,
            num_workers=config.num_workers,
            cache=config.cache,
            device=self.device,
            dtype="uint8",
            shuffle=training,
            seed=config.seed,
            rank=self.distributed.rank if training else 0,
            world=self.distributed.world if training else 1,
            max_samples=config.max_samples if training else config.validate_lines,
            align_px=self.align_px,
            on_error=config.on_error,
            progress=config.progress,
        )
        loader = open_loader(roots if len(roots) > 1 else roots[0], split, settings, self.charset)
        if split in self._left_out:
            loader.leave_out(self._left_out[split])
        return loader

    def validation_loader(self) -> LineLoader:
        """The first lines of val, in one order, clean."""
        return self._open("val", self.config.synthetic_dir[:1])

    def _checkpoint_to_resume(self) -> Path | None:
        asked = self.config.resume
        if asked is None:
            return None
        return self.config.checkpoint_dir / LAST if asked == "last" else Path(asked)

    def _check_folders_and_data(self, resumed: Path | None) -> None:
        """Refuse to write over another run, or remember which one is to be replaced; look at folders and data."""
        config, folder, shape = self.config, self.config.checkpoint_dir, self.model.config
        if config.overwrite:
            refuse_links(folder, folder / MODEL)
            found = existing_run(folder)
            self.replaced = found.run_id if found else None
        else:
            refuse_existing_run(folder, resumed, self.run_id)
        for each in (folder, config.log_dir):
            check_writable(each)
        if config.preflight:
            size = 16 * sum(each.numel() for each in self.model.parameters())
            seen = preflight(
                self.splits, self.charset, shape.slots, shape.height_px, folder, size, on_error=config.on_error
            )
            print(seen, flush=True)

    @contextmanager
    def locked_folder(self) -> Iterator[None]:
        """Hold the checkpoint folder while the run is under way, so that no other one writes there.

        Raises:
            RunConflictError: another process trains there, or did so and has ended since this one looked.
        """
        folder = self.config.checkpoint_dir
        if not self.distributed.first:
            yield
            return
        file = folder / LOCK
        try:
            lock = take(file, wait=False)
        except BlockingIOError as fault:
            raise RunConflictError(
                f"Another process trains in {folder} right now. Wait for it, or give another --checkpoint-dir."
            ) from fault
        try:
            if not self.config.overwrite:
                refuse_existing_run(folder, self._checkpoint_to_resume(), self.run_id)
            yield
        finally:
            file.unlink(missing_ok=True)
            let_go(lock)

    def _resume(self, path: Path, content: dict[str, Any]) -> None:
        try:
            check_same_run(content["config"], self.config, path)
            notes = check_same_data(content, self.splits, path)
            self.model.load_state_dict(content["model"])
            self.optimiser.load_state_dict(content["optimiser"])
            for name, value in content["ema"].items():
                self.ema.state[name].copy_(value)
            at = content["position"]
            for name, kind in _POSITION.items():
                setattr(self, name, kind(at[name]))
            if content.get("data", {}).get("val", self._data["val"]) != self._data["val"]:
                self.best = math.inf
        except KhmerOcrError:
            raise
        except (RuntimeError, ValueError, KeyError, TypeError, AttributeError) as fault:
            raise ModelError(
                f"{path} is no whole state of such a run ({fault}). Resume from another checkpoint of it."
            ) from fault
        if self.distributed.first:
            print(f"Resumed from {path}: epoch {self.epoch + 1}, step {self.step:,}.", *notes, sep="\n  ", flush=True)

    def _checkpoint_content(self) -> dict[str, Any]:
        return {
            "run": self.run_id,
            "data": self._data,
            "model_config": asdict(self.model.config),
            "characters": list(self.charset.characters),
            "model": self.model.state_dict(),
            "ema": self.ema.state,
            "optimiser": self.optimiser.state_dict(),
            "config": plain(self.config),
            "position": {name: getattr(self, name) for name in _POSITION},
        }

    def save(self, name: str) -> Path:
        """Write a checkpoint; raises `OutputError` where it can't be, and what was there before is still whole."""
        path = self.config.checkpoint_dir / name
        if self.distributed.first:
            if self._to_replace:
                remove_run(self.config.checkpoint_dir)
                self._to_replace = False
            write_checkpoint(path, self._checkpoint_content())
        return path

    def averaged(self) -> Seq2Seq:
        """The model of the moving average, in eval mode: what is evaluated and kept."""
        model = Seq2Seq(self.model.config, len(self.charset))
        model.load_state_dict(self.ema.state)
        model.to(self.device).eval()
        return model

    def losses(self, batch: Batch, epoch: int, smoothing: float | None = None) -> Losses:
        """Sums of losses over a batch as the loader gives it, augmented if a recipe is set."""
        images, width_B = batch["images"], batch["image_lengths"]
        if self.augmenter is not None:
            images, width_B = self.augmenter(images, width_B, batch["index"], epoch)
            images = F.pad(images, (0, -images.shape[3] % self.align_px), value=255)
        images = to_unit(images.to(self.device, non_blocking=True))
        targets_BT = batch["targets"].to(self.device, non_blocking=True)
        targets_BT = F.pad(targets_BT, (0, -(targets_BT.shape[1] + 1) % _TOKENS_STEP))
        length_B = batch["target_lengths"]
        tokens_BL = shifted(targets_BT, length_B.to(self.device, non_blocking=True))[0]
        half = self.config.precision == "bfloat16" or (self.config.precision == "auto" and self.device == "cuda")
        with torch.autocast(self.device, torch.bfloat16) if half else nullcontext():
            ctc, _, decoder = self.trained(images, width_B.to(self.device, non_blocking=True), tokens_BL)
        if smoothing is None:
            smoothing = self.config.label_smoothing
        slot_count_B = slots_for(width_B, self.model.config.slots)
        return joint_losses(ctc, slot_count_B, decoder, targets_BT, length_B, self.config.ctc_weight, smoothing)

    def update(self, batches: list[Batch], epoch: int, progress: float) -> tuple[torch.Tensor, float]:
        """Learn from some batches at once.

        Args:
            batches: of this process; the losses of all of them, and of all processes, are averaged over their tokens.
            epoch: for the augmentation.
            progress: share of the run that is done.

        Returns:
            Joint, CTC and decoder loss a token over all processes, (3,) on the device, and the learning rate.
        """
        config = self.config
        _seed_dropout(config.seed, self.step, self.distributed.rank)
        tokens = sum(int(batch["target_lengths"].sum()) + len(batch["target_lengths"]) for batch in batches)
        count = self.distributed.sum(torch.tensor(float(tokens), device=self.device))
        rate = learning_rate(self.step, progress, config.learning_rate, config.warmup_steps, config.final_share)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.trained.train()
        self.optimiser.zero_grad(set_to_none=True)
        total = torch.zeros(3, device=self.device)
        for at, batch in enumerate(batches):
            last = at == len(batches) - 1
            with (
                nullcontext()
                if last or self.distributed.world == 1
                else cast(DistributedDataParallel, self.trained).no_sync()
            ):
                losses = self.losses(batch, epoch)
                # Data-parallel gradients are averaged over processes; the sum is expected, divided by all tokens.
                (losses.joint * (self.distributed.world / count)).backward()
            total += torch.stack([losses.joint.detach(), losses.ctc, losses.decoder])
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), config.clip)
        self.optimiser.step()
        self.ema.update(self.step)
        self.step += 1
        # A norm that is no number has spoilt the weights: let the loss show it.
        return self.distributed.sum(total) / count + torch.where(norm.isfinite(), 0.0, math.nan), rate


def _groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Decay for matrices and kernels, none for biases and norms."""
    matrices = [each for each in model.parameters() if each.dim() > 1]
    others = [each for each in model.parameters() if each.dim() <= 1]
    return [{"params": matrices, "weight_decay": weight_decay}, {"params": others, "weight_decay": 0.0}]


def _seed_dropout(seed: int, step: int, rank: int) -> None:
    """Dropout draws from torch's own generators: each step sets them, so that this randomness has an address too."""
    torch.random.manual_seed(rng.word(rng.key(seed, "train", f"dropout/{rank}"), step))


def _start_from(model: Seq2Seq, weights: State, path: Path | None) -> None:
    """Take the weights of another run, whose shape must be this; the charset has been taken from there."""
    config, state, _, _ = weights
    if replace(config, dropout=0) != replace(model.config, dropout=0):
        raise ModelError(
            f"{path} is a model of preset {config.preset!r}, expected {model.config.preset!r} as asked. "
            f"Give --preset {config.preset}."
        )
    model.load_state_dict({name: value.float() for name, value in state.items()})
