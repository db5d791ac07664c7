"""Tasks of lm-evaluation-harness: the figures that its own command gives an export."""

import json
import random
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tests.commands.conftest import SMALL, WORDS, write_chats
from tests.tasks.on_ranks import parts_of, start, trainer_of, write_samples
from truesweep.commands.compare import Options, compare_runs
from truesweep.commands.evaluate_tasks import evaluate_tasks
from truesweep.commands.export import export
from truesweep.commands.sweep import sweep
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.plan import plan
from truesweep.metrics import harness
from truesweep.metrics.harness import Asked, Harness, Left
from truesweep.report import compare
from truesweep.runs.run import Run


def write_tasks(folder: Path) -> list[str]:
    """A task of choices and one of texts, with samples in files beside them."""
    draw = random.Random(0)
    rows: dict[str, list[dict[str, Any]]] = {"colours": [], "repeat": []}
    for _ in range(16):
        words = draw.choices(WORDS, k=3)
        asked = {"question": " ".join(words)}
        rows["colours"].append({**asked, "choices": draw.sample(WORDS, 3), "answer": 0})
        rows["repeat"].append({**asked, "answer": words[0]})
    settings: dict[str, dict[str, Any]] = {
        "colours": {
            "output_type": "multiple_choice",
            "doc_to_choice": "{{choices}}",
            "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
        },
        "repeat": {
            "output_type": "generate_until",
            "generation_kwargs": {"until": ["\n"], "max_gen_toks": 6},
            "metric_list": [{"metric": "exact_match"}, {"metric": "chrf"}],
            "metadata": {"version": 2.0},
        },
    }
    for name, samples in rows.items():
        lines = "".join(f"{json.dumps(sample)}\n" for sample in samples)
        (folder / f"{name}.jsonl").write_text(lines)
        data = {"data_files": {"test": str(folder / f"{name}.jsonl")}}
        task = {"task": name, "dataset_path": "json", "dataset_kwargs": data}
        asks = {"test_split": "test", "doc_to_text": "{{question}}", "doc_to_target": "{{answer}}"}
        (folder / f"{name}.yaml").write_text(yaml.safe_dump({**task, **asks, **settings[name]}))
    return ["colours.yaml", "repeat.yaml"]


