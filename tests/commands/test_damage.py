"""Files of runs and sweeps that were damaged: a result, or a sentence with the file in it."""

import json
import random
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.damage import call, change_digit, damage
from truesweep.sweeps.directory import SweepDirectory

OF_A_RUN = (
    "config.yaml",
    "status.json",
    "results.json",
    "provenance.json",
    "model/config.json",
    "model/tokenizer.json",
    "model/tokenizer_config.json",
    "checkpoints/best.ckpt",
    "checkpoints/best.ckpt.sha256",
)
OF_A_JOB = (
    "config.yaml",
    "status.json",
    "results.json",
    "job.json",
    "provenance.json",
    "metrics.jsonl",
    "overrides.yaml",
    "tables.json",
    "scores/val.npz",
    "evaluations.jsonl",
)


def assert_met(folder: Path, files: Sequence[str], each: int, *commands: Sequence[str]) -> None:
    """Assert that no damage crashes a command, each time one of some, and that some are noticed."""
    rng, refused, crashes = random.Random(0), 0, []
    for name, what in damage(folder, files, rng, each):
        command = rng.choice(commands)
        met = call(*command)
        refused += met.how == "refused"
        if met.how == "crashed":
            crashes.append(f"{name} {what}: {command[0]}: {met.said}")
    assert not crashes, "\n".join(crashes)
    assert refused


@pytest.fixture
def run(trained: dict[str, Path], tmp_path: Path) -> Path:
    return shutil.copytree(trained["lm"], tmp_path / "run")


def test_a_damaged_run_is_used_or_refused_in_words(run: Path) -> None:
    generate = ["generate", str(run), "--prompt", "red", "--max-new-tokens", "1"]
    assert_met(run, OF_A_RUN, 1, generate)


def test_damage_that_an_export_reads(run: Path, tmp_path: Path) -> None:
    files = ("results.json", "provenance.json", "model/tokenizer_config.json")
    for name, what in damage(run, files, random.Random(1), 1):
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        met = call("export", str(run), str(tmp_path / "out"))
        assert met.how != "crashed", f"{name} {what}: {met.said}"
        assert (tmp_path / "out").exists() == (met.how == "done")


@pytest.fixture
def sweep(archive: Path, tmp_path: Path) -> Path:
    """A sweep whose jobs have ended."""
    found = [file.parent for file in archive.rglob("sweep.yaml")]
    source = max(found, key=lambda folder: len(list(folder.glob("*/results.json"))))
    return shutil.copytree(source, tmp_path / "sweep")


def test_a_damaged_job_is_listed_or_refused_in_words(sweep: Path) -> None:
    first, second, *_ = sorted(file.parent for file in sweep.glob("*/results.json"))
    files = [f"{first.name}/{name}" for name in OF_A_JOB if (first / name).exists()]
    assert_met(
        sweep,
        [*files, "sweep.yaml", "jobs.jsonl"],
        1,
        ["status", str(sweep)],
        ["compare", str(sweep), "--json", "--html", str(sweep / "page.html")],
        ["diff", str(first), str(second)],
    )


@pytest.mark.parametrize("wrong", ["x", True])
@pytest.mark.parametrize(
    "name", ["val/loss", "val/perplexity", "test/loss_standard_error", "train/flops"]
)
def test_a_figure_that_is_no_number_is_said(sweep: Path, name: str, wrong: object) -> None:
    first, second, *_ = sorted(file.parent for file in sweep.glob("*/results.json"))
    file = first / "results.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: wrong}))
    met = call("diff", str(first), str(second))
    assert met.how == "done", met.said
    assert f"{name} is {wrong!r}, which it cannot be" in " ".join(met.err.split())


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("[" * 100_000, id="nested without end"),
        pytest.param("model: &here {depth: *here}", id="holds itself"),
        pytest.param("seed: 2026-13-45", id="no date"),
        pytest.param("seed: 2026-12-31", id="a date"),
        pytest.param("trainer: [1]", id="no group"),
    ],
)
def test_a_configuration_that_cannot_be(sweep: Path, text: str) -> None:
    first, second, *_ = sorted(file.parent for file in sweep.glob("*/results.json"))
    (first / "config.yaml").write_text(f"{text}\n")
    used = call("generate", str(first), "--prompt", "red")
    assert used.how == "refused"
    assert "config.yaml: " in used.said
    for command in (["compare", str(sweep), "--json"], ["diff", str(first), str(second)]):
        met = call(*command)
        assert met.how == "done", met.said
        assert "cannot be read as a configuration" in " ".join(met.err.split())


