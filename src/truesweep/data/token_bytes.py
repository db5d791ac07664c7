"""How many bytes of text tokens stand for."""

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase


def token_bytes(tokenizer: PreTrainedTokenizerBase, tokens: npt.NDArray[np.int32]) -> int:
    """UTF-8 bytes of the text that tokens stand for, special ones none.

    Taken from the tokens' names, because a byte-level token decoded by itself need not be text.
    Exact for byte-level and character tokenizers; others may normalise text or add a space at its
    beginning.
    """
    ids, counts = np.unique(tokens, return_counts=True)
    names = tokenizer.convert_ids_to_tokens(ids.tolist())
    special = set(tokenizer.all_special_ids)
    decoder = repr(getattr(getattr(tokenizer, "backend_tokenizer", None), "decoder", "Metaspace"))
    sizes = [
        0 if token in special else _size(name, decoder)
        for token, name in zip(ids.tolist(), names, strict=True)
    ]
    return int(np.dot(counts, sizes))


def _size(name: str, decoder: str) -> int:
    if "ByteLevel" in decoder:
        return len(name)  # one printable character a byte
    if decoder == "Fuse()":
        return len(name.encode())  # our characters
    if "ByteFallback" in decoder and name.startswith("<0x"):
        return 1
    return len(name.replace("▁", " ").removeprefix("##").encode())
