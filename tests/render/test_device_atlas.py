"""The atlas on a device: sent once, grown, sent anew after a clear; lines drawn from it are those of the CPU.

What is drawn runs in another process, in Triton's interpreter; `batches_drawn` is called there by `gpu.run_on_tensors`.
"""

import os
import subprocess
import sys

import numpy as np
import pytest

from tests import REPOSITORY

pytest.importorskip("triton")

import torch

from khmer_ocr import rng
from khmer_ocr.render import device_atlas
from khmer_ocr.render.compositor import LineRenderer
from khmer_ocr.render.device_atlas import DeviceAtlas
from khmer_ocr.render.glyph_atlas import GlyphAtlas, keys
from khmer_ocr.render.settings import RenderConfig
from khmer_ocr.render.shaping_cache import ShapingCache
from tests.gpu import run_on_tensors

KEY = rng.key(7, "train", "plan")
CPU = torch.device("cpu")
HERE = "tests.render.test_device_atlas"
SCARCE = (1 << 10, 1 << 3)
BATCHES = [["ក", "ស្ត្រី"], ["ក"], ["ខ្ញុំ", "A1", "ភាសា"], ["៛"], ["ដើរ", "ក"]]
"""Few and short: the interpreter draws a few lines a second."""


@pytest.fixture
def atlas(few_faces):
    return GlyphAtlas(few_faces, ShapingCache(few_faces, [1] * len(few_faces), [""] * len(few_faces)).glyph_base)


@pytest.fixture
def sent(monkeypatch):
    """Bytes that went to the device, by array."""
    sizes = []

    def counted(array, device):
        sizes.append(array.nbytes)
        return torch.from_numpy(array)

    monkeypatch.setattr(device_atlas, "pinned", counted)
    return sizes


def drawn_into(atlas, gids, size_px=32):
    """Entries of glyphs of the first face, and how many entries there must be for them."""
    gid_Q = np.array(list(gids), np.int64)
    entry_Q = atlas.entries_of(keys(gid_Q, np.full_like(gid_Q, size_px * 64), gid_Q % 16), [0])
    return entry_Q, int(entry_Q.max()) + 1


def assert_same_rasters(mirror, atlas, entry_Q):
    for entry in np.unique(entry_Q).tolist():
        assert mirror.entries_E5[entry].tolist() == atlas.entries_E5[entry].tolist()
        at, width, height = atlas.entries_E5[entry, :3].tolist()
        mine = mirror.pixels_N[at : at + width * height].numpy()
        assert np.array_equal(mine, atlas.pixels_N[at : at + width * height])


def test_only_what_was_added_is_sent(atlas, sent):
    mirror, pixels_sent, rooms = DeviceAtlas(CPU), 0, set()
    for begin in range(20, 260, 10):
        count = drawn_into(atlas, range(begin, begin + 15))[1]
        sent.clear()
        mirror.sync(atlas, count)
        pixels_sent += sum(sent[::2])
        assert sum(sent[1::2]) == (10 if begin > 20 else 15) * 5 * 4
        sent.clear()
        mirror.sync(atlas, count)
        mirror.sync(atlas, 3)
        assert sent == []
        assert_same_rasters(mirror, atlas, np.arange(count))
        rooms.add((mirror.pixels_N.data_ptr(), mirror.entries_E5.data_ptr(), len(mirror.entries_E5)))
    sizes_K = atlas.entries_E5[:count, 1].astype(np.int64) * atlas.entries_E5[:count, 2]
    assert pixels_sent == sizes_K.sum() > 10_000
    # 245 entries in rooms of 15, 30, 60, 120, 240, 480; pixels likewise, at other times.
    assert len({entries for _, _, entries in rooms}) <= 6 and len(rooms) <= 14


def test_a_batch_without_glyphs_sends_nothing(atlas, sent):
    mirror = DeviceAtlas(CPU)
    mirror.sync(atlas, 0)
    assert sent == [] and len(mirror.pixels_N) == len(mirror.entries_E5) == 0


def test_rasters_without_ink_need_no_pixels(atlas):
    mirror, blank = (
        DeviceAtlas(CPU),
        [gid for gid in range(3, 8) if not atlas.entries_E5[drawn_into(atlas, [gid])[0][0], 1]],
    )
    assert blank
    count = drawn_into(atlas, blank)[1]
    mirror.sync(atlas, count)
    assert_same_rasters(mirror, atlas, np.arange(count))


def test_a_cleared_atlas_is_sent_anew(atlas):
    mirror = DeviceAtlas(CPU)
    mirror.sync(atlas, drawn_into(atlas, range(20, 120))[1])
    room = mirror.pixels_N.data_ptr()
    atlas.clear()
    entry_Q, count = drawn_into(atlas, range(200, 240), 20)
    mirror.sync(atlas, count)
    assert count == 40 and mirror.pixels_N.data_ptr() == room
    assert_same_rasters(mirror, atlas, entry_Q)


def test_another_atlas_is_sent_anew(atlas, few_faces):
    mirror = DeviceAtlas(CPU)
    mirror.sync(atlas, drawn_into(atlas, range(20, 60))[1])
    other = GlyphAtlas(few_faces, [[0]])
    entry_Q, count = drawn_into(other, range(90, 100))
    mirror.sync(other, count)
    assert_same_rasters(mirror, other, entry_Q)


