"""Every architecture of the installed transformers, for each task: what trains, and what holds.

    python -m benchmarks.architectures [--thorough] [--minutes M] [NAME ...]

Each is trained for some steps at a tiny size in a process of its own, which is forked from this one
and ended after a time. What is found of each is kept in a file of the working directory; whatever
has one is not tried again, so that the script may be stopped, started again, and run several times
side by side. Then `docs/architectures.md` is written of all that was found. It ends with exit code
1 if the page said before of any that it trains, and it does so no more.
"""

import argparse
import fcntl
import json
import math
import os
import re
import shutil
import signal
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field, fields
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import transformers
from tests.commands.conftest import write_data

from truesweep.callbacks import StopAfter
from truesweep.commands.evaluate import evaluate
from truesweep.commands.export import export
from truesweep.compat import attention
from truesweep.config.precedence import update
from truesweep.errors import UserError, in_short
from truesweep.jobs.launch import launch
from truesweep.jobs.load import PREFIX, load_run
from truesweep.jobs.logs import quiet
from truesweep.jobs.parts import build, build_model, prepare_data
from truesweep.jobs.plan import checked
from truesweep.models import Head
from truesweep.models.batching import check_noise, mixes_samples
from truesweep.models.freezing import unreached
from truesweep.models.heads import AUTO_CLASSES, architectures, text_part
from truesweep.record.checkpoints import CheckpointFiles
from truesweep.record.frozen import freeze
from truesweep.record.rows import read
from truesweep.runs.run import Run
from truesweep.tasks import Task

PAGE = Path(__file__).parents[1] / "docs" / "architectures.md"
TASKS: dict[Head, str] = {
    "causal": "lm",
    "seq2seq": "translation",
    "classifier": "classification",
    "masked": "mlm",
}
ANY: dict[Head, str] = {
    "causal": "llama",
    "seq2seq": "bart",
    "classifier": "bert",
    "masked": "bert",
}
STEPS = 2
SMALL = [
    *("model=auto", "model.depth=2", "model.width=32", "model.heads=2", "model.init=default"),
    *("data.batch_size=6", "data.max_length=24", "tokenizer=bpe", "tokenizer.vocab_size=300"),
    *("trainer=cpu", "trainer.threads=1", f"trainer.max_steps={STEPS}"),
    *("trainer.val_check_interval=2", "trainer.log_every_n_steps=1", "logger=none"),
    *("optimizer=adamw", "optimizer.lr=0.003", "scheduler.warmup=0"),
]
SETTINGS = {
    "codegen": ["model.heads=4"],
    "falcon_h1": [
        "model.config={mamba_d_ssm: 64, mamba_n_heads: 4, mamba_d_state: 16, mamba_chunk_size: 32}"
    ],
    "kimi_linear": [
        "model.config={linear_num_heads: 2, linear_head_dim: 16, num_local_experts: 8, "
        "num_experts_per_tok: 2, moe_intermediate_size: 32, kv_lora_rank: 32}"
    ],
    "lilt": ["model.width=48"],
    "phimoe": ["model.config={router_jitter_noise: 0.0, input_jitter_noise: 0.0}"],
}
"""What the refusal of an architecture asks for, where it asks for anything; and smaller parts,
where their size does not follow from the width and a step takes minutes.
"""
MANY = 2_000_000
"""Parameters; of an architecture with more, fewer experts are tried."""
FEW = {
    **dict.fromkeys(("n_routed_experts", "num_experts", "num_local_experts"), 8),
    **dict.fromkeys(("num_experts_per_tok", "moe_topk"), 2),
    **dict.fromkeys(("n_group", "topk_group"), 1),
    **dict.fromkeys(("moe_intermediate_size", "expert_ffn_hidden_size"), 32),
    **dict.fromkeys(("q_lora_rank", "kv_lora_rank"), 32),
    "entity_vocab_size": 32,
}
LARGEST = 60_000_000
"""Parameters; of more, only the plan is made."""
LENGTHS = {"lm": ["task.sample_tokens=4"], "translation": ["task.max_new_tokens=4"]}
"""Of what is generated on the way, by task."""
TOLERANCE = 1e-5
"""Of a loss, between two ways to split a batch, in fp32."""
ROUNDING = 1e-6
"""Of the largest logit, between two models with the same weights."""
SECONDS = 420
"""For one architecture and task."""


