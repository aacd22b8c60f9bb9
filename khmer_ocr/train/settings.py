"""Settings of a training run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import Interval
from pydantic import TypeAdapter

from khmer_ocr.augment.recipe import Strength
from khmer_ocr.constraints import AtLeast0, AtLeast1, NotNegative, Positive, Px, Settings, Share
from khmer_ocr.errors import ConfigError
from khmer_ocr.io.devices import Device, Precision
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.load.settings import Engine
from khmer_ocr.model.presets import preset as find_preset


@dataclass(frozen=True)
class TrainConfig(Settings):
    """How a recogniser learns.

    Attributes:
        synthetic_dir: roots of one or several data sets; val is taken from the first.
        checkpoint_dir: where checkpoints and the finished weights go.
        log_dir: where TensorBoard files and `metrics.jsonl` go; beside the log of another run into `run_002` there.
        preset: shape of the model.
        charset: "corpus" adds characters of training texts missing from the default; "default" reads them as unknown.
            With `init` the charset is that of the weights: "corpus" refuses texts with other characters.
        init: weights to begin with (a folder or a checkpoint), for another stretch of training; None begins anew.
        resume: checkpoint whose very run goes on, or "last" for the newest in `checkpoint_dir`; None begins anew.
        overwrite: replace the run that `checkpoint_dir` holds (its checkpoints, weights and log, nothing else) as soon
            as this one has something to save; without it, another run there is an error.
        num_epochs: passes over the training split.
        max_steps: updates at most; None takes what the epochs need.
        max_minutes: time in which the schedule is to end; None takes what the steps need.
        max_samples: use only so many lines of each split; None uses all.
        batch_size: most lines in a batch of one process.
        width_budget_px: most padded columns in a batch of one process; None leaves it to `batch_size`.
        align_px: padded widths are multiples of it; None takes 8 on CPUs and 64 on GPUs, where the first batch of every
            shape is slow.
        accumulate: batches whose gradients are accumulated for one update.
        learning_rate: peak of the schedule.
        final_share: share of the peak that is left at its end.
        warmup_steps: updates over which the rate rises.
        weight_decay: of AdamW, for matrices.
        clip: largest norm of the gradient.
        ema_decay: of the moving average of the weights, which is what is evaluated and kept.
        ctc_weight: share of the CTC loss; the rest is the decoder's.
        label_smoothing: share of probability the decoder's targets give to other tokens.
        dropout: share of values dropped; None takes the preset's.
        freeze_norms: normalise by what has been seen so far, not by each batch: for another stretch from weights that
            are good, where it spares a tenth of a step.
        recipe: augmentation of training lines on the device ("none", "basic", "scan", "train" or a YAML file).
        strength: mild, medium, heavy, or mixed.
        on_error: what becomes of lines whose image or label can't be used: "raise" names them and stops, "skip" leaves
            them out and names them, up to 1 % of a split.
        engine: what loads batches.
        cache: read decoded lines from a packed cache, built where it is missing.
        num_workers: of the loader.
        device: "auto" takes a GPU if there is one.
        precision: "bfloat16" computes in it where that is safe; "auto" does so on GPUs.
        compile: compile the model by torch.compile.
        seed: of weights, order, augmentation and dropout.
        validate_lines: lines of val read after each epoch.
        save_minutes: time between two writings of `last.pth` within an epoch.
        log_steps: updates between two lines of the log.
        preflight: check data before the first step.
        check: also overfit one batch before training, and stop if that fails.
        progress: show bars.
    """

    synthetic_dir: tuple[Path, ...] = (Path("data/synthetic"),)
    checkpoint_dir: Path = Path("checkpoints")
    log_dir: Path = Path("logs")
    preset: str = "compact"
    charset: Literal["corpus", "default"] = "corpus"
    init: Path | None = None
    resume: str | None = None
    overwrite: bool = False
    num_epochs: AtLeast1 = 20
    max_steps: AtLeast1 | None = None
    max_minutes: Annotated[float, Interval(ge=0.01)] | None = None
    max_samples: AtLeast1 | None = None
    batch_size: AtLeast1 = 64
    width_budget_px: Annotated[int, Interval(ge=32), Px] | None = None
    align_px: Annotated[AtLeast1, Px] | None = None
    accumulate: AtLeast1 = 1
    learning_rate: Positive = 1e-3
    final_share: Share = 0.01
    warmup_steps: AtLeast0 = 500
    weight_decay: NotNegative = 0.02
    clip: Positive = 2.0
    ema_decay: Share = 0.9995
    ctc_weight: Share = 0.5
    label_smoothing: Share = 0.02
    dropout: Annotated[float, Interval(ge=0, lt=1)] | None = None
    freeze_norms: bool = False
    recipe: str = "none"
    strength: Strength = "medium"
    on_error: OnError = "raise"
    engine: Engine = "auto"
    cache: bool = True
    num_workers: AtLeast0 = 4
    device: Device = "auto"
    precision: Precision = "auto"
    compile: bool = False
    seed: int = 42
    validate_lines: AtLeast1 = 1000
    save_minutes: NotNegative = 10.0
    log_steps: AtLeast1 = 50
    preflight: bool = True
    check: bool = False
    progress: bool = True

    def __post_init__(self) -> None:
        """Refuse settings that contradict each other."""
        super().__post_init__()
        find_preset(self.preset)
        if not self.synthetic_dir:
            raise ConfigError("synthetic_dir names no folder; give the root of a data set")
        if self.freeze_norms and self.init is None and self.resume is None:
            raise ConfigError(
                "freeze_norms without weights: new normalisations have seen nothing to be frozen at. Give --init, or "
                "leave freeze_norms out"
            )
        if self.init is not None and self.resume is not None:
            raise ConfigError("init and resume are both given: either another run begins with weights, or one goes on")
        if self.overwrite and self.resume is not None:
            raise ConfigError("overwrite and resume are both given: either the run is replaced, or it goes on")


_FIXED = (
    "preset", "max_samples", "batch_size", "width_budget_px", "align_px", "accumulate", "learning_rate", "final_share",
    "warmup_steps", "weight_decay", "clip", "ema_decay", "ctc_weight", "label_smoothing", "dropout", "freeze_norms",
    "recipe", "strength", "on_error", "seed",
)  # fmt: skip
"""What makes a run this run: a checkpoint resumes only under equal ones."""


def plain(config: TrainConfig) -> dict[str, Any]:
    """Settings as values that JSON and `weights_only` checkpoints hold."""
    values: dict[str, Any] = TypeAdapter(TrainConfig).dump_python(config, mode="json")
    return values


def check_same_run(recorded: dict[str, Any], config: TrainConfig, source: Path) -> None:
    """Refuse to resume a run under other settings than it began with; raises `ConfigError` with the difference."""
    now = plain(config)
    # What a checkpoint does not name is younger than it.
    there = plain(TrainConfig()) | recorded
    other = [f"{name}: {there[name]!r} there, {now[name]!r} now" for name in _FIXED if there[name] != now[name]]
    if other:
        raise ConfigError(
            f"{source} belongs to a run of other settings ({'; '.join(other)}). Use those to resume it, or --init to "
            "begin another run with its weights."
        )
