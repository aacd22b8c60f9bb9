"""YAML to the stages' settings: what is given is taken, what is misspelt is refused."""

import time
from pathlib import Path

import pytest

from khmer_ocr import ConfigError, ConfigManager
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.generate.settings import GenerateConfig
from khmer_ocr.load.settings import LoadConfig
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.train.settings import TrainConfig


def from_yaml(folder: Path, text: str) -> ConfigManager:
    file = folder / "config.yaml"
    file.write_text(text, encoding="utf-8")
    return ConfigManager(file)


def test_defaults() -> None:
    config = ConfigManager()
    assert (config.render, config.generate, config.corpus) == (RenderConfig(), GenerateConfig(), None)
    assert config.fonts_dir == Path("fonts")
    assert config.data_config["image_height"] == 32 and config.data_config["format"] == "files"
    assert len(config.vocab) > 100
    assert (config.load, config.train) == (LoadConfig(), TrainConfig())
    assert config.model_config["preset"] == "compact" and config.training_config["batch_size"] == 64


@pytest.mark.parametrize("text", ["", "# only a comment\n", "render:\n", "render: {}\ngenerate:\n"])
def test_an_empty_file_is_the_defaults(tmp_path: Path, text: str) -> None:
    config = from_yaml(tmp_path, text)
    assert (config.render, config.generate) == (RenderConfig(), GenerateConfig())


