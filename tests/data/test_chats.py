"""Conversations: read in the forms people keep them in, and which of their tokens are answers."""

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.data.chat_styles import STYLES, SYSTEM, TALK, Style, ragged
from truesweep.data import Embedded, Files
from truesweep.data.chat_template import LAST, OTHER, TARGET, encode_chats, end_token
from truesweep.data.chats import CHATS, ChatDataset
from truesweep.data.conversations import messages_of
from truesweep.data.samples import Chat, Message, Splits
from truesweep.data.tokenizers import Bpe, Byte, template_of
from truesweep.errors import ConfigError, DataError

QUESTION, ANSWER = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}


def by_hand(style: Style, tokenizer: Any) -> tuple[list[int], list[bool]]:
    """Tokens of what a template is known to write, and whether each is of an answer."""
    text, spans = "", []
    for piece in re.split("(⟦.*?⟧)", style.written, flags=re.DOTALL):
        if piece.startswith("⟦"):
            spans.append((len(text), len(text) + len(piece) - 2))
        text += piece.strip("⟦⟧")
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
    inside = [any(a <= s and e <= b for a, b in spans) for s, e in found["offset_mapping"]]
    return found["input_ids"], inside


@pytest.mark.parametrize("name", STYLES)
def test_answers_are_told_from_what_published_templates_write_around_them(name: str) -> None:
    style = STYLES[name]
    tokenizer = style.tokenizer()
    ids, inside = by_hand(style, tokenizer)
    assert ids == tokenizer.apply_chat_template(style.messages, return_dict=False)
    runs = np.flatnonzero(np.diff([0, *inside, 0])).reshape(-1, 2)
    assert len(runs) == 2
    chat = Chat.of(style.messages)
    for train_on, learned in (("assistant", inside), ("all", [True] * len(ids))):
        ((tokens, marks),) = encode_chats(tokenizer, [chat], train_on)  # type: ignore[arg-type]
        assert tokens.tolist() == ids
        assert (marks != OTHER).tolist() == learned
        assert np.flatnonzero(marks == LAST).tolist() == list(range(*runs[1]))
    ((_, marks),) = encode_chats(tokenizer, [chat], "completion")
    assert np.flatnonzero(marks).tolist() == list(range(*runs[1]))
    ends = {"llama-3": "<|eot_id|>", "gemma": "<end_of_turn>", "phi-3": "<|end|>"}
    expected = tokenizer.convert_tokens_to_ids(ends.get(name, style.eos))
    assert end_token(tokenizer) == (None if name == "alpaca" else expected)


def test_marks_of_the_template_itself_are_taken() -> None:
    style = STYLES["chatml"]
    tokenizer = style.tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}<|im_start|>{{ message.role }}\n"
        "{% if message.role == 'assistant' %}{% generation %}{{ message.content }}<|im_end|>"
        "{% endgeneration %}{% else %}{{ message.content }}<|im_end|>{% endif %}{{ '\n' }}"
        "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
    )
    ((tokens, marks),) = encode_chats(tokenizer, [Chat.of(style.messages)], "assistant")
    ids, inside = by_hand(style, tokenizer)
    assert tokens.tolist() == ids
    assert (marks > OTHER).tolist() == inside
    assert {*marks.tolist()} == {OTHER, TARGET, LAST}


def test_our_own_template_writes_tools_and_what_they_say() -> None:
    call = {"type": "function", "function": {"name": "add"}}
    messages: list[Message] = [
        SYSTEM,
        QUESTION,
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "2"},
        {"role": "assistant", "content": [{"type": "text", "text": "It is 2."}]},
    ]
    tokenizer: Any = CHATS.complete(Byte().build(()))
    chat = Chat.of(messages, [{"name": "add"}])
    ((tokens, marks),) = encode_chats(tokenizer, [chat], "assistant")
    assert tokenizer.decode(tokens).split("\n") == [
        '<bos>Tools: [{"name": "add"}]',
        "System: Be brief.",
        "User: q",
        'Assistant:  [{"type": "function", "function": {"name": "add"}}]<eos>',
        "Tool: 2",
        "Assistant: It is 2.<eos>",
        "",
    ]
    assert tokenizer.decode(tokens[marks == LAST]) == " It is 2.<eos>"
    assert tokenizer.decode(tokens[marks == TARGET]).endswith("}}]<eos>")
    assert chat.target == "It is 2."


