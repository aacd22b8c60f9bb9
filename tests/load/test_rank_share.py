"""The three loaders among several processes: who reads what, and how they go on where they stopped."""

import json
import socket
import subprocess
import sys

import pytest

from tests.dataset.trees import text, write_tree

torch = pytest.importorskip("torch")

from khmer_ocr.errors import ConfigError  # noqa: E402
from khmer_ocr.load.dataset import create_synthetic_dataloaders  # noqa: E402
from tests.load.loading import ENGINES  # noqa: E402

COUNTS = {"train": 61, "val": 11, "test": 7}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_tree(tmp_path_factory.mktemp("tree") / "data", COUNTS)


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)


def loaders(root, **settings):
    return create_synthetic_dataloaders(**{"batch_size": 4, "num_workers": 0, "synthetic_dir": root, **settings})


def texts(batches):
    return [one for batch in batches for one in batch["texts"]]


def seen(batches):
    return [(batch["texts"], batch["images"].double().sum().item(), batch["targets"].tolist()) for batch in batches]


PROCESS = """
import json, sys
import torch.distributed as dist
from khmer_ocr import create_synthetic_dataloaders
rank, port, root = int(sys.argv[1]), sys.argv[2], sys.argv[3]
dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
loaders = create_synthetic_dataloaders(batch_size=4, num_workers=0, synthetic_dir=root)
told = [(loader.rank, loader.world) for loader in loaders]
epochs = [[[batch["texts"] for batch in loader] for loader in loaders] for _ in range(2)]
dist.barrier()
dist.destroy_process_group()
print(json.dumps([told, epochs]))
"""


def test_two_real_processes_share_train_and_have_val_and_test_whole(root):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    commands = [[sys.executable, "-c", PROCESS, str(rank), port, root] for rank in range(2)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for command in commands]
    answers = []
    try:
        for rank, process in enumerate(running):
            out, _ = process.communicate(timeout=240)
            assert process.returncode == 0
            told, epochs = json.loads(out)
            assert told == [[rank, 2], [0, 1], [0, 1]]
            answers.append(epochs)
    finally:
        for process in running:
            process.kill()
    written = {split: [text(split, i) for i in range(count)] for split, count in COUNTS.items()}
    for epoch in range(2):
        shares = [answer[epoch][0] for answer in answers]
        assert len(shares[0]) == len(shares[1]) > 5
        assert sorted(one for share in shares for batch in share for one in batch) == sorted(written["train"])
        for answer in answers:
            for place, split in ((1, "val"), (2, "test")):
                assert [one for batch in answer[epoch][place] for one in batch] == written[split]
    assert answers[0][0][0] != answers[0][1][0]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_environment_of_torchrun_is_taken(root, monkeypatch, engine):
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    shares, evals = [], []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        monkeypatch.setenv("WORLD_SIZE", "3")
        train, val, test = loaders(root, engine=engine, split_eval=True)
        assert {(loader.rank, loader.world) for loader in (train, val, test)} == {(rank, 3)}
        shares.append(list(train))
        evals.append((texts(val), texts(test)))
    assert len({len(share) for share in shares}) == 1
    assert sorted(one for share in shares for one in texts(share)) == sorted(text("train", i) for i in range(61))
    for place, split in ((0, "val"), (1, "test")):
        expected = sorted(text(split, i) for i in range(COUNTS[split]))
        assert sorted(one for answer in evals for one in answer[place]) == expected


def test_arguments_go_before_the_environment(root, monkeypatch):
    monkeypatch.setenv("RANK", "2")
    monkeypatch.setenv("WORLD_SIZE", "3")
    train, val, _ = loaders(root, rank=1, world=2)
    assert (train.rank, train.world, val.rank, val.world) == (1, 2, 0, 1)
    assert len(texts(loaders(root, rank=0, world=1)[0])) == 61


@pytest.mark.parametrize(
    ("variables", "arguments", "message"),
    [
        ({"WORLD_SIZE": "2"}, {}, r"WORLD_SIZE is set in the environment but RANK is not.*torchrun"),
        ({"RANK": "0"}, {}, r"RANK is set in the environment but WORLD_SIZE is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, {}, r"rank 2 of world 2 is set in the environment; ranks count from 0"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, {}, r"RANK is 'one' in the environment"),
        ({}, {"rank": 1}, r"rank is given but world is not"),
        ({"RANK": "0", "WORLD_SIZE": "2"}, {"world": 2}, r"world is given but rank is not"),
        ({}, {"rank": -1, "world": 2}, r"rank -1 of world 2 is given"),
        ({}, {"rank": 0, "world": 0}, r"rank 0 of world 0 is given"),
    ],
)
def test_what_is_half_known_is_refused(root, monkeypatch, variables, arguments, message):
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=message):
        loaders(root, **arguments)