def test_what_is_given_is_taken(tmp_path: Path) -> None:
    config = from_yaml(
        tmp_path,
        "fonts_dir: other/fonts\n"
        "render:\n  image_height: 48\n  crop: tight\n  min_size: 0.9\n"
        "generate:\n  format: webdataset\n  shard: [1, 4]\n  workers: 2\n  progress: false\n"
        "corpus:\n  sample: true\n  max_chars: 60\n"
        "load:\n  dtype: float16\n"
        "train:\n  preset: base\n  synthetic_dir: [a, b]\n",
    )
    assert config.render == RenderConfig(image_height=48, crop="tight", min_size=0.9)
    assert config.generate == GenerateConfig(format="webdataset", shard=(1, 4), workers=2, progress=False)
    assert config.corpus is not None and (config.corpus.sample, config.corpus.max_chars) == (True, 60)
    assert config.load.dtype == "float16"
    assert config.train.synthetic_dir == (Path("a"), Path("b"))
    assert config.model_config["preset"] == config.training_config["preset"] == "base"
    assert config.fonts_dir == Path("other/fonts")
    assert config.data_config["image_height"] == 48 and config.data_config["shard"] == (1, 4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "rendr:\n  image_height: 48\n",
            r"unknown key 'rendr'. Did you mean 'render'\? Known: corpus, render, generate, load, train",
        ),
        (
            "render:\n  image_heigth: 48\n",
            r"section 'render': unknown key 'image_heigth'. Did you mean 'image_height'\?",
        ),
        ("generate:\n  zzz: 1\n", "section 'generate': unknown key 'zzz'. Known: format, "),
        ("7: 1\n", "unknown key 7"),
        ("render:\n  1: 2\n", "section 'render': unknown key 1"),
        ("render: 32\n", "section 'render' is 32; expected keys with values below it"),
        ("render:\n  image_height: tall\n", "render: image_height is 'tall'; expected a whole number, 24 to 96 px"),
        ("render:\n  image_height: 32.5\n", r"render: image_height is 32\.5; expected a whole number, 24 to 96 px"),
        ("render:\n  image_height: null\n", "render: image_height is None; expected a whole number, 24 to 96 px"),
        ("render:\n  image_height: 500\n", "image_height is 500; expected 24 to 96"),
        ("render:\n  crop: loose\n", "render: crop is 'loose'; expected 'line', 'tight' or 'mixed'"),
        ("render:\n  min_margin: 9\n  max_margin: 3\n", "max_margin is 3 px, below min_margin 9"),
        ("generate:\n  shard: [4, 4]\n", r"shard is \[4, 4\]; expected i/n"),
        ("generate:\n  shard: [1]\n", r"generate: shard is \[1\]; expected i/n with 0 <= i < n"),
        ("generate:\n  progress: perhaps\n", "generate: progress is 'perhaps'; expected true or false"),
        ("corpus: {}\n", "No text was named"),
        ("fonts_dir: 3\n", "fonts_dir is 3; expected a folder"),
        ("fonts_dir:\n", "fonts_dir is None; expected a folder"),
        ("render:\n  image_height: 32\n  image_height: 48\n", "'image_height' stands there twice"),
        ("just words\n", "holds a str; expected sections"),
        ("a: b: c\n", "can't be read as YAML"),
        ("a: !!python/object/apply:os.system ['true']\n", "can't be read as YAML"),
    ],
)
def test_slips_are_named(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        from_yaml(tmp_path, text)


def test_messages_of_ranges_are_one_short_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        from_yaml(tmp_path, "render:\n  image_height: 500\n")
    assert str(caught.value) == "render: image_height is 500; expected 24 to 96 px"


def test_files_that_are_no_config(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"Config file not found: .*nothing\.yaml\. Leave --config out"):
        ConfigManager(tmp_path / "nothing.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00render")
    with pytest.raises(ConfigError, match="can't be read as YAML"):
        ConfigManager(tmp_path / "binary.yaml")
    with pytest.raises(ConfigError, match="can't be read as YAML"):
        ConfigManager(tmp_path)


def test_two_managers_share_nothing(tmp_path: Path) -> None:
    first, second = ConfigManager(), from_yaml(tmp_path, "render:\n  image_height: 64\n")
    assert first.render.image_height == 32 and second.render.image_height == 64


HOSTILE = {
    "nested": ("[" * 20_000, "nests deeper than 32 levels"),
    "many keys": ("".join(f"key{i}: 1\n" for i in range(200_000)), "larger than 1 MiB"),
    "many short keys": ("".join(f"{i}:\n" for i in range(60_000)), "more than 5,000 values"),
    "same keys": ("render: {}\n" * 1_000, "'render' stands there twice"),
    "billion laughs": (
        "a0: &a0 [lol, lol]\n" + "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 20)),
        "more than 5,000 values",
    ),
    "an alias within itself": ("render: &a [*a]\n", "line 1, column 13: the alias \\*a names nothing"),
    "an alias of nothing": ("render: *a\n", "the alias \\*a names nothing"),
    "a list as a key": ("? [a, b]\n: 1\n", "unhashable key"),
    "a huge number": (f"render:\n  image_height: {'9' * 5_000}\n", "can't be read as YAML"),
    "month 13": ("render:\n  image_height: 2026-13-01\n", "can't be read as YAML: month must be in"),
    "a long word": (f"{'a' * 500_000}\n", "holds a str"),
    "a long key": (f"? {'r' * 500_000}\n: 1\n", "unknown key 'rrr"),
    "a long value": (f"render:\n  image_height: {'x' * 500_000}\n", "image_height"),
    "a tag": ("render: !!python/object/apply:os.system [true]\n", "could not determine a constructor"),
    "a control character": ("render: \x07\n", "special characters are not allowed"),
    "unclosed": ("render: {image_height: 32\n", "line 2, column 1"),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_hostile_yaml_is_refused_in_a_short_line_at_once(what: str, tmp_path: Path) -> None:
    text, told = HOSTILE[what]
    begin = time.process_time()
    with pytest.raises(ConfigError, match=told) as caught:
        from_yaml(tmp_path, text)
    with pytest.raises(ConfigError) as of_recipe:
        (tmp_path / "own.yaml").write_text(text, encoding="utf-8")
        load_recipe(tmp_path / "own.yaml")
    assert time.process_time() - begin < 6
    for error in (caught, of_recipe):
        said = str(error.value).replace(str(tmp_path), "")
        assert len(said) < 600 and "\n" not in said


def test_aliases_and_marks_of_honest_files_are_read(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "generate: &g\n  workers: &two 2\ntrain:\n  num_epochs: *two\n")
    assert (config.generate.workers, config.train.num_epochs) == (2, 2)
    (tmp_path / "marked.yaml").write_bytes(b"\xef\xbb\xbfrender: {image_height: 48}\r\n")
    assert ConfigManager(tmp_path / "marked.yaml").render.image_height == 48
