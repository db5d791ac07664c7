"""Every shipped experiment and debug preset runs."""

import json
from pathlib import Path

import pytest

from tests.commands.conftest import write_chats, write_data, write_preferences
from truesweep.commands.train import train
from truesweep.config.roots import shipped

TINY = ["logger=none", "trainer.threads=1", "trainer.accelerator=cpu", "data.batch_size=4"]
TINY += ["model.width=32", "model.heads=2", "model.feed_forward=64"]
EXPERIMENTS = sorted(path.stem for path in (shipped("conf") / "experiment").glob("*.yaml"))
GENERATING = {
    "translation": ["bleu", "chrf"],
    "summarization": ["rouge1", "rougeL"],
    "sft": ["rougeL"],
}
"""Those that generate texts, and figures of these."""
SMALL_DATA = {"sft": write_chats, "dpo": write_preferences}
"""Those whose own data take long to encode."""
DEBUG = sorted(path.stem for path in (shipped("conf") / "debug").glob("*.yaml"))


def results(folder: Path) -> dict[str, float]:
    (run,) = folder.iterdir()
    loaded: dict[str, float] = json.loads((run / "results.json").read_text())
    return loaded


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_an_experiment_runs_for_two_steps(workplace: Path, name: str) -> None:
    asked = [f"experiment={name}", *TINY, "trainer.max_steps=2", "name=x"]
    if name in GENERATING:
        asked += ["task.max_new_tokens=4", "task.beam_size=2", "data.test_fraction=0.01"]
    if name == "dpo":
        pytest.importorskip("peft", reason="needs peft (pip install 'truesweep[adapters]')")
    if name in SMALL_DATA:
        asked += SMALL_DATA[name](workplace)
    assert train(asked, [], None, False) == 0
    figures = results(workplace / "outputs/x")
    assert figures["train/steps"] == 2
    for figure in GENERATING.get(name, ()):
        assert 0 <= figures[f"test/{figure}"] < figures[f"baseline/test/{figure}"]
        assert f"val/{figure}" in figures


@pytest.mark.parametrize("name", DEBUG)
def test_a_debug_preset_runs(workplace: Path, name: str) -> None:
    named = write_data(workplace)["lm"]
    asked = [f"debug={name}", *TINY, *named, "data.max_length=16"]
    assert train([*asked, "model.depth=1", "name=x"], [], None, False) == 0
    figures = results(workplace / "outputs/x")
    if name == "overfit":
        # The one batch is learnt by heart, which says nothing about the test split.
        assert figures["val/loss"] < 0.5 * figures["test/loss"]


def test_there_is_an_experiment_for_each_task() -> None:
    tasks = {"translation", "classification", "summarization", "sft", "dpo"}
    assert {"lm_char", *tasks} <= set(EXPERIMENTS)
    assert DEBUG
