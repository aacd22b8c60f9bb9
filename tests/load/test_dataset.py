import os
import pickle
import subprocess
import sys

import numpy as np
import pytest
import xxhash
from PIL import Image

from tests.dataset.trees import FONTS, edit_metadata, pixels, png, sample, text, write_metadata, write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.dataset import layout  # noqa: E402
from khmer_ocr.errors import ConfigError, DatasetError, SplitNotFoundError  # noqa: E402
from khmer_ocr.load.collate import collate_lines  # noqa: E402
from khmer_ocr.load.dataset import SyntheticImageDataset, create_synthetic_dataloaders  # noqa: E402
from khmer_ocr.text.charset import Charset  # noqa: E402

COUNTS = {"train": 21, "val": 5, "test": 4}


class Config:
    """As much of ConfigManager as reading uses, with a vocabulary that differs from the default."""

    vocab = Charset.from_text([text(split, i) for split, count in COUNTS.items() for i in range(count)])


@pytest.fixture(scope="module", params=layout.FORMATS)
def root(request, tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp(request.param) / "data", COUNTS, request.param, chunk=8)


@pytest.fixture
def fresh(tmp_path):
    return write_tree(tmp_path / "data", COUNTS)


def test_a_sample_is_its_image_and_its_tokens(root):
    dataset = SyntheticImageDataset("train", root)
    assert len(dataset) == 21
    for i in (0, 7, 8, 20):
        item = dataset[i]
        assert item["image"].dtype == torch.float32 and item["image"].shape == (1, *pixels("train", i).shape)
        np.testing.assert_array_equal((item["image"][0] * 255).round().numpy(), pixels("train", i))
        assert item["image"].max() == 1.0 and item["image"].min() >= 0.0
        assert item["targets"].dtype == torch.int64
        assert Charset.default().decode(item["targets"].tolist()) == item["text"] == text("train", i)
        assert (item["filename"], item["font"], item["index"]) == (f"train_{i:06d}.png", FONTS[i % 3], i)


def test_the_vocabulary_is_that_of_the_configuration(root):
    item = SyntheticImageDataset("val", root, Config())[3]
    assert item["targets"].tolist() == Config.vocab.encode(text("val", 3)) != Charset.default().encode(text("val", 3))


def test_positions_count_from_both_ends_and_end(root):
    dataset = SyntheticImageDataset("test", root)
    assert dataset[-1]["index"] == 3
    assert [item["index"] for item in dataset] == [0, 1, 2, 3]
    for i in (4, -5):
        with pytest.raises(IndexError, match="of 4 in split 'test'"):
            dataset[i]
        with pytest.raises(IndexError):
            dataset.get_sample_info(i)


def test_a_transform_gets_the_picture_and_its_result_is_used(root):
    def seen(image):
        assert isinstance(image, Image.Image) and image.mode == "L"
        return torch.zeros(1, image.height, 2 * image.width)

    item = SyntheticImageDataset("train", root, transform=seen)[4]
    height, width = pixels("train", 4).shape
    assert item["image"].shape == (1, height, 2 * width) and item["image"].sum() == 0


def test_torchvision_transforms_fit(root):
    transforms = pytest.importorskip("torchvision.transforms")
    plain = SyntheticImageDataset("train", root)
    transformed = SyntheticImageDataset("train", root, transform=transforms.ToTensor())
    assert torch.equal(plain[5]["image"], transformed[5]["image"])
    batch = collate_lines([transformed[i] for i in range(4)])
    assert torch.equal(batch["images"], collate_lines([plain[i] for i in range(4)])["images"])


def test_max_samples_takes_the_first(root):
    assert len(SyntheticImageDataset("train", root, max_samples=6)) == 6
    assert len(SyntheticImageDataset("train", root, max_samples=600)) == 21
    for wrong in (0, -1):
        with pytest.raises(ConfigError, match="max_samples is"):
            SyntheticImageDataset("train", root, max_samples=wrong)


def test_sample_info_is_the_metadata_under_the_present_root(root):
    dataset = SyntheticImageDataset("train", root)
    info = dataset.get_sample_info(9)
    shard = dataset.index.shard(9)
    expected = sample("train", 9, pixels("train", 9), shard=shard)
    expected["image_path"], expected["label_path"] = layout.recorded_paths(
        str(root), "train", "train_000009.png", shard
    )
    expected.pop("size_ppem")
    assert info == expected


