"""What figures do not say of data: what a model never sees of them, and what it has seen before.

Ends that were cut off, what unknown tokens hide, samples that cleaning left out, and what of a
split that judges stands in training data too.
"""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from truesweep.data.prepare import Prepared
from truesweep.data.samples import Account
from truesweep.text import percent


def left_out(prepared: Prepared, split: str) -> dict[str, float]:
    """Figures of a split; only those that are not zero.

    `truncated` counts the samples that lost an end, `truncated_share` is the share of the split's
    tokens that they lost, `without_target` counts those that lost all their targets, and
    `unknown_share` is the share of the split's tokens that are unknown ones, `leaked_share` that of
    what stands in training data too, where it is enough to matter, and `dropped` and `changed`
    count what cleaning has done.
    """
    stats = prepared.stats[split]
    tokens = max(1, stats["tokens"])
    done = prepared.cleaned.get(split, Account())
    leaked = (
        prepared.kind.leaked_share(leak)
        for leak in prepared.leakage
        if (leak.split, leak.other) == (split, "train")
    )
    figures = {
        "truncated": stats["truncated"],
        "truncated_share": min(1.0, stats["cut"] / tokens),
        "without_target": stats["without_target"],
        "unknown_share": stats["unknown"] / tokens,
        "leaked_share": next(leaked, 0.0),
        "dropped": sum(done.dropped.values()),
        "changed": sum(done.changed.values()),
    }
    return {f"{split}/{name}": value for name, value in figures.items() if value}


def describe_left_out(
    figures: Mapping[str, Any], splits: Collection[str], max_length: int | None = None
) -> Iterator[str]:
    """A sentence for each thing that figures of a split do not say, and what to do about it.

    Args:
        figures: Those of `left_out`, and how many samples a split has (`test/samples`).
        splits: Those to speak of.
        max_length: Where samples were cut, tokens.
    """
    where = f"={max_length}" if max_length else ""
    for split in splits:
        if cut := figures.get(f"{split}/truncated"):
            whole = figures.get(f"{split}/samples")
            of = f" of {whole:,}" if whole else ""
            lost = percent(figures[f"{split}/truncated_share"])
            yield (
                f"{cut:,}{of} {split} samples are longer than data.max_length{where} and are cut "
                f"there: {lost} of the split's tokens are lost, and what is measured is the rest. "
                "Set a larger data.max_length to keep them"
            )
        if without := figures.get(f"{split}/without_target"):
            yield (
                f"{without:,} {split} samples are cut before anything that is to be learned, and "
                "count for nothing. Set a larger data.max_length"
            )
    for split in splits:
        if leaked := figures.get(f"{split}/leaked_share"):
            yield (
                f"{percent(leaked)} of {split} stands in train too, so that part of what is "
                "measured is memory. truesweep data shows what; data.decontaminate=drop takes it "
                "out of train"
            )
    shares = {split: figures.get(f"{split}/unknown_share") for split in splits}
    unknown = [f"{percent(share)} of {split}'s" for split, share in shares.items() if share]
    if unknown:
        yield (
            f"{', '.join(unknown)} tokens are unknown ones, which a model cannot tell apart. "
            "tokenizer=byte and tokenizer=bpe know every text"
        )
