"""Chat in the terminal: a conversation kept as messages, each answer streamed as it comes."""

from collections.abc import Callable, Sequence

from colossi.data.chat import Message
from colossi.serve.generate import Sampling, stream
from colossi.serve.load import Loaded

Write = Callable[[str], object]


def answer(loaded: Loaded, messages: Sequence[Message], sampling: Sampling, most: int, write: Write) -> str:
    """Stream the answer to the last message to `write`, and return it whole."""
    tokenizer = loaded.tokenizer
    prompt = fitting_prompt(loaded, messages, most)
    text = tokenizer.stream()
    said = ""
    for token in stream(loaded.grok, prompt, most, {tokenizer.separator, tokenizer.eos}, sampling):
        piece = text.feed(token)
        piece = piece.lstrip() if not said else piece  # the template's space before the answer
        said += piece
        write(piece)
    rest = text.end()
    write(rest)
    return (said + rest).strip()


def fitting_prompt(loaded: Loaded, messages: Sequence[Message], most: int) -> list[int]:
    """The conversation as tokens, its oldest turns forgotten until it fits the model with room to answer."""
    room = max(1, loaded.grok.model.max_positions - most)
    for first in range(len(messages)):
        prompt = loaded.tokenizer.encode_prompt(messages[first:])
        if len(prompt) <= room:
            return prompt
    return prompt[-room:]