def test_texts_are_taken_from_all_over_the_split(root):
    dataset = SyntheticImageDataset("train", root)
    assert dataset.get_text_sample(3) == [text("train", i) for i in (0, 10, 20)]
    assert dataset.get_text_sample(100) == [text("train", i) for i in range(21)]
    assert dataset.get_text_sample(0) == []


def test_statistics_describe_the_split(root):
    statistics = SyntheticImageDataset("val", root).get_statistics()
    assert statistics["split"] == "val" and statistics["total_samples"] == 5
    assert statistics["image_width"]["max"] == max(pixels("val", i).shape[1] for i in range(5))


@pytest.mark.parametrize("damage", [lambda data: data[:50], lambda data: b"", lambda data: None])
def test_an_unreadable_image_raises_and_is_named(fresh, damage):
    path = fresh / "train/images/train_000003.png"
    data = damage(path.read_bytes())
    path.unlink()
    if data is not None:
        path.write_bytes(data)
    dataset = SyntheticImageDataset("train", fresh)
    with pytest.raises(DatasetError, match=r"train/images/train_000003\.png"):
        dataset[3]
    assert dataset[4]["image"].numel()


def test_an_unreadable_image_raises_through_worker_processes(fresh):
    (fresh / "val/images/val_000002.png").write_bytes(b"")
    _, val, _ = create_synthetic_dataloaders(num_workers=1, synthetic_dir=fresh)
    with pytest.raises(DatasetError, match=r"val_000002\.png is empty"):
        list(val)


def test_padding_is_paper_and_lengths_are_true(root):
    _, val, _ = create_synthetic_dataloaders(batch_size=5, num_workers=0, synthetic_dir=root)
    (batch,) = val
    pages, texts = [pixels("val", i) for i in range(5)], [text("val", i) for i in range(5)]
    assert batch["texts"] == texts
    assert batch["image_lengths"].tolist() == [page.shape[1] for page in pages]
    assert batch["target_lengths"].tolist() == [len(t) for t in texts]
    assert batch["images"].dtype == torch.float32 and batch["targets"].dtype == torch.int64
    assert batch["images"].shape == (5, 1, 32, max(page.shape[1] for page in pages))
    assert len(set(batch["image_lengths"].tolist())) > 1
    for at, page in enumerate(pages):
        width = page.shape[1]
        np.testing.assert_array_equal((batch["images"][at, 0, :, :width] * 255).round().numpy(), page)
        assert (batch["images"][at, :, :, width:] == 1.0).all()
        assert batch["targets"][at, : len(texts[at])].tolist() == Charset.default().encode(texts[at])
        assert (batch["targets"][at, len(texts[at]) :] == 0).all()


def batches(loader):
    return [(batch["texts"], batch["images"].double().sum().item()) for batch in loader]


def test_workers_change_nothing(root):
    options = {"batch_size": 4, "synthetic_dir": root}
    alone = create_synthetic_dataloaders(num_workers=0, **options)
    helped = create_synthetic_dataloaders(num_workers=2, **options)
    assert [batches(loader) for loader in alone] == [batches(loader) for loader in helped]


def test_train_is_shuffled_the_same_way_in_every_run_and_anew_in_every_epoch(root):
    torch.manual_seed(1)
    train, val, test = create_synthetic_dataloaders(batch_size=21, num_workers=0, synthetic_dir=root)
    first, second = (next(iter(train))["texts"] for _ in range(2))
    torch.manual_seed(2)
    again = next(iter(create_synthetic_dataloaders(batch_size=21, num_workers=0, synthetic_dir=root)[0]))["texts"]
    written = [text("train", i) for i in range(21)]
    assert first == again
    assert sorted(first) == sorted(second) == sorted(written)
    assert len({tuple(order) for order in (first, second, written)}) == 3
    assert [t for batch in val for t in batch["texts"]] == [text("val", i) for i in range(5)]
    assert [t for batch in test for t in batch["texts"]] == [text("test", i) for i in range(4)]


def test_the_global_random_state_is_left_alone(root):
    before = torch.get_rng_state()
    for loader in create_synthetic_dataloaders(num_workers=0, synthetic_dir=root):
        list(loader)
    assert torch.equal(torch.get_rng_state(), before)


def test_no_more_workers_are_started_than_there_are_cores(root):
    loaders = create_synthetic_dataloaders(num_workers=1000, synthetic_dir=root)
    assert {loader.num_workers for loader in loaders} == {len(os.sched_getaffinity(0))}


