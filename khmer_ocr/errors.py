"""One exception tree. Every message says what was seen, what was wanted and what to do."""


class KhmerOcrError(Exception):
    """Root of everything this project raises on purpose; the CLI prints it without a traceback and leaves with 2."""


class ConfigError(KhmerOcrError, ValueError):
    """A setting is unknown, of the wrong type, out of range, or contradicts another."""


class CorpusError(KhmerOcrError, ValueError):
    """Input text cannot be used: empty, binary, wrongly encoded, or of an unknown format."""


class SplitNotFoundError(KhmerOcrError, FileNotFoundError):
    """A split's text file or folder does not exist."""


class FontError(KhmerOcrError):
    """A font is missing, broken, hostile, or lacks Khmer."""


class NoFontsError(FontError, FileNotFoundError):
    """No usable Khmer font was found anywhere."""


class OutputError(KhmerOcrError, OSError):
    """The output folder cannot be written: read-only, full, or inside the input."""


class RunConflictError(KhmerOcrError):
    """The output folder holds a run of a different configuration."""


class DatasetError(KhmerOcrError):
    """A stored data set is damaged: bad metadata, a missing file, an image that does not decode."""


class WorkerError(KhmerOcrError):
    """A worker process died and replacing it did not help."""


class ModelError(KhmerOcrError):
    """A model or a checkpoint is missing, damaged, hostile, or of another shape or charset."""


class TrainingError(KhmerOcrError):
    """A run of training cannot go on: its loss is no number, or one batch can't be learned."""


class ImageError(KhmerOcrError, ValueError):
    """An image to be read is missing, damaged, hostile, or no line of text."""
