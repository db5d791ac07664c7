"""The key that somebody meant who wrote one that does not exist."""

from collections.abc import Iterable
from difflib import SequenceMatcher

SYNONYMS = {
    "batch": "batch_size",
    "context_length": "context",
    "block_size": "max_length",
    "seq_len": "max_length",
    "sequence_length": "max_length",
    "learning_rate": "lr",
    "n_layer": "depth",
    "n_layers": "depth",
    "num_layers": "depth",
    "num_hidden_layers": "depth",
    "layers": "depth",
    "d_model": "width",
    "n_embd": "width",
    "dim": "width",
    "hidden_size": "width",
    "n_head": "heads",
    "n_heads": "heads",
    "num_heads": "heads",
    "num_attention_heads": "heads",
    "epochs": "max_epochs",
    "num_train_epochs": "max_epochs",
    "steps": "max_steps",
    "gpus": "devices",
    "num_gpus": "devices",
    "nodes": "num_nodes",
    "warmup_steps": "warmup",
    "clip_grad_norm": "gradient_clip_val",
    "max_grad_norm": "gradient_clip_val",
    "grad_clip": "gradient_clip_val",
    "random_seed": "seed",
}
"""Names of other programs, and what they are called here (where a target has such a key)."""

_ALIKE = 0.65


def nearest_key(key: str, known: Iterable[str]) -> list[str]:
    """The dotted key, anywhere in the tree, that an unknown dotted key most likely meant, if any.

    The last part decides and the parents only break ties, so that a long shared prefix makes
    nothing alike: `modle.depth` and `depth` lead to `model.depth`, `optimizer.foo` to nothing.
    """
    parent, _, leaf = key.rpartition(".")

    def likeness(candidate: str) -> tuple[float, float]:
        other_parent, _, other_leaf = candidate.rpartition(".")
        return _leaf_ratio(leaf, other_leaf), _ratio(parent, other_parent)

    # A whole group is no substitute for a key.
    candidates = (other for other in known if "." in other or not parent)
    scores = {candidate: likeness(candidate) for candidate in candidates}
    alike = [candidate for candidate, score in scores.items() if score[0] >= _ALIKE]
    alike.sort(key=lambda candidate: -3 * scores[candidate][0] - scores[candidate][1])
    return alike[:1]


def _leaf_ratio(leaf: str, other: str) -> float:
    # A synonym is nearly as good as the name itself.
    return 0.99 if SYNONYMS.get(leaf) == other else _ratio(leaf, other)


def _ratio(left: str, right: str) -> float:
    return SequenceMatcher(None, left, right).ratio()
