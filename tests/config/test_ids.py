"""A question keeps its id: an id names a run's directory, its W&B run and its place in a sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from truesweep.config.compose import PointComposer
from truesweep.config.space import Point
from truesweep.jobs.parts import complete
from truesweep.jobs.plan import checked
from truesweep.record.frozen import fingerprint
from truesweep.sweeps.planning import choose_points, choose_seeds
from truesweep.sweeps.request import ask

TABLE: dict[str, list[str]] = json.loads((Path(__file__).parent / "ids.json").read_text("utf-8"))
"""The ids of version 0.1.0 by command line, its words separated by spaces."""


@pytest.fixture(autouse=True)
def _bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    """What recipes asked for in version 0.1.0, and `auto` takes where there is bf16."""
    monkeypatch.setattr("truesweep.jobs.trainer.bf16_of_cpu", lambda: "AMX")


def ids_of(words: list[str]) -> list[str]:
    if words[0] != "-m":
        return [fingerprint(checked(words))[:8]]
    asked = ask(words[1:])
    composer = asked.composer()
    return [
        fingerprint({**_checked(composer, point, seed), "name": asked.name})[:8]
        for seed in choose_seeds(asked)
        for point in choose_points(asked, [])
    ]


def _checked(composer: PointComposer, point: Point, seed: int | None) -> dict[str, Any]:
    composed = composer.compose(point if seed is None else {**point, "seed": seed})
    return complete(composed.config)


def test_compiling_by_default_is_the_question_that_it_was() -> None:
    asked = [[], *([f"trainer.compile={how}"] for how in ("auto", "false", "true", "layers"))]
    plain, auto, none, whole, layers = (ids_of(["name=lm", *given]) for given in asked)
    assert plain == auto == none == ["4aad85a9"]  # of version 0.1.0
    assert len({*plain, *whole, *layers}) == 3


def test_computing_layers_twice_is_another_question_only_where_it_is_asked() -> None:
    plain, once, twice = (
        ids_of(["name=lm", *given])
        for given in ([], *([f"model.activation_checkpointing={v}"] for v in ("false", "true")))
    )
    assert plain == once == ["4aad85a9"] != twice  # of version 0.1.0


def test_w_and_bs_defaults_are_the_question_that_they_were() -> None:
    plain, said = (
        ids_of(["name=lm", *given])
        for given in ([], ["logger.project=truesweep", "logger.mode=offline", "logger.notes=null"])
    )
    assert plain == said == ["4aad85a9"]  # of version 0.1.0
    assert ids_of(["name=lm", "logger.notes=mine"]) != plain


@pytest.mark.parametrize("line", TABLE)
def test_a_question_keeps_its_id(line: str) -> None:
    assert ids_of(line.split(" ")) == TABLE[line]
