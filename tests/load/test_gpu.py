"""The engines on a GPU: the batches of the CPU, in the memory of the device."""

import pytest

from tests.dataset.trees import write_tree

torch = pytest.importorskip("torch")

from khmer_ocr import create_synthetic_dataloaders  # noqa: E402
from khmer_ocr.dataset import layout  # noqa: E402
from tests.load.loading import ENGINES, assert_equal, open_split  # noqa: E402

pytestmark = pytest.mark.gpu


@pytest.fixture(scope="module", params=layout.FORMATS)
def root(request, tmp_path_factory):
    counts = {"train": 70, "val": 5, "test": 5}
    return write_tree(tmp_path_factory.mktemp(request.param) / "data", counts, request.param, chunk=32)


@pytest.mark.parametrize("dtype", ["uint8", "float32", "float16", "bfloat16"])
@pytest.mark.parametrize("cache", [False, True])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_gpu_gets_the_batches_of_the_cpu(root, engine, cache, dtype):
    on_gpu = open_split(root, engine=engine, cache=cache, dtype=dtype, device="cuda")
    expected = open_split(root, dtype=dtype)
    for epoch in range(2):
        kept = list(on_gpu.epoch(epoch))
        assert all(batch["images"].is_cuda for batch in kept)
        assert_equal(expected.epoch(epoch), kept)


@pytest.mark.parametrize("engine", ENGINES)
def test_another_stream_sees_whole_batches(root, engine):
    loader, expected = (
        open_split(root, engine=engine, device="cuda", dtype="float32"),
        open_split(root, dtype="float32"),
    )
    sums = []
    with torch.cuda.stream(torch.cuda.Stream()):
        for batch in loader.epoch(0):
            sums.append(batch["images"].double().sum())
    assert [float(s) for s in sums] == [float(batch["images"].double().sum()) for batch in expected.epoch(0)]


@pytest.mark.parametrize("engine", ENGINES)
def test_workers_deliver_to_a_gpu_too(root, engine):
    loader = open_split(root, engine=engine, device="cuda", num_workers=2)
    assert_equal(open_split(root).epoch(0), loader.epoch(0))
    loader.close()


@pytest.mark.parametrize("engine", ENGINES)
def test_a_bad_line_is_left_out(root, engine):
    if not (root / "train/images").is_dir():
        pytest.skip("files only")
    image = root / "val/images/val_000002.png"
    data = image.read_bytes()
    image.write_bytes(data[:60])
    try:
        with pytest.raises(Exception, match="val_000002"):
            list(open_split(root, "val", engine=engine, device="cuda").epoch(0))
    finally:
        image.write_bytes(data)


def test_the_door_that_users_know(root):
    for on_gpu, on_cpu in zip(
        create_synthetic_dataloaders(synthetic_dir=root, device="cuda"),
        create_synthetic_dataloaders(synthetic_dir=root),
        strict=True,
    ):
        assert_equal([{**b, "number": 0} for b in on_cpu], [{**b, "number": 0} for b in on_gpu])
