from typing import Any

import pytest

from truesweep.config.checks import RESERVED, check_across, contradictions, name_is_a_folder
from truesweep.errors import ConfigError
from truesweep.runs.evaluations import ROOT as EVALUATIONS
from truesweep.sweeps.directory import ROOT as SWEEPS


def config(**changes: Any) -> dict[str, Any]:
    sound: dict[str, Any] = {
        "data": {"batch_size": 32, "micro_batch_size": None, "max_length": 128},
        "model": {"width": 128, "heads": 4, "context": 128},
        "optimizer": {"lr": 1.0},
        "scheduler": {"warmup": 10},
        "trainer": {"max_steps": 100, "max_epochs": None},
        "callbacks": {"checkpoint": {"_target_": "y"}},
        "task": {"_target_": "x"},
        "logger": None,
    }
    for key, value in changes.items():
        group, name = key.split("__")
        sound[group] = {**sound[group], name: value}
    return sound


def test_a_sound_configuration_passes() -> None:
    assert contradictions(config()) == []
    check_across(config())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"model__heads": 5},
            "model.heads=5 does not divide model.width=128. Set model.heads=4 or",
        ),
        ({"model__heads": 6}, "or model.width=132."),
        ({"trainer__max_steps": None}, "Set trainer.max_epochs=3, say, or trainer.max_steps=1000."),
        ({"scheduler__warmup": 100}, "Set trainer.max_steps=1000 or scheduler.warmup=10."),
        ({"data__micro_batch_size": 33}, "Set data.batch_size=33 or data.micro_batch_size=32."),
        ({"callbacks__checkpoint": None}, "Remove callbacks.checkpoint=null"),
        ({"data__max_length": 129}, "Set model.context=129 or data.max_length=128."),
    ],
)
def test_contradictions_come_with_a_remedy(changes: dict[str, Any], expected: str) -> None:
    problems = contradictions(config(**changes))
    assert len(problems) == 1
    assert expected in problems[0]


def test_the_remedies_are_remedies() -> None:
    assert contradictions(config(model__heads=6, model__width=132)) == []
    assert contradictions(config(scheduler__warmup=100, trainer__max_steps=1000)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"scheduler__warmup": 0.5},
        {"data__micro_batch_size": 32},
        {"model__context": None},
        {"model__heads": None},
        {"trainer__max_steps": None, "trainer__max_epochs": 3},
    ],
)
def test_what_is_open_is_no_contradiction(changes: dict[str, Any]) -> None:
    assert contradictions(config(**changes)) == []


def test_missing_groups_and_all_problems_at_once() -> None:
    broken = config(model__heads=5, data__micro_batch_size=64)
    del broken["optimizer"]
    broken["task"] = {}
    with pytest.raises(ConfigError) as caught:
        check_across(broken)
    lines = str(caught.value).splitlines()
    assert lines[:2] == [
        "optimizer: is required. Choose one with optimizer=NAME.",
        "task: is required. Choose one with task=NAME.",
    ]
    assert len(lines) == 4


@pytest.mark.parametrize(
    "name", ["../x", "/abs", "a/../../b", "", ".", "a\nb", "x" * 300, *RESERVED, "sweeps/x"]
)
def test_a_name_stays_in_outputs(name: str) -> None:
    (problem,) = name_is_a_folder({"name": name})
    assert problem.startswith("name=")
    assert len(problem) < 120


def test_a_name_is_not_that_of_a_folder_of_the_programs_own() -> None:
    assert {EVALUATIONS.name, SWEEPS.name} == set(RESERVED)
    (problem,) = name_is_a_folder({"name": "evaluations"})
    assert "outputs/evaluations holds" in problem


@pytest.mark.parametrize("name", [None, "first", "a/b", "lm_lr=1e-3", "Ü", "x" * 200])
def test_other_names_are_folders(name: str | None) -> None:
    assert name_is_a_folder({"name": name}) == []
