"""How text becomes a corpus: what a user may choose."""

from dataclasses import dataclass
from pathlib import Path

from khmer_ocr.constraints import AtLeast0, AtLeast1, Settings
from khmer_ocr.errors import ConfigError


@dataclass(frozen=True)
class CorpusConfig(Settings):
    """What is read, how it is cut and where it goes.

    Attributes:
        input: Files and folders: .txt, .jsonl (field "text"), .parquet, MediaWiki .xml; plain or .gz, .bz2, .zst.
            Links are followed; what is passed over is named. A URL that fsspec can open (https://, s3://) does too.
        output_dir: Where the three files and corpus_stats.json go.
        min_chars: Shortest line, in code points.
        max_chars: Longest line; longer text is cut at natural places.
        seed: Decides which document goes to which split.
        sample: Add the bundled sample corpus.
        synthesize: Add this many lines of generated syllables, which cover rare letters and stacks.
        recombine: Add this many training lines made of fragments of the training split's real lines.
        exclude: Texts and labels (image, TAB, text) that a reader will be measured on: lines that share 24 characters
            in a row with them, white space aside, are left out and counted.
        overwrite: Replace another corpus in the output folder.
    """

    input: tuple[str | Path, ...] = ()
    output_dir: Path = Path("data/processed")
    min_chars: AtLeast1 = 1
    max_chars: AtLeast1 = 90
    seed: int = 42
    sample: bool = False
    synthesize: AtLeast0 = 0
    recombine: AtLeast0 = 0
    exclude: tuple[Path, ...] = ()
    overwrite: bool = False

    def __post_init__(self) -> None:
        """Refuse what can't make a corpus."""
        super().__post_init__()
        if not self.input and not self.sample and not self.synthesize:
            raise ConfigError("No text was named: give --input PATH..., --sample or --synthesize N.")
        if self.max_chars < self.min_chars:
            raise ConfigError(f"max_chars is {self.max_chars}, below min_chars {self.min_chars}; raise max_chars.")
        if self.recombine and not self.input and not self.sample:
            raise ConfigError("recombine takes fragments of real lines: give --input PATH... or --sample with it.")
