"""Tests, one folder for each folder of khmer_ocr."""

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]
SHARED = REPOSITORY.parent / "shared"
"""Inputs that are no part of the repository; tests skip where they are absent."""
