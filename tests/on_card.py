"""What trainings come to on the made-up card of `tests/card.py`, in a process of its own.

`python -c START LIBRARY FUNCTION FILE` has the library before torch, and writes as JSON what a
function here finds.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from tests.card import Card, a_card
from tests.commands.conftest import SMALL
from tests.conftest import THREADS
from tests.rounding import FP64, assert_same_training
from tests.tasks.on_ranks import parts_of, trainer_of, validate, write_samples
from truesweep.commands.train import create_run
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import Parts
from truesweep.jobs.plan import plan
from truesweep.jobs.rank import run_rank
from truesweep.metrics import likelihood
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.tasks.lm import LanguageModeling

START = "import ctypes, sys; ctypes.CDLL(sys.argv[1]); from tests.on_card import main; main()"
ON_CARD = ["trainer.accelerator=gpu", "trainer.compile=false"]
STEPS = 5
WAYS = {
    "adamw": ["optimizer=adamw", "trainer.precision=32-true"],
    "muon": ["optimizer=muon", "trainer.precision=bf16-mixed", "model.dropout=0.1"],
    "sgd": ["optimizer=sgd", "trainer.precision=32-true", "model.attention=sdpa"],
    "scaled": ["optimizer=adamw", "trainer.precision=16-mixed"],
}
TRAININGS = {
    "lm": WAYS,
    "mlm": ["muon"],
    "translation": ["adamw"],
    "classification": ["muon"],
    "sft": ["sgd"],
    "dpo": ["muon"],
}
"""Of each task, the ways that it is trained."""
Found = dict[str, Any]


def fit(task: str, *asked: str) -> tuple[Parts, list[str]]:
    """Train; also where the processor waited for the card in steps that have no row."""
    more = [f"trainer.max_steps={STEPS}", "trainer.log_every_n_steps=10", *asked]
    parts = parts_of(task, "n3", "n3", "data.micro_batch_size=3", *more)
    trainer, waits = trainer_of(parts), list[str]()
    loop: Any = trainer.fit_loop.epoch_loop
    advance = loop.advance

    def watched(batches: Any) -> None:
        card, step = Card.current, parts.task.steps_done
        before = len(card.waits) if card else 0
        advance(batches)
        if card and 2 <= step < STEPS - 1:
            waits.extend(card.waits[before:])

    loop.advance = watched
    trainer.fit(parts.task, datamodule=parts.data)
    assert parts.task.steps_done == STEPS
    return parts, waits


def trainings() -> Found:
    """Of each training, where it waited, or the error that it ended with."""
    found: Found = {}
    for task, ways in TRAININGS.items():
        for way in ways:
            with a_card():
                ended = told(partial(fit, task, *ON_CARD, *WAYS[way]))
            found[f"{task} {way}"] = ended if isinstance(ended, str) else ended[1]
    return found


def numbers() -> Found:
    """Of tasks, what speaks against a card's weights being a processor's, in fp64.

    With what is done on cards only: vocabularies that are filled up, masks drawn there, steps
    skipped there.
    """
    loss, asked = LanguageModeling.loss, [FP64, "optimizer=muon"]

    def compare(task: str, *more: str) -> None:
        expected = fit(task, *asked, *more)[0].task
        with a_card(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(likelihood, "FEW_TOKENS", 1)
            found = fit(task, *asked, *ON_CARD, *more)[0].task
            assert int(found.progress.skipped) == expected.progress.skipped
        assert_same_training(found.state_dict(), expected.state_dict())

    names = ("lm", "translation", "classification")
    found: Found = {task: told(partial(compare, task, "model.dropout=0.1")) for task in names}
    for optimizer, skipped in {"muon": 2, "adamw": 2, "sgd": 0}.items():

        def spoilt(task: LanguageModeling, batch: Any, skipped: int = skipped) -> Any:
            total, nll, count = loss(task, batch)
            return total * (float("nan") if task.steps_done == skipped else 1.0), nll, count

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(LanguageModeling, "loss", spoilt)
            work = partial(compare, "lm", f"optimizer={optimizer}")
            found[f"skipped {optimizer}"] = told(work)
    return found


def evaluations() -> Found:
    """Figures of validations, with a metric of torchmetrics' besides, on a processor and a card."""
    added = {
        "lm": ["text.Perplexity", "ignore_index=-100"],
        "mlm": ["text.Perplexity", "ignore_index=-100"],
        "classification": ["classification.MulticlassAccuracy", "num_classes=2"],
        "dpo": ["classification.MulticlassAccuracy", "num_classes=2"],
    }
    found: Found = {}
    for task, (name, key) in added.items():
        metric = [f"task.metrics.added._target_=torchmetrics.{name}", f"task.metrics.added.{key}"]
        asked = [*metric, "allowed_packages=[torchmetrics]", FP64]

        def figures(*more: str, task: str = task, asked: Sequence[str] = asked) -> Any:
            parts = parts_of(task, "n5", "n5", *asked, *more)
            validate(parts)
            return parts.task.evaluations["val"]

        with a_card():
            on_card = told(partial(figures, *ON_CARD))
        found[task] = [figures(), on_card]
    return found