def test_the_first_token_that_disagrees_is_shown() -> None:
    """A template that writes thoughts of the last answer only, as Qwen3's does."""
    tokenizer = STYLES["chatml"].tokenizer()
    tokenizer.chat_template = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' }}{% if loop.last and "
        "m.role == 'assistant' %}{{ '- really\n' }}{% endif %}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    )
    message = (
        r"conversation 'How many legs\?': answer 1 cannot be told .* at token \d+, the chat "
        r"template writes 'F\w*' in the whole conversation, and '-' in what ends with it.*"
        r"task\.train_on=completion"
    )
    with pytest.raises(DataError, match=message):
        list(encode_chats(tokenizer, [Chat.of(TALK)], "assistant"))
    ((tokens, marks),) = encode_chats(tokenizer, [Chat.of(TALK)], "completion")
    assert tokenizer.decode(tokens[marks == LAST]) == "- really\nNone.\n\n- really<|im_end|>"


def test_what_a_template_refuses_is_said_of_the_conversation() -> None:
    tokenizer = STYLES["gemma"].tokenizer()
    with pytest.raises(DataError, match=r"'Be brief\.': .*\(TemplateError: System role not supp"):
        list(encode_chats(tokenizer, [Chat.of([SYSTEM, *TALK])], "assistant"))


def test_whatever_a_template_raises_is_said_of_the_conversation() -> None:
    tokenizer = CHATS.complete(Byte().build(()))
    tokenizer.chat_template = "{{ 1 / 0 }}"
    with pytest.raises(DataError, match=r"the chat template refuses it \(ZeroDiv"):
        list(encode_chats(tokenizer, [Chat.of([QUESTION, ANSWER])], "all"))


def test_roles_of_which_a_template_writes_nothing_are_named() -> None:
    """Conversations would be learned, and asked, without them, and nothing be said."""
    tokenizer = CHATS.complete(Byte().build(()))
    chats = [Chat.of(messages) for messages in ([QUESTION, ANSWER], [SYSTEM, QUESTION, ANSWER])]
    assert [*CHATS.notes(tokenizer, chats)] == []
    tokenizer.chat_template = str(tokenizer.chat_template).replace(
        "in messages", "in messages if message.role in ('user', 'assistant')"
    )
    (note,) = CHATS.notes(tokenizer, chats)
    assert "nothing of messages of the role system, which 1 of 2 conversations have" in note
    tokenizer.chat_template = "{{ raise_exception('no') }}"  # it says so itself
    assert [*CHATS.notes(tokenizer, chats)] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('[{"role": "bot", "content": "a"}]', "what is asked: message 1 has the role 'bot'"),
        ('[{"role": "user", "content": 3}]', "what is asked: message 1 has a content that is no"),
        ('[{"role": "user", "content": "q"}, 3]', "what is asked: message 2 is a int"),
    ],
)
def test_what_cannot_be_asked_is_said(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        messages_of(text)


def test_an_answer_to_nothing_is_named() -> None:
    tokenizer, talk = STYLES["chatml"].tokenizer(), [ANSWER, QUESTION, ANSWER]
    message = rf"^conversation '{ANSWER['content']}': begins with an answer, and nothing is asked"
    with pytest.raises(DataError, match=message):
        list(encode_chats(tokenizer, [Chat.of(talk)], "assistant"))
    ((tokens, marks),) = encode_chats(tokenizer, [Chat.of(talk)], "completion")
    assert tokenizer.decode(tokens[marks == LAST]) == f"{ANSWER['content']}<|im_end|>"


def test_a_template_that_marks_no_answer_is_named() -> None:
    tokenizer = STYLES["chatml"].tokenizer()
    tokenizer.chat_template = (
        "{% for message in messages %}{{ message.content }}{% if message.role == 'robot' %}"
        "{% generation %}{{ message.content }}{% endgeneration %}{% endif %}{% endfor %}"
    )
    with pytest.raises(DataError, match=r"^conversation '[^']+': the chat template marks no token"):
        list(encode_chats(tokenizer, [Chat.of(TALK)], "assistant"))


def rows_of(path: Path, rows: list[dict[str, Any]]) -> Path:
    if path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1))
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        import pyarrow as pa
        from pyarrow.parquet import write_table

        write_table(pa.Table.from_pylist(rows), path)
    return path


