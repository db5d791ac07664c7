import inspect
from pathlib import Path

import pytest

from truesweep.config.compose import compose
from truesweep.record.wandb import WandbLogger


def test_the_logger_group_gives_w_and_b_or_nothing() -> None:
    assert compose(["logger=none"]).config["logger"] is None
    wandb = compose(["logger=wandb"]).config["logger"]
    assert wandb["_target_"] == f"{WandbLogger.__module__}.{WandbLogger.__qualname__}"
    assert wandb.keys() - {"_target_"} <= inspect.signature(WandbLogger).parameters.keys()


def test_several_loggers_have_nodes_of_their_own_wherever_they_are_chosen(
    tmp_path: Path,
) -> None:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/two.yaml").write_text(
        "# @package _global_\ndefaults:\n  - override /logger: [wandb, csv]\n"
        "logger: {wandb: {project: mine}, csv: {prefix: p}}\n"
    )
    typed = compose(["logger=[wandb,csv]", "logger.wandb.project=mine", "logger.csv.prefix=p"])
    filed = compose(["experiment=two"], [tmp_path])
    one, other = typed.config["logger"].values()
    assert list(typed.config["logger"]) == ["wandb", "csv"]
    assert (one["project"], other["prefix"]) == ("mine", "p")
    assert filed.config["logger"] == typed.config["logger"]
    assert filed.origins("logger.csv._target_") == "conf/logger/csv.yaml:2"
    assert compose(["experiment=two", "logger=none"], [tmp_path]).config["logger"] is None


def test_a_list_of_one_logger_is_that_logger() -> None:
    assert compose(["logger=[csv]"]).config["logger"] == compose(["logger=csv"]).config["logger"]


@pytest.mark.parametrize("chosen", [[], ["logger=csv"], ["logger=[csv]"]])
def test_another_stands_beside_a_single_one(chosen: list[str]) -> None:
    config = compose([*chosen, "logger.mine._target_=mine.Notes", "logger.mine.x=1"]).config
    name = "csv" if chosen else "wandb"
    assert config["logger"][name] == compose(chosen).config["logger"]
    assert config["logger"]["mine"] == {"_target_": "mine.Notes", "x": 1}
    assert len(config["logger"]) == 2
    alone = ["logger._target_=mine.Notes", "logger.part._target_=mine.Part"]
    assert compose([*chosen, *alone]).config["logger"]["part"] == {"_target_": "mine.Part"}
