from pathlib import Path

import pytest

from truesweep.config.overrides import normalize, refuse_sweeps
from truesweep.errors import ConfigError


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("optimizer.lr=1e-3", "++optimizer.lr=1e-3"),
        ("seed=3", "++seed=3"),
        ("name='a, b'", "++name='a, b'"),
        ("optimizer=sgd", "optimizer=sgd"),
        ("optimizer={lr: 1}", "++optimizer={lr: 1}"),
        ("experiment=null", "~experiment"),
        ("+optimizer.x=1", "+optimizer.x=1"),
        ("++optimizer.x=1", "++optimizer.x=1"),
        ("~optimizer.lr", "~optimizer.lr"),
        ("callbacks/checkpoint=often", "callbacks/checkpoint=often"),
        ("model@other=small", "model@other=small"),
        ("optimizer.lr=1,2", "++optimizer.lr=1,2"),
        ("optimizer=adam,sgd", "optimizer=adam,sgd"),
        ("optimizer=glob(*)", "optimizer=glob(*)"),
        ("optimizer.lr=choice(1,2)", "++optimizer.lr=choice(1,2)"),
        ("optimizer.lr=range(1,9)", "++optimizer.lr=range(1,9)"),
        ("optimizer.lr=tag(log, interval(1e-4, 1))", "++optimizer.lr=tag(log, interval(1e-4, 1))"),
        ("data.train='a=b,c'", "++data.train='a=b,c'"),
    ],
)
def test_normalize(tree: Path, given: str, expected: str) -> None:
    assert normalize([given], [tree]) == [expected]


@pytest.mark.parametrize("override", ["optimizer.lr", "a.b=[1,", "a.b=x y: z'", "a.b=c=="])
def test_bad_grammar_names_the_override_and_shows_quoting(override: str) -> None:
    with pytest.raises(ConfigError) as caught:
        normalize([override], [])
    assert override in str(caught.value)
    assert "quotes" in str(caught.value)
    assert "hydra.cc" not in str(caught.value)


def test_hydras_own_settings_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"hydra\.run\.dir=x: .*--config-dir"):
        normalize(["hydra.run.dir=x"], [])


def test_a_group_wants_the_name_of_an_option(tree: Path) -> None:
    with pytest.raises(ConfigError, match="optimizer is a group"):
        normalize(["optimizer=3"], [tree])


@pytest.mark.parametrize("value", ["1,2", "choice(1,2)", "range(1,3)", "interval(0,1)", "glob(*)"])
def test_sweeps_are_told_of_m(value: str) -> None:
    with pytest.raises(ConfigError, match="a run takes one"):
        refuse_sweeps(["seed=1", f"a.b={value}"])


@pytest.mark.parametrize("value", ["[1,2]", "'1,2'", "{a: 1, b: 2}", "range"])
def test_lists_and_quoted_text_are_no_sweeps(value: str) -> None:
    refuse_sweeps([f"a.b={value}"])
