"""Published chat templates beside small tokenizers of the kinds that they were published with.

What each makes of `TALK` is written out, with answers between ⟦ and ⟧.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from truesweep.data.ragged import Ragged

SYSTEM = {"role": "system", "content": "Be brief."}
TALK = [
    {"role": "user", "content": "How many\nlegs?"},
    {"role": "assistant", "content": "Four, I think."},
    {"role": "user", "content": "And wings?"},
    {"role": "assistant", "content": "None.\n\n- really"},
]
TEXTS = ["Be brief. How many\nlegs? Four, I think. And wings? None.\n\n- really user assistant"] * 3


def ragged(rows: Sequence[Any]) -> Ragged:
    """Rows of tokens in memory."""
    return Ragged(np.concatenate(rows), np.cumsum([0, *map(len, rows)]))


@dataclass(frozen=True)
class Style:
    """A template, the special tokens it needs, and what it writes of `TALK`.

    Attributes:
        bytes: Whether tokens are of bytes, as GPT-2's; else of SentencePiece's kind.
        eos: The end of a text, which may not be that of an answer.
        system: Whether it takes a system prompt, which is in `written` then.
    """

    template: str
    written: str
    special: tuple[str, ...]
    eos: str
    bytes: bool = False
    system: bool = True

    @property
    def messages(self) -> list[dict[str, str]]:
        return [SYSTEM, *TALK] if self.system else list(TALK)

    def tokenizer(self) -> PreTrainedTokenizerBase:
        backend = Tokenizer(models.BPE(byte_fallback=not self.bytes))
        alphabet = pre_tokenizers.ByteLevel.alphabet() if self.bytes else []
        if self.bytes:
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
            backend.decoder = decoders.ByteLevel()
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
            backend.decoder = decoders.Sequence(
                [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
            )
        trainer = trainers.BpeTrainer(
            vocab_size=400,
            special_tokens=["<pad>", *self.special],
            initial_alphabet=[*alphabet, *" \n:.#[]/|<>-ABCDEFGHIJKLMNOPQRSTUVWXYZ"],
            show_progress=False,
        )
        backend.train_from_iterator(TEXTS, trainer)
        bos = self.special[0] if self.written.startswith(self.special[0]) else None
        return PreTrainedTokenizerFast(
            tokenizer_object=backend,
            pad_token="<pad>",
            bos_token=bos,
            eos_token=self.eos,
            chat_template=self.template,
            extra_special_tokens=list(self.special),
        )


QWEN = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}"
    "{% set system_message = messages[0]['content'] %}{% else %}"
    "{% set loop_messages = messages %}{% set system_message = false %}{% endif %}"
    "{% for message in loop_messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + "
    "system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}"
    "{% else %}{% set content = message['content'] %}{% endif %}"
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ ' ' + content.strip() + ' ' + eos_token }}"
    "{% endif %}{% endfor %}"
)
LLAMA3 = (
    "{% set loop_messages = messages %}{% for message in loop_messages %}"
    "{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}"
    "{% if loop.index0 == 0 %}{% set content = bos_token + content %}{% endif %}{{ content }}"
    "{% endfor %}{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
MISTRAL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token + ' ' }}"
    "{% else %}{{ raise_exception('Only user and assistant roles are supported!') }}"
    "{% endif %}{% endfor %}"
)
ZEPHYR = (
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n"
    "{{ '<|user|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'system' %}\n"
    "{{ '<|system|>\n' + message['content'] + eos_token }}\n"
    "{% elif message['role'] == 'assistant' %}\n"
    "{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n{% endif %}\n"
    "{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n"
    "{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{{ raise_exception('System role not supported') }}{% endif %}{% for message in messages %}"
    "{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception("
    "'Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}"
    "{% if (message['role'] == 'assistant') %}{% set role = 'model' %}"
    "{% else %}{% set role = message['role'] %}{% endif %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
)
PHI3 = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{'<|system|>\n' + message['content'] + '<|end|>\n'}}{% elif message['role'] == 'user' %}"
    "{{'<|user|>\n' + message['content'] + '<|end|>\n'}}"
    "{% elif message['role'] == 'assistant' %}"
    "{{'<|assistant|>\n' + message['content'] + '<|end|>\n'}}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% else %}{{ eos_token }}{% endif %}"
)
VICUNA = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}"
    "{% set rest = messages[1:] %}{% else %}{{ 'A chat.' }}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}{% if message['role'] == 'user' %}"
    "{{ ' USER: ' + message['content'].strip() }}{% elif message['role'] == 'assistant' %}"
    "{{ ' ASSISTANT: ' + message['content'].strip() + eos_token }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ ' ASSISTANT:' }}{% endif %}"
)
ALPACA = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '### Instruction:\n' + message['content'].strip() + '\n\n' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ '### Response:\n' + message['content'].strip() + '\n\n' }}"
    "{% else %}{{ message['content'] + '\n\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '### Response:\n' }}{% endif %}"
)

STYLES = {
    "chatml": Style(
        QWEN,
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHow many\nlegs?<|im_end|>\n"
        "<|im_start|>assistant\n⟦Four, I think.<|im_end|>⟧\n"
        "<|im_start|>user\nAnd wings?<|im_end|>\n"
        "<|im_start|>assistant\n⟦None.\n\n- really<|im_end|>⟧\n",
        ("<|endoftext|>", "<|im_start|>", "<|im_end|>"),
        eos="<|im_end|>",
        bytes=True,
    ),
    "llama-2": Style(
        LLAMA2,
        "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\nHow many\nlegs? [/INST]⟦ Four, I think. </s>⟧"
        "<s>[INST] And wings? [/INST]⟦ None.\n\n- really </s>⟧",
        ("<s>", "</s>"),
        eos="</s>",
    ),
    "llama-3": Style(
        LLAMA3,
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\nHow many\nlegs?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦Four, I think.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nAnd wings?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦None.\n\n- really<|eot_id|>⟧",
        (
            *("<|begin_of_text|>", "<|end_of_text|>"),
            *("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"),
        ),
        eos="<|end_of_text|>",
        bytes=True,
    ),
    "mistral": Style(
        MISTRAL,
        "<s>[INST] How many\nlegs? [/INST]⟦Four, I think.</s>⟧ [INST] And wings? [/INST]"
        "⟦None.\n\n- really</s>⟧ ",
        ("<s>", "</s>"),
        eos="</s>",
        system=False,
    ),
    "zephyr": Style(
        ZEPHYR,
        "<|system|>\nBe brief.</s>\n<|user|>\nHow many\nlegs?</s>\n<|assistant|>\n"
        "⟦Four, I think.</s>⟧\n<|user|>\nAnd wings?</s>\n<|assistant|>\n⟦None.\n\n- really</s>⟧\n",
        ("<s>", "</s>"),
        eos="</s>",
    ),
    "gemma": Style(
        GEMMA,
        "<bos><start_of_turn>user\nHow many\nlegs?<end_of_turn>\n<start_of_turn>model\n"
        "⟦Four, I think.<end_of_turn>⟧\n<start_of_turn>user\nAnd wings?<end_of_turn>\n"
        "<start_of_turn>model\n⟦None.\n\n- really<end_of_turn>⟧\n",
        ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"),
        eos="<eos>",
        system=False,
    ),
    "phi-3": Style(
        PHI3,
        "<|system|>\nBe brief.<|end|>\n<|user|>\nHow many\nlegs?<|end|>\n<|assistant|>\n"
        "⟦Four, I think.<|end|>⟧\n<|user|>\nAnd wings?<|end|>\n<|assistant|>\n"
        "⟦None.\n\n- really<|end|>⟧\n<|endoftext|>",
        ("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
        eos="<|endoftext|>",
    ),
    "vicuna": Style(
        VICUNA,
        "Be brief. USER: How many\nlegs? ASSISTANT:⟦ Four, I think.</s>⟧ USER: And wings? "
        "ASSISTANT:⟦ None.\n\n- really</s>⟧",
        ("<s>", "</s>"),
        eos="</s>",
    ),
    "alpaca": Style(
        ALPACA,
        "Be brief.\n\n### Instruction:\nHow many\nlegs?\n\n### Response:\n⟦Four, I think.⟧\n\n"
        "### Instruction:\nAnd wings?\n\n### Response:\n⟦None.\n\n- really⟧\n\n",
        ("<|endoftext|>",),
        eos="<|endoftext|>",
        bytes=True,
    ),
}
