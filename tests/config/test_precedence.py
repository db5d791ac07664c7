"""A length of training and a node that was left out are what was meant, wherever that was said."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from truesweep.config.compose import compose
from truesweep.config.precedence import one_limit, update
from truesweep.dotted import get
from truesweep.record.frozen import freeze, thaw

AddFiles = Callable[[Path, dict[str, str]], Path]
FILES = {
    "experiment/epochs.yaml": """
        # @package _global_
        trainer: {max_epochs: 2}
        """,
    "experiment/both.yaml": """
        # @package _global_
        trainer: {max_epochs: 2, max_steps: 30}
        """,
    "experiment/extended.yaml": """
        # @package _global_
        defaults: [epochs]
        trainer: {max_steps: 7}
        """,
    "experiment/unlimited.yaml": """
        # @package _global_
        trainer: {max_steps: null}
        """,
    "trainer/long.yaml": """
        _target_: truesweep.jobs.trainer.TrainerSettings
        max_epochs: 3
        """,
    "trainer/short.yaml": """
        _target_: truesweep.jobs.trainer.TrainerSettings
        max_steps: 9
        """,
    "experiment/logged.yaml": """
        # @package _global_
        logger: {project: mine}
        callbacks: {early_stopping: {patience: 3}}
        """,
    "experiment/adapted.yaml": """
        # @package _global_
        defaults: [override /adapter: lora]
        adapter: {r: 4}
        """,
    "experiment/ranked.yaml": """
        # @package _global_
        adapter: {r: 4}
        """,
    "experiment/impatient.yaml": """
        # @package _global_
        defaults: [no_stop]
        callbacks: {early_stopping: {patience: 3}}
        """,
    "experiment/no_stop.yaml": """
        # @package _global_
        callbacks: {early_stopping: null}
        """,
}


@pytest.fixture
def own(tmp_path: Path, add_files: AddFiles) -> Path:
    """A user's own groups."""
    return add_files(tmp_path / "own", FILES)


@pytest.mark.parametrize(
    ("overrides", "epochs", "steps"),
    [
        ([], None, 400),
        (["trainer.max_epochs=2"], 2, None),
        (["trainer={max_epochs:2}"], 2, None),
        (["trainer={max_epochs:2}", "trainer.max_steps=5"], 2, 5),
        (["++trainer.max_epochs=2"], 2, None),
        (["experiment=epochs"], 2, None),
        (["experiment=both"], 2, 30),
        (["experiment=extended"], None, 7),
        (["experiment=epochs", "debug=one_batch"], None, 1),
        (["experiment=epochs", "trainer.max_steps=5"], None, 5),
        (["trainer=long"], 3, None),
        (["trainer=short"], None, 9),
        (["trainer=long", "experiment=unlimited"], 3, None),
        (["trainer=long", "trainer.max_steps=null"], 3, None),
        (["trainer=long", "experiment=both"], 2, 30),
        (["experiment=lm_char"], None, 1300),
        (["experiment=lm_char", "trainer={max_epochs: 1}"], 1, None),
        (["trainer.max_steps=10", "~trainer.max_steps"], None, 400),
        (["trainer.max_steps=10", "~trainer.max_steps", "trainer.max_epochs=1"], 1, None),
        (["experiment=lm_char", "~trainer.max_steps"], None, 400),
        (["experiment=both", "~trainer.max_steps"], 2, None),
        (["~trainer.max_steps", "trainer.max_steps=5"], None, 5),
    ],
)
def test_who_names_one_limit_gets_that_one(
    own: Path, overrides: list[str], epochs: int | None, steps: int | None
) -> None:
    trainer = compose(overrides, [own]).config["trainer"]
    assert (trainer.get("max_epochs"), trainer.get("max_steps")) == (epochs, steps)


@pytest.mark.parametrize("override", ["trainer.max_epochs=2", "trainer={max_epochs:2}"])
def test_a_frozen_configuration_too(tmp_path: Path, override: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(freeze({"trainer": {"_target_": "x.Y", "max_epochs": None, "max_steps": 400}}))
    changed = update(thaw(path), [override])
    assert changed["trainer"] == {"_target_": "x.Y", "max_epochs": 2, "max_steps": None}


def test_limits_that_nobody_names_are_not_made_up() -> None:
    assert one_limit([{}, {"trainer.devices": 1}]) == {}


@pytest.mark.parametrize(
    ("overrides", "key", "expected"),
    [
        (["experiment=logged"], "logger.project", "mine"),
        (["experiment=logged", "logger=none"], "logger", None),
        (["experiment=logged", "logger=null"], "logger", None),
        (["experiment=logged", "debug=one_batch"], "logger", None),
        (["experiment=translation", "scheduler=null"], "scheduler", None),
        (["experiment=logged", "callbacks.early_stopping=null"], "callbacks.early_stopping", None),
        (["experiment=impatient"], "callbacks.early_stopping", None),
        (["experiment=logged"], "callbacks.early_stopping.patience", 3),
        (["experiment=adapted"], "adapter.r", 4),
        (["experiment=adapted", "adapter=none"], "adapter", None),
        (["experiment=adapted", "adapter=null"], "adapter", None),
        # Who asks for both, or for neither, is told so when it is checked.
        (["experiment=ranked"], "adapter", {"r": 4}),
        (["logger=none", "logger.project=x"], "logger", {"project": "x"}),
    ],
)
def test_what_was_left_out_stays_out(
    own: Path, overrides: list[str], key: str, expected: Any
) -> None:
    assert get(compose(overrides, [own]).config, key) == expected


def test_a_callback_may_be_called_by_a_number(tree: Path) -> None:
    assert compose(["callbacks={3: {patience: 2}}"], [tree]).config["callbacks"][3]["patience"] == 2
