"""What a sweep, its jobs, and a run of W&B's agents leave on W&B, read with W&B's own reader."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from wandb.sdk.lib.config_util import save_config_file_from_dict

from tests.commands.conftest import SMALL
from tests.commands.test_sweep import small
from tests.record.test_wandb import contents_of
from truesweep.commands.sweep import sweep
from truesweep.commands.train import train
from truesweep.record.dashboard import FILE
from truesweep.record.mirror import records_of


def contents(record: Path, kind: str) -> list[dict[str, Any]]:
    (file,) = record.glob("*.wandb")
    leet = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", str(file)]
    shown = subprocess.run(leet, check=True, capture_output=True, text=True).stdout
    found = map(json.loads, shown.splitlines())
    return [one[kind] for one in found if one["type"] == kind]


def test_a_sweep_is_summed_up_and_a_diverged_job_told_of(
    data: dict[str, list[str]], workplace: Path
) -> None:
    asked = small(data["lm"], "optimizer.lr=1e-2,1e30", "logger=wandb", "name='k=1_lr'")
    asked += ["optimizer=adamw", "trainer.gradient_clip_val=null"]
    assert sweep(asked, [], False) == 1
    directory = workplace / "outputs/sweeps/k=1_lr"
    assert (directory / "report.html").is_file()

    (record,) = records_of(directory)
    (run, *_) = contents(record, "run")
    named = (run["display_name"], run["run_group"], run["job_type"])
    assert named == ("summary", "k=1_lr", "summary")
    (alert,) = contents(record, "alert")
    assert alert["title"] == "Sweep k=1_lr has ended"
    (table,) = record.glob("files/media/table/ranking*.json")
    ranking = json.loads(table.read_text())
    assert ranking["columns"] == ["rank", "run", "state", "optimizer.lr", "val/loss"]
    assert [row[2:4] for row in ranking["data"]] == [["completed", 1e-2], ["failed", 1e30]]

    board = json.loads((directory / FILE).read_text())
    assert (board["project"], board["displayName"], board["id"]) == ("truesweep", "k-1_lr", "")
    runs = board["spec"]["section"]["runSets"][0]
    assert [(f["op"], f["value"]) for f in runs["filters"]["filters"]] == [
        ("=", run["run_group"]),
        ("!=", run["job_type"]),
    ]
    told, varied, *_ = board["spec"]["section"]["panelBankConfig"]["sections"]
    assert "**Failed**: 1 of 2 runs" in told["panels"][0]["config"]["value"]
    axes = varied["panels"][0]["config"]["columns"]
    assert [axis["accessor"] for axis in axes] == ["config:swept.value.lr", "summary:val/loss"]
    assert axes[0]["log"]

    jobs = {row[3]: directory / row[1] for row in ranking["data"]}
    (alert,) = contents_of(jobs[1e30], "alert")
    assert (alert["title"], alert["level"]) == ("Diverged", "ERROR")
    assert not contents_of(jobs[1e-2], "alert")


def test_an_agents_run_is_shown_by_what_the_agent_chose(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = workplace / "wandb/sweep-mine/config-given.yaml"
    save_config_file_from_dict(str(file), {"optimizer.lr": {"value": 0.003}})
    monkeypatch.setenv("WANDB_SWEEP_ID", "mine")
    monkeypatch.setenv("WANDB_RUN_ID", "given")
    monkeypatch.setenv("WANDB_SWEEP_PARAM_PATH", str(file))
    asked = [*data["lm"], *SMALL, "trainer.max_steps=2", "logger=wandb", "name=s"]
    assert train([*asked, "optimizer.lr=0.003"], [], None, False) == 0
    (path,) = (workplace / "outputs/s").iterdir()
    (run, *_) = contents_of(path, "run")
    assert (run["display_name"], run["run_group"], run["run_id"]) == ("lr=0.003", "s", "given")
    assert run["config"]["update"]["swept"] == {"lr": 0.003}
