"""Conversations as a chat template writes them, token by token, and which tokens are answers.

What is asked before an answer is written by itself, as it is when the model is used, and compared
with the conversation: only where one begins with the other, token by token, has a model learned to
answer what it will be asked.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from transformers import PreTrainedTokenizerBase
from transformers.utils.chat_template_utils import render_jinja_template

from truesweep.data.ragged import Tokens
from truesweep.data.samples import Chat, Message, answers, text_of
from truesweep.errors import DataError, in_short

TrainOn = Literal["assistant", "completion", "all"]
"""Every answer, the last answer, or all tokens."""
TEMPLATE = (
    "{{ bos_token }}"
    "{% if tools %}{{ 'Tools: ' + tools | tojson + '\n' }}{% endif %}"
    "{% for message in messages %}"
    "{{ message.role | capitalize + ':' }}"
    "{% set parts = [message.content] if message.content is string else message.content %}"
    "{% for part in parts %}"
    "{{ ' ' + (part if part is string else part.text) }}"
    "{% endfor %}"
    "{% if message.tool_calls %}{{ ' ' + message.tool_calls | tojson }}{% endif %}"
    "{% if message.role == 'assistant' %}{{ eos_token }}{% endif %}"
    "{{ '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
"""For tokenizers that have none: plain roles, and no token that a vocabulary would lack."""
OTHER, TARGET, LAST = 0, 1, 2
"""What a token is: no target, a target, a target of the last answer."""
_MARKS_ANSWERS = re.compile(r"\{%-?\s*generation\s*-?%\}")
_PROBE = "abracadabra"
_AT_ONCE = 1000  # conversations


def plain_texts(chats: Iterable[Chat], template: str | None) -> Iterator[str]:
    """Conversations as text without special tokens: what a new tokenizer learns from."""
    for chat in chats:
        with _refusals(chat):
            rendered: Any = render_jinja_template(
                [chat.messages],
                chat.tools,
                chat_template=template or TEMPLATE,
                bos_token="",
                eos_token="",
            )
        yield rendered[0][0]


def encode_chats(
    tokenizer: PreTrainedTokenizerBase, chats: Sequence[Chat], train_on: TrainOn
) -> Iterator[tuple[Tokens, Tokens]]:
    """The tokens of conversations, and what each of these is: `OTHER`, `TARGET` or `LAST`.

    An answer ends with the template's own token for it (`end_token`), if it has one. Where the
    template marks answers (`{% generation %}`), its marks are taken.

    Args:
        tokenizer: With a chat template.
        chats: Conversations.
        train_on: Which tokens are targets.

    Raises:
        DataError: The template refuses a conversation, or writes what comes before an answer, by
            itself, as other tokens than those that the conversation begins with.
    """
    end = end_token(tokenizer)
    for start in range(0, len(chats), _AT_ONCE):
        written = [_Written.of(tokenizer, chat, train_on) for chat in chats[start:][:_AT_ONCE]]
        texts = list(dict.fromkeys(text for one in written for text in one.texts))
        tokens = dict(zip(texts, _tokens(tokenizer, texts), strict=True))
        for one in written:
            row, spans = tokens[one.whole], one.marked
            if spans is None:
                turns = (
                    _Turn(tokenizer, one.chat, number, *(tokens[text] for text in turn))
                    for number, turn in one.turns.items()
                )
                spans = [turn.span(row, end) for turn in turns]
            yield np.array(row, dtype=np.int32), _marks(len(row), spans, train_on)


def encode_prompt(tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message]) -> list[int]:
    """The tokens that a model is to answer.

    Raises:
        DataError: The template refuses the messages.
    """
    chat = Chat.of(messages)
    with _refusals(chat):
        text = _render(tokenizer, messages, None, prompt=True)
    return _tokens(tokenizer, [text])[0]


def unwritten_roles(tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The roles besides user and assistant whose messages the chat template leaves out, unsaid."""
    asked, answered = {"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}
    talks: dict[str, list[Message]] = {
        "system": [{"role": "system", "content": _PROBE}, asked],
        "developer": [{"role": "developer", "content": _PROBE}, asked],
        "tool": [asked, answered, {"role": "tool", "content": _PROBE}],
    }
    return [role for role, talk in talks.items() if not _writes_probe(tokenizer, talk)]


def _writes_probe(tokenizer: PreTrainedTokenizerBase, talk: Sequence[Message]) -> bool:
    """Whether a template writes it, or refuses the messages, which it then says itself."""
    try:
        with _refusals(Chat.of(talk)):
            return _PROBE in _render(tokenizer, talk, None, prompt=True)
    except DataError:
        return True


def end_token(tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The special token that the chat template puts behind an answer; None: there is none.

    Behind it there may be more, such as the end of the text.
    """
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    with _refusals(Chat.of(talk)):
        text = _render(tokenizer, talk, None)
    added = tokenizer.added_tokens_decoder.items()
    special = {*tokenizer.all_special_ids, *(i for i, token in added if token.special)}
    behind = takewhile(
        lambda token: token in special or _is_blank(tokenizer, token),
        reversed(_tokens(tokenizer, [text])[0]),
    )
    ends = [token for token in behind if token in special]
    return ends[-1] if ends else None


@dataclass(frozen=True)
class _Written:
    """A conversation as text, and as text up to where answers begin and end.

    Attributes:
        chat: The conversation.
        whole: All of it.
        turns: By the number of an answer, what comes before it, and that with the answer.
        marked: Where answers begin and end among the tokens; None of a template that marks none.
    """

    chat: Chat
    whole: str
    turns: dict[int, tuple[str, str]]
    marked: list[tuple[int, int]] | None = None

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, chat: Chat, train_on: TrainOn) -> "_Written":
        messages, tools = chat.messages, chat.tools
        numbered = list(enumerate(answers(messages), 1))
        with _refusals(chat):
            whole = _render(tokenizer, messages, tools)
            if _MARKS_ANSWERS.search(tokenizer.get_chat_template(tools=tools)):
                return cls(chat, whole, {}, _marked_by_template(tokenizer, chat))

            def through(place: int) -> str:
                ends = place + 1 == len(messages)
                return whole if ends else _render(tokenizer, messages[: place + 1], tools)

            learned = numbered if train_on == "assistant" else numbered[-1:]
            if learned[0][1] == 0:
                raise DataError(
                    f"{named(chat)}: begins with an answer, and nothing is asked before it. Leave "
                    "that message out, or set task.train_on=completion to learn last answers only"
                )
            turns = {
                number: (_render(tokenizer, messages[:place], tools, prompt=True), through(place))
                for number, place in learned
            }
        return cls(chat, whole, turns)

    @property
    def texts(self) -> list[str]:
        """All that is to be tokenized."""
        return [self.whole, *(text for turn in self.turns.values() for text in turn)]


@dataclass(frozen=True)
class _Turn:
    """An answer within a conversation.

    Attributes:
        tokenizer: The tokenizer.
        chat: The conversation.
        number: Which of its answers, from 1.
        before: The tokens of what comes before the answer, written by itself.
        through: The same with the answer.
    """

    tokenizer: PreTrainedTokenizerBase
    chat: Chat
    number: int
    before: list[int]
    through: list[int]

    def span(self, row: list[int], end_token: int | None) -> tuple[int, int]:
        """Where its tokens begin and end in the whole conversation.

        Raises:
            DataError: The conversation does not begin with the tokens of what comes before.
        """
        start, end = len(self.before), self._end(end_token)
        self._compare(row, self.before, "what comes before it")
        self._compare(row, self.through[:end], "what ends with it")
        if end <= start:
            raise DataError(
                f"{named(self.chat)}: the chat template leaves out answer {self.number}. Remove "
                "the conversation, or set another tokenizer.chat_template"
            )
        return start, end

    def _end(self, end_token: int | None) -> int:
        """Where the answer ends: with the token for it, or before white space."""
        answer = self.through[len(self.before) :]
        if end_token in answer:
            return len(self.through) - answer[::-1].index(end_token)
        return len(self.through) - sum(1 for _ in takewhile(self._is_blank, answer[::-1]))

    def _is_blank(self, token: int) -> bool:
        return _is_blank(self.tokenizer, token)

    def _compare(self, row: list[int], part: list[int], what: str) -> None:
        if row[: len(part)] == part:
            return
        place = next(i for i, token in enumerate(part) if row[i : i + 1] != [token])
        whole, alone = (self._show(tokens[place : place + 1]) for tokens in (row, part))
        raise DataError(
            f"{named(self.chat)}: answer {self.number} cannot be told from the rest: at token "
            f"{place}, the chat template writes {whole} in the whole conversation, and {alone} in "
            f"{what}, written by itself. Set task.train_on=completion to learn last answers only, "
            "or another tokenizer.chat_template"
        )

    def _show(self, tokens: list[int]) -> str:
        return repr(self.tokenizer.decode(tokens)) if tokens else "nothing"


def _is_blank(tokenizer: PreTrainedTokenizerBase, token: int) -> bool:
    return not str(tokenizer.decode([token])).strip()


def _marks(length: int, spans: Sequence[tuple[int, int]], train_on: TrainOn) -> Tokens:
    """What each of so many tokens is, from where answers begin and end."""
    marks = np.full(length, TARGET if train_on == "all" else OTHER, dtype=np.int32)
    if train_on == "assistant":
        for start, end in spans:
            marks[start:end] = TARGET
    marks[slice(*spans[-1])] = LAST
    return marks


def _marked_by_template(tokenizer: PreTrainedTokenizerBase, chat: Chat) -> list[tuple[int, int]]:
    """Where answers begin and end that the template marks itself."""
    given: Any = tokenizer.apply_chat_template(
        chat.messages,
        tools=chat.tools,
        return_dict=True,
        return_assistant_tokens_mask=True,
        tokenizer_kwargs={"split_special_tokens": False},
    )
    mask: npt.NDArray[np.int64] = np.array([0, *given["assistant_masks"], 0])
    changes = np.flatnonzero(np.diff(mask)).tolist()
    if not changes:
        raise DataError(f"{named(chat)}: the chat template marks no token of its answers.")
    return list(zip(changes[::2], changes[1::2], strict=True))


def _render(
    tokenizer: PreTrainedTokenizerBase,
    messages: Sequence[Message],
    tools: list[Any] | None,
    prompt: bool = False,
) -> str:
    """Messages as the template writes them; to be answered if it is a prompt."""
    return str(
        tokenizer.apply_chat_template(
            list(messages), tools=tools, tokenize=False, add_generation_prompt=prompt
        )
    )


def _tokens(tokenizer: PreTrainedTokenizerBase, texts: list[str]) -> list[list[int]]:
    rows: list[list[int]] = tokenizer(
        texts,
        add_special_tokens=False,  # the template writes them
        split_special_tokens=False,
        return_attention_mask=False,
        return_token_type_ids=False,
        verbose=False,
    )["input_ids"]
    return rows


@contextmanager
def _refusals(chat: Chat) -> Iterator[None]:
    """Say of which conversation it is what a template raises."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a template is a program, and raises whatever one does
        raise DataError(
            f"{named(chat)}: the chat template refuses it ({in_short(error)}). Mend the "
            "conversation, or set another tokenizer.chat_template"
        ) from None


def named(chat: Chat) -> str:
    """Words for a conversation: how it begins."""
    text = " ".join(text_of(chat.messages[0]).split())
    return f"conversation {text[:60] + '…' if len(text) > 60 else text!r}"
