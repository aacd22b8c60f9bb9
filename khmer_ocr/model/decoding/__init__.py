"""Encoded lines to texts: greedy, CTC beam, or CTC and decoder jointly."""

from typing import Literal

DecodeMethod = Literal["beam", "greedy", "ctc"]