def test_nodes_of_an_old_configuration_that_are_no_number(sweep: Path) -> None:
    first, *_ = sorted(file.parent for file in sweep.glob("*/results.json"))
    config = yaml.safe_load((first / "config.yaml").read_text())
    config["trainer"] |= {"num_nodes": "x", "devices": []}
    (first / "config.yaml").write_text(yaml.safe_dump(config))
    (first / "job.json").write_text("{}")
    assert call("compare", str(sweep), "--json").how == "done"


def test_a_sweep_of_which_one_configuration_is_lost_is_summed_up(sweep: Path) -> None:
    first, *_ = SweepDirectory.open(sweep).jobs()
    first.config.write_text("")
    met = call("resume", str(sweep))
    assert f"{first.id}/config.yaml:isempty" in "".join(met.out.split())
    assert "could not be summed up" not in met.out
    assert (sweep / "report.html").exists()


LONGER = "trainer.max_steps=14"


def test_a_run_goes_on_from_no_other_record(run: Path) -> None:
    record = (run / "metrics.jsonl").read_text()
    (run / "metrics.jsonl").write_text(record.replace('"step": 1,', '"step": 2,'))
    met = call("resume", str(run), LONGER)
    assert met.how == "refused"
    assert "metrics.jsonl: is not what the run has written. Restore it" in met.said
    (run / "metrics.jsonl").write_text(record)
    assert call("status", str(run)).out.split()[-3:] == ["run", "val/loss", "2.073"]


def test_a_record_of_which_only_a_checkpoint_knows_is_refused_before_anything_starts(
    run: Path,
) -> None:
    change_digit(run / "metrics.jsonl", '"train/loss": ')
    (run / "metrics.jsonl.sha256").unlink()
    status = (run / "status.json").read_bytes()
    met = call("resume", str(run), LONGER)
    assert met.how == "refused"
    assert "metrics.jsonl: is not what the run has written. Restore it, or delete it" in met.said
    assert (run / "status.json").read_bytes() == status


def test_what_a_run_that_goes_on_has_lost_is_said_or_made_again(run: Path) -> None:
    (run / "metrics.jsonl").unlink()
    shutil.rmtree(run / "model")
    assert "metrics.jsonl: is missing. Restore it" in call("resume", str(run), LONGER).said
    (run / "metrics.jsonl.sha256").unlink()
    met = call("resume", str(run), LONGER)
    said = "metrics.jsonl is missing: the curve, and its time, begin after step 12"
    assert "".join(said.split()) in "".join(met.err.split())
    assert call("generate", str(run), "--prompt", "red", "--max-new-tokens", "1").how == "done"


@pytest.mark.parametrize("name", ["config.yaml", "status.json", "results.json", "provenance.json"])
def test_a_file_that_a_run_must_have_and_has_not_is_said(run: Path, name: str) -> None:
    (run / name).unlink()
    said = f"{run / name}: is missing. Restore it"
    met = call("compare", str(run), "--json")
    assert met.how == "done", met.said
    assert "".join(said.split()) in "".join(met.err.split())
    asked = ["evaluate", str(run)] if name == "provenance.json" else ["resume", str(run)]
    if name != "status.json":  # which it writes again
        met = call(*asked)
        assert met.how == "refused"
        assert name in met.said


@pytest.mark.parametrize(
    ("name", "command"), [("overrides.yaml", "show"), ("results.json", "export")]
)
def test_what_a_command_would_have_read_is_said(run: Path, name: str, command: str) -> None:
    (run / name).unlink()
    met = call(command, str(run), *(["../exported"] if command == "export" else []))
    said = f"{run / name}: is missing. Restore it"
    assert "".join(said.split()) in "".join((met.said + met.err).split())


def test_a_job_that_has_lost_its_place_or_its_configuration_is_compared_by_name(
    sweep: Path,
) -> None:
    first, second, *_ = SweepDirectory.open(sweep).jobs()
    (first.path / "job.json").unlink()
    second.config.unlink()
    for command in (["compare", str(sweep), "--json"], ["status", str(sweep)]):
        met = call(*command)
        assert met.how == "done", met.said
        told = "".join((met.out + met.err).split())
        assert f"{first.path}/job.json:ismissing" in told
        assert f"{second.config}:ismissing" in told


def test_an_objective_that_is_no_name_is_refused(sweep: Path) -> None:
    asked = yaml.safe_load((sweep / "sweep.yaml").read_text())
    asked["sweeps"]["objective"] = [None]
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(asked))
    met = call("compare", str(sweep))
    assert (met.how, met.said[:46]) == ("refused", "sweep.yaml: sweeps.objective is [None], which ")


