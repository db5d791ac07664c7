from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from truesweep.config.space import Axis, Space
from truesweep.errors import ConfigError

LR = Axis("optimizer.lr", values=(1e-3, 3e-3, 1e-2))
DEPTH = Axis("model.depth", values=(2, 4, 6))
BATCH = Axis("++data.batch_size", values=(16, 32))
RATE = Axis("optimizer.lr", "float", low=1e-4, high=1e-1, log=True)


def grid(
    *axes: Axis, zip: Sequence[Sequence[str]] = (), exclude: Sequence[Mapping[str, Any]] = ()
) -> list[tuple[Any, ...]]:
    return [tuple(point.values()) for point in Space(axes, zip, exclude).grid()]


def test_a_grid_is_every_combination_the_last_axis_fastest() -> None:
    points = Space([LR, BATCH]).grid()
    assert points[:3] == [
        {"optimizer.lr": 1e-3, "++data.batch_size": 16},
        {"optimizer.lr": 1e-3, "++data.batch_size": 32},
        {"optimizer.lr": 3e-3, "++data.batch_size": 16},
    ]
    assert len(points) == 6


def test_paired_axes_go_together() -> None:
    points = grid(LR, BATCH, DEPTH, zip=[["model.depth", "optimizer.lr"]])
    assert points == [
        (lr, batch, depth)
        for lr, depth in zip(LR.values, DEPTH.values, strict=True)
        for batch in (16, 32)
    ]


@pytest.mark.parametrize(
    ("rule", "left"),
    [
        ({"optimizer.lr": 1e-3, "model.depth": 4}, 8),
        ({"optimizer.lr": 1e-3}, 6),
        ({"optimizer.lr": [1e-3, 3e-3], "model.depth": [2, 4]}, 5),
        ({"optimizer.lr": ">= 3e-3", "model.depth": "<4"}, 7),
        ({"model.depth": "> 2"}, 3),
    ],
)
def test_combinations_are_left_out(rule: dict[str, Any], left: int) -> None:
    points = grid(LR, DEPTH, exclude=[rule])
    assert len(points) == left
    assert set(points) < set(grid(LR, DEPTH))


def test_keys_of_exclusions_need_no_signs() -> None:
    assert grid(BATCH, exclude=[{"data.batch_size": 16}]) == [(32,)]


def test_true_is_not_one() -> None:
    flag = Axis("model.tied", values=(True, 1))
    assert grid(flag, exclude=[{"model.tied": True}]) == [(1,)]


@pytest.mark.parametrize(
    ("zip", "exclude", "message"),
    [
        (
            [["optimizer.lr", "data.batch_size"]],
            [],
            "lr has 3, .*batch_size has 2 values",
        ),
        ([["optimizer.lr", "model.dpth"]], [], "model.dpth is not swept; did you mean model.depth"),
        ([["optimizer.lr", "model.depth"], ["model.depth", "seed"]], [], "seed is not swept"),
        ([["optimizer.lr", "model.depth", "optimizer.lr"]], [], "stands there twice"),
        (
            [],
            [{"optimizer.lr": 1e-3, "optimizer.momentum": 1}],
            r"exclude\[0\]: optimizer.mom",
        ),
        (
            [],
            [{"optimizer.lr": [1e-3, ">= abc"]}],
            r"exclude\[0\]: optimizer.lr: '>= abc' compares",
        ),
        ([], [{"model.depth": 2}, {"model.depth": 3}], r"exclude\[1\]: no point .* has \{model.de"),
    ],
)
def test_what_fits_nothing_is_named(zip: Any, exclude: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        grid(LR, DEPTH, BATCH, zip=zip, exclude=exclude)


def test_names_with_a_sign_are_names() -> None:
    names = Axis("data.kind", values=("<fast", "slow"))
    assert grid(names, exclude=[{"data.kind": "<fast"}]) == [("slow",)]


def test_an_interval_has_no_grid_and_no_pair() -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.lr: a grid cannot list .*\.method=random"):
        grid(RATE)
    with pytest.raises(ConfigError, match="no list of values to pair"):
        grid(RATE, DEPTH, zip=[["optimizer.lr", "model.depth"]])


def test_a_grid_that_is_too_large_is_refused() -> None:
    axes = [Axis(f"a.k{i}", values=tuple(range(30))) for i in range(3)]
    with pytest.raises(ConfigError, match="27,000 points"):
        grid(*axes)


def test_random_points_follow_from_the_seed_and_only_grow() -> None:
    space = Space([RATE, DEPTH], seed=3)
    points = space.sample(8)
    assert points == space.sample(20)[:8]
    assert points != Space([RATE, DEPTH], seed=4).sample(8)
    assert all(1e-4 <= point["optimizer.lr"] <= 1e-1 for point in points)


def test_random_points_keep_to_pairs_and_exclusions_and_do_not_repeat() -> None:
    pairs = [["optimizer.lr", "model.depth"]]
    points = Space([LR, DEPTH, BATCH], pairs, [{"model.depth": 4}]).sample(50)
    assert sorted(tuple(point.values()) for point in points) == [
        (1e-3, 2, 16),
        (1e-3, 2, 32),
        (1e-2, 6, 16),
        (1e-2, 6, 32),
    ]


def test_dimensions_join_what_is_paired() -> None:
    space = Space([LR, BATCH, DEPTH], [["model.depth", "optimizer.lr"]])
    assert [[a.name for a in axes] for axes in space.dimensions] == [
        ["model.depth", "optimizer.lr"],
        ["data.batch_size"],
    ]
