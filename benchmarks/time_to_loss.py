"""Time to a validation loss: a plain gpt2 and AdamW run over `experiment=lm_char`, made short.

    python benchmarks/time_to_loss.py train.txt val.txt [--rounds 1]

The plain run is nanoGPT's setting for a CPU (4 layers, 4 heads, width 128, windows of 64, 12 of
them a step, AdamW at 1e-3 with cosine to 1e-4, 2,000 steps) written out with transformers and
torch. Times are of the training loops, without validation. Both losses are read over the whole
validation text in windows of 64.
"""

import argparse
import math
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from transformers import GPT2Config, GPT2LMHeadModel

from truesweep.commands.train import create_run
from truesweep.jobs.launch import launch
from truesweep.jobs.plan import plan
from truesweep.record.rows import read

OURS = ["trainer.max_steps=140", "data.batch_size=16", "model.depth=3"]
WINDOW, BATCH, STEPS, WARM_UP, PEAK, LEAST = 64, 12, 2000, 100, 1e-3, 1e-4


def plain(train: str, val: str) -> tuple[float, float]:
    """Seconds of training and the loss it comes to."""
    ids = {c: i for i, c in enumerate(sorted(set(train + val)))}
    train_ids, val_ids = (torch.tensor([ids[c] for c in text]) for text in (train, val))
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(ids),
        n_positions=WINDOW,
        n_embd=128,
        n_layer=4,
        n_head=4,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() < 2]
    groups = [
        {"params": matrices, "weight_decay": 0.1},
        {"params": others, "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.99), fused=True)
    started = time.perf_counter()
    for step in range(STEPS):
        for group in optimizer.param_groups:
            group["lr"] = cosine(step)
        starts = torch.randint(len(train_ids) - WINDOW, (BATCH, 1))
        rows = train_ids[starts + torch.arange(WINDOW + 1)]
        loss = nll(model, rows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    seconds = time.perf_counter() - started
    return seconds, whole_loss(model.eval(), val_ids)


def cosine(step: int) -> float:
    """The rate after a linear warm-up."""
    if step < WARM_UP:
        return PEAK * (step + 1) / (WARM_UP + 1)
    done = (step - WARM_UP) / (STEPS - WARM_UP)
    return LEAST + 0.5 * (1 + math.cos(math.pi * done)) * (PEAK - LEAST)


def nll(model: GPT2LMHeadModel, rows: torch.Tensor, reduction: str = "mean") -> torch.Tensor:
    """Cross-entropy of each row's tokens but the first."""
    logits = model(input_ids=rows[:, :-1]).logits
    return torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), rows[:, 1:].flatten(), reduction=reduction
    )


@torch.inference_mode()
def whole_loss(model: GPT2LMHeadModel, ids: torch.Tensor) -> float:
    """Mean over all full windows of a text."""
    windows = (len(ids) - 1) // WINDOW
    places = torch.arange(windows)[:, None] * WINDOW + torch.arange(WINDOW + 1)
    total = sum(float(nll(model, rows, "sum")) for rows in ids[places].split(256))
    return total / (windows * WINDOW)


def ours(train: Path, val: Path) -> tuple[float, float]:
    """The same of our short run, as `truesweep train` makes it."""
    named = ["experiment=lm_char", "data=files", f"data.train={train}", f"data.val={val}"]
    job = plan([*named, f"data.test={val}", *OURS, "trainer.val_check_interval=140", "name=x"])
    with tempfile.TemporaryDirectory() as folder:
        run = create_run(job, Path(folder) / job.id)
        assert launch(run) == 0
        rows: list[dict[str, Any]] = read(run.metrics)
    # The last row of training metrics is written before the validation of its step.
    trained = [row for row in rows if "tokens_per_second" in row]
    seconds = sum(
        (row["tokens"] - before["tokens"]) / row["tokens_per_second"]
        for before, row in zip([{"tokens": 0}, *trained], trained, strict=False)
    )
    return seconds, rows[-1]["val/loss"]


def main() -> None:
    """Measure in turn and print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("train", type=Path)
    parser.add_argument("val", type=Path)
    parser.add_argument("--rounds", type=int, default=1)
    asked = parser.parse_args()
    texts = [path.read_text(encoding="utf-8") for path in (asked.train, asked.val)]
    ratios = []
    for _ in range(asked.rounds):
        our_seconds, our_loss = ours(asked.train.absolute(), asked.val.absolute())
        plain_seconds, plain_loss = plain(*texts)
        ratios.append(our_seconds / plain_seconds)
        print(f"ours: loss {our_loss:.3f} in {our_seconds:.1f} s")
        print(f"plain gpt2 and AdamW: loss {plain_loss:.3f} in {plain_seconds:.1f} s")
        print(f"ratio 1/{1 / ratios[-1]:.1f}", flush=True)
    print(f"median ratio 1/{1 / statistics.median(ratios):.1f}")


if __name__ == "__main__":
    main()
