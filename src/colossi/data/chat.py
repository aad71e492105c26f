"""The chat format of Grok-2's public template, as pieces of text and separators.

    System: ...<|separator|>\\n\\nHuman: ...<|separator|>\\n\\nAssistant: ...<|separator|>\\n\\n

A prompt ends with `Assistant:` and the answer with the separator. Knows nothing about tokens.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from colossi.errors import DataError

SEPARATOR = "<|separator|>"
BETWEEN = "\n\n"
SPEAKERS = {"system": "System", "user": "Human", "assistant": "Assistant"}

# The same format as a Jinja template, for programs that render chats themselves.
TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}System: {% elif message['role'] == 'user' %}Human: "
    "{% else %}Assistant: {% endif %}"
    "{{ message['content'] }}{{ '<|separator|>\\n\\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

Message = Mapping[str, str]


class Piece(NamedTuple):
    """Text that is encoded by itself, perhaps closed by a separator; `answer` if the assistant says it."""

    text: str
    closed: bool = False
    answer: bool = False


def pieces(messages: Sequence[Message]) -> Iterator[Piece]:
    """A whole chat. The answer is a piece of its own, so that a prompt is a prefix of its chat."""
    for message in messages:
        speaker = SPEAKERS[message["role"]]
        if message["role"] == "assistant":
            yield Piece(f"{speaker}:")
            yield Piece(f" {message['content']}", closed=True, answer=True)
        else:
            yield Piece(f"{speaker}: {message['content']}", closed=True)
        yield Piece(BETWEEN)


def prompt_pieces(messages: Sequence[Message]) -> Iterator[Piece]:
    """A chat that waits for the assistant's next words."""
    yield from pieces(messages)
    yield Piece(f"{SPEAKERS['assistant']}:")


def render(messages: Sequence[Message], *, prompt: bool = False) -> str:
    """The chat as the template writes it, for people to read and for tokenizers to be trained on."""
    parts = prompt_pieces(messages) if prompt else pieces(messages)
    return "".join(part.text + (SEPARATOR if part.closed else "") for part in parts)


def check_messages(value: Any, where: str) -> tuple[dict[str, str], ...]:
    """`value` as messages, or a DataError that begins with `where`."""
    if not isinstance(value, Sequence) or isinstance(value, str) or not value:
        raise DataError(f"{where}: messages is not a list of messages", _SHAPE)
    checked = []
    for number, message in enumerate(value, 1):
        if not isinstance(message, Mapping):
            raise DataError(f"{where}: message {number} is not a table", _SHAPE)
        role, content = message.get("role"), message.get("content")
        if role not in SPEAKERS:
            raise DataError(f"{where}: message {number} has role {role!r}", _SHAPE)
        if not isinstance(content, str):
            raise DataError(f"{where}: message {number} has no text in content", _SHAPE)
        checked.append({"role": str(role), "content": content})
    return tuple(checked)


_SHAPE = 'a message is {"role": "system", "user" or "assistant", "content": "..."}'
