"""Bounds stand in the settings alone: by constructor, YAML and flag a bad value is refused in the same words."""

import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

import pytest

from khmer_ocr import ConfigError, ConfigManager
from khmer_ocr.cli import main
from khmer_ocr.constraints import Settings
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.model.presets import ModelConfig
from khmer_ocr.recognize.settings import EvaluateConfig, RecognizeConfig
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.train.settings import TrainConfig

STAGES: dict[type[Settings], tuple[str, str, dict[str, Any]]] = {
    CorpusConfig: ("corpus", "corpus --sample", {"sample": True}),
    RenderConfig: ("render", "generate", {}),
    GenerateConfig: ("generate", "generate", {}),
    LoadConfig: ("load", "bench load nowhere", {}),
    TrainConfig: ("train", "train", {}),
    RecognizeConfig: ("", "recognize line.png", {}),
    EvaluateConfig: ("", "evaluate", {}),
    ModelConfig: ("", "", {}),
}
"""Section of the YAML file, verb, and what a stage needs beside its defaults."""
BAD = [
    (CorpusConfig, "min_chars", 0, "at least 1"),
    (CorpusConfig, "synthesize", -1, "at least 0"),
    (CorpusConfig, "recombine", -3, "at least 0"),
    (RenderConfig, "image_height", 23, "24 to 96 px"),
    (RenderConfig, "image_height", 97, "24 to 96 px"),
    (RenderConfig, "size_steps", 17, "1 to 16"),
    (RenderConfig, "min_size", 0.4, "0.5 to 1"),
    (RenderConfig, "max_margin", 65, "0 to 64 px"),
    (GenerateConfig, "workers", -1, "at least 0"),
    (GenerateConfig, "shard", "4/4", "i/n with 0 <= i < n, for example 0/4"),
    (LoadConfig, "batch_size", 0, "at least 1"),
    (LoadConfig, "num_workers", -1, "at least 0"),
    (LoadConfig, "prefetch", -1, "at least 0"),
    (LoadConfig, "align_px", 0, "at least 1 px"),
    (LoadConfig, "batch_size", True, "a whole number, at least 1"),
    (LoadConfig, "device", "tpu", "cpu, cuda or one GPU of several, as cuda:1"),
    (TrainConfig, "learning_rate", False, "a number, above 0"),
    (TrainConfig, "max_minutes", 0.001, "at least 0.01"),
    (TrainConfig, "width_budget_px", 31, "at least 32 px"),
    (TrainConfig, "learning_rate", 0.0, "above 0"),
    (TrainConfig, "ema_decay", 1.5, "0 to 1"),
    (TrainConfig, "dropout", 1.0, "0 to below 1"),
    (TrainConfig, "save_minutes", float("nan"), "at least 0"),
    (RecognizeConfig, "batch_size", 0, "at least 1"),
    (RecognizeConfig, "beam_size", 0, "at least 1"),
    (EvaluateConfig, "worst_count", 0, "at least 1"),
    (EvaluateConfig, "max_lines", 0, "at least 1"),
    (ModelConfig, "slots", 0, "at least 1"),
]
FREE = {"seed", "height_px", "width", "expansion", "kernel", "embedding"}
"""Numbers of any value; those of a model's shape are checked against each other, or by torch."""


@pytest.mark.parametrize(("stage", "field", "value", "expected"), BAD)
def test_a_bad_value_is_refused_alike_however_it_is_given(
    stage: type[Settings],
    field: str,
    value: Any,
    expected: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    section, verb, needed = STAGES[stage]
    said = f"{field} is {value!r}; expected {expected}"
    with pytest.raises(ConfigError) as refused:
        stage(**needed, **{field: value})
    assert str(refused.value).startswith(said)
    if section:
        text = f"{value}".replace("nan", ".nan")
        lines = [f"{section}:", *(f"  {name}: {given}" for name, given in needed.items()), f"  {field}: {text}"]
        (tmp_path / "config.yaml").write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(ConfigError) as refused:
            ConfigManager(tmp_path / "config.yaml")
        assert str(refused.value).startswith(f"{section}: {said}")
    flag = f"--{field.replace('_', '-')}"
    main([*verb.split(), "--help"])
    if f"{flag} " in capsys.readouterr().out and not isinstance(value, bool):  # tyro refuses words in words of its own
        monkeypatch.chdir(tmp_path)
        with pytest.raises(SystemExit) as left:
            main([*verb.split(), f"{flag}={value}"])
        assert left.value.code == 2 and said in capsys.readouterr().err


@pytest.mark.parametrize("stage", STAGES)
def test_every_number_has_bounds_and_every_field_its_sentence(stage: type[Settings]) -> None:
    hints = get_type_hints(stage, include_extras=True)
    free = {name for name in hints if not name.startswith("_") and "Interval" not in f"{hints[name]}"}
    numbers = {field.name for field in fields(stage) if field.type in (int, float)}  # type: ignore[arg-type]
    assert free & numbers <= FREE
    for name in hints:
        assert f"\n        {name}: " in (stage.__doc__ or ""), name


def test_all_bad_values_are_named_at_once() -> None:
    expected = "^image_height is 5; expected 24 to 96 px; size_steps is 0; expected 1 to 16$"
    with pytest.raises(ConfigError, match=expected):
        RenderConfig(image_height=5, size_steps=0)


def test_values_become_what_their_fields_hold() -> None:
    config = TrainConfig(synthetic_dir=["a", "b"], log_dir="logs")  # type: ignore[arg-type]
    assert config.synthetic_dir == (Path("a"), Path("b")) and config.log_dir == Path("logs")
    assert GenerateConfig(shard="1/3").shard == (1, 3)  # type: ignore[arg-type]


LIGHT = {
    "settings of every stage": "from khmer_ocr import ConfigManager; ConfigManager()",
    "the command line": "import khmer_ocr.cli",
    "loading": "import khmer_ocr.load.dataset, khmer_ocr.load.loader, khmer_ocr.load.torch_loader",
}
DRAWING = ("uharfbuzz", "freetype", "khmer_ocr_kernels.compose", "khmer_ocr_kernels.degrade", "khmer_ocr_kernels.noise")


@pytest.mark.parametrize("what", LIGHT)
def test_settings_and_loading_import_nothing_that_draws(what: str) -> None:
    code = f"import sys; {LIGHT[what]}; print([name for name in sys.modules if name.startswith({DRAWING})])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
