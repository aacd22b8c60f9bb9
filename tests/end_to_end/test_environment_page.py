"""docs/environment.md names every variable of ours and every marker, and no other."""

import re
import tomllib

from tests import REPOSITORY

PAGE = (REPOSITORY / "docs/environment.md").read_text(encoding="utf-8")
OURS = r"\bKHMER_OCR_[A-Z0-9_]*[A-Z0-9]\b"


def test_every_variable_has_a_row() -> None:
    used = set[str]()
    for folder in ("khmer_ocr", "kernels", "scripts", "tests", "benchmarks"):
        for path in (REPOSITORY / folder).rglob("*"):
            if path.is_file() and (path.suffix in (".py", ".yaml", ".toml") or path.parent.name == "scripts"):
                used |= set(re.findall(OURS, path.read_text(encoding="utf-8")))
    assert set(re.findall(rf"^\| `({OURS})`", PAGE, re.M)) == used


def test_every_marker_has_a_row() -> None:
    with (REPOSITORY / "pyproject.toml").open("rb") as file:
        markers = tomllib.load(file)["tool"]["pytest"]["ini_options"]["markers"]
    section = PAGE.partition("## Test markers")[2].partition("\n## ")[0]
    assert re.findall(r"^\| `(\w+)` \|", section, re.M) == [marker.partition(":")[0] for marker in markers]
