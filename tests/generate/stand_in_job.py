"""What a stand-in worker of the executor's tests is sent, apart from all heavy modules: each start imports this one."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any


@dataclass(frozen=True)
class StandInJob:
    """`folder` holds marks of what was done; the process ends itself by signal `start_with` unless that is 0."""

    folder: str
    start_with: int = 0
    faces: tuple[Any, ...] = (SimpleNamespace(name="Good"), SimpleNamespace(name="Bad"))
