"""A mixture of sources as a task is trained on it and judged by it."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.commands.conftest import SMALL
from tests.tasks.on_ranks import TASKS, parts_of, validate, write_samples
from truesweep.analysis.uncertainty import standard_errors
from truesweep.errors import ConfigError, UserError
from truesweep.figures import BUILT_IN, find, keep, mode, of_source, read
from truesweep.jobs.parts import Parts, build, prepare_data
from truesweep.jobs.plan import Planner, checked

pytestmark = pytest.mark.numbers
SMALLER = ["model.depth=1", "trainer.val_check_interval=3", "trainer.max_steps=6"]


def mixture(task: str, *overrides: str) -> list[str]:
    """Two sources of samples in the current folder: `a` of 40, and `b` of 17."""
    asked, end = TASKS[task]
    shared = [one for one in asked if one.startswith("data.")]
    sides = [f"data.sources.{s}.{one[5:]}" for s in "ab" for one in shared]
    files = {"a": ("many", "n8", "n5"), "b": ("n17", "n7", "n3")}
    named = [
        f"data.sources.{source}.{split}={name}{end}"
        for source, names in files.items()
        for split, name in zip(("train", "val", "test"), names, strict=True)
    ]
    kept = [one for one in asked if one not in shared]
    return [*kept, *sides, "data=mixture", *named, *SMALL, *SMALLER, *ALONE, *overrides]


ALONE = ["tokenizer=byte", "model.init=default", "data.packing=false", "data.eval_batch_size=2"]
ALONE += ["data.max_length=128"]


def parts(task: str, *overrides: str) -> Parts:
    return build(checked(mixture(task, *overrides)))


@pytest.mark.parametrize("task", TASKS)
def test_a_source_has_the_figures_that_it_has_alone(task: str, workplace: Path) -> None:
    write_samples(workplace)
    mixed = parts(task)
    validate(mixed)
    found = mixed.task.evaluations["val"]
    assert found["val/samples"] == 15
    for source, (train, val) in {"a": ("many", "n8"), "b": ("n17", "n7")}.items():
        files = [f"data.train={train}{TASKS[task][1]}"] if TASKS[task][1] else []
        alone = parts_of(task, val, "n5", *files, *SMALLER, *ALONE)
        validate(alone)
        own = {
            name.replace("val/", f"val/{source}/"): value
            for name, value in alone.task.evaluations["val"].items()
            if name.replace("val/", f"val/{source}/") in found
        }
        # What is hidden follows from the place in the split.
        rel = 0.2 if (task, source) == ("mlm", "b") else 1e-5
        assert own.keys() >= {f"val/{source}/loss", f"val/{source}/samples"}
        for name, value in own.items():
            assert found[name] == pytest.approx(value, rel=rel, abs=1e-6)
    losses = [found[f"val/{source}/loss"] for source in "ab"]
    assert min(losses) <= found["val/loss"] <= max(losses)
    assert losses[0] != losses[1]


def test_figures_of_a_source_are_declared_as_those_of_the_whole() -> None:
    declared = read(keep({**BUILT_IN, **{f.name: f for f in of_source("books", BUILT_IN)}}))
    assert mode("val/books/loss", declared) == mode("val/books/loss") == "min"
    assert mode("val/books/accuracy", declared) == "max"
    perplexity = find("val/books/perplexity", declared)
    assert perplexity is not None
    assert perplexity.follows == "books/loss"
    rng = np.random.default_rng(0)
    scores = {"books/nll": rng.random(50), "books/count": np.ones(50), "nll": rng.random(70)}
    error = standard_errors(scores, "val", declared.values())["val/books/loss_standard_error"]
    assert error == pytest.approx(scores["books/nll"].std(ddof=1) / 50**0.5)


@pytest.mark.parametrize(
    ("task", "packing"),
    [
        *(("lm", packing) for packing in ("true", "documents", "false")),
        *((task, "false") for task in ("translation", "sft", "dpo")),
    ],
)
def test_a_batch_of_several_sources_has_the_rows_of_each(
    task: str, packing: str, workplace: Path
) -> None:
    write_samples(workplace)
    dataset: Any = parts(task, f"data.packing={packing}", "data.batch_size=1").prepared.train
    a, b = (len(dataset.parts[source]) for source in "ab")
    samples = {a + b - 1: ("b", b - 1), 1: ("a", 1), a: ("b", 0), a - 1: ("a", a - 1)}
    batch = dataset.collate(list(samples))
    assert batch["index"] == list(samples)
    for row, (source, place) in enumerate(samples.values()):
        own = dataset.parts[source].collate([place])
        assert own.keys() <= batch.keys()
        for key in own.keys() - {"index"}:
            if isinstance(own[key], torch.Tensor) and own[key].dim() > 1:
                width = own[key].shape[1]
                assert torch.equal(batch[key][row, :width], own[key][0])
                rest = batch[key][row, width:]
                assert key != "labels" or bool((rest == -100).all())
                assert key != "attention_mask" or not rest.any()
                # What is padded counts up from 0, as one more document.
                assert key != "position_ids" or torch.equal(rest, torch.arange(len(rest)))
            else:
                assert batch[key][row] == own[key][0]
        if "attention_mask" in batch:
            assert batch["attention_mask"][row].flatten()[-1] == (
                batch["lengths"][row] == batch["input_ids"].shape[1]
            )


def shares(*overrides: str) -> dict[str, float]:
    config = checked(mixture("lm", *overrides))
    mix = prepare_data(config)[1].mix
    assert mix is not None
    found = mix.figures(6_000)
    return {name: found[f"train/{name}/share"] for name in "ab"}


def test_sources_without_a_weight_share_the_rest(workplace: Path) -> None:
    write_samples(workplace)
    tokens = {name: (workplace / f"{name}.txt").stat().st_size for name in ("many", "n17")}
    large = tokens["many"] / sum(tokens.values())
    assert shares()["a"] == pytest.approx(large, abs=0.01)
    assert shares("data.temperature=1000")["a"] == pytest.approx(0.5, abs=0.001)
    for weight in (0.2, 0.5, 0.8):
        found = shares(f"data.sources.b.weight={weight}")
        assert found == pytest.approx({"a": 1 - weight, "b": weight}, abs=1e-3)
    both = shares("data.sources.a.weight=3", "data.sources.b.weight=1")
    assert both == pytest.approx({"a": 0.75, "b": 0.25}, abs=1e-3)
    counted = shares("data.weigh_by=samples")
    assert counted["a"] == pytest.approx(40 / 57, abs=1e-3)


def test_a_swept_weight_makes_jobs_whose_losses_can_be_compared(workplace: Path) -> None:
    write_samples(workplace)
    plans = [
        Planner().plan(checked(mixture("lm", f"data.sources.b.weight={weight}")), [])
        for weight in (0.2, 0.8)
    ]
    assert plans[0].id != plans[1].id
    assert plans[0].prepared.fingerprint == plans[1].prepared.fingerprint
    assert {"val/a/loss", "val/b/perplexity", "val/loss"} <= set(plans[0].metrics)
    assert re.fullmatch(
        r"b 20 %( \(.* of the training\))?, gone through .* times", plans[0].sources[1]
    )


BAD = {
    "data.sources.b.wieght=1": "data.sources.b.weight?",
    "data.sources.b.weight=-1": "a number >= 0",
    "data.sources.b.weight=nan": "a number >= 0",
    "data.sources.b.weight=2": "leaves nothing for a",
    "data.sources.b.weight=1": "leave it nothing",
    "data.sources.b.weight={4:1}": "Begin with step 0",
    "data.sources.b.epochs=0": "a number > 0",
    "data.sources.b.batch_size=4": "set data.batch_size",
    "data.sources.b=many.txt": "expected a node",
    "data.sources.loss.train=many.txt": "Give it another name",
    "data.sources.c._target_=truesweep.data.Nothing": "has no Nothing",
    "data.sources.c.train=nowhere.txt": "data.sources.c: ",
    "data.group_by_length=true": "Leave it false",
    "data.batch_size=1000": "fewer than one batch",
}


@pytest.mark.parametrize("asked", BAD)
def test_what_cannot_be_mixed_is_refused_by_name(asked: str, workplace: Path) -> None:
    write_samples(workplace)
    with pytest.raises(UserError) as caught:
        parts("lm", asked)
    assert BAD[asked] in str(caught.value)
    assert "data." in str(caught.value)


def test_weights_that_are_all_zero_say_from_which_step_on(workplace: Path) -> None:
    write_samples(workplace)
    with pytest.raises(ConfigError, match="all weights are 0 from step 3 on"):
        parts("lm", "data.sources.a.weight={0:1,3:0}", "data.sources.b.weight=0")
    with pytest.raises(ConfigError, match="only text is weighed by tokens"):
        parts("classification", "data.weigh_by=tokens")


def test_a_training_ends_before_its_sources_do(workplace: Path) -> None:
    write_samples(workplace)
    limits = ["data.sources.a.epochs=0.5", "data.sources.b.epochs=2"]
    brief = ["data.sources.a.epochs=0.001", "data.sources.b.epochs=0.001"]
    with pytest.raises(ConfigError, match=r"Give a source more epochs or no limit$"):
        Planner().plan(checked(mixture("lm", *brief)), [])
    with pytest.raises(ConfigError, match=r"set trainer\.max_steps=6"):
        Planner().plan(checked(mixture("lm", *limits, "trainer.max_steps=7")), [])
    Planner().plan(checked(mixture("lm", *limits)), [])


def test_one_tokenizer_is_learned_from_all_sources(workplace: Path) -> None:
    (workplace / "one.txt").write_text("abc abc abc\n" * 20)
    (workplace / "two.txt").write_text("xyz xyz xyz\n" * 20)
    named = [f"data.sources.{name}.train={name}.txt" for name in ("one", "two")]
    asked = ["task=lm", "data=mixture", *named, *SMALL, *SMALLER, "tokenizer=char"]
    made = build(checked([*asked, "data.batch_size=1"])).prepared
    assert {"a", "x"} <= made.tokenizer.get_vocab().keys()
    assert not any(stats["unknown"] for stats in made.stats.values())
    assert made.bytes_per_target.keys() >= {"val", "val/one", "test/two"}
    assert made.bytes_per_target["val"] == pytest.approx(1, abs=0.05)