def test_settings_out_of_range_are_refused(root):
    for options in ({"batch_size": 0}, {"num_workers": -1}, {"max_samples": 0}):
        with pytest.raises(ConfigError):
            create_synthetic_dataloaders(synthetic_dir=root, **options)


def test_missing_and_empty_splits_are_named(fresh, tmp_path):
    with pytest.raises(SplitNotFoundError, match=r"none/train does not exist. Run: khmer-ocr generate"):
        create_synthetic_dataloaders(synthetic_dir=tmp_path / "none")
    write_metadata(fresh / "val", "val", [])
    with pytest.raises(DatasetError, match=r"'val' .* holds no samples"):
        create_synthetic_dataloaders(synthetic_dir=fresh)


def test_a_batch_of_two_heights_or_of_no_tensors_is_refused(fresh):
    page = pixels("train", 2, height_px=48)
    (fresh / "train/images/train_000002.png").write_bytes(png(page))
    edit_metadata(fresh, "train", 2, image_height=48, pixel_hash=xxhash.xxh3_64_hexdigest(page.tobytes()))
    dataset = SyntheticImageDataset("train", fresh)
    with pytest.raises(DatasetError, match=r"train_000002\.png has \(channels, height\) \(1, 48\)"):
        collate_lines([dataset[1], dataset[2]])
    dataset = SyntheticImageDataset("train", fresh, transform=lambda image: image)
    with pytest.raises(ConfigError, match="the transform gave Image"):
        collate_lines([dataset[1]])


def test_a_moved_tree_reads_on(fresh, tmp_path):
    before = SyntheticImageDataset("train", fresh)[5]["image"]
    fresh.rename(tmp_path / "moved")
    assert torch.equal(SyntheticImageDataset("train", tmp_path / "moved")[5]["image"], before)


def test_without_metadata_the_folder_is_scanned(fresh):
    before = [item["image"] for item in SyntheticImageDataset("train", fresh)]
    (fresh / "train/metadata.json").unlink()
    dataset = SyntheticImageDataset("train", fresh)
    assert all(torch.equal(one, item["image"]) for one, item in zip(before, dataset, strict=True))
    assert dataset[0]["font"] == "unknown" and "pixel_hash" not in dataset.get_sample_info(0)


def test_a_data_set_survives_pickling(root):
    dataset = SyntheticImageDataset("train", root, Config())
    dataset[0]
    again = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(again[13]["image"], dataset[13]["image"])
    assert torch.equal(again[13]["targets"], dataset[13]["targets"])


@pytest.mark.slow
def test_worker_processes_may_be_spawned(root):
    dataset = SyntheticImageDataset("train", root)
    loader = torch.utils.data.DataLoader(
        dataset, batch_size=4, num_workers=1, collate_fn=collate_lines, multiprocessing_context="spawn"
    )
    assert batches(loader) == batches(torch.utils.data.DataLoader(dataset, batch_size=4, collate_fn=collate_lines))


def test_torch_is_loaded_only_where_batches_are_read():
    command = (
        "import sys, khmer_ocr, khmer_ocr.load, khmer_ocr.dataset.verify, khmer_ocr.dataset.stats;"
        "assert 'torch' not in sys.modules; from khmer_ocr import SyntheticImageDataset; assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", command], check=True)


def test_where_torch_is_not_installed_the_message_says_what_to_install():
    command = "import sys; sys.modules['torch'] = None; import khmer_ocr.load.dataset"
    done = subprocess.run([sys.executable, "-c", command], capture_output=True, text=True)
    assert done.returncode == 1 and "Reading batches needs torch, which is not installed" in done.stderr
    assert "pip install '.[torch]'" in done.stderr and "pip install 'khmer-ocr[torch]'" in done.stderr


def test_what_is_passed_over_in_a_folder_of_others_is_told_once(fresh, caplog):
    (fresh / "generation_metadata.json").unlink(missing_ok=True)
    (fresh / "train/metadata.json").unlink()
    (fresh / "train/labels/nobody.txt").write_text("ក")
    for _ in range(2):
        SyntheticImageDataset("train", fresh)
        create_synthetic_dataloaders(num_workers=0, synthetic_dir=fresh)
    told = [r.getMessage() for r in caplog.records if "nobody.txt" in r.getMessage()]
    assert len(told) == 1 and told[0].startswith(f"{fresh}: train: passed over labels without an image: 1")
