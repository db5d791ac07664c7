import time

import numpy as np
import pytest

from truesweep.data.mixing import MixedOrder, MixtureSampler, Places
from truesweep.data.ragged import EvenLengths, Lengths

FOREVER = np.inf


def places(*shares: float, limits: list[float] | None = None) -> Places:
    found = np.array(shares)
    return Places([(0, found / found.sum())], np.array(limits or [FOREVER] * len(shares)))


@pytest.mark.parametrize(
    "shares", [(0.7, 0.3), (0.5, 0.3, 0.2), (1, 1, 1), (0.9, 0.09, 0.01), (2, 5, 11, 13)]
)
def test_wherever_a_training_is_each_source_has_had_its_share(shares: tuple[float, ...]) -> None:
    due, mixed = np.array(shares) / sum(shares), places(*shares)
    rng = np.random.default_rng(0)
    for place in [*range(200), *rng.integers(0, 10**9, size=300).tolist()]:
        taken = mixed.before(place)
        assert taken.sum() == place
        assert np.abs(taken - due * place).max() <= (len(shares) + 1) / 2


def test_shares_that_no_period_divides_do_not_drift() -> None:
    shares = np.array([np.pi, np.e, np.sqrt(2), 1e-3])
    due, taken = shares / shares.sum(), places(*shares).before(10**9)
    assert np.abs(taken / 10**9 / due - 1)[:3].max() < 1e-5
    assert taken[3] == pytest.approx(due[3] * 10**9, rel=0.05)


def test_what_is_before_a_place_is_what_was_taken_there() -> None:
    mixed = Places(
        [(0, np.array([0.7, 0.3])), (100, np.array([0.1, 0.9])), (5_000, np.array([1.0, 0.0]))],
        np.array([FOREVER, 3_000]),
    )
    sources, ranks = mixed.at(0, 9_000)
    for number in (0, 1):
        own = np.flatnonzero(sources == number)
        assert ranks[own].tolist() == list(range(len(own)))
    for place in (0, 1, 99, 100, 101, 2_345, 5_000, 8_999):
        assert mixed.before(place).tolist() == np.bincount(sources[:place], minlength=2).tolist()
    parts = [mixed.at(start, min(start + 37, 9_000)) for start in range(0, 9_000, 37)]
    assert np.concatenate([part[0] for part in parts]).tolist() == sources.tolist()
    assert np.concatenate([part[1] for part in parts]).tolist() == ranks.tolist()


def test_a_curriculum_has_its_shares_from_step_to_step() -> None:
    mixed = Places([(0, np.array([0.9, 0.1])), (1_000, np.array([0.25, 0.75]))], np.full(2, np.inf))
    assert mixed.before(1_000).tolist() == [900, 100]
    assert (mixed.before(5_000) - mixed.before(1_000)).tolist() == [1_000, 3_000]


def test_what_has_given_all_it_may_leaves_its_share_to_the_others() -> None:
    mixed = places(0.5, 0.3, 0.2, limits=[100, FOREVER, FOREVER])
    sources, _ = mixed.at(0, 1_000)
    assert np.count_nonzero(sources == 0) == 100
    last = int(np.flatnonzero(sources == 0)[-1])
    assert last == pytest.approx(200, abs=3)
    left = mixed.before(1_000) - mixed.before(last + 1)
    assert left[1] / left.sum() == pytest.approx(0.6, abs=0.005)
    assert mixed.end is None


def test_a_mixture_ends_where_no_source_has_anything_left() -> None:
    assert places(0.5, 0.5, limits=[30, 70]).end == 100
    assert places(1.0, 0.0, limits=[30, FOREVER]).end == 30


def test_two_orders_are_the_same_until_shares_change_or_a_source_has_ended() -> None:
    half, third = np.array([0.5, 0.5]), np.array([0.25, 0.75])
    turns = [[(0, half)], [(0, half), (1_000, third)], [(0, half), (1_000, half), (1_500, third)]]
    limited = [places(0.5, 0.5, limits=[300, end]) for end in (FOREVER, 700, 800)]
    found = [*(Places(shares, np.full(2, FOREVER)) for shares in turns), places(1, 3), *limited]
    until = [[one.same_until(other) for other in found] for one in found]
    assert until == [[row[n] for row in until] for n in range(len(found))]
    assert [until[0][1], until[0][2], until[1][2], until[0][3]] == [1_000, 1_000, 1_000, 0]
    # The first source's last sample is at place 598, and the second's alone follow.
    assert [until[0][4], until[4][5], until[5][6]] == [599, 1_000, 1_000]
    assert [until[n][n] for n in range(len(found))] == [None] * len(found)
    for n, one in enumerate(found):
        for m, other in enumerate(found):
            stop = min(place.end or 2_000 for place in (one, other))
            same = np.array(one.at(0, stop)) == np.array(other.at(0, stop))
            assert same.all(axis=0)[: until[n][m]].all()


LENGTHS: dict[str, Lengths] = {"a": EvenLengths(70, 10), "b": EvenLengths(130, 10)}


def order(seed: int = 0, first: int = 0, count: int = 60, **lengths: Lengths) -> MixedOrder:
    return MixedOrder(places(0.5, 0.5), lengths or LENGTHS, seed, first, count)


def test_each_source_is_gone_through_whole_and_each_time_in_another_order() -> None:
    samples = order()[0:60]
    first = [sample for sample in samples.tolist() if sample < 7]
    passes = [first[start : start + 7] for start in range(0, 28, 7)]
    assert all(sorted(one) == list(range(7)) for one in passes)
    assert len(set(map(tuple, passes))) == 4
    second = [sample - 7 for sample in samples.tolist() if sample >= 7]
    assert sorted(second[:13]) == sorted(second[13:26]) == list(range(13))
    assert samples.tolist() != order(seed=1)[0:60].tolist()


def test_a_source_has_its_order_whatever_stands_beside_it() -> None:
    other = order(b=LENGTHS["b"], other=EvenLengths(500, 10))[0:26]
    own = [sample for sample in other.tolist() if sample < 13]
    assert own == [sample - 7 for sample in order()[0:60].tolist() if sample >= 7][: len(own)]


def test_any_place_is_found_without_those_before_it() -> None:
    large: dict[str, Lengths] = {"a": EvenLengths(10**12, 10), "b": EvenLengths(10**11, 10)}
    begun = time.perf_counter()
    far = MixedOrder(places(0.5, 0.5), large, 0, 10**10, 10**6)
    samples = far[0:64]
    assert time.perf_counter() - begun < 0.5
    assert len(np.unique(samples)) == 64
    assert np.count_nonzero(samples < 10**11) == 32
    assert far[10:20].tolist() == samples[10:20].tolist()


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_steps_are_the_same_on_any_ranks_and_from_any_step(ranks: int) -> None:
    def steps(ranks: int, start: int) -> list[list[int]]:
        each = [
            MixtureSampler(
                LENGTHS, places(0.7, 0.3), 8, 0, start=lambda: start, rank=rank, world_size=ranks
            )
            for rank in range(ranks)
        ]
        return [sorted(i for s in shares for i in s.indices) for shares in zip(*each, strict=True)]

    whole = steps(1, 0)
    assert len(whole) == 3  # of 20 samples, all full
    assert all(len(step) == 8 for step in whole)
    assert steps(ranks, 0) == whole
    assert steps(ranks, 2) == whole[2:]
    assert steps(ranks, 4) == steps(1, 3)[1:]
