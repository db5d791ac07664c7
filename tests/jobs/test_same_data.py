"""A run is trained on the data that it began with, by all of its ranks."""

import json
from itertools import islice
from pathlib import Path

import pytest

from tests.commands.conftest import SMALL, data
from truesweep.callbacks import SameConfiguration
from truesweep.commands.resume import resume
from truesweep.commands.train import create_run
from truesweep.data import rules, tokenizers
from truesweep.errors import ConfigError
from truesweep.jobs.launch import launch
from truesweep.jobs.parts import build
from truesweep.jobs.plan import plan
from truesweep.jobs.rank import Rank
from truesweep.jobs.same_data import changed_data, check_same_data
from truesweep.runs.run import Run

__all__ = ["data"]


@pytest.fixture
def run(data: dict[str, list[str]], workplace: Path) -> Run:
    """A run that was not started yet."""
    return create_run(plan([*data["translation"], *SMALL, "name=x"]), Path("outputs/x/1"))


def write_other(file: Path) -> None:
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[1:], lines[0]]) + "\n")


def test_other_data_are_refused_and_the_old_ones_are_not(run: Run, workplace: Path) -> None:
    file = workplace / "pairs.en"
    text = file.read_text()
    write_other(file)
    run.update_status(state="preempted")
    before = {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    for overrides in ([], ["trainer.threads=2"], ["trainer.max_steps=20"]):
        with pytest.raises(ConfigError, match=r"^data\.train \(pairs\.en\): the data have changed"):
            resume(run.path, overrides)
    assert before == {p: p.read_bytes() for p in run.path.rglob("*") if p.is_file()}
    file.write_text(text)
    check_same_data(run, build(run.read_config()).prepared)


def test_a_job_that_is_started_late_refuses_other_data(run: Run, workplace: Path) -> None:
    write_other(workplace / "pairs.en")
    assert launch(run) == 1
    assert "the data have changed since 1 began" in run.status["error"]


def test_a_run_that_kept_no_fingerprint_passes(run: Run, workplace: Path) -> None:
    write_other(workplace / "pairs.en")
    prepared = build(run.read_config()).prepared
    assert changed_data(run, prepared)
    provenance = run.read_provenance()
    del provenance["data"]["fingerprint"], provenance["data"]["tokenizer"]
    (run.path / "provenance.json").write_text(json.dumps(provenance))
    assert not changed_data(run, prepared)


def made_by_another_version(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Have a version that learns from half of the texts, and counts a word less."""
    build = tokenizers.Bpe.build
    monkeypatch.setattr(
        tokenizers.Bpe, "build", lambda self, texts: build(self, islice(texts, 0, None, 2))
    )
    monkeypatch.setattr(rules, "words", lambda text: text.split()[1:])
    monkeypatch.setenv("TRUESWEEP_CACHE", str(tmp_path / "of another version"))


def test_other_tokens_of_the_same_data_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kept = build(run.read_config()).prepared
    made_by_another_version(monkeypatch, tmp_path)
    run.update_status(state="preempted")
    message = r"^tokenizer: the tokens of the same data have changed since 1 began\. Go on with"
    with pytest.raises(ConfigError, match=message):
        resume(run.path, [])
    prepared = build(run.read_config()).prepared
    assert prepared.fingerprint == kept.fingerprint
    provenance = run.read_provenance()
    del provenance["data"]["tokenizer"]  # as of an earlier version
    (run.path / "provenance.json").write_text(json.dumps(provenance))
    assert changed_data(run, prepared) is None


@pytest.mark.parametrize("kind", ["files", "hub", "mixture"])
def test_another_rule_of_cleaning_is_not_taken_for_other_data(
    kind: str,
    data: dict[str, list[str]],
    workplace: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "arrow")
    write_hub(workplace / "hub", lines := (workplace / "pairs.en").read_text().splitlines())
    columns = ["task=lm", "tokenizer=byte", "data.text_column=text"]
    sources = {
        "files": data["translation"],
        "hub": ["data=hub", "data.name=hub", *columns],
        "mixture": ["data=mixture", "data.sources.a.train=hub/train.jsonl", *columns[:2]],
    }
    job = plan([*sources[kind], *SMALL, "data.clean.min_words=5", "name=x"])
    run = create_run(job, Path("outputs/x/1"))
    with monkeypatch.context() as context:
        made_by_another_version(context, tmp_path)
        with pytest.raises(ConfigError, match=r"^data\.clean: its rules, and not the data, have"):
            resume(run.path, [])
    if kind == "hub":
        write_hub(workplace / "hub", lines[::-1])
        with pytest.raises(ConfigError, match=r"^data: the data have changed"):
            resume(run.path, [])


def write_hub(folder: Path, texts: list[str]) -> None:
    """A folder laid out like a repository on the hub."""
    folder.mkdir(exist_ok=True)
    rows = "".join(json.dumps({"text": text}) + "\n" for text in texts)
    (folder / "train.jsonl").write_text(rows)


def test_ranks_compare_their_data(run: Run, workplace: Path) -> None:
    def compared() -> str:
        config = run.read_config()
        job = Rank(run, config, build(config), loggers=[])
        # Lightning sets the list in a connector, which its types do not tell.
        callbacks = job.trainer.callbacks  # type: ignore[attr-defined]
        (found,) = (c.fingerprint for c in callbacks if isinstance(c, SameConfiguration))
        return str(found)

    first = compared()
    assert compared() == first
    write_other(workplace / "pairs.en")
    assert compared() != first
