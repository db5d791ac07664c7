"""Conversations as people keep them: rows of a table as lists of messages with roles."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from truesweep.data.samples import Chat, Message, answers, text_of
from truesweep.errors import refusing

COLUMNS = (
    *("messages", "conversations"),  # of OpenAI and the hub; of ShareGPT
    *("instruction", "input", "output"),  # of Alpaca
    *("prompt", "completion"),
    *("chosen", "rejected"),  # behind a prompt, or whole
    *("system", "tools"),  # beside any of these
)
"""The columns that may make up a conversation; a row has those of one form."""
SAYS = (
    "messages (a list of role and content), conversations (a list of from and value), instruction "
    "and output, prompt and completion, or chosen and rejected; or name two with data.source=… and "
    "data.target=…"
)
_ROLES = ("system", "developer", "user", "assistant", "tool")
_SHAREGPT = {
    "human": "user",
    "gpt": "assistant",
    "function_call": "assistant",
    "observation": "tool",
    "function_response": "tool",
}


def conversation(columns: Sequence[str], values: Sequence[Any]) -> Chat:
    """Make a conversation of a row.

    Args:
        columns: `COLUMNS`, or those of questions and of answers.
        values: What stands there; None where there is no such column.

    Raises:
        ValueError: It is none.
    """
    row = {k: v for k, v in zip(columns, values, strict=True) if v is not None}
    if columns != list(COLUMNS):
        row = dict(zip(("prompt", "completion"), map(row.get, columns), strict=True))
    rejected = _checked(row, _preferred(row, "rejected")) if "rejected" in row else None
    chat = _chat(_checked(row, _messages(row)), _tools(row.get("tools")), rejected)
    try:
        chat.text.encode()
    except UnicodeEncodeError as error:  # JSON can spell it as \ud800
        half = ascii(chat.text[error.start])
        raise ValueError(f"a text holds {half}, half a surrogate pair") from None
    return chat


def _chat(*parts: Any) -> Chat:
    """A conversation of what tables of types may hold that JSON has no word for, such as dates."""
    try:
        return Chat.of(*parts)
    except TypeError as error:
        raise ValueError(f"a message or tool cannot be written as JSON ({error})") from None


def _checked(row: Mapping[str, Any], given: Sequence[Any]) -> list[Message]:
    """Messages of a row, with its system prompt."""
    messages = [_message(*one) for one in enumerate(given, 1)]
    if system := _text(row, "system"):
        messages.insert(0, {"role": "system", "content": system})
    if not answers(messages):
        raise ValueError("a conversation without an answer: no message of the role assistant")
    return messages


def messages_of(text: str) -> list[Message]:
    """What a user types to be answered: a question, or messages as JSON.

    Raises:
        ConfigError: One of these is none.
    """
    try:
        given = json.loads(text)
    except ValueError:
        given = None
    if isinstance(given, list) and given and isinstance(given[0], dict):
        with refusing(lambda reason: f"what is asked: {reason}"):
            return [_message(*one) for one in enumerate(given, 1)]
    return [{"role": "user", "content": text}]


def _messages(row: Mapping[str, Any]) -> list[Any]:
    """The messages of a row, as they stand there."""
    for column in ("messages", "conversations"):
        if column in row:
            found = _from_json(row[column])
            if not isinstance(found, list):
                raise ValueError(f"{column!r} is no list of messages")
            return found
    if "instruction" in row and "output" in row:
        asked = "\n\n".join(filter(None, (_text(row, name) for name in ("instruction", "input"))))
        return [*_side(asked, "user"), {"role": "assistant", "content": row["output"]}]
    if "prompt" in row and "completion" in row:
        return [*_side(row["prompt"], "user"), *_side(row["completion"], "assistant")]
    if "chosen" in row:
        return _preferred(row, "chosen")
    raise ValueError(f"no conversation: the columns must be {SAYS}")


def _text(row: Mapping[str, Any], column: str) -> str:
    """What stands in a column for one text; nothing if there is no such column."""
    value = row.get(column, "")
    if not isinstance(value, str):
        raise ValueError(f"{column!r} is a {type(value).__name__}, not a text")
    return value


def _preferred(row: Mapping[str, Any], column: str) -> list[Any]:
    """A conversation that is preferred to another one, or the other one."""
    messages = _side(row[column], "assistant")
    first = messages[0] if messages else None
    if isinstance(first, Mapping) and first.get("role") != "assistant":
        return messages  # with its prompt
    return [*_side(row.get("prompt", ""), "user"), *messages]


def _side(value: Any, role: str) -> list[Any]:
    return value if isinstance(value, list) else [{"role": role, "content": value}]


def _message(number: int, given: Any) -> Message:
    """A message with one of the roles of chat templates, and a content."""
    if not isinstance(given, Mapping):
        raise ValueError(f"message {number} is a {type(given).__name__}, not an object")
    message = {k: v for k, v in given.items() if v is not None}
    if "from" in message and "value" in message:
        message = {"role": message.pop("from"), "content": message.pop("value"), **message}
    role, content = message.pop("role", None), message.pop("content", "")
    role = _SHAREGPT.get(str(role), role)
    if role not in _ROLES:
        raise ValueError(f"message {number} has the role {role!r}, not one of {', '.join(_ROLES)}")
    texts = content if isinstance(content, list) else [{"type": "text", "text": content}]
    if not all(isinstance(part, Mapping) and isinstance(part.get("text"), str) for part in texts):
        raise ValueError(f"message {number} has a content that is no text")
    found = {"role": role, "content": content, **message}  # one order, whatever a file's
    if role == "assistant" and not text_of(found).strip() and not message.get("tool_calls"):
        raise ValueError(f"message {number} is an empty answer")
    return found


def _tools(value: Any) -> list[Any] | None:
    tools = _from_json(value)
    if tools is None or isinstance(tools, list):
        return tools
    raise ValueError("'tools' is no list")


def _from_json(value: Any) -> Any:
    """A value that some tables hold as JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value