@dataclass
class Found:
    """What came of an architecture and a task.

    Args:
        architecture: The `model_type`.
        head: What it was for.
        trains: Whether it was trained to the end.
        said: Why not.
        differs: What of that which should hold did not, if it was.
        notes: What to know of it.
        parameters: Of the model that was tried.
    """

    architecture: str
    head: Head
    trains: bool = False
    said: str = ""
    differs: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    parameters: int = 0


def described(head: Head, data: Path) -> dict[str, Any]:
    """The configuration of a training, but for its architecture, on data that lie in a folder."""
    task = TASKS[head]
    given = write_data(data)["lm" if task == "mlm" else task]
    files = [f"{key}={data / value}" for key, _, value in _pairs(given) if key == "data.train"]
    columns = [o for o in given if o.startswith(("data=", "data.source", "data.target"))]
    packing = ["data.packing=false"] if head in ("causal", "masked") else []
    asked = [f"task={task}", *columns, *files, *packing, *LENGTHS.get(task, ()), *SMALL]
    return checked([*asked, f"model.architecture={ANY[head]}", "name=tried"])


def _pairs(overrides: list[str]) -> list[tuple[str, str, str]]:
    return [override.partition("=") for override in overrides]


def attempt(
    architecture: str,
    head: Head,
    config: dict[str, Any],
    thorough: bool = False,
) -> Found:
    """Train an architecture, and compare what must be the same; in the current folder."""
    found = Found(architecture, head)
    asked = [f"model.architecture={architecture}", *SETTINGS.get(architecture, ())]
    config = update(config, asked)
    source, prepared = prepare_data(config)
    with torch.device("meta"):
        model = build_model(config, prepared, source)
        if model.num_parameters() > MANY and "model.config" not in str(asked):
            declared = fields(type(model.config))
            known = {f.name for f in declared if isinstance(f.default, int | None)}
            fewer = ", ".join(f"{name}: {FEW[name]}" for name in FEW if name in known)
            config = update(config, [f"model.config={{{fewer}}}"])
            model = build_model(config, prepared, source)
    found.parameters = model.num_parameters()
    check_noise(model, head)
    if mixes_samples(model, head, training=True):
        found.notes.append("samples have forward passes of their own")
    if alone := unreached(model):
        found.notes.append(f"{len(alone)} parameters that no gradient reaches are left alone")
    part = text_part(architecture)
    if part != architecture:
        found.notes.append(f"its text part, {part}")
    found.notes += SETTINGS.get(architecture, [])
    if found.parameters > LARGEST:
        found.said = f"not tried: {found.parameters / 1e6:.0f} million parameters at this size"
        return found
    run = Run.create(Path("run"), config=freeze(config), overrides=[], provenance={})
    if launch(run):
        raise RuntimeError(run.status["error"])
    found.trains = True
    checks = chain(_checks(run, config, head), _slow_checks(run, config) if thorough else ())
    found.differs = [what for what, holds in checks if not holds]
    return found


def _checks(run: Run, config: dict[str, Any], head: Head) -> Iterator[tuple[str, bool]]:
    """What must hold of a trained run, and whether it does."""
    rows = read(run.metrics)
    split = fit({**config, "data": {**config["data"], "micro_batch_size": 1}}, 1)
    same = [_near(split.rows[0][name], rows[0][name]) for name in ("train/loss", "grad_norm")]
    yield "micro-batches", all(same) and math.isfinite(rows[-1]["train/loss"])
    yield f"{len(split.idle)} parameters have no gradient", not split.idle
    yield "evaluate", _evaluated(run) == run.read_results()["val/loss"]
    yield "export", _exports(run, head)


def _slow_checks(run: Run, config: dict[str, Any]) -> Iterator[tuple[str, bool]]:
    """More of them."""
    on_one = fit({**config, "trainer": {**config["trainer"], "overfit_batches": 1}}, STEPS).rows
    yield "loss falls", on_one[-1]["train/loss"] < on_one[0]["train/loss"]
    yield "resume", _resumes(run, config)
    alone = _evaluated(run, "data.batch_size=1")
    yield "batches of 1", _near(alone, run.read_results()["val/loss"])


