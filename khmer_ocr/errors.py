"""One exception tree. Every message says what was seen, what was expected and what to do.

Also here: the one table of optional packages, since every import of one of them fails in the same words.
"""

import importlib.util
import shutil
import sys
from pathlib import Path

EXTRA_OF = {
    "torch": "torch",
    "torchvision": "torch",
    "kornia": "torch",
    "nvidia.dali": "torch",
    "safetensors": "torch",
    "tensorboard": "torch",
    "onnx": "onnx",
    "onnxruntime": "onnx",
    "onnxscript": "onnx",
    "pyarrow": "parquet",
}
"""What is imported of each optional package, and the extra of ours that installs it (pyproject.toml)."""
_TITLES = {"nvidia.dali": "NVIDIA DALI"}


class KhmerOcrError(Exception):
    """Root of everything this project raises on purpose; the CLI prints it without a traceback.

    Attributes:
        exit_status: what the CLI leaves with.
    """

    exit_status: int = 2


class ConfigError(KhmerOcrError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class MissingExtraError(ConfigError, ModuleNotFoundError):
    """What was asked for needs an optional package that is not installed; the message names the extra that has it."""


class CorpusError(KhmerOcrError, ValueError):
    """Input text cannot be used: empty, binary, wrongly encoded, or of an unknown format."""


class SplitNotFoundError(KhmerOcrError, FileNotFoundError):
    """A split's text file or folder does not exist."""


class FontError(KhmerOcrError):
    """A font is missing, broken, hostile, or without Khmer."""


class NoFontsError(FontError, FileNotFoundError):
    """No usable Khmer font was found anywhere."""


class OutputError(KhmerOcrError, OSError):
    """The output folder cannot be written: read-only, full, or inside the input."""


class RunConflictError(KhmerOcrError):
    """The output folder holds a run of a different configuration."""


class DatasetError(KhmerOcrError):
    """A stored data set is damaged: bad metadata, a missing file, an image that does not decode."""


class WorkerError(KhmerOcrError):
    """A worker process, or a thread that reads, died or stands still, and replacing it did not help."""


class ModelError(KhmerOcrError):
    """A model or a checkpoint is missing, damaged, hostile, or of another shape or charset."""


class TrainingError(KhmerOcrError):
    """A run of training cannot go on: its loss is no number, or one batch can't be learned."""


class TrainingStopped(KhmerOcrError):  # noqa: N818 - nothing is wrong
    """A signal asked a run of training to stop, and it did; what it had learned is saved.

    Args:
        message: where it stopped and how it goes on.
        signal_number: of the signal; the exit status is 128 more, as shells report commands that a signal ended.
    """

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_status = 128 + signal_number


class ImageError(KhmerOcrError, ValueError):
    """An image to be read is missing, damaged, hostile, or no line of text."""


class NotOneLineError(ImageError):
    """An image holds something else than a single upright line: a page, several lines, a line turned or mirrored.

    Attributes:
        looks_like: what it looks like, e.g. "2 lines of text".
    """

    def __init__(self, message: str, looks_like: str) -> None:
        super().__init__(message)
        self.looks_like = looks_like

    def __reduce__(self) -> tuple[type["NotOneLineError"], tuple[str, str]]:
        return type(self), (str(self), self.looks_like)


def install_hint(*extras: str) -> str:
    """Say how to install extras into the Python that runs, from a checkout and from an installed package.

    Args:
        extras: values of `EXTRA_OF`.
    """
    listed = ",".join(dict.fromkeys(extras))
    found = shutil.which("pip")
    # In an environment that is not activated, as after scripts/demo, plain `pip` would install into another one.
    other = "" if found and Path(found).parent == Path(sys.executable).parent else f" (pip is {sys.executable} -m pip)"
    return (
        f"Run: pip install '.[{listed}]' in a checkout of khmer_ocr, or pip install 'khmer-ocr[{listed}]' elsewhere"
        f"{other}"
    )


def missing_extra(purpose: str, *packages: str, seen: str = "", otherwise: str = "") -> MissingExtraError:
    """Word the error of optional packages that are not installed.

    Args:
        purpose: what needs them, as the beginning of a sentence: "train", "The recipe scan".
        packages: keys of `EXTRA_OF`.
        seen: what Python said, for a package that is there and does not work.
        otherwise: what can be done without them, a sentence.
    """
    missing = [package for package in packages if not is_installed(package)]
    *names, last = [_TITLES.get(package, package) for package in missing or packages]
    listed = f"{', '.join(names)} and {last}" if names else last
    if seen and not missing:
        state = f"which can't be imported ({seen})"
    else:
        state = "which is not installed" if len(missing or packages) == 1 else "which are not installed"
    hint = install_hint(*(EXTRA_OF[package] for package in missing or packages))
    return MissingExtraError(f"{purpose} needs {listed}, {state}. {f'{otherwise} ' if otherwise else ''}{hint}")


def missing_extra_of(fault: ImportError, purpose: str) -> MissingExtraError | None:
    """Word a failed import, if it is one of the optional packages that is missing.

    Args:
        fault: as Python raised it.
        purpose: what needed the package, as the beginning of a sentence.
    """
    if not isinstance(fault, ModuleNotFoundError):
        return None
    for package in EXTRA_OF:
        if f"{fault.name}.".startswith(f"{package.partition('.')[0]}.") and not is_installed(package):
            return missing_extra(purpose, package)
    return None


def require(purpose: str, *packages: str) -> None:
    """Make sure that optional packages are installed, without importing them, which takes seconds.

    Args:
        purpose: what needs them, as the beginning of a sentence.
        packages: keys of `EXTRA_OF`.

    Raises:
        MissingExtraError: names all that are missing, and how to install them.
    """
    if missing := [package for package in packages if not is_installed(package)]:
        raise missing_extra(purpose, *missing)


def is_installed(package: str) -> bool:
    """Tell whether a package could be imported, without importing it.

    Args:
        package: a key of `EXTRA_OF`.
    """
    parent, dot, _ = package.rpartition(".")
    if dot and not is_installed(parent):
        return False
    if package in sys.modules:
        return sys.modules[package] is not None
    try:
        return importlib.util.find_spec(package) is not None
    except ModuleNotFoundError:
        return False
