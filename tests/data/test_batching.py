import time
import tracemalloc
from collections import Counter
from itertools import chain

import numpy as np
import pytest
import torch

from truesweep.data import samplers
from truesweep.data.batch import Batch, Step, filler, micro_batch_count, split
from truesweep.data.ragged import EvenLengths
from truesweep.data.samplers import EvalSampler, TrainSampler, epoch_order
from truesweep.metrics.likelihood import IGNORED

RANKS = (1, 2, 3)
SIZES = (1, 3, 5, 7, 8, 17)


@pytest.fixture(params=[1 << 24, 0], ids=["a table", "no table"])
def table(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the order of so many samples as a table."""
    monkeypatch.setattr(samplers, "TABLE", request.param)


def lengths(n: int) -> np.ndarray:
    return np.random.default_rng(n).integers(1, 9, n)


def train(n: int, batch_size: int, world_size: int = 1, start: int = 0) -> list[list[Step]]:
    """The steps of each rank, from a start on."""
    return [
        list(
            TrainSampler(
                lengths(n),
                batch_size,
                seed=3,
                group_by_length=True,
                start=lambda: start,
                rank=rank,
                world_size=world_size,
            )
        )
        for rank in range(world_size)
    ]


def joined(ranks: list[list[Step]]) -> list[list[int]]:
    """The samples of each step over all ranks, as they were dealt out."""
    steps = []
    for shares in zip(*ranks, strict=True):
        dealt = [
            [share.indices[i] for share in shares if i < len(share.indices)] for i in range(20)
        ]
        steps.append(list(chain.from_iterable(dealt)))
        assert {share.size for share in shares} == {len(steps[-1])}
    return steps


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("world_size", RANKS)
@pytest.mark.parametrize("n", SIZES)
def test_an_epoch_has_each_sample_once(n: int, world_size: int) -> None:
    for batch_size in {1, min(n, 4), n}:
        steps = joined(train(n, batch_size, world_size))
        assert Counter(chain.from_iterable(steps)) == Counter(range(n))
        assert [len(step) for step in steps[:-1]] == [batch_size] * (len(steps) - 1)
        assert steps == joined(train(n, batch_size))  # whatever the number of ranks


@pytest.mark.usefixtures("table")
@pytest.mark.parametrize("start", range(12))
def test_a_start_within_an_epoch_gives_exactly_its_rest(start: int) -> None:
    epoch = start // 5
    (rest,), (whole,) = train(17, 4, start=start), train(17, 4, start=5 * epoch)
    assert rest == whole[start % 5 :]


def test_the_length_is_that_of_a_whole_epoch() -> None:
    sampler = TrainSampler(lengths(17), 4, seed=0, start=lambda: 8)
    assert len(sampler) == 5
    assert len(list(sampler)) == 2


def test_order_follows_from_seed_and_epoch() -> None:
    ones = np.ones(50, dtype=np.int64)
    orders = [epoch_order(ones, 8, seed, epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert len({tuple(order) for order in orders}) == 4
    torch.manual_seed(5)
    np.random.seed(5)
    assert (epoch_order(ones, 8, 0, 0) == orders[0]).all()


def test_start_is_asked_whenever_an_epoch_begins() -> None:
    done = 0
    sampler = TrainSampler(lengths(17), 4, seed=3, start=lambda: done)
    first = list(sampler)
    done = 5
    assert list(sampler) != first
    assert len(list(sampler)) == 5


def test_grouping_pads_less_and_keeps_batches_shuffled() -> None:
    n, size = 4000, 20
    tokens = np.random.default_rng(0).integers(1, 100, n)

    def padding(order: np.ndarray) -> float:
        batches = tokens[order].reshape(-1, size)
        return float((batches.max(1) * size).sum() / tokens.sum())

    grouped = epoch_order(tokens, size, 0, 0, group_by_length=True)
    assert sorted(grouped) == list(range(n))
    assert padding(epoch_order(tokens, size, 0, 0)) > 1.8
    assert padding(grouped) < 1.05
    means = tokens[grouped].reshape(-1, size).mean(1)
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.2


def test_an_order_without_a_table_has_each_sample_once() -> None:
    for n in (*range(1, 70), 1000, 4097):
        orders = [samplers.Scattered(n, np.random.default_rng((n, epoch))) for epoch in (0, 1)]
        assert all(sorted(order[:].tolist()) == list(range(n)) for order in orders)
        assert [orders[0][i : i + 1][0] for i in range(n)] == orders[0][:].tolist()
    first, second = (order[:] for order in orders)
    for one, other in ((first, second), (first, np.arange(n)), (first[1:], first[:-1])):
        assert abs(np.corrcoef(one, other)[0, 1]) < 0.05


def test_grouping_is_the_same_without_a_table() -> None:
    n, size = 1017, 4
    tokens = np.random.default_rng(0).integers(1, 9, n)
    rng = np.random.default_rng((5, 6))
    grouped = samplers._Grouped(rng.permutation(n), rng.permutation(n // size), tokens, size)
    parts = [grouped[start : start + size] for start in range(0, n, size)]
    assert (np.concatenate(parts) == epoch_order(tokens, size, 5, 6, group_by_length=True)).all()


def test_a_billion_windows_are_resumed_anywhere_at_once() -> None:
    windows = EvenLengths(10**9 * 128 - 5, 128)
    started = time.process_time()
    tracemalloc.start()
    dealt = [
        next(iter(TrainSampler(windows, 64, 7, start=lambda: 10**7, rank=rank, world_size=ranks)))
        for ranks in (1, 2, 4)
        for rank in range(ranks)
    ]
    assert tracemalloc.get_traced_memory()[1] < 1_000_000
    tracemalloc.stop()
    assert time.process_time() - started < 1
    assert sorted(dealt[0].indices) == sorted(dealt[1].indices + dealt[2].indices)
    assert sorted(dealt[0].indices) == sorted(i for step in dealt[3:] for i in step.indices)
    assert len(set(dealt[0].indices)) == 64


def test_only_the_last_batch_of_an_epoch_is_smaller() -> None:
    order = epoch_order(lengths(17), 4, 0, 0, group_by_length=True)
    assert sorted(order) == list(range(17))
    assert [len(step.indices) for (step,) in zip(*train(17, 4), strict=True)] == [4, 4, 4, 4, 1]


def test_ranks_get_rows_of_like_length() -> None:
    tokens = lengths(17)
    for shares in zip(*train(17, 8, world_size=2), strict=True):
        mine, other = (tokens[share.indices] for share in shares)
        assert (np.diff(mine) <= 0).all()
        assert all(a >= b for a, b in zip(mine, other, strict=False))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("world_size", RANKS)
@pytest.mark.parametrize("n", SIZES)
def test_an_evaluation_counts_each_sample_once(n: int, world_size: int, batch_size: int) -> None:
    tokens = lengths(n)
    samplers = [EvalSampler(tokens, batch_size, r, world_size) for r in range(world_size)]
    ranks = [list(sampler) for sampler in samplers]
    order = np.argsort(-tokens, kind="stable").tolist()
    for rank, (sampler, steps) in enumerate(zip(samplers, ranks, strict=True)):
        assert list(chain.from_iterable(s.indices for s in steps)) == order[rank::world_size]
        assert all(len(step.indices) <= batch_size for step in steps)
        assert len(steps) == len(sampler) == len(ranks[0])
    assert sum(step.size for step in ranks[0]) == n


def test_an_evaluation_without_padding_keeps_the_order() -> None:
    steps = list(EvalSampler(np.full(5, 8), 2))
    assert [step.indices for step in steps] == [[0, 1], [2, 3], [4]]


def causal(rows: list[int]) -> Batch:
    width = max(rows)
    inputs = torch.arange(len(rows) * width).view(len(rows), width)
    attention = (torch.arange(width) < torch.tensor(rows)[:, None]).long()
    labels = inputs.masked_fill(attention == 0, IGNORED)
    return {
        "input_ids": inputs,
        "labels": labels,
        "attention_mask": attention,
        "lengths": rows,
        "size": 99,
    }


@pytest.mark.parametrize(("rows", "size", "count"), [(5, 2, 3), (5, 2, 4), (1, 4, 2), (4, 4, 1)])
def test_micro_batches_are_the_batch_in_parts(rows: int, size: int, count: int) -> None:
    batch = causal([9, 7, 7, 3, 2][:rows])
    parts = list(split(batch, size, count))
    assert len(parts) == count
    assert all(part["size"] == 99 for part in parts)
    real = [part for part in parts if part["lengths"] != [0]]
    assert list(chain.from_iterable(part["lengths"] for part in real)) == batch["lengths"]
    for i, part in enumerate(real):
        width = max(part["lengths"])
        for key in ("input_ids", "labels", "attention_mask"):
            assert part[key].is_contiguous()
            assert part[key].equal(batch[key][i * size : (i + 1) * size, :width])
    for part in parts[len(real) :]:
        assert part["input_ids"].shape == (1, 1)
        assert (part["labels"] == IGNORED).all()
    targets = sum(int((part["labels"] != IGNORED).sum()) for part in parts)
    assert targets == sum(batch["lengths"])


def test_full_rows_share_the_memory_of_the_batch() -> None:
    batch = causal([4, 4, 4, 4])
    parts = list(split(batch, 2, 2))
    assert parts[1]["input_ids"].data_ptr() == batch["input_ids"][2:].data_ptr()


def test_sources_and_targets_are_cut_apart() -> None:
    batch: Batch = {
        "input_ids": torch.ones(2, 6),
        "attention_mask": torch.ones(2, 6),
        "labels": torch.ones(2, 5),
        "decoder_input_ids": torch.ones(2, 5),
        "lengths": [6, 2],
        "target_lengths": [3, 5],
        "source": ["a", "b"],
        "size": 2,
    }
    first, second, none = split(batch, 1, 3)
    assert first["input_ids"].shape == first["attention_mask"].shape == (1, 6)
    assert first["labels"].shape == first["decoder_input_ids"].shape == (1, 3)
    assert second["input_ids"].shape == (1, 2)
    assert second["labels"].shape == (1, 5)
    assert (first["source"], second["source"], none["source"]) == (["a"], ["b"], [])
    assert none["target_lengths"] == [0]


def test_classes_are_split_by_row_and_fillers_can_be_split() -> None:
    batch: Batch = {
        "input_ids": torch.ones(3, 4),
        "attention_mask": torch.ones(3, 4),
        "labels": torch.tensor([2, 0, 1]),
        "lengths": [4, 2, 2],
        "size": 3,
    }
    first, second = split(batch, 2, 2)
    assert (first["labels"].tolist(), second["labels"].tolist()) == ([2, 0], [1])
    assert [part["labels"].tolist() for part in split(filler(batch), 2, 2)] == [[IGNORED]] * 2


def test_every_rank_gets_as_many_micro_batches() -> None:
    assert [micro_batch_count(n, 2, 4) for n in (1, 2, 7, 8, 9, 16, 17)] == [1, 1, 1, 1, 2, 2, 3]
    for n in SIZES:
        for world_size in RANKS:
            count = micro_batch_count(n, world_size, 2)
            shares = [len(range(n)[rank::world_size]) for rank in range(world_size)]
            assert all(share <= 2 * count for share in shares)
            assert shares[0] > 2 * (count - 1)
