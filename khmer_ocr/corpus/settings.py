"""How text becomes a corpus: what a user may choose."""

from dataclasses import dataclass
from pathlib import Path

from khmer_ocr.errors import ConfigError


@dataclass(frozen=True)
class CorpusConfig:
    """What is read, how it is cut and where it goes."""

    input: tuple[str | Path, ...] = ()
    """Text files and folders: .txt, .jsonl, .parquet, MediaWiki .xml, also compressed; or URLs that fsspec opens."""
    output_dir: Path = Path("data/processed")
    min_chars: int = 1
    max_chars: int = 90
    seed: int = 42
    sample: bool = False
    """Add the bundled sample corpus."""
    synthesize: int = 0
    """Add this many lines of generated syllables."""
    recombine: int = 0
    """Add this many lines to the training split, made of pieces of its own real lines."""
    overwrite: bool = False
    """Replace another corpus in the output folder."""

    def __post_init__(self) -> None:
        if not self.input and not self.sample and not self.synthesize:
            raise ConfigError("No text was named: give --input PATH..., --sample or --synthesize N.")
        if self.min_chars < 1:
            raise ConfigError(f"min_chars is {self.min_chars}; at least 1 is expected.")
        if self.max_chars < self.min_chars:
            raise ConfigError(f"max_chars is {self.max_chars}, below min_chars {self.min_chars}; raise max_chars.")
        if self.synthesize < 0:
            raise ConfigError(f"synthesize is {self.synthesize}; 0 (none) or a number of lines is expected.")
        if self.recombine < 0:
            raise ConfigError(f"recombine is {self.recombine}; 0 (none) or a number of lines is expected.")
        if self.recombine and not self.input and not self.sample:
            raise ConfigError("recombine takes pieces of real lines: give --input PATH... or --sample with it.")