@pytest.mark.parametrize("settings", [{}, {"rank": 1, "world": 2}, {"cache": True}, {"num_workers": 1}])
@pytest.mark.parametrize("engine", ENGINES)
def test_a_loader_goes_on_at_any_batch_with_the_identical_rest(root, engine, settings):
    if engine == "dali":
        pytest.importorskip("nvidia.dali")
    for whole, again in zip(*(loaders(root, engine=engine, **settings) for _ in range(2)), strict=True):
        epochs, states = [], []
        for _ in range(2):
            epochs.append([])
            states.append([whole.state_dict()])
            for batch in whole:
                epochs[-1] += seen([batch])
                states[-1].append(whole.state_dict())
        for epoch in range(2):
            assert states[epoch][0]["epoch"] == epoch and states[epoch][0]["batch"] == 0
            assert states[epoch][-1]["epoch"] == epoch + 1 and states[epoch][-1]["batch"] == 0
            for at in range(0, len(epochs[epoch]), 2):
                again.load_state_dict(json.loads(json.dumps(states[epoch][at])))
                assert seen(again) == epochs[epoch][at:]
                if not epoch:
                    assert seen(again) == epochs[1]
        whole.loader.close()
        again.loader.close()


def test_set_epoch_gives_that_epoch_from_its_beginning(root):
    train, again = (loaders(root)[0] for _ in range(2))
    epochs = [seen(train) for _ in range(4)]
    for epoch in (2, 0, 3):
        again.set_epoch(epoch)
        assert again.state_dict()["epoch"] == epoch and seen(again) == epochs[epoch]
    again.set_epoch(1)
    next(iter(again))
    assert seen(again) == epochs[2]
    for wrong in (-1, 1.5, "1", None, True):
        with pytest.raises(ConfigError, match="epoch is"):
            again.set_epoch(wrong)


def test_an_iterator_that_was_left_does_not_move_the_state(root):
    train = loaders(root)[0]
    left = iter(train)
    next(left)
    train.set_epoch(5)
    next(left)
    assert (train.state_dict()["epoch"], train.state_dict()["batch"]) == (5, 0)


def test_a_state_of_another_deal_is_refused_within_an_epoch(root, tmp_path):
    train = loaders(root)[0]
    batches = iter(train)
    next(batches), next(batches)
    state = train.state_dict()
    assert (state["epoch"], state["batch"]) == (0, 2)
    for other, what in (
        (loaders(root, batch_size=5)[0], "batch_size = 4; this one has 5"),
        (loaders(root, rank=0, world=2)[0], "world = 1; this one has 2"),
        (loaders(root, max_samples=50)[0], "samples = 61; this one has 50"),
        (loaders(root)[1], "split = 'train'"),
    ):
        with pytest.raises(ConfigError, match=what):
            other.load_state_dict(state)
        other.load_state_dict({**state, "epoch": 1, "batch": 0})
        assert other.state_dict()["epoch"] == 1
    with pytest.raises(ConfigError, match="batch missing"):
        train.load_state_dict({"epoch": 0})
    with pytest.raises(ConfigError, match="batch 99; epoch 0 has 16"):
        train.load_state_dict({**state, "batch": 99})


def test_lines_left_out_are_told_of_for_scanned_trees_and_others(tmp_path, caplog):
    root = write_tree(tmp_path / "data", {"train": 250, "val": 2, "test": 2})
    (root / "train/images/train_000007.png").write_bytes(b"")
    train = loaders(root, on_error="skip")[0]
    assert len(texts(train)) == 249
    assert "train, epoch 0: 1 of 250 samples were left out" in caplog.text
    caplog.clear()
    (root / "train/metadata.json").unlink()
    train = loaders(root, on_error="skip")[0]
    assert len(texts(train)) == len(train.dataset) == 249
    assert caplog.text.count("1 of 250 samples were left out") == 1 and "train_000007.png" in caplog.text