def _near(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


@dataclass
class Fitted:
    """A training without a run: the task after it, its rows, and the weights without gradient."""

    task: Task
    rows: list[dict[str, Any]]
    idle: set[str]


def fit(
    config: dict[str, Any], steps: int, start: Path | None = None, end: Path | None = None
) -> Fitted:
    """Train for some steps of a training, from one checkpoint to another."""
    parts, rows = build(config), list[dict[str, Any]]()
    trained = {n: p for n, p in parts.task.named_parameters() if p.requires_grad}
    idle = set(trained)
    for name, parameter in trained.items():
        parameter.register_post_accumulate_grad_hook(lambda _, name=name: idle.discard(name))
    parts.task.record = lambda values, step: rows.append(values)  # type: ignore[method-assign]
    trainer = parts.trainer.make(
        callbacks=[StopAfter(steps)],
        loggers=[],
        checkpoint_io=CheckpointFiles(),
        directory=tempfile.mkdtemp(dir="."),
    )
    with quiet(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*dirpath has changed")  # from one to the other
        trainer.fit(parts.task, datamodule=parts.data, ckpt_path=start, weights_only=True)
    if end is not None:
        trainer.save_checkpoint(end)
    return Fitted(parts.task, rows, idle)


def _resumes(run: Run, config: dict[str, Any]) -> bool:
    """Whether a training that was stopped half-way ends with the weights of a whole one."""
    half, whole = (
        Path("half.ckpt"),
        CheckpointFiles().load_checkpoint(run.checkpoints / "last.ckpt"),
    )
    fit(config, STEPS // 2, end=half)
    state = fit(config, STEPS, start=half).task.state_dict()
    names = [name for name in whole if name.startswith(PREFIX)]
    return all(torch.equal(whole[name], state[name]) for name in names)


def _evaluated(run: Run, *overrides: str) -> float:
    """The loss of the validation split by `truesweep evaluate`."""
    out = Path("figures.json")
    with out.open("w") as file, redirect_stdout(file):
        evaluate([str(run.path), *overrides], "val", "best", (), as_json=True)
    return float(json.loads(out.read_text())["val/loss"])


def _exports(run: Run, head: Head) -> bool:
    """Whether transformers loads an export, and gives the same logits."""
    export(run.path, Path("exported"), "best")
    ours = load_run(run, head).model
    theirs = AUTO_CLASSES[head].from_pretrained(
        "exported", dtype=torch.float32, attn_implementation=attention(ours.config)
    )
    ids = torch.tensor([[*range(5, 16), ours.config.get_text_config().eos_token_id]])
    inputs: dict[str, Any] = {
        "input_ids": ids,
        **({"decoder_input_ids": ids} if head == "seq2seq" else {}),
    }
    inputs |= {} if head in ("classifier", "masked") else {"use_cache": False}
    with torch.inference_mode():
        first, second = ours(**inputs).logits, theirs.eval()(**inputs).logits
    # Where weights lie in memory decides how some are summed.
    return bool((first - second).abs().max() <= ROUNDING * first.abs().max())


def apart(architecture: str, head: Head, config: dict[str, Any], thorough: bool) -> Found:
    """`attempt` in a process of its own, for `SECONDS` at most."""
    folder = Path(tempfile.mkdtemp(prefix="architectures-"))
    if (child := os.fork()) == 0:
        signal.alarm(SECONDS)
        found = Found(architecture, head)
        log = (folder / "log").open("w")
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
        try:
            with chdir(folder), redirect_stdout(log), redirect_stderr(log):
                found = attempt(architecture, head, config, thorough)
        except UserError as error:
            found.said = _short(error)
        except BaseException as error:
            found.said = f"breaks: {_short(error)}"
        (folder / "found.json").write_text(json.dumps(asdict(found)))
        os._exit(0)
    os.waitpid(child, 0)
    result = folder / "found.json"
    try:
        if not result.exists():
            return Found(architecture, head, said=f"breaks: took more than {SECONDS} s, or died")
        return Found(**json.loads(result.read_text()))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _short(error: BaseException) -> str:
    text = re.sub(r"; set model to one of .*| Set another model, .*", "", in_short(error))
    return re.sub(r"\s+", " ", text.removeprefix("model.architecture: "))[:300]


def go(asked: argparse.Namespace) -> list[Found]:
    """Try what was not tried yet; give all that is known."""
    end, results = time.monotonic() + 60 * asked.minutes, list[Found]()
    data = Path(tempfile.mkdtemp(prefix="architectures-"))
    for head in TASKS:
        config = described(head, data)
        for name in architectures(head):
            with (asked.work / f"{head}-{name}.json").open("a+") as file:
                wanted = not asked.names or name in asked.names
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue  # another process tries it
                file.seek(0)
                known = file.read()
                if wanted and (asked.again or not known) and time.monotonic() < end:
                    found = apart(name, head, config, asked.thorough)
                    print(head, name, _cell(found), found.said, found.differs or "", flush=True)
                    known = json.dumps(asdict(found))
                    file.truncate(0)
                    file.write(known)
                if known:
                    results.append(Found(**json.loads(known)))
    return results


def _cell(found: Found) -> str:
    if not found.trains:
        return "fails" if found.said.startswith("breaks") else "no"
    return "but" if found.differs else "yes"


def page(results: list[Found]) -> str:
    """The page of documentation."""
    by_head = {head: [found for found in results if found.head == head] for head in TASKS}
    lines = [
        "# Architectures",
        "",
        f"What transformers {transformers.__version__} has for each task, from scratch as "
        "`model=auto model.architecture=NAME`. Made by `python -m benchmarks.architectures`, which "
        f"trains each for {STEPS} steps at depth 2, width 32 and 2 heads on a CPU; of more than "
        f"{MANY / 1e6:.0f} million parameters at that size, with 8 experts.",
        "",
        "| task | trained | of | all holds |",
        "|---|---|---|---|",
    ]
    for head, task in TASKS.items():
        found = by_head[head]
        trained = [one for one in found if one.trains]
        whole = sum(not one.differs for one in trained)
        lines.append(f"| `{task}` | {len(trained)} | {len(found)} | {whole} |")
    lines += [
        "",
        "*yes*: every parameter that is trained has a gradient; the first step's loss and gradient "
        "are the same in micro-batches of 1; `truesweep evaluate` gives the validation's loss to "
        "the last digit; transformers loads an export, and gives the same logits to 1e-6. "
        "(`--thorough` also looks whether the loss falls, a resumed training ends with the same "
        "weights, and an evaluation in batches of 1 with the same figures.) *but*: it trains, "
        "and one of these does not hold, as said below. *no*: it is refused before anything is "
        "spent, by the sentence below.",
        "",
        f"| architecture | {' | '.join(f'`{task}`' for task in TASKS.values())} |",
        f"|---|{'---|' * len(TASKS)}",
    ]
    known = {(found.architecture, found.head): found for found in results}
    for name in sorted({found.architecture for found in results}):
        cells = [known.get((name, head)) for head in TASKS]
        shown = [_cell(one) if one else "" for one in cells]
        lines.append(f"| {name} | {' | '.join(shown)} |")
    lines += ["", "| architecture | task | |", "|---|---|---|"]
    for one in sorted(results, key=lambda one: (one.architecture, TASKS[one.head])):
        told = [one.said] * bool(one.said)
        told += [f"does not hold: {', '.join(one.differs)}"] * bool(one.differs)
        told += one.notes if one.trains else []
        if told:
            text = "; ".join(told).replace("|", "\\|")
            lines.append(f"| {one.architecture} | `{TASKS[one.head]}` | {text} |")
    return "\n".join([*lines, ""])


def _trained_before() -> set[tuple[str, int]]:
    """Architectures and columns of the page as it is, of those that train."""
    if not PAGE.exists():
        return set()
    rows = re.findall(r"^\| ([\w.-]+) \|((?: \w* \|){4})$", PAGE.read_text(), re.MULTILINE)
    return {
        (name, column)
        for name, cells in rows
        for column, cell in enumerate(cells.split("|"))
        if cell.strip() in ("yes", "but")
    }


def main() -> int:
    """Try what is to be tried, and write the page; gives the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("names", nargs="*", help="architectures; all, if none is named")
    parser.add_argument("--work", type=Path, default=Path("outputs/architectures"))
    parser.add_argument("--minutes", type=float, default=math.inf, help="then begin no other")
    parser.add_argument("--thorough", action="store_true", help="compare more")
    parser.add_argument("--again", action="store_true", help="try those that were tried, too")
    asked = parser.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    transformers.logging.set_verbosity_error()
    results = go(asked)
    before, heads = _trained_before(), list(TASKS)
    PAGE.write_text(page(results))
    now = {(one.architecture, heads.index(one.head)) for one in results if one.trains}
    tried = {(one.architecture, heads.index(one.head)) for one in results}
    lost = sorted((before & tried) - now)
    for name, column in lost:
        print(f"{name} does not train for {TASKS[heads[column]]} any more", file=sys.stderr)
    return 1 if lost else 0


if __name__ == "__main__":
    os.environ["HF_HUB_OFFLINE"] = "1"
    sys.exit(main())
