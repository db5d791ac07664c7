"""A model is fine-tuned by an adapter, taken up again, scored, and handed on to peft."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel

from tests.commands.conftest import SMALL, truesweep, values, write_data
from tests.commands.test_use import AUTO, HEADS, logits
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.commands.generate import Options, generate
from truesweep.commands.resume import resume
from truesweep.commands.train import train
from truesweep.errors import ConfigError
from truesweep.jobs.load import load_run
from truesweep.jobs.plan import plan
from truesweep.models.quantize import quantize
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.runs.run import Run

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")  # peft
SIZES = "model.depth", "model.width", "model.heads"
LORA = [
    "adapter=lora",
    "adapter.r=4",
    "adapter.dropout=0.1",
    "optimizer=adamw",
    "optimizer.lr=0.01",
]
VERA = ["adapter=lora", "adapter._target_=peft.VeraConfig", "adapter.target_modules=all-linear"]
IDS = torch.tensor([[4, 5, 6, 7, 8, 9], [6, 6, 7, 10, 11, 12]])


def asked(task: list[str], base: Path | None, *more: str) -> list[str]:
    """A small run with an adapter, beside a new model or one that was exported."""
    if base is None:
        return [*task, *SMALL, "model.init=default", *LORA, *more]
    small = [override for override in SMALL if not override.startswith(SIZES)]
    loaded = ["model=pretrained", f"model.name_or_path={base}"]
    named = [o for o in task if not o.startswith("tokenizer.")]
    own = ["tokenizer=pretrained", f"tokenizer.name_or_path={base}"]
    return [*named, *small, *loaded, *own, *LORA, *more]


@pytest.fixture(scope="module", params=AUTO)
def adapted(
    request: pytest.FixtureRequest,
    trained: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[str, Path, Path]:
    """A task, an exported model and a run that has an adapter beside it."""
    task: str = request.param
    base = tmp_path_factory.mktemp("base") / "model"
    assert export(trained[task], base, "best") == 0
    folder = trained[task].parents[2]
    named = write_data(folder)[task]
    name = f"lora-{base.parent.name}"  # of its own: what is set up for each may be so twice
    done = truesweep("train", *asked(named, base, f"name={name}"), cwd=folder)
    assert done.code == 0, done.out + done.err
    assert re.search(r"adapter +Lora, [\d.,k]+ of them trained \([\d.]+ %\)", done.out)
    (run,) = (folder / "outputs" / name).iterdir()
    return task, base, run


def test_a_checkpoint_holds_the_adapter_alone(adapted: tuple[str, Path, Path]) -> None:
    task, _, run = adapted
    saved = CheckpointFiles().load_checkpoint(run / "checkpoints/last.ckpt")
    names = [name for name in saved["state_dict"] if name.startswith("model.")]
    assert names
    assert all("lora_" in name or ".modules_to_save." in name for name in names)
    results = json.loads((run / "results.json").read_text())
    held = sum(saved["state_dict"][name].numel() for name in names)
    assert held == results["trainable_parameters"] < results["parameters"] / 2
    assert saved["base"]["sha256"] == results["base_sha256"]
    sizes = json.loads((run / "provenance.json").read_text())["adapter"]
    assert sizes == {"parameters": results["parameters"], "trainable": held}
    before = [row["val/loss"] for row in values(run) if "val/loss" in row]
    assert before[-1] < before[0] or task != "lm"


def test_an_exported_adapter_is_loaded_by_peft(
    adapted: tuple[str, Path, Path], tmp_path: Path
) -> None:
    task, base, run = adapted
    assert export(run, tmp_path / "adapter", "best") == 0
    assert export(run, tmp_path / "merged", "best", merge=True) == 0
    assert not list((tmp_path / "adapter").glob("model*"))
    files = [*(tmp_path / "adapter").iterdir(), *(tmp_path / "merged").iterdir()]
    assert {file.stat().st_mode & 0o777 for file in files} == {0o644}
    cards = [(tmp_path / name / "README.md").read_text() for name in ("adapter", "merged")]
    assert cards[0].startswith(f'---\nlibrary_name: peft\nbase_model: "{base}"\n')
    assert cards[1].startswith(f'---\nlibrary_name: transformers\nbase_model: "{base}"\n')
    ours = load_run(Run.open(run), HEADS[task]).model  # type: ignore[arg-type]
    expected = logits(ours, IDS, task)
    labels: dict[str, Any] = {"attn_implementation": "eager"}
    plain = AUTO[task].from_pretrained(base, **labels).eval()
    beside = logits(plain, IDS, task)
    theirs = PeftModel.from_pretrained(plain, tmp_path / "adapter").eval()
    assert torch.equal(logits(theirs, IDS, task), expected)
    assert (beside - expected).abs().max() > 1e-3
    merged = AUTO[task].from_pretrained(tmp_path / "merged", **labels).eval()
    torch.testing.assert_close(logits(merged, IDS, task), expected, rtol=1e-5, atol=1e-5)
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_a_run_with_an_adapter_is_scored_as_it_was(
    adapted: tuple[str, Path, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, run = adapted
    capsys.readouterr()
    assert evaluate([str(run)], "test", "best", [], as_json=True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["test/loss"] == json.loads((run / "results.json").read_text())["test/loss"]
    assert generate(run, "red green", None, "best", Options(4, 0.0, None, None, 0)) == 0
    assert capsys.readouterr().out.strip()


def test_merging_needs_an_adapter(trained: dict[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--merge: this run has no adapter"):
        export(trained["lm"], tmp_path / "merged", "best", merge=True)


@pytest.mark.parametrize(
    ("head", "optimizer"),
    [
        ("lm", ["optimizer=muon"]),
        ("classification", ["optimizer=muon", "optimizer.adapter_b_lr_ratio=4"]),
        ("classification", ["optimizer.adapter_b_lr_ratio=16", "optimizer.head_lr_ratio=10"]),
    ],
)
def test_a_run_beside_a_new_model_is_taken_up_bit_for_bit(
    head: str, optimizer: list[str], data: dict[str, list[str]], workplace: Path
) -> None:
    """And one whose base has changed is not."""
    whole, longer = (
        asked(data[head], None, f"trainer.max_steps={n}", f"name=s{n}") for n in (8, 4)
    )
    steps = ["scheduler=constant", "trainer.val_check_interval=4", *optimizer]
    for one in (whole, longer):
        assert train([*one, *steps], [], None, False) == 0
    (expected,), (run,) = (list((workplace / f"outputs/s{n}").iterdir()) for n in (8, 4))
    assert resume(run, ["trainer.max_steps=8"]) == 0
    losses = [row["val/loss"] for row in values(run) if "val/loss" in row]
    assert abs(losses[0] - losses[-1]) > 1e-4  # it learns; rounding is 1e-7
    states = [
        CheckpointFiles().load_checkpoint(path / "checkpoints/last.ckpt")["state_dict"]
        for path in (expected, run)
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], weight) for name, weight in states[0].items())
    longer_run = Run.open(run)
    longer_run.write_config(longer_run.read_config() | {"seed": 1}, {"overrides": []})
    with pytest.raises(ConfigError, match="not the one that the adapter was trained beside"):
        load_run(longer_run, HEADS[head])  # type: ignore[arg-type]


def test_a_base_in_four_bits_is_trained_beside_taken_up_and_handed_on(
    data: dict[str, list[str]], workplace: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reason = "needs bitsandbytes (pip install 'truesweep[qlora]')"
    pytest.importorskip("bitsandbytes", reason=reason)
    wide = ["model.width=64", "model.feed_forward=128", "model=llama", "trainer.max_steps=2"]
    assert train([*data["lm"], *SMALL, *wide, "name=base"], [], None, False) == 0
    (start,) = (workplace / "outputs/base").iterdir()
    base = workplace / "base"
    assert export(start, base, "best") == 0
    four = asked(data["lm"], base, "adapter.quantize=nf4", "scheduler=constant")
    for name, steps in (("whole", 8), ("half", 4)):
        lasting = [f"name={name}", f"trainer.max_steps={steps}", "trainer.val_check_interval=4"]
        assert train([*four, *lasting], [], None, False) == 0
    (whole,), (run,) = (list((workplace / f"outputs/{n}").iterdir()) for n in ("whole", "half"))
    assert resume(run, ["trainer.max_steps=8"]) == 0
    states = [
        CheckpointFiles().load_checkpoint(path / "checkpoints/last.ckpt")["state_dict"]
        for path in (whole, run)
    ]
    assert all("lora_" in name for name in states[0] if name.startswith("model."))
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[1][name], weight) for name, weight in states[0].items())
    results = json.loads((run / "results.json").read_text())
    losses = [row["val/loss"] for row in values(run) if "val/loss" in row]
    assert losses[-1] < losses[0] - 0.01
    assert results["parameters"] - results["trainable_parameters"] == sum(
        p.numel() for p in AUTO["lm"].from_pretrained(base).parameters()
    )
    capsys.readouterr()
    assert evaluate([str(run)], "test", "best", [], as_json=True) == 0
    figures = json.loads(capsys.readouterr().out)
    assert figures["test/loss"] == results["test/loss"]
    assert export(run, workplace / "adapter", "best") == 0
    assert "beside weights in four bits (NF4)" in " ".join(capsys.readouterr().out.split())
    assert export(run, workplace / "merged", "best", merge=True) == 0
    assert "four bits" not in capsys.readouterr().out  # it has the weights that these stand for
    expected = logits(load_run(Run.open(run), "causal").model, IDS, "lm")
    eager: dict[str, Any] = {"attn_implementation": "eager"}
    plain = AUTO["lm"].from_pretrained(base, **eager)
    quantize(plain)
    theirs = PeftModel.from_pretrained(plain, workplace / "adapter").eval()
    assert torch.equal(logits(theirs, IDS, "lm"), expected)
    merged = AUTO["lm"].from_pretrained(workplace / "merged", **eager).eval()
    torch.testing.assert_close(logits(merged, IDS, "lm"), expected, rtol=1e-5, atol=1e-5)
    with pytest.raises(ConfigError, match=r"trainer\.precision=64-true: weights in four bits are"):
        plan([*four, "trainer.precision=64-true"])


def test_a_base_in_four_bits_needs_a_package_and_trained_weights(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = asked(data["lm"], None, "adapter.quantize=nf4")
    monkeypatch.setattr("truesweep.models.quantize.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"needs the package bitsandbytes; type pip install 'tr"):
        plan(new)
    monkeypatch.setattr("truesweep.models.quantize.find_spec", lambda name: name)
    with pytest.raises(ConfigError, match=r"those of this model are new\. Set model=pre"):
        plan(new)
    assert not (workplace / "outputs").exists()


def test_shards_are_refused(data: dict[str, list[str]], workplace: Path) -> None:
    with pytest.raises(ConfigError, match=r"trainer\.strategy=fsdp shards weights"):
        plan([*asked(data["lm"], None), "trainer.strategy=fsdp"])
    assert not (workplace / "outputs").exists()


def test_an_output_layer_that_stays_zero_is_refused(
    data: dict[str, list[str]], workplace: Path
) -> None:
    scaled = [*asked(data["lm"], None), "model.init=scaled"]
    with pytest.raises(ConfigError, match=r"stays there.*Set model\.init=default"):
        plan(scaled)
    trained_too = plan([*scaled, "adapter.modules_to_save=[lm_head]"])
    assert trained_too.parameters.trainable > plan(asked(data["lm"], None)).parameters.trainable


def test_rows_of_a_table_that_is_shared_are_trained(
    data: dict[str, list[str]], workplace: Path
) -> None:
    """Such as that of the token which ends an answer, that a base has never written."""
    shared = ["model=llama", "model.tie_embeddings=true", "trainer.max_steps=2"]
    assert train([*data["lm"], *SMALL, *shared, "name=base"], [], None, False) == 0
    (start,) = (workplace / "outputs/base").iterdir()
    assert export(start, workplace / "base", "best") == 0
    rows = ["adapter.config={trainable_token_indices: [4, 5]}", "trainer.max_steps=2", "name=rows"]
    assert train(asked(data["lm"], workplace / "base", *rows), [], None, False) == 0
    (run,) = (workplace / "outputs/rows").iterdir()
    results = json.loads((run / "results.json").read_text())
    assert json.loads((run / "provenance.json").read_text())["adapter"] == {
        "parameters": results["parameters"],
        "trainable": results["trainable_parameters"],
    }
    assert export(run, workplace / "merged", "best", merge=True) == 0
    expected = logits(load_run(Run.open(run), "causal").model, IDS, "lm")
    merged = AUTO["lm"].from_pretrained(workplace / "merged", attn_implementation="eager").eval()
    torch.testing.assert_close(logits(merged, IDS, "lm"), expected, rtol=1e-5, atol=1e-5)


def test_a_sweep_over_rank_and_rate_ends_with_a_verdict(
    data: dict[str, list[str]], workplace: Path
) -> None:
    swept = ["adapter.r=1,4", "optimizer.lr=0.001,0.01", "optimizer=muon", "name=s"]
    done = truesweep("train", "-m", *asked(data["lm"], None), *swept, cwd=workplace)
    assert done.code == 0, done.out + done.err
    assert "4 completed" in done.out
    assert re.search(r"[Bb]est", done.out)


def test_an_adapter_of_a_model_that_was_made_for_it_is_exported_merged(
    data: dict[str, list[str]], workplace: Path
) -> None:
    assert train(asked(data["lm"], None, "name=x"), [], None, False) == 0
    (run,) = (workplace / "outputs/x").iterdir()
    with pytest.raises(ConfigError, match="is of no use alone; add --merge"):
        export(run, workplace / "out", "best")
    assert export(run, workplace / "out", "best", merge=True) == 0


def test_what_peft_cannot_merge_leaves_nothing_behind(
    data: dict[str, list[str]], workplace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    method = ["trainer.max_steps=2", "name=vera"]
    named = [o for o in asked(data["lm"], None, *method) if not o.startswith("adapter.")]
    assert train([*named, *VERA], [], None, False) == 0
    (run,) = (workplace / "outputs/vera").iterdir()
    assert export(run, workplace / "merged", "best", merge=True) == 0

    def refuse(self: Any, safe_merge: bool) -> None:
        raise NotImplementedError("This method is not supported")

    monkeypatch.setattr("peft.tuners.vera.VeraModel.merge_and_unload", refuse)
    before = set(workplace.iterdir())
    with pytest.raises(ConfigError, match=r"--merge: peft cannot merge VeraConfig: .* by itself$"):
        export(run, workplace / "new/merged", "best", merge=True)
    assert set(workplace.iterdir()) == before