@pytest.fixture
def tasks(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Files of tasks in the current folder; a cache of the harness's data of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", workplace / "cache")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(workplace / "cache"))  # of ranks
    yield write_tasks(workplace)
    harness.harness.cache_clear()


def by_its_command(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """What the harness's own command finds of an exported folder, by our names."""
    import lm_eval.tasks
    from lm_eval.__main__ import cli_evaluate

    # Nothing but that it does not read through its thousands of tasks.
    manager = partial(lm_eval.tasks.TaskManager, include_defaults=False)
    monkeypatch.setattr("lm_eval.tasks.TaskManager", manager)
    words = f"run --model hf --model_args pretrained={folder} --tasks colours,repeat --device cpu"
    argv = ["lm_eval", *words.split(), "--include_path", ".", "--output_path", "theirs"]
    monkeypatch.setattr("sys.argv", argv)
    monkeypatch.setenv("DISABLE_MULTIPROC", "1")  # forks of a process with threads may hang
    cli_evaluate()
    (file,) = Path("theirs").rglob("results_*.json")
    found = {}
    for task, metrics in json.loads(file.read_text())["results"].items():
        for key in (key for key in metrics if key.endswith(",none")):
            name = key.removesuffix(",none").replace("_stderr", "_standard_error")
            found[f"harness/{task}/{name}"] = metrics[key]
    return found


def test_figures_are_those_of_the_harness_itself(
    tasks: list[str],
    workplace: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    named = [*write_chats(workplace), *SMALL, "model.init=default", "optimizer.lr=0.02"]
    during = [f"callbacks.harness.tasks=[{','.join(tasks)}]", "callbacks.harness.every_n_steps=4"]
    assert train([*named, *during, "trainer.max_steps=8", "name=s"], [], None, False) == 0
    (run,) = (workplace / "outputs/s").iterdir()
    assert "colours  acc_norm" in capsys.readouterr().out
    assert evaluate_tasks([str(run)], Asked(tuple(tasks)), "best", [], as_json=True) == 0
    ours = json.loads(capsys.readouterr().out)
    assert export(run, workplace / "out", "best") == 0
    theirs = by_its_command(workplace / "out", monkeypatch)
    assert ours == {**theirs, "harness/colours/samples": 16, "harness/repeat/samples": 16}
    assert theirs["harness/colours/acc"] > 0
    assert theirs["harness/colours/acc_standard_error"] > 0
    assert theirs["harness/repeat/chrf"] > 0
    # During the training, and by its best checkpoint.
    results = json.loads((run / "results.json").read_text())
    assert {k: v for k, v in results.items() if k.startswith("harness/")} == ours
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    curve = {row["step"]: row for row in rows if "harness/colours/acc" in row}
    assert sorted(curve) == [4, 8]
    last = {k: v for k, v in curve[8].items() if k.startswith("harness/")}
    assert last == ours  # if the last step was the best
    found = Run(run)
    assert found.figures["colours/acc"].higher_is_better is True
    objective = compare([run], "harness/repeat/chrf").objective
    assert (objective.mode, objective.of(compare([run]).runs[0])) == (
        "max",
        ours["harness/repeat/chrf"],
    )
    # What was found is kept, with what it was found by.
    own, kept = found.evaluations
    assert own["harness/colours/acc"] == kept["harness/colours/acc"] == ours["harness/colours/acc"]
    assert kept["versions"] == {"colours": "Yaml", "repeat": 2.0}
    assert kept["tasks"] == tasks
    assert "lm-eval" in kept["packages"]
    # The exported folder is no run: it has a directory of its own.
    asked = Asked((tasks[0],), limit=4)
    capsys.readouterr()
    assert evaluate_tasks([str(workplace / "out")], asked, "best", [], as_json=True) == 0
    assert json.loads(capsys.readouterr().out)["harness/colours/samples"] == 4
    named = ["model=pretrained", f"model.name_or_path={workplace / 'out'}", "data.max_length=32"]
    assert evaluate_tasks(named, Asked((tasks[0],)), "best", [], as_json=True) == 0
    again = json.loads(capsys.readouterr().out)
    assert again == {k: v for k, v in ours.items() if "colours" in k}
    assert len(list((workplace / "outputs/evaluations").iterdir())) == 2
    # All of it is listed.
    assert compare_runs([workplace / "outputs"], Options()) == 0
    listed = " ".join(capsys.readouterr().out.split())
    acc = ours["harness/colours/acc"]
    assert re.search(rf"colours/acc {acc:.3g}\d* ± 0\.\d", listed)
    assert compare_runs([workplace / "outputs/evaluations"], Options(json=True)) == 0
    alone = json.loads(capsys.readouterr().out)
    assert [len(one["evaluations"]) for one in alone] == [1, 1]
    assert compare_runs([run, workplace / "outputs/evaluations"], Options(json=True)) == 0
    first, *models = json.loads(capsys.readouterr().out)
    assert first["evaluations"] == [kept]
    assert [one["evaluations"] for one in models] == [one["evaluations"] for one in alone]
    assert {one["model"]["name_or_path"] for one in models} == {str(workplace / "out")}


def test_what_cannot_be_asked_is_refused_before_anything_is_loaded(
    tasks: list[str], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = ["task=classification", *SMALL, f"callbacks.harness.tasks={tasks[0]}"]
    with pytest.raises(ConfigError, match="a classifier model says nothing"):
        plan(named)
    monkeypatch.setattr(harness, "_manager", lambda include_defaults: FewTasks())
    with pytest.raises(ConfigError, match=r"arc_easi: .* no such task.*; did you mean arc_easy\?"):
        evaluate_tasks(["outputs/none"], Asked(("arc_easi",)), "best", [])
    with pytest.raises(ConfigError, match=r"other\.yaml: there is no such file"):
        evaluate_tasks(["outputs/none"], Asked(("other.yaml",)), "best", [])
    with pytest.raises(ConfigError, match=r"arc_easy: a task or its data cannot be loaded"):
        evaluate_tasks(["outputs/none"], Asked(("arc_easy",)), "best", [])
    monkeypatch.setattr(harness, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"not installed: pip install 'truesweep\[harness\]'"):
        evaluate_tasks(["outputs/none"], Asked(("arc_hard",)), "best", [])


def test_a_task_that_cannot_ask_its_first_sample_is_refused_at_once(
    tasks: list[str], workplace: Path
) -> None:
    with pytest.raises(ConfigError, match=r"colours: its first sample cannot be .*: Sample larger"):
        evaluate_tasks(["outputs/none"], Asked((tasks[0],), num_fewshot=999), "best", [])


def test_a_sweep_is_ranked_by_a_task(
    tasks: list[str], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [*write_chats(workplace), *SMALL, "optimizer.lr=0.01,0.02"]
    asked = [*named, f"callbacks.harness.tasks={tasks[0]}", "sweeps.objective=harness/colours/acc"]
    assert sweep(asked, [], True, True) == 0
    assert json.loads(capsys.readouterr().out)["jobs"]
    search = ["sweeps.method=search", "sweeps.pruner=median", "sweeps.jobs=2"]
    with pytest.raises(ConfigError, match="colours/acc: is known at the end only, and a pruner"):
        sweep([*asked, *search], [], True, True)
    with pytest.raises(ConfigError, match="objective=harness/colours/acc; there are val/loss"):
        sweep([*asked, "sweeps.objective=harness/colours/ac"], [], True, True)


class FewTasks:
    """A harness that knows a task whose data it cannot get."""

    all_tasks = ("arc_easy",)

    def match_tasks(self, names: list[str]) -> list[str]:
        return [name for name in names if name in self.all_tasks]

    def load(self, names: list[str]) -> Any:
        raise ConnectionError("no network")


def score_on_ranks(ranks: int) -> dict[str, float]:
    """What one of several ranks finds; they draw the same model."""
    parts = parts_of("lm", "n3", "n3", f"trainer.devices={ranks}")
    trainer_of(parts).strategy.setup_environment()
    task = parts.task
    return Harness(Asked(("colours.yaml", "repeat.yaml"))).score(task.model, task.tokenizer)


@pytest.mark.slow
def test_ranks_share_samples_and_find_the_same(tasks: list[str], workplace: Path) -> None:
    write_samples(workplace)
    first, second = start(workplace, 2, score_on_ranks)
    parts = parts_of("lm", "n3", "n3")
    alone = Harness(Asked(tuple(tasks))).score(parts.task.model, parts.task.tokenizer)
    assert first == alone
    assert second == {}
    assert alone["harness/colours/samples"] == 16


def test_a_model_is_left_as_it_was_and_when_it_is_asked(tasks: list[str], workplace: Path) -> None:
    write_samples(workplace)
    task = parts_of("lm", "n3", "n3").task
    task.model.train()
    loaded, before = Harness(Asked((tasks[1],), limit=2)), torch.get_rng_state()
    loaded.score(task.model, task.tokenizer)
    assert task.model.training
    assert torch.equal(torch.get_rng_state(), before)
    with pytest.raises(Left):
        loaded.score(task.model, task.tokenizer, leave=lambda: True)
