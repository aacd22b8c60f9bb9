"""Our PNG container read back by every decoder that matters."""

import io
import shutil
import subprocess
import sys
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from khmer_ocr_kernels.ragged import RaggedLines
from PIL import Image

from khmer_ocr.dataset.png import encode_lines

WIDTHS = (1, 2, 3, 7, 8, 9, 31, 64, 255, 256, 257, 1023, 2048)
HEIGHTS = (24, 31, 32, 48, 96)


def line_like(height: int, width: int, seed: int) -> np.ndarray:
    """Paper with strokes of ink and grey edges; every third one is noise, which does not compress."""
    rng = np.random.default_rng(seed)
    if seed % 3 == 0:
        return rng.integers(0, 256, (height, width), np.uint8)
    pixels = np.full((height, width), 255, np.uint8)
    for _ in range(max(width // 8, 1)):
        x, y = rng.integers(0, width), rng.integers(0, height)
        pixels[y : y + 9, x : x + 3] = rng.integers(0, 200)
    return pixels


def encode(images: list[np.ndarray]) -> list[bytes]:
    return encode_lines(RaggedLines.of_images(images))


@pytest.fixture(scope="module")
def cases() -> list[tuple[np.ndarray, bytes]]:
    out: list[tuple[np.ndarray, bytes]] = []
    for height in HEIGHTS:
        images = [line_like(height, width, seed) for seed, width in enumerate(WIDTHS)]
        out += zip(images, encode(images), strict=True)
    return out


def test_pillow_reads_the_same_pixels(cases: list[tuple[np.ndarray, bytes]]) -> None:
    for pixels, data in cases:
        with Image.open(io.BytesIO(data)) as image:
            image.load()
            assert image.mode == "L" and image.size == pixels.shape[::-1]
            np.testing.assert_array_equal(np.asarray(image), pixels)


def test_opencv_reads_the_same_pixels(cases: list[tuple[np.ndarray, bytes]]) -> None:
    cv2 = pytest.importorskip("cv2")
    for pixels, data in cases:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == np.uint8
        np.testing.assert_array_equal(decoded, pixels)


# torchvision 0.29 names a successor for its decoders; until that is at hand these are what users have.
@pytest.mark.filterwarnings("ignore:The image decoding and encoding capabilities:DeprecationWarning")
def test_torchvision_reads_the_same_pixels(cases: list[tuple[np.ndarray, bytes]]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch, io_ = pytest.importorskip("torch"), pytest.importorskip("torchvision.io")
    for pixels, data in cases:
        decoded = io_.decode_png(torch.frombuffer(bytearray(data), dtype=torch.uint8))
        assert decoded.shape == (1, *pixels.shape)
        np.testing.assert_array_equal(decoded[0].numpy(), pixels)


DALI = """
import sys
from pathlib import Path
import numpy as np
from nvidia.dali import fn, pipeline_def, types
files = sorted(Path(sys.argv[1]).glob("*.png"))
@pipeline_def(batch_size=len(files), num_threads=2, device_id=None, prefetch_queue_depth=1)
def decode():
    data, _ = fn.readers.file(files=[str(f) for f in files], random_shuffle=False)
    return fn.decoders.image(data, device="cpu", output_type=types.GRAY)
pipe = decode()
pipe.build()
(images,) = pipe.run()
for n, file in enumerate(files):
    np.save(file.with_suffix(".npy"), np.array(images[n])[:, :, 0])
"""


def test_dali_reads_the_same_pixels(cases: list[tuple[np.ndarray, bytes]], tmp_path: Path) -> None:
    pytest.importorskip("nvidia.dali")
    for n, (_, data) in enumerate(cases):
        (tmp_path / f"{n:04d}.png").write_bytes(data)
    done = subprocess.run([sys.executable, "-c", DALI, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for n, (pixels, _) in enumerate(cases):
        np.testing.assert_array_equal(np.load(tmp_path / f"{n:04d}.npy"), pixels)


@pytest.mark.skipif(shutil.which("pngcheck") is None, reason="pngcheck is not installed")
def test_pngcheck_finds_no_fault(cases: list[tuple[np.ndarray, bytes]], tmp_path: Path) -> None:
    for n, (_, data) in enumerate(cases):
        (tmp_path / f"{n:04d}.png").write_bytes(data)
    files = sorted(map(str, tmp_path.glob("*.png")))
    done = subprocess.run(["pngcheck", "-v", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert done.stdout.count("No errors detected in") == len(files), done.stdout


@settings(max_examples=60, deadline=None)
@given(
    height=st.integers(24, 96),
    widths=st.lists(st.integers(1, 2048), min_size=1, max_size=4),
    seed=st.integers(0, 1 << 16),
)
def test_any_size_in_any_company(height: int, widths: list[int], seed: int) -> None:
    images = [line_like(height, width, seed + n) for n, width in enumerate(widths)]
    together = encode(images)
    for pixels, data in zip(images, together, strict=True):
        np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
        assert encode([pixels]) == [data], "a line's bytes depend on its neighbours"


def test_container_is_as_small_as_can_be() -> None:
    (data,) = encode([line_like(32, 300, 1)])
    chunks, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        chunks.append(data[place + 4 : place + 8])
        body = data[place + 4 : place + 8 + length]
        assert int.from_bytes(data[place + 8 + length : place + 12 + length], "big") == zlib.crc32(body)
        place += 12 + length
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


def test_no_lines_give_no_files() -> None:
    assert encode_lines(RaggedLines(np.zeros(0, np.uint8), np.zeros(0, np.int32), 32)) == []
