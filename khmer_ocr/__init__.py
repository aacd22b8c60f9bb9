"""Make and read the data that teaches machines to read Khmer.

Importing this package does no work: every public name but the exceptions is resolved when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from khmer_ocr.errors import ConfigError as ConfigError
from khmer_ocr.errors import CorpusError as CorpusError
from khmer_ocr.errors import DatasetError as DatasetError
from khmer_ocr.errors import FontError as FontError
from khmer_ocr.errors import ImageError as ImageError
from khmer_ocr.errors import KhmerOcrError as KhmerOcrError
from khmer_ocr.errors import MissingExtraError as MissingExtraError
from khmer_ocr.errors import ModelError as ModelError
from khmer_ocr.errors import NoFontsError as NoFontsError
from khmer_ocr.errors import NotOneLineError as NotOneLineError
from khmer_ocr.errors import OutputError as OutputError
from khmer_ocr.errors import RunConflictError as RunConflictError
from khmer_ocr.errors import SplitNotFoundError as SplitNotFoundError
from khmer_ocr.errors import TrainingError as TrainingError
from khmer_ocr.errors import WorkerError as WorkerError
from khmer_ocr.version import __version__ as __version__

_HOME = {
    "ConfigManager": "khmer_ocr.config",
    "SyntheticImageGenerator": "khmer_ocr.generate.generator",
    "SyntheticImageDataset": "khmer_ocr.load.dataset",
    "create_synthetic_dataloaders": "khmer_ocr.load.dataset",
    "Recognizer": "khmer_ocr.recognize.recognizer",
    "evaluate_lines": "khmer_ocr.recognize.evaluate",
}
__all__ = ["__version__", *_HOME, *(name for name in dir() if name.endswith("Error"))]

if TYPE_CHECKING:
    from khmer_ocr.config import ConfigManager as ConfigManager
    from khmer_ocr.generate.generator import SyntheticImageGenerator as SyntheticImageGenerator
    from khmer_ocr.load.dataset import SyntheticImageDataset as SyntheticImageDataset
    from khmer_ocr.load.dataset import create_synthetic_dataloaders as create_synthetic_dataloaders
    from khmer_ocr.recognize.evaluate import evaluate_lines as evaluate_lines
    from khmer_ocr.recognize.recognizer import Recognizer as Recognizer


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'khmer_ocr' has no attribute {name!r}; it offers {', '.join(__all__)}")
    try:
        return getattr(import_module(_HOME[name]), name)
    except ImportError as fault:
        from khmer_ocr.errors import MissingExtraError, missing_extra_of

        missing = fault if isinstance(fault, MissingExtraError) else missing_extra_of(fault, f"khmer_ocr.{name}")
        if missing is None:
            raise
        raise missing.with_traceback(None) from None


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