FORMS: dict[str, tuple[dict[str, Any], list[dict[str, str]]]] = {
    "messages": ({"messages": [SYSTEM, QUESTION, ANSWER]}, [SYSTEM, QUESTION, ANSWER]),
    "other order": (
        {"messages": [dict(reversed(one.items())) for one in (QUESTION, ANSWER)]},
        [QUESTION, ANSWER],
    ),
    "sharegpt": (
        {"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
        [QUESTION, ANSWER],
    ),
    "alpaca": (
        {"instruction": "q", "input": "x", "output": "a", "system": "Be brief."},
        [SYSTEM, {"role": "user", "content": "q\n\nx"}, ANSWER],
    ),
    "prompt": ({"prompt": "q", "completion": "a"}, [QUESTION, ANSWER]),
    "turns": ({"prompt": [SYSTEM, QUESTION], "completion": [ANSWER]}, [SYSTEM, QUESTION, ANSWER]),
}


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_conversation_is_read(form: str, suffix: str, workplace: Path) -> None:
    row, messages = FORMS[form]
    path = str(rows_of(Path(f"talk{suffix}"), [row, row]))
    splits = Files(train=path, val=path, test=path).load("chats")
    assert splits.train == [Chat.of(messages)] * 2
    assert (splits.train[0].source.splitlines()[-1][0], splits.train[0].target) in {  # type: ignore[union-attr]
        ("q", "a"),
        ("x", "a"),
    }


def test_columns_may_be_named_and_tools_are_kept(workplace: Path) -> None:
    rows_of(Path("a.jsonl"), [{"ask": "q", "reply": "a"}])
    rows_of(Path("b.jsonl"), [{"messages": [QUESTION, ANSWER], "tools": '[{"name": "f"}]'}])
    named = Files(train="a.jsonl", val="a.jsonl", test="a.jsonl", source="ask", target="reply")
    assert named.load("chats").train == [Chat.of([QUESTION, ANSWER])]
    (chat,) = Files(train="b.jsonl", val="b.jsonl", test="b.jsonl").load("chats").train
    assert isinstance(chat, Chat)
    assert chat.tools == [{"name": "f"}]


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"messages": [QUESTION]}, "a conversation without an answer"),
        ({"messages": [{"role": "bot", "content": "a"}]}, "message 1 has the role 'bot', not one"),
        ({"messages": [QUESTION, {"role": "assistant"}]}, "message 2 is an empty answer"),
        ({"messages": [{"role": "user", "content": 3}]}, "message 1 has a content that is no text"),
        ({"messages": ["q"]}, "message 1 is a str, not an object"),
        ({"messages": "q"}, "'messages' is no list of messages"),
        ({"text": "q"}, "no conversation: the columns must be messages"),
        ({"prompt": "q", "completion": "a", "tools": "f"}, "'tools' is no list"),
        ({"messages": [QUESTION, ANSWER], "system": 3}, "'system' is a int, not a text"),
        ({"instruction": 3, "output": "a"}, "'instruction' is a int, not a text"),
        ({"instruction": "q", "input": ["x"], "output": "a"}, "'input' is a list, not a text"),
        ({"prompt": "q", "completion": " \n"}, "message 2 is an empty answer"),
        ({"prompt": "\ud800", "completion": "a"}, r"a text holds '\\ud800', half a surrogate pair"),
    ],
)
def test_what_is_no_conversation_is_said_with_its_line(
    row: dict[str, Any], message: str, workplace: Path
) -> None:
    rows_of(Path("talk.jsonl"), [FORMS["messages"][0], row])
    with pytest.raises(DataError, match=rf"talk\.jsonl, line 2: {message}"):
        Files(train="talk.jsonl").load("chats")


