"""How images are read and labelled lines are evaluated: what a user may choose. Importing this needs no torch."""

from dataclasses import dataclass
from pathlib import Path

from khmer_ocr.constraints import AtLeast1, Settings
from khmer_ocr.dataset.layout import Split
from khmer_ocr.io.devices import Device, Precision
from khmer_ocr.load.read_errors import OnError
from khmer_ocr.model.decoding import DecodeMethod
from khmer_ocr.text.metrics import Fold


@dataclass(frozen=True)
class RecognizeConfig(Settings):
    """How a recogniser reads.

    Attributes:
        model: Folder of weights or checkpoint (.pth); default the weights that come with the package.
        decode: beam weighs CTC and attention together; greedy is attention alone; ctc is CTC alone, and fastest.
        device: auto (default) takes a GPU if there is one.
        batch_size: Lines read at a time.
        precision: auto (default) takes bfloat16 on CPUs with AMX, twice as fast there, and float32 elsewhere.
        force: Read what is no single upright line too.
        beam_size: texts of a line weighed against each other.
    """

    model: Path | None = None
    decode: DecodeMethod = "beam"
    device: Device = "auto"
    batch_size: AtLeast1 = 16
    precision: Precision = "auto"
    force: bool = False
    beam_size: AtLeast1 = 8


@dataclass(frozen=True)
class EvaluateConfig(Settings):
    """Which labelled lines are read, and where what was read goes.

    Attributes:
        labels: File of labels, one image a line: its name, TAB, its text. The images lie beside it, and meta.tsv (font,
            source) if there is one.
        split: Which split of the data set.
        predictions: Write what was read: image, TAB, text.
        worst: Draw the worst lines, their labels and what was read (.png).
        worst_count: How many of them.
        max_lines: Only the first so many.
        on_error: What to do about a line whose image or label can't be used: raise, since an evaluation of fewer lines
            says something else, or skip, which leaves it out and says so in the report.
        fold: What is no error: khmer (default) takes spellings that print alike for one; print also spaces, and shapes
            of quotes and dashes, which labels of real lines do not fix.
        against: File of another reading of the same lines (of --predictions): says whether this one is better.
    """

    labels: Path | None = None
    split: Split = "val"
    predictions: Path | None = None
    worst: Path | None = None
    worst_count: AtLeast1 = 20
    max_lines: AtLeast1 | None = None
    on_error: OnError = "raise"
    fold: Fold = "khmer"
    against: Path | None = None
