"""The commented configuration that ships says what the defaults are, and leaves none out."""

from dataclasses import asdict
from importlib import resources

import yaml

from khmer_ocr.config import ConfigManager
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.render.settings import RenderConfig

PER_CALL = {"shard", "overwrite", "progress"}


def test_default_yaml_equals_the_defaults() -> None:
    with resources.as_file(resources.files("khmer_ocr") / "configs" / "default.yaml") as path:
        manager, content = ConfigManager(path), yaml.safe_load(path.read_text())
    assert manager.render == RenderConfig() and manager.generate == GenerateConfig()
    assert set(content["render"]) == set(asdict(RenderConfig()))
    assert set(content["generate"]) == set(asdict(GenerateConfig())) - PER_CALL
