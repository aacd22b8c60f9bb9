"""The bundled sample corpus: Khmer lines written for this project, a blank line between documents."""

from importlib import resources


def sample_text() -> str:
    """Return the whole file, blank lines between its documents."""
    return resources.files("khmer_ocr.samples").joinpath("khmer_sample.txt").read_text(encoding="utf-8")


def sample_lines() -> list[str]:
    """Return the lines of the bundled sample corpus in order, without the blank ones between its documents."""
    return [line for line in sample_text().splitlines() if line]