def test_an_atlas_that_grows_on_the_host(few_faces):
    small, mirror = GlyphAtlas(few_faces, [[0]], None, 1 << 10, 1 << 4), DeviceAtlas(CPU)
    for gids in (range(20, 24), range(20, 220)):
        entry_Q, count = drawn_into(small, gids)
        mirror.sync(small, count)
        assert_same_rasters(mirror, small, entry_Q)
    assert len(small.entries_E5) > 1 << 4 and len(small.pixels_N) > 1 << 10


def test_out_of_memory_loses_nothing(atlas, monkeypatch):
    mirror = DeviceAtlas(CPU)
    held_Q, count = drawn_into(atlas, range(20, 60))
    mirror.sync(atlas, count)
    more_Q, more = drawn_into(atlas, range(60, 400))
    take, calls = torch.empty, []

    def scarce(shape, **options):
        calls.append(shape)
        if len(calls) == 2:
            raise torch.cuda.OutOfMemoryError("none left")
        return take(shape, **options)

    monkeypatch.setattr(torch, "empty", scarce)
    with pytest.raises(torch.cuda.OutOfMemoryError):
        mirror.sync(atlas, more)
    assert_same_rasters(mirror, atlas, held_Q)
    mirror.sync(atlas, more)
    assert_same_rasters(mirror, atlas, more_Q)


def renderer(faces, metrics, device, limits=None):
    made = LineRenderer(faces, metrics, RenderConfig(image_height=24), None, device)
    if limits:
        made.atlas = GlyphAtlas(faces, made.shaping_cache.glyph_base, None, *limits)
    return made


def drawn(made, batches):
    """Each batch drawn by itself: pixels, offsets, widths."""
    results, first = [], 0
    for texts in batches:
        address_B = np.arange(first, first + len(texts), dtype=np.uint64)
        batch = made.draw(texts, made.plan(texts, address_B, KEY))
        results.append((batch.pixels_N, batch.offsets_B1, batch.width_B))
        first += len(texts)
    return results


def batches_drawn(faces, metrics, device, limits):
    """For another process: pixels, offsets and widths of `BATCHES`, and how often the atlas was emptied."""
    made = renderer(faces, metrics, device, limits)
    results = drawn(made, BATCHES)
    assert all(isinstance(pixels_N, torch.Tensor) and pixels_N.device.type == device.type for pixels_N, _, _ in results)
    offsets, widths = (np.concatenate([result[n] for result in results]) for n in (1, 2))
    pixels_N = torch.cat([pixels_N for pixels_N, _, _ in results])
    alone = made.draw_at(["ក"], np.zeros(1, np.int32), np.full(1, 32 * 64, np.int64))
    assert isinstance(alone[0], np.ndarray)
    cleared = torch.tensor([made.atlas.cleared])
    return tuple(array.to(device) for array in (pixels_N, torch.tensor(offsets), torch.tensor(widths), cleared))


def assert_draws_like_the_cpu(faces, metrics, folder, device, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(REPOSITORY), prepend=os.pathsep)
    cases = [(faces, metrics, torch.device(device), limits) for limits in (None, SCARCE)]
    on_device = run_on_tensors(f"{HERE}:batches_drawn", cases, folder, device)
    for limits, (pixels_N, offsets, widths, cleared) in zip((None, SCARCE), on_device, strict=True):
        right = drawn(renderer(faces, metrics, "cpu", limits), BATCHES)
        assert np.array_equal(pixels_N, np.concatenate([each[0] for each in right]))
        assert np.array_equal(offsets, np.concatenate([each[1] for each in right]))
        assert np.array_equal(widths, np.concatenate([each[2] for each in right]))
        assert (cleared[0] > 0) == (limits is not None)


def test_the_interpreter_draws_lines_like_the_cpu(few_faces, metrics, tmp_path, monkeypatch):
    known = {face.name: metrics[face.name] for face in few_faces}
    assert_draws_like_the_cpu(few_faces, known, tmp_path, "cpu", monkeypatch)


@pytest.mark.gpu
def test_a_device_draws_lines_like_the_cpu(few_faces, metrics, tmp_path, monkeypatch):
    known = {face.name: metrics[face.name] for face in few_faces}
    assert_draws_like_the_cpu(few_faces, known, tmp_path, "cuda", monkeypatch)


def test_without_a_device_there_is_no_torch():
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from khmer_ocr.render.measured_faces import usable_faces\n"
        "from khmer_ocr.generate.chunk_renderer import ChunkRenderer, RenderJob\n"
        "from khmer_ocr.render.settings import RenderConfig\n"
        "from khmer_ocr.augment.recipe import load_recipe\n"
        "faces, metrics = usable_faces(['NotoSansKhmer-Regular'], fonts_dir=Path('none'), system=False)\n"
        "settings = (tuple(faces), metrics, RenderConfig(), 'none', 'files', 42, None)\n"
        "job = RenderJob(*settings, recipe=load_recipe('basic'))\n"
        "assert ChunkRenderer(job).lines('train', 0, ['\\u1780'])[1]\n"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'triton', 'kornia')])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.stdout, done.returncode) == ("[]\n", 0), done.stderr
