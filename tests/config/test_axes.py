import random
from pathlib import Path
from typing import Any

import pytest

from truesweep.config.overrides import as_text, parse
from truesweep.config.roots import search_roots
from truesweep.config.space import Axis, Space, read_axes
from truesweep.errors import ConfigError


def axis(override: str, tree: Path, seed: int = 0) -> Axis:
    (found,), fixed = read_axes({}, [override], search_roots([tree]), seed)
    assert fixed == []
    return found


@pytest.mark.parametrize(
    ("override", "kind", "values"),
    [
        ("a.b=1,2", "choice", (1, 2)),
        ("a.b=1e-3,3e-3", "choice", (1e-3, 3e-3)),
        ("a.b=x,'y, z',null,true", "choice", ("x", "y, z", None, True)),
        ("a.b=[1,2],[3]", "choice", ([1, 2], [3])),
        ("a.b=choice(4,5)", "choice", (4, 5)),
        ("a.b=sort(3,1,2)", "choice", (1, 2, 3)),
        ("a.b=sort(3,1,2,reverse=true)", "choice", (3, 2, 1)),
        ("a.b=range(1,4)", "int", (1, 2, 3)),
        ("a.b=range(8,0,-4)", "int", (8, 4)),
        ("a.b=range(0,1,0.5)", "float", (0.0, 0.5)),
        ("model=small,large", "choice", ("small", "large")),
        ("model=glob(*)", "choice", ("large", "small", "unfinished")),
        ("model=glob(*,exclude=[un*,s*])", "choice", ("large",)),
    ],
)
def test_values_of_an_axis(tree: Path, override: str, kind: str, values: tuple[Any, ...]) -> None:
    # The shipped models are options of the same group.
    (tree / "model").rename(tree / "toys")
    override = override.replace("model", "toys")
    found = axis(override, tree)
    assert (found.kind, found.values) == (kind, values)
    assert found.group == override.startswith("toys")


@pytest.mark.parametrize(
    ("override", "expected"),
    [
        ("a=interval(0,2)", ("float", 0, 2, None, False)),
        ("a=tag(log,interval(1e-4,1e-2))", ("float", 1e-4, 1e-2, None, True)),
        ("a=int(interval(1,64))", ("int", 1, 64, None, False)),
        ("a=tag(log,int(interval(1,64)))", ("int", 1, 64, None, True)),
        ("a=range(2,9,2)", ("int", 2, 8, 2, False)),
        ("a=range(9,2,-3)", ("int", 3, 9, 3, False)),
    ],
)
def test_what_a_search_needs_to_know(tree: Path, override: str, expected: tuple[Any, ...]) -> None:
    found = axis(override, tree)
    assert (found.kind, found.low, found.high, found.step, found.log) == expected


def test_a_shuffle_follows_from_the_seed(tree: Path) -> None:
    override = "a=shuffle(range(0,20))"
    assert axis(override, tree).values == axis(override, tree).values
    assert axis(override, tree).values != axis(override, tree, seed=1).values
    assert sorted(axis(override, tree).values) == list(range(20))
    assert axis("b=shuffle(range(0,20))", tree).values != axis(override, tree).values


def test_the_command_line_replaces_keys_of_the_space(tree: Path) -> None:
    space = {"optimizer.lr": [1, 2], "model.depth": "range(1,3)", "seed": 4, "model": "small,large"}
    overrides = ["model.depth=3", "+optimizer.lr=5,6", "name=x"]
    axes, fixed = read_axes(space, overrides, search_roots([tree]))
    assert [(a.name, a.key, a.values) for a in axes] == [
        ("optimizer.lr", "+optimizer.lr", (5, 6)),
        ("model", "model", ("small", "large")),
    ]
    assert fixed == ["model.depth=3", "seed=4", "name=x"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("a=range(3,3)", "is empty"),
        ("a=range(3,1)", "is empty"),
        ("a=range(0,1000000)", "1,000,000 values"),
        ("a=interval(2,1)", "the lower end comes first"),
        ("a=tag(log,interval(0,1))", "above zero"),
        ("a=tag(log,range(0,4))", "above zero"),
        ("model=glob(x*)", "matches nothing, of .*large"),
        ("seed=glob(*)", "seed is no group"),
    ],
)
def test_a_bad_sweep_is_named(tree: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        axis(override, tree)
    assert override.partition("=")[0] in str(caught.value)


@pytest.mark.parametrize(
    "value",
    [
        *(1, 1e-4, True, None, "gpt2", "a, b", "it's", "1", "null", "", " x ", "a=b", "range(1,2)"),
        *([1, "a,b"], {"x": [1, None]}, "${seed}", "data/a-b_*.txt", "ü\\n"),
    ],
)
def test_values_survive_as_text(value: Any) -> None:
    parsed = parse(f"key={as_text(value)}")
    assert not parsed.is_sweep_override()
    assert parsed.value() == value
    assert type(parsed.value()) is type(value)


def test_drawn_numbers_lie_in_their_interval() -> None:
    rng = random.Random(0)
    log = Axis("a", "float", low=1e-4, high=1.0, log=True)
    drawn = [log.draw(rng) for _ in range(400)]
    assert all(1e-4 <= value <= 1.0 for value in drawn)
    assert sum(value < 1e-2 for value in drawn) == pytest.approx(200, abs=40)
    whole = [Axis("a", "int", low=2, high=4).draw(rng) for _ in range(100)]
    assert set(whole) == {2, 3, 4}


@pytest.mark.parametrize(
    ("line", "logarithmic"),
    [
        ("optimizer.lr=interval(1e-4,1e-1)", True),
        ("optimizer.lr=interval(0,1e-1)", False),
        ("model.dropout=interval(0.1,0.3)", False),
        ("model.dropout=tag(log,interval(0.1,0.3))", True),
    ],
)
def test_learning_rates_are_spread_over_decades(line: str, logarithmic: bool) -> None:
    (axis,), _ = read_axes({}, [line], [])
    assert axis.log is logarithmic
    assert axis.low is not None
    assert axis.high is not None
    rng = random.Random(0)
    below = sum(axis.draw(rng) < (axis.low * axis.high) ** 0.5 for _ in range(1000))
    assert (450 < below < 550) is logarithmic


def test_a_logarithmic_range_is_drawn_by_decades(tree: Path) -> None:
    rng = random.Random(0)
    found = axis("a=tag(log,range(1,1001))", tree)
    drawn = [found.draw(rng) for _ in range(3000)]
    assert set(drawn) <= set(range(1, 1001))
    assert all(type(value) is int for value in drawn)
    below = sum(value <= 31 for value in drawn) / len(drawn)  # log(31.5 / 0.5) / log(1000.5 / 0.5)
    assert abs(below - 0.545) < 0.03
    points = Space([found]).sample(20)
    assert sum(point["a"] <= 31 for point in points) > 5


def test_a_narrow_interval_has_many_values(tree: Path) -> None:
    rng = random.Random(0)
    found = axis("a=interval(0.999,0.99999)", tree)
    drawn = {found.draw(rng) for _ in range(400)}
    assert len(drawn) > 250
    assert min(drawn) >= 0.999
    assert max(drawn) <= 0.99999


@pytest.mark.parametrize("line", ["a=tag(lgo,interval(1,2))", "a=tag(log,fast,range(1,9))"])
def test_a_misspelt_tag(tree: Path, line: str) -> None:
    with pytest.raises(
        ConfigError, match=r"there is no tag (lgo; did you mean log|fast; there is)"
    ):
        axis(line, tree)