def test_a_sweep_without_a_command_is_refused(sweep: Path) -> None:
    asked = yaml.safe_load((sweep / "sweep.yaml").read_text())
    (sweep / "sweep.yaml").write_text(yaml.safe_dump({**asked, "asked": []}))
    met = call("status", str(sweep))
    assert met.how == "refused"
    assert "is not as the program wrote it" in met.said


@pytest.mark.parametrize(
    ("entry", "value"),
    [("hours", []), ("jobs", {"a": 1}), ("sampler", {}), ("retries", "x")],
)
def test_settings_of_a_sweep_that_cannot_be(sweep: Path, entry: str, value: object) -> None:
    asked = yaml.safe_load((sweep / "sweep.yaml").read_text())
    asked["sweeps"][entry] = value
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(asked))
    met = call("status", str(sweep))
    assert met.how == "refused"
    assert f"sweeps.{entry}" in met.said
    assert "sweep.yaml" in met.said


@pytest.mark.parametrize("entry", [-1, {"overrides": [True]}, {"overrides": None}])
def test_a_command_of_a_sweep_that_is_none(sweep: Path, entry: object) -> None:
    asked = yaml.safe_load((sweep / "sweep.yaml").read_text())
    whole = {"directory": ".", "config_dirs": []}
    asked["asked"] = [{**whole, **entry} if isinstance(entry, dict) else entry]
    (sweep / "sweep.yaml").write_text(yaml.safe_dump(asked))
    met = call("status", str(sweep))
    assert met.how == "refused"
    assert "sweep.yaml" in met.said


@pytest.mark.parametrize("name", ["status.json", "results.json", "config.yaml", "metrics.jsonl"])
def test_a_comparison_says_which_file_it_lacks(sweep: Path, name: str) -> None:
    job = next(file.parent for file in sweep.glob("*/results.json"))
    (job / name).write_text("[\n[\n")
    met = call("compare", str(sweep), "--json")
    assert met.how == "done"
    assert "Warning: " in met.err
    assert name in met.err.replace("\n", "")


@pytest.mark.parametrize(
    ("name", "digit", "command"),
    [
        ("config.yaml", "lr: ", "generate"),
        ("config.yaml", "depth: ", "compare"),
        ("config.yaml", "max_steps: ", "status"),
        ("evaluations.jsonl", '"test/loss": ', "evaluate"),
        ("metrics.jsonl", '"train/loss": ', "compare"),
        ("metrics.jsonl", '"train/loss": ', "status"),
        ("model/config.json", '"num_attention_heads": ', "generate"),
        ("model/tokenizer.json", '"id": ', "generate"),
        ("overrides.yaml", "max_steps=", "show"),
        ("provenance.json", '"fingerprint": "', "export"),
        ("results.json", '"val/loss": ', "status"),
        ("status.json", '"total_steps": ', "resume"),
        ("status.json", '"step": ', "compare"),
    ],
)
def test_another_digit_is_noticed(run: Path, name: str, digit: str, command: str) -> None:
    change_digit(run / name, digit)
    more = {"export": ["../exported"], "compare": ["--json"]}
    met = call(command, str(run), *more.get(command, []))
    said = "".join((met.out + met.err + met.said).split())
    assert "isnotwhattherun" in said
    assert name.partition("/")[0] in said


def test_another_word_in_a_sample_is_noticed(run: Path, tmp_path: Path) -> None:
    tables = json.loads((run / "tables.json").read_text())
    (run / "tables.json").write_text(json.dumps(tables).replace("red", "rot"))
    call("compare", str(run), "--html", str(tmp_path / "page.html"))
    assert "tables.json: is not what the run has written" in (tmp_path / "page.html").read_text()


def test_files_without_a_checksum_are_those_of_earlier_versions(run: Path) -> None:
    for name in ("status.json", "provenance.json"):
        entries = json.loads((run / name).read_text())
        del entries["sha256"]
        (run / name).write_text(json.dumps(entries))
    for name in ("results.json", "tables.json", "metrics.jsonl"):
        (run / f"{name}.sha256").unlink()
    met = call("compare", str(run), "--json")
    assert met.how == "done"
    assert "isnotwhat" not in "".join(met.err.split())


def test_a_record_that_lacks_its_end_is_noticed(run: Path) -> None:
    record = run / "metrics.jsonl"
    record.write_text(record.read_text().splitlines(keepends=True)[0])
    met = call("compare", str(run), "--json")
    assert "metrics.jsonl:endsatstep1of12" in "".join(met.err.split())
