import subprocess
import sys
import threading

import numpy as np
import pytest

from tests import REPOSITORY
from tests.dataset.trees import edit_metadata, pixels, text, write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.dataset import layout  # noqa: E402
from khmer_ocr.errors import ConfigError, DatasetError, SplitNotFoundError  # noqa: E402
from khmer_ocr.load.loader import LoadConfig, open_loader  # noqa: E402
from khmer_ocr.text.charset import Charset  # noqa: E402
from tests.load.loading import ENGINES, assert_equal, digest, open_split  # noqa: E402

COUNT = 70
WAYS = [(engine, cache) for engine in ENGINES for cache in (False, True)]


@pytest.fixture(scope="module", params=layout.FORMATS)
def root(request, tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp(request.param) / "data", {"train": COUNT}, request.param, chunk=32)


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A tree as the generator makes it, by the embedded font alone."""
    from khmer_ocr import ConfigManager, SyntheticImageGenerator
    from khmer_ocr.samples import sample_lines

    folder = tmp_path_factory.mktemp("real")
    (folder / "corpus").mkdir()
    (folder / "corpus/train.txt").write_text("\n".join(sample_lines()[:400]), encoding="utf-8")
    manager = ConfigManager()
    manager.fonts_dir = folder / "no-fonts"
    SyntheticImageGenerator(folder / "corpus", folder / "data", manager).generate(["train"])
    return folder / "data"


@pytest.mark.parametrize(("engine", "cache"), WAYS)
@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_a_batch_is_its_lines_on_paper(root, engine, cache, dtype):
    loader = open_split(root, engine=engine, cache=cache, dtype=dtype)
    full = 255 if dtype == "uint8" else 1.0
    for batch in loader.epoch(0):
        images, index = batch["images"], batch["index"].tolist()
        widths = [pixels("train", i).shape[1] for i in index]
        assert batch["texts"] == [text("train", i) for i in index]
        assert batch["image_lengths"].tolist() == widths
        assert batch["target_lengths"].tolist() == [len(t) for t in batch["texts"]]
        assert images.dtype == getattr(torch, dtype) and images.shape[1:3] == (1, 32)
        assert images.shape[3] == -(-max(widths) // 8) * 8
        for at, i in enumerate(index):
            line, width = images[at, 0].numpy(), widths[at]
            page = pixels("train", i) if dtype == "uint8" else pixels("train", i).astype(np.float32) / np.float32(255)
            np.testing.assert_array_equal(line[:, :width], page)
            assert (line[:, width:] == full).all()
            targets = Charset.default().encode(text("train", i))
            assert batch["targets"][at].tolist() == targets + [0] * (batch["targets"].shape[1] - len(targets))


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
def test_engines_are_equal_over_a_real_tree(real, dtype):
    expected = list(open_split(real, dtype=dtype).epoch(0))
    assert sum(len(batch["texts"]) for batch in expected) > 300
    for engine, cache in WAYS[1:]:
        assert_equal(expected, open_split(real, engine=engine, cache=cache, dtype=dtype).epoch(0))


@pytest.mark.parametrize(("engine", "cache"), WAYS)
def test_four_epochs_bring_each_sample_once(root, engine, cache):
    loader, orders = open_split(root, engine=engine, cache=cache), set()
    for epoch in range(4):
        index = [i for batch in loader.epoch(epoch) for i in batch["index"].tolist()]
        assert sorted(index) == list(range(COUNT))
        orders.add(tuple(index))
    assert len(orders) == 4


@pytest.mark.parametrize("engine", ENGINES)
def test_three_ranks_are_disjoint_and_have_as_many_batches(root, engine):
    loaders = [open_split(root, engine=engine, batch_size=7, rank=rank, world=3) for rank in range(3)]
    for epoch in range(2):
        shares = [list(loader.epoch(epoch)) for loader in loaders]
        assert {len(share) for share in shares} == {loaders[0].batch_count(epoch)}
        index = [i for share in shares for batch in share for i in batch["index"].tolist()]
        assert sorted(index) == list(range(COUNT))


RESUME = """
import sys
sys.path.insert(0, sys.argv[1])
from tests.load.loading import digest, open_split
for way in sys.argv[3:]:
    engine, cache = way.split("/")
    loader = open_split(sys.argv[2], engine=engine, cache=cache == "True")
    print(digest([*loader.epoch(1, start_batch=2), *loader.epoch(2)]))