def memory() -> Found:
    """Rows of a forward pass on cards of different sizes, and whether weights are the same."""
    asked = [FP64, "optimizer=adamw", "model=gpt2", *ON_CARD]
    with a_card() as card:
        expected = fit("lm", *asked, "data.micro_batch_size=8")[0].task.state_dict()
    found: Found = {"peak": card.peak}
    for how, given in (("halved", "8"), ("measured", "null")):
        with a_card(int(0.7 * card.peak)):
            parts = fit("lm", *asked, f"data.micro_batch_size={given}")[0]
        found[how] = parts.data.micro_batch_size
        assert_same_training(parts.task.state_dict(), expected)
    return found


def job(*asked: str) -> Path:
    """The directory of a run that is not begun yet."""
    task = ["task=translation", "data.source=de", "data.target=en", "tokenizer=word"]
    data = ["data=files", "data.train=many", "data.val=n5", "data.test=n8", "optimizer=muon"]
    length = ["trainer.max_steps=6", "trainer.val_check_interval=3", "trainer.log_every_n_steps=1"]
    saves = ["callbacks.checkpoint.every_n_steps=1", "model.dropout=0.1", *asked]
    planned = plan([*task, *data, *SMALL, *length, *saves])
    return create_run(planned, Path(f"run-{planned.id}").absolute()).path


def alone() -> Found:
    """Final figures of a run on a processor."""
    run = job()
    run_rank(str(run))
    return figures(run)


def figures(run: Path) -> Found:
    """Its final figures that no clock has a say in."""
    results = json.loads((run / "results.json").read_text()).items()
    return {k: v for k, v in results if k.startswith(("val/", "test/")) and not isinstance(v, str)}


def runs() -> Found:
    """Final figures of a run on a processor, and on a card, where it is broken off and resumed.

    Also whether weights are there that are written without waiting for the card to have sent them.
    """
    found: Found = {"processor": alone()}
    step = pl.LightningModule.manual_backward

    def breaks(task: Any, *given: Any) -> None:
        if task.steps_done == 4:
            raise InterruptedError
        step(task, *given)

    for how, patched in {
        "card": {},
        "without waiting": {(torch.accelerator, "synchronize"): lambda device=None: None},
    }.items():
        with a_card(), pytest.MonkeyPatch.context() as patch:
            for (place, name), stand_in in patched.items():
                patch.setattr(place, name, stand_in)
            run = job(*ON_CARD, f"name={how.replace(' ', '-')}")
            patch.setattr(pl.LightningModule, "manual_backward", breaks)
            with pytest.raises(InterruptedError):
                run_rank(str(run))
            saved = CheckpointFiles().load_checkpoint(run / "checkpoints/last.ckpt")
            found[f"{how}: step"] = saved["global_step"]
            found[f"{how}: arrived"] = not any(
                bool((weight == Card.NOT_ARRIVED).all()) for weight in saved["state_dict"].values()
            )
            if not patched:
                patch.setattr(pl.LightningModule, "manual_backward", step)
                run_rank(str(run), resume=True)
                found[how] = figures(run)
    return found


def planted() -> Found:
    """What is said of faults that are planted."""
    loss = LanguageModeling.loss

    def beside(task: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        total, nll, count = loss(task, batch)
        return total * torch.ones(1), nll, count

    def asked(task: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        total, nll, count = loss(task, batch)
        return total * (1.0 if nll.item() else 0.0), nll, count

    def copied(task: Any, batch: Any) -> tuple[Tensor, Tensor, Tensor]:
        total, nll, count = loss(task, batch)
        return total * torch.tensor(1.0, device=task.device), nll, count

    found: Found = {}
    for fault in (beside, asked, copied):
        with a_card(), pytest.MonkeyPatch.context() as patch:
            patch.setattr(LanguageModeling, "loss", fault)
            found[fault.__name__] = told(lambda: fit("lm", *ON_CARD)[1])
    return found


def ranks() -> Found:
    """What one of two ranks finds, each with a card."""
    rank, place = int(os.environ["RANK"]), Path("place")
    with a_card(), pytest.MonkeyPatch.context() as patch:
        logger: Any = dist.Logger  # type: ignore[attr-defined]  # of DDP, which wants a timer
        patch.setattr(logger, "set_runtime_stats_and_log", lambda self: None)
        patch.setattr(pl.LightningModule, "cpu", lambda self: self)  # DDP holds what would be moved
        if rank == 0:
            place.with_suffix(".tmp").write_text(str(job(*ON_CARD, "trainer.devices=2")))
            place.with_suffix(".tmp").rename(place)
        while not place.exists():
            time.sleep(0.05)
        run = Path(place.read_text())
        run_rank(str(run))
        beside = told(lambda: dist.all_reduce(torch.zeros(1)))
    return {"figures": figures(run) if rank == 0 else {}, "alone": beside}


def told(work: Callable[[], Any]) -> Any:
    """What some work gives, or the error that it ends with."""
    try:
        return work()
    except Exception:
        return traceback.format_exc()


def main() -> None:
    """Write what functions find."""
    names, file = sys.argv[2].split(","), Path(sys.argv[3])
    torch.set_num_threads(THREADS)
    if not Path("many.txt").exists():
        write_samples(Path())
    with quiet():
        found = {name: globals()[name]() for name in names}
    file.write_text(json.dumps(found))
    if dist.is_initialized():
        dist.destroy_process_group()
