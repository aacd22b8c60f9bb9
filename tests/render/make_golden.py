"""Writes tests/render/golden/*.json with the `hb-shape` program: glyphs of a few runs in every installed face.

Run it by hand when fonts are added or replaced (`python tests/render/make_golden.py`); the tests then hold `Shaper` to
what an independent build of HarfBuzz says. "Ta" is left out: hb-shape and uharfbuzz read the old kern table of the
Khmer OS fonts differently there, and in nothing else.
"""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path

from khmer_ocr.fonts.discovery import FontFace, find_faces

HERE = Path(__file__).resolve().parent
FONTS = HERE.parents[1] / "fonts"
NOTO_STYLES = ("Regular", "CondensedBold", "ExtraCondensedThin", "Black")
RUNS = (
    ("khmr", "km", "ក្ខ្យុំ ស្ត្រី សង្គ្រាម"),
    ("khmr", "km", "ធម៌ កណ្តាលអាចារ្យព៌ណ"),
    ("khmr", "km", "ប៉ុន្មាន ស៊ីញ៉ូ យ៉ាង៊ុំប៊ូ"),
    ("khmr", "km", "កេ កែ កៃ កោ កៅ កើ កឿ កៀ គ្រោះ"),
    ("khmr", "km", "០១២៣៤៥៦៧៨៩ ១៛"),
    ("khmr", "km", "ហើយៗ ។ល។ ៖ ៕"),
    ("khmr", "km", "ឥឦឧឪឫឬឭឮឯឰឱឳ"),
    ("khmr", "km", "ញ្ញ កញ្ច្រែង ព្រឹទ្ធាចារ្យ"),
    ("khmr", "km", "ចាំបាំ ដំរី ទុំ ហ្វ៊ីល ម៉ឺន"),
    ("khmr", "km", "ក៏ ចា៎ ណ៎ តែ៑ លក្ខណ៍ បណ្ដុំ"),
    ("khmr", "km", "អ្នកទៅផ្សារឆ្នាំ២០២៦"),
    ("latn", "en", "Phnom Penh, AVo fi 2026"),
    ("khmr", "km", "12:30 (45%) - 6/7"),
)


def shape(program: str, face: FontFace, script: str, language: str, text: str) -> list[list[int]]:
    """One run by hb-shape: (glyph, cluster, x offset, y offset, advance) of each glyph."""
    variations = ",".join(f"{tag}={value:g}" for tag, value in face.variations)
    command = [
        *(program, "--no-glyph-names", "--output-format=json", "--direction=ltr"),
        *(f"--script={script}", f"--language={language}", f"--face-index={face.number}", "--shapers=ot"),
        *([f"--variations={variations}"] if variations else []),
        *(str(face.files[0]), f"--text={text}"),
    ]
    glyphs = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return [[glyph["g"], glyph["cl"], glyph["dx"], glyph["dy"], glyph["ax"]] for glyph in glyphs]


def main() -> None:
    """Write a file a face."""
    program = shutil.which("hb-shape")
    if program is None:
        sys.exit("hb-shape is not installed; it comes with harfbuzz's utilities.")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    folder = HERE / "golden"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.json"):
        old.unlink()
    for face in find_faces(fonts_dir=FONTS, heldout=True):
        if face.variations and face.style not in NOTO_STYLES:
            continue
        golden = {
            "face": face.name,
            "file_sha256": hashlib.sha256(face.files[0].read_bytes()).hexdigest(),
            "variations": dict(face.variations),
            "program": version,
            "runs": [
                [script, language, text, shape(program, face, script, language, text)]
                for script, language, text in RUNS
            ],
        }
        text = json.dumps(golden, ensure_ascii=False, separators=(",", ":")) + "\n"
        (folder / f"{face.name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