"""


def test_a_run_resumes_in_a_new_process_as_if_never_stopped(root):
    expected = []
    for engine, cache in WAYS:
        loader = open_split(root, engine=engine, cache=cache)
        uninterrupted = [batch for epoch in range(3) for batch in loader.epoch(epoch)]
        expected.append(digest(uninterrupted[loader.batch_count(0) + 2 :]))
    ways = [f"{engine}/{cache}" for engine, cache in WAYS]
    command = [sys.executable, "-c", RESUME, REPOSITORY, root, *ways]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.split() == expected


@pytest.mark.parametrize(("engine", "cache"), WAYS)
def test_an_epoch_left_early_hurts_none_after_it(root, engine, cache):
    loader, fresh = (open_split(root, engine=engine, cache=cache) for _ in range(2))
    before = threading.active_count()
    left = loader.epoch(0)
    next(left), next(left)
    left.close()
    assert threading.active_count() <= before
    for epoch in (0, 1):
        assert_equal(loader.epoch(epoch), fresh.epoch(epoch))


@pytest.mark.parametrize(("engine", "cache"), WAYS)
@pytest.mark.parametrize("num_workers", [0, 1])
def test_two_epochs_at_a_time_do_not_mix(root, engine, cache, num_workers):
    loader = open_split(root, engine=engine, cache=cache, num_workers=num_workers, prefetch=1, batch_size=8)
    one, other = loader.epoch(0), loader.epoch(1)
    seen = [], []
    for pair in zip(one, other, strict=True):
        for batches, batch in zip(seen, pair, strict=True):
            batches.append(batch)
    for epoch in range(2):
        assert_equal(open_split(root, batch_size=8).epoch(epoch), seen[epoch])
    loader.close()


@pytest.mark.parametrize("settings", [{"num_workers": 2}, {"prefetch": 0}, {"num_workers": 1, "prefetch": 1}])
@pytest.mark.parametrize("engine", ENGINES)
def test_workers_and_prefetch_change_nothing(root, engine, settings):
    loader = open_split(root, engine=engine, **settings)
    for epoch in range(2):
        assert_equal(open_split(root).epoch(epoch), loader.epoch(epoch))
    loader.close()
    assert_equal(open_split(root).epoch(2), loader.epoch(2))
    loader.close()


@pytest.mark.parametrize(("engine", "cache"), WAYS)
def test_several_roots_are_one_split(root, tmp_path, engine, cache):
    other = write_tree(tmp_path / "other", {"train": 20})
    loader = open_split([root, other], engine=engine, cache=cache)
    seen = {}
    for batch in loader.epoch(0):
        for at, i in enumerate(batch["index"].tolist()):
            width = int(batch["image_lengths"][at])
            seen[i] = (batch["texts"][at], batch["images"][at, 0, :, :width].numpy())
    assert sorted(seen) == list(range(COUNT + 20))
    for i, (label, page) in seen.items():
        own = i if i < COUNT else i - COUNT
        assert label == text("train", own)
        np.testing.assert_array_equal(page, pixels("train", own))


@pytest.mark.parametrize(("engine", "cache"), WAYS)
def test_batches_outlive_their_epoch(root, engine, cache):
    loader = open_split(root, engine=engine, cache=cache)
    kept = [(batch, digest([batch])) for batch in loader.epoch(0)]
    list(loader.epoch(1))
    assert all(digest([batch]) == seen for batch, seen in kept)


def test_the_width_budget_holds(root):
    plan_batches = list(open_split(root, batch_size=None, width_budget_px=500).epoch(0))
    assert all(len(b["texts"]) * b["images"].shape[3] <= 500 for b in plan_batches)
    assert len({len(b["texts"]) for b in plan_batches}) > 2
    assert_equal(plan_batches, open_split(root, engine="dali", batch_size=None, width_budget_px=500).epoch(0))


@pytest.mark.parametrize(("engine", "cache"), WAYS)
def test_max_samples_takes_the_first(root, engine, cache):
    loader = open_split(root, engine=engine, cache=cache, max_samples=10)
    assert sorted(i for batch in loader.epoch(0) for i in batch["index"].tolist()) == list(range(10))


def test_statistics_count_what_was_delivered(root):
    loader = open_split(root)
    batches = list(loader.epoch(0))
    counts = loader.statistics
    assert (counts.samples, counts.batches, counts.left_out) == (COUNT, len(batches), 0)
    assert counts.line_px == sum(pixels("train", i).shape[1] for i in range(COUNT))
    assert counts.padded_px == sum(len(b["texts"]) * b["images"].shape[3] for b in batches)
    assert abs(counts.padding_waste - loader.plan(0).padding_waste) < 1e-12
    assert counts.rate_samples_per_s > 0 and 0 < counts.waiting_share <= 1
    assert "70 lines in 5 batches" in str(counts)
    counts.reset()
    assert counts.samples == 0 and counts.rate_samples_per_s == 0 and counts.waiting_share == 0


def test_a_slow_consumer_is_not_made_to_wait(root):
    import time

    loader = open_split(root, cache=True)
    list(loader.epoch(0))
    loader.statistics.reset()
    for _ in loader.epoch(1):
        time.sleep(0.02)
    assert loader.statistics.use_s > 0.08 and loader.statistics.full_s > 0
    assert loader.statistics.wait_s < loader.statistics.use_s


def test_where_to_begin_is_checked(root):
    loader = open_split(root)
    assert list(loader.epoch(0, start_batch=loader.batch_count(0))) == []
    for wrong in (-1, 6):
        with pytest.raises(ConfigError, match=f"start_batch is {wrong}; epoch 0 has 5 batches"):
            loader.epoch(0, start_batch=wrong)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"engine": "tensorflow"}, "engine is 'tensorflow'; expected 'auto', 'dali' or 'torch'"),
        ({"dtype": "int8"}, "dtype is 'int8'"),
        ({"on_error": "ignore"}, "on_error is 'ignore'"),
        ({"num_workers": -1}, "num_workers is -1"),
        ({"prefetch": -1}, "prefetch is -1"),
        ({"device": "abacus"}, "device is 'abacus'"),
        ({"device": "meta"}, "device is 'meta'"),
        ({"batch_size": 0}, "batch_size is 0"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoadConfig(**settings)


def test_a_gpu_that_is_not_there_is_refused(root):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match="torch sees no GPU"):
        open_split(root, device="cuda")


def test_missing_empty_and_mixed_splits_are_refused(tmp_path):
    with pytest.raises(SplitNotFoundError, match="Run: khmer-ocr generate"):
        open_split(tmp_path)
    with pytest.raises(ConfigError, match="no root"):
        open_split([])
    low = write_tree(tmp_path / "low", {"train": 2, "val": 0})
    with pytest.raises(DatasetError, match=r"'val' .* holds no samples"):
        open_split(low, "val")
    edit_metadata(low, "train", 1, image_height=34)
    with pytest.raises(DatasetError, match=r"34 px high.*one --image-height"):
        open_split(low)


def without_dali(code):
    prelude = "import sys; sys.modules['nvidia.dali'] = None; import logging; logging.basicConfig();"
    return subprocess.run([sys.executable, "-c", prelude + code], capture_output=True, text=True)


def test_without_dali_the_torch_engine_reads_and_says_so(real):
    code = (
        "from khmer_ocr.load.loader import *;"
        "from khmer_ocr.text.charset import Charset;"
        f"l = open_loader({str(real)!r}, 'train', LoadConfig(max_samples=70), Charset.default());"
        "print(l.engine, sum(len(b['texts']) for b in l.epoch(0)))"
    )
    done = without_dali(code)
    assert done.stdout.split() == ["torch", "70"], done.stderr
    assert "NVIDIA DALI is not installed: the torch engine" in done.stderr
    assert "pip install '.[torch]'" in done.stderr


def test_without_dali_asking_for_it_is_an_error(real):
    code = (
        "from khmer_ocr.load.loader import *;from khmer_ocr.text.charset import Charset;"
        f"open_loader({str(real)!r}, 'train', LoadConfig(engine='dali'), Charset.default())"
    )
    done = without_dali(code)
    assert done.returncode == 1
    assert 'MissingExtraError: engine "dali" needs NVIDIA DALI, which is not installed' in done.stderr


def test_dali_is_imported_only_where_it_reads(real):
    code = (
        "import sys;from khmer_ocr.load.loader import *;from khmer_ocr.text.charset import Charset;"
        f"open_loader({str(real)!r}, 'train', LoadConfig(engine='torch'), Charset.default());"
        "assert 'nvidia.dali' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_auto_takes_dali_for_files_and_the_twin_for_a_cache(root):
    pytest.importorskip("nvidia.dali")
    assert open_loader(root, "train", LoadConfig(), Charset.default()).engine == "dali"
    assert open_loader(root, "train", LoadConfig(cache=True, progress=False), Charset.default()).engine == "torch"
