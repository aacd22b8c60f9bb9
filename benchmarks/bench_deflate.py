"""Our deflate against ISA-L, zlib-ng and zlib on drawn lines, speed and bytes: python benchmarks/bench_deflate.py

Needs the packages `isal` and `zlib-ng`, which the project does not: give it a virtual environment of its own. One core,
line by line as they are stored (rows of a PNG without filters), cases in turn, ratios round by round.
"""

import argparse
import json
import os
import sys
import zlib
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from statistics import median

import numpy as np
from common import interleaved, lines_of, ratio, store
from isal import isal_zlib
from khmer_ocr_kernels.deflate import PADDING, deflate, most_bytes
from khmer_ocr_kernels.ragged import RaggedLines
from zlib_ng import zlib_ng

from khmer_ocr import rng
from khmer_ocr.augment.augmenter import Augmenter
from khmer_ocr.augment.recipe import load_recipe
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.measured_faces import usable_faces

OURS = "ours"


def drawn(lines: int) -> dict[str, RaggedLines]:
    """The same lines clean and as the recipe basic leaves them."""
    faces, metrics = usable_faces(None, fonts_dir=Path("fonts"), system=False)
    renderer = LineRenderer(faces, metrics)
    texts = [text for text in lines_of(None, lines) if not renderer.planner.rejections([text])[0]]
    address_B = np.arange(len(texts), dtype=np.uint64)
    clean = renderer.draw(texts, renderer.plan(texts, address_B, rng.key(1, "train", "plan")))
    recipe = load_recipe("basic", "mixed")
    assert recipe is not None
    augmented, _ = Augmenter(recipe, 1).augment(clean, "train", address_B, np.full(len(texts), 1.4))
    return {"clean": clean, "augmented": augmented}


def rows_of(lines: RaggedLines) -> list[tuple[int, bytes]]:
    """Bytes of a row, and all rows of a line: before each the filter type 0."""
    images = (np.pad(lines.image(line), ((0, 0), (1, 0))) for line in range(len(lines)))
    return [(image.shape[1], image.tobytes()) for image in images]


def packed(rows: list[tuple[int, bytes]]) -> list[bytes]:
    files = []
    for above, data in rows:
        array, out = np.frombuffer(data + bytes(PADDING), np.uint8), np.empty(most_bytes(len(data)), np.uint8)
        files.append(out[: deflate(array, 0, len(data), above, out, 0)].tobytes())
    return files


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--lines", type=int, default=1024)
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    others = {"isal": isal_zlib.compress, "zlib-ng": zlib_ng.compress, "zlib": zlib.compress}
    levels = [("isal", 0), ("isal", 1), ("zlib-ng", 1), ("zlib-ng", 6), ("zlib", 1), ("zlib", 6)]
    result: dict[str, object] = {"command": " ".join(["python", Path(sys.argv[0]).name, *sys.argv[1:]])}
    result["versions"] = {name: version(name) for name in ("isal", "zlib-ng")} | {"zlib": zlib.ZLIB_RUNTIME_VERSION}
    for kind, lines in drawn(arguments.lines).items():
        rows, sizes = rows_of(lines), dict[str, int]()
        ways: dict[str, Callable[[list[tuple[int, bytes]]], list[bytes]]] = {OURS: packed}
        for name, level in levels:
            ways[f"{name} {level}"] = lambda rows, call=others[name], level=level: [call(d, level) for _, d in rows]
        for name, way in ways.items():
            files = way(rows)
            assert [zlib.decompress(file) for file in files] == [data for _, data in rows], name
            sizes[name] = sum(map(len, files))
        cases = {name: (lambda way=way, rows=rows: len(way(rows))) for name, way in ways.items()}
        seconds = interleaved(cases, arguments.rounds)
        result[kind] = {
            name: {
                "us_per_line": round(1e6 * median(seconds[name]), 1),
                "bytes_per_line": round(sizes[name] / len(rows)),
                "time_to_ours": [round(value, 2) for value in ratio(seconds[name], seconds[OURS])],
            }
            for name in ways
        }
        print(kind, json.dumps(result[kind], indent=1), flush=True)
    print(store("deflate", result))


if __name__ == "__main__":
    main()