def test_what_json_cannot_spell_is_said_of_its_row(workplace: Path) -> None:
    dated = [{**QUESTION, "at": datetime(2026, 1, 1)}, {**ANSWER, "at": datetime(2026, 1, 2)}]
    rows_of(Path("talk.parquet"), [{"messages": dated}])
    with pytest.raises(DataError, match=r"talk\.parquet, row 1: a message or tool cannot be writ"):
        Files(train="talk.parquet").load("chats")


def dataset(max_length: int, truncation: str) -> tuple[ChatDataset, Any]:
    tokenizer = CHATS.complete(Byte().build(()))
    chats = [Chat.of(TALK), Chat.of(TALK[:2]), Chat.of([QUESTION, ANSWER])]
    tokens, marks = zip(*encode_chats(tokenizer, chats, "assistant"), strict=True)
    rows = ragged(tokens), ragged(marks)
    return ChatDataset(chats, *rows, max_length, truncation, 0), tokenizer  # type: ignore[arg-type]


def test_rows_are_cut_at_the_end_that_is_named_and_counted() -> None:
    whole, tokenizer = dataset(500, "right")
    assert (whole.truncated, whole.cut, whole.without_target) == (0, 0, 0)
    lengths = whole.lengths[[0, 1, 2]]
    texts = [tokenizer.decode(row) for row in whole.collate([0, 1, 2])["input_ids"]]
    for truncation in ("right", "left"):
        cut, _ = dataset(30, truncation)
        batch = cut.collate([0, 1, 2])
        assert batch["lengths"] == [30, 30, min(30, int(lengths[2]))]
        assert cut.truncated == int((lengths > 30).sum())
        assert cut.cut == int(np.maximum(0, lengths - 30).sum())
        labels = [tokenizer.decode([x for x in row if x >= 0]) for row in batch["labels"].tolist()]
        if truncation == "right":
            assert tokenizer.decode(batch["input_ids"][0]) == texts[0][: len(texts[0])][:34]
            assert cut.without_target == 2
            assert labels[:2] == ["", ""]
        else:
            assert labels[0] == " None.\n\n- really<eos>"
            assert cut.without_target == 0
        answers = [tokenizer.decode(ids) for ids in batch["answers"]]
        assert answers[0] == " None.\n\n- really<eos>"  # uncut, to be compared with
    counts = [int((whole.collate([i])["labels"] >= 0).sum()) for i in range(3)]
    assert whole.targets == sum(counts) == int(whole.target_counts(len(tokenizer)).sum())
    assert whole.tokens_per_target == pytest.approx(whole.lengths.sum() / sum(counts))


def test_a_template_may_be_given_as_text_or_file(tmp_path: Path) -> None:
    (tmp_path / "chat.jinja").write_text("{{ messages }}")
    named = Bpe(chat_template=str(tmp_path / "chat.jinja"))
    assert template_of(named) == "{{ messages }}"
    assert named.identity() == Bpe(chat_template="{{ messages }}").identity()
    assert "chat_template" not in Bpe().identity()
    with pytest.raises(ConfigError, match=r"chat_template=none\.jinja: no Jinja template"):
        template_of(Bpe(chat_template="none.jinja"))


@pytest.fixture(scope="module")
def splits() -> Splits:
    return CHATS.load(Embedded())


def test_functions_are_asked_about_without_leakage(splits: Splits) -> None:
    assert len(splits.train) > 2000
    assert min(len(splits.val), len(splits.test)) >= CHATS.needed
    said = {
        name: {
            m["content"].casefold()
            for chat in part
            if isinstance(chat, Chat)
            for m in chat.messages
        }
        for name, part in (("train", splits.train), ("val", splits.val))
    }
    asked = {"what are its parameters?", "what does it do?"}
    assert {t for t in said["train"] & said["val"] if " " in t and "," not in t} <= asked
    every = [chat for chat in (*splits.train, *splits.val, *splits.test) if isinstance(chat, Chat)]
    (example,) = (chat for chat in every if "bisect.insort_right(" in chat.text)
    answers = {message["content"] for message in example.messages[1::2]}
    summary = "Insert item x in list a, and keep it sorted assuming a is sorted."
    assert answers == {summary, "a, x, lo, hi, key"}
