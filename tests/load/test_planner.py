import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from khmer_ocr.errors import ConfigError
from khmer_ocr.load.planner import plan_epoch
from khmer_ocr.load.settings import LoadConfig

FIRST = [287, 438, 460, 503, 60, 914]
LAST = [368, 22, 833]


def widths(count: int, seed: int = 0) -> np.ndarray:
    """Spread like those of real lines: 11 to 834 px, mean 190."""
    return np.random.default_rng(seed).gamma(2.5, 75, count).clip(11, 834).astype(np.int32)


def ranks(widths_N, epoch=0, **settings):
    world = settings.pop("world", 1)
    return [plan_epoch(widths_N, LoadConfig(world=world, rank=rank, **settings), epoch) for rank in range(world)]


@given(
    count=st.integers(1, 400),
    batch_size=st.one_of(st.none(), st.integers(1, 70)),
    budget=st.one_of(st.none(), st.integers(1, 9000)),
    world=st.integers(1, 4),
    align=st.sampled_from([1, 8, 32]),
    shuffle=st.booleans(),
    bucket=st.booleans(),
    epoch=st.integers(0, 3),
)
def test_every_sample_once_within_the_limits(count, batch_size, budget, world, align, shuffle, bucket, epoch):
    widths_N = widths(count)
    try:
        settings = {"batch_size": batch_size, "width_budget_px": budget, "align_px": align}
        plans = ranks(widths_N, epoch, world=world, shuffle=shuffle, bucket=bucket, **settings)
    except ConfigError:
        too_few = world > 1 and (batch_size == 1 or count < 4 * world or (budget or 9000) < 2000)
        assert too_few or (batch_size is None and budget is None) or (budget is not None and not bucket)
        return
    assert np.array_equal(np.sort(np.concatenate([plan.order_M for plan in plans])), np.arange(count))
    assert len({len(plan) for plan in plans}) == 1
    for plan in plans:
        assert plan.samples == len(plan.order_M) and plan.line_px == widths_N[plan.order_M].sum()
        for b in range(len(plan)):
            lines, padded = plan.batch(b), int(plan.padded_B[b])
            assert 1 <= len(lines) <= (batch_size or count)
            assert padded == -(-int(widths_N[lines].max()) // align) * align
            assert budget is None or len(lines) == 1 or len(lines) * padded <= budget


def test_at_most_twelve_per_cent_is_padding_at_batch_64():
    assert plan_epoch(widths(20_000), LoadConfig(), 0).padding_waste < 0.12
    assert plan_epoch(widths(3_000), LoadConfig(), 0).padding_waste < 0.12
    assert plan_epoch(widths(20_000), LoadConfig(batch_size=None, width_budget_px=12_000), 0).padding_waste < 0.12
    assert plan_epoch(widths(20_000), LoadConfig(bucket=False), 0).padding_waste > 0.4


def test_a_plan_is_a_function_of_seed_split_and_epoch():
    widths_N = widths(1000)
    plan = plan_epoch(widths_N, LoadConfig(), 5)
    again = plan_epoch(widths_N.copy(), LoadConfig(), 5)
    assert np.array_equal(plan.order_M, again.order_M) and np.array_equal(plan.padded_B, again.padded_B)
    others = [
        plan_epoch(widths_N, LoadConfig(), 6),
        plan_epoch(widths_N, LoadConfig(seed=43), 5),
        plan_epoch(widths_N, LoadConfig(), 5, "val"),
    ]
    assert all(not np.array_equal(plan.order_M, other.order_M) for other in others)


def test_plans_are_those_of_yesterday():
    plan = plan_epoch(np.arange(1000, dtype=np.int32) * 37 % 400 + 20, LoadConfig(), 5)
    # What runs resume by: these numbers may never change.
    assert plan.order_M[:6].tolist() == FIRST
    assert plan.batch(15)[:3].tolist() == LAST


def test_batches_come_in_another_order_and_with_other_lines_in_every_epoch():
    first, second = (plan_epoch(widths(2000), LoadConfig(), epoch) for epoch in (0, 1))
    assert not np.array_equal(first.padded_B, second.padded_B)
    together = {frozenset(first.batch(b).tolist()) for b in range(len(first))}
    assert not together & {frozenset(second.batch(b).tolist()) for b in range(len(second))}


def test_unshuffled_plans_stay_and_keep_the_order_where_no_buckets_are_asked_for():
    widths_N = widths(300)
    plain = plan_epoch(widths_N, LoadConfig(shuffle=False, bucket=False), 0)
    assert np.array_equal(plain.order_M, np.arange(300))
    sorted_0, sorted_1 = (plan_epoch(widths_N, LoadConfig(shuffle=False), epoch) for epoch in (0, 1))
    assert np.array_equal(sorted_0.order_M, sorted_1.order_M)
    assert (np.diff(widths_N[sorted_0.order_M]) <= 0).all()


def test_ranks_work_on_like_widths_at_each_step():
    plans = ranks(widths(20_000), world=3)
    spread = np.ptp([plan.padded_B for plan in plans], axis=0)
    assert np.median(spread) <= 16


def test_the_first_samples_alone_can_be_used():
    plan = plan_epoch(widths(1000), LoadConfig(max_samples=100), 0)
    assert sorted(plan.order_M.tolist()) == list(range(100))
    assert plan_epoch(widths(10), LoadConfig(max_samples=100), 0).samples == 10


def test_a_line_wider_than_the_budget_is_a_batch_by_itself():
    plan = plan_epoch(np.array([500, 20, 20, 20], np.int32), LoadConfig(batch_size=None, width_budget_px=100), 0)
    assert sorted(len(plan.batch(b)) for b in range(len(plan))) == [1, 3]


def test_an_empty_split_has_no_batches():
    plan = plan_epoch(np.zeros(0, np.int32), LoadConfig(), 0)
    assert len(plan) == 0 and plan.samples == 0 and plan.padding_waste == 0.0
    with pytest.raises(IndexError, match="batch 0 of a plan of 0"):
        plan.batch(0)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"batch_size": None}, "neither batch_size nor width_budget_px"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"width_budget_px": -5}, "width_budget_px is -5"),
        ({"width_budget_px": 5, "bucket": False}, "needs lines of like widths"),
        ({"max_samples": 0}, "max_samples is 0"),
        ({"rank": 2, "world": 2}, "rank is 2 of world 2"),
        ({"align_px": 0}, "align_px is 0"),
    ],
)
def test_settings_that_contradict_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        LoadConfig(**settings)


def test_too_few_samples_for_the_ranks_are_refused():
    with pytest.raises(ConfigError, match="2 samples in 1 batches can't be dealt to 3 ranks"):
        ranks(widths(2), world=3)
    with pytest.raises(ConfigError, match="epoch is -1"):
        plan_epoch(widths(2), LoadConfig(), -1)


def test_millions_are_planned_without_a_loop_over_them():
    widths_N = widths(300_000)
    plan_epoch(widths_N[:1000], LoadConfig(), 0)
    begin = time.process_time()
    plan_epoch(widths_N, LoadConfig(batch_size=None, width_budget_px=12_000), 0)
    assert time.process_time() - begin < 1.0
