"""YAML to the stages' frozen dataclasses; an unknown or misspelt key is an error."""

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from khmer_ocr.constraints import Settings, refuse_unknown
from khmer_ocr.corpus.settings import CorpusConfig
from khmer_ocr.errors import ConfigError
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.io.yaml_file import read_yaml
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.model.presets import preset
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.text.charset import Charset
from khmer_ocr.train.settings import TrainConfig

Stage = TypeVar("Stage", bound=Settings)
_STAGES: dict[str, type[Any]] = {
    "corpus": CorpusConfig,
    "render": RenderConfig,
    "generate": GenerateConfig,
    "load": LoadConfig,
    "train": TrainConfig,
}
_PLAIN = ("fonts_dir",)


class ConfigManager:
    """Settings of every stage, from a YAML file or the defaults.

    Args:
        path: YAML file with sections `render`, `generate`, `corpus`, `load`, `train` and the key `fonts_dir`; None
            takes the defaults.

    Attributes:
        render: how lines are drawn.
        generate: how they are stored.
        load: how batches are read.
        train: how a recogniser learns.
        corpus: how text is prepared, None unless the file has the section.
        fonts_dir: folder of installed fonts.
        vocab: code points and their token ids.

    Raises:
        ConfigError: the file is missing, is no YAML, or has a key or value that no stage knows.
    """

    def __init__(self, path: str | Path | None = None) -> None:
        content = _read(Path(path)) if path is not None else {}
        refuse_unknown(content, [*_STAGES, *_PLAIN], str(path))
        self.render: RenderConfig = build(RenderConfig, content.get("render"), "render")
        self.generate: GenerateConfig = build(GenerateConfig, content.get("generate"), "generate")
        self.load: LoadConfig = build(LoadConfig, content.get("load"), "load")
        self.train: TrainConfig = build(TrainConfig, content.get("train"), "train")
        self.corpus: CorpusConfig | None = (
            build(CorpusConfig, content["corpus"], "corpus") if "corpus" in content else None
        )
        self.fonts_dir = _folder(content.get("fonts_dir", "fonts"), "fonts_dir")
        self.vocab = Charset.default()

    @property
    def data_config(self) -> dict[str, Any]:
        """Settings of drawing and storing as one plain dictionary."""
        return {**asdict(self.render), **asdict(self.generate)}

    @property
    def model_config(self) -> dict[str, Any]:
        """Shape of the model that `train` names, as one plain dictionary."""
        return asdict(preset(self.train.preset))

    @property
    def training_config(self) -> dict[str, Any]:
        """Settings of training as one plain dictionary."""
        return asdict(self.train)


def _folder(value: object, name: str) -> Path:
    if not isinstance(value, str):
        raise ConfigError(f"{name} is {value!r:.100}; expected a folder")
    return Path(value)


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_yaml(path)
    except FileNotFoundError as error:
        raise ConfigError(f"Config file not found: {path}. Leave --config out for the defaults.") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(
            f"{path} holds a {type(content).__name__}; expected sections such as `render:` with keys below"
        )
    return content


def build(stage: type[Stage], section: Any, name: str) -> Stage:
    """Fill a stage's dataclass from a mapping.

    Raises:
        ConfigError: an unknown key, a value of the wrong type, or one out of range.
    """
    if section is None:
        return stage()
    if not isinstance(section, dict):
        raise ConfigError(f"section {name!r} is {section!r:.100}; expected keys with values below it")
    refuse_unknown(section, [field.name for field in fields(stage)], f"section {name!r}")  # type: ignore[arg-type]
    try:
        return stage(**section)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error
