"""Both formats hold the same lines, and other tools read them."""

import io
import json
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from khmer_ocr.dataset import layout
from tests.generate.generating import samples_of


@pytest.fixture(scope="module")
def shards(webdataset_run: Path) -> list[Path]:
    return sorted((webdataset_run / "train" / "shards").glob("*.tar"))


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_formats_hold_the_same_pixels_and_labels(shards: list[Path], reference: Path) -> None:
    known = samples_of(reference)
    assert len(shards) == -(-len(known) // layout.CHUNK) >= 3
    at = 0
    for number, shard in enumerate(shards):
        assert shard.name == layout.shard_name("train", number)
        with tarfile.open(shard) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for facts in known[at : at + layout.CHUNK]:
            stem = facts["filename"]
            stored = (reference / "train" / "images" / f"{stem}.png").read_bytes()
            np.testing.assert_array_equal(pixels(members[f"{stem}.png"]), pixels(stored))
            assert members[f"{stem}.txt"].decode() == facts["text"]
            inside = json.loads(members[f"{stem}.json"])
            assert inside["shard"] == shard.name
            same = ("filename", "text", "font", "image_width", "image_height", "pixel_hash", "size_ppem")
            assert {key: inside[key] for key in same} == {key: facts[key] for key in same}
        at += layout.CHUNK


def test_metadata_of_shards_equal_their_json_members(shards: list[Path], webdataset_run: Path) -> None:
    inside = []
    for shard in shards:
        with tarfile.open(shard) as tar:
            inside += [json.load(tar.extractfile(m)) for m in tar if m.name.endswith(".json")]  # type: ignore[arg-type]
    recorded = samples_of(webdataset_run)
    assert inside == recorded
    assert recorded[0]["image_path"] == "out/train/shards/train-000000.tar/train_000000.png"
    assert recorded[0]["label_path"] == "out/train/shards/train-000000.tar/train_000000.txt"


WEBDATASET = """
import json, sys
import webdataset as wds
out = []
for entry in wds.WebDataset(sys.argv[1:], shardshuffle=False, empty_check=False):
    out.append([entry["__key__"], len(entry["png"]), entry["txt"].decode(), json.loads(entry["json"])["text"]])
print(json.dumps(out))
"""


@pytest.mark.slow
def test_webdataset_package_reads_the_shards(shards: list[Path], reference: Path) -> None:
    pytest.importorskip("webdataset")
    command = [sys.executable, "-W", "ignore", "-c", WEBDATASET, *map(str, shards)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    known = [
        [s["filename"], (reference / "train" / "images" / f"{s['filename']}.png").stat().st_size, s["text"], s["text"]]
        for s in samples_of(reference)
    ]
    assert json.loads(done.stdout) == known


DALI = """
import sys
import numpy as np
import xxhash
from nvidia.dali import fn, pipeline_def, types
shards = sys.argv[2:]
@pipeline_def(batch_size=64, num_threads=2, device_id=None)
def read():
    paths, index = shards, [s[:-4] + ".idx" for s in shards]
    png, txt = fn.readers.webdataset(
        paths=paths, index_paths=index, ext=["png", "txt"], pad_last_batch=True, name="reader"
    )
    return fn.decoders.image(png, device="cpu", output_type=types.GRAY), txt
pipe = read()
pipe.build()
total = pipe.reader_meta("reader")["epoch_size"]
with open(sys.argv[1], "w", encoding="utf-8") as out:
    done = 0
    while done < total:
        images, texts = pipe.run()
        for n in range(min(len(images), total - done)):
            pixels = np.ascontiguousarray(np.array(images[n])[:, :, 0])
            label = np.array(texts[n]).tobytes().decode()
            print(pixels.shape[1], pixels.shape[0], xxhash.xxh3_64_hexdigest(pixels), label, sep="\\t", file=out)
            done += 1
"""


def test_dali_reads_the_shards_by_our_index(shards: list[Path], reference: Path, tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    command = [sys.executable, "-W", "ignore", "-c", DALI, str(tmp_path / "read"), *map(str, shards)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    read = [line.split("\t") for line in (tmp_path / "read").read_text(encoding="utf-8").splitlines()]
    known = [[str(s["image_width"]), str(s["image_height"]), s["pixel_hash"], s["text"]] for s in samples_of(reference)]
    assert read == known
