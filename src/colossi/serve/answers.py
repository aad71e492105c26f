"""What the server answers, in the shapes of OpenAI's API: values, and models that its document shows."""

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel

from colossi.data.tokenizer import Tokenizer
from colossi.serve.engine import Said
from colossi.serve.sampling import Likely


class ErrorBody(BaseModel):
    """What went wrong; `type` and `code` as OpenAI's clients know them."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorAnswer(BaseModel):
    """The body of every answer that is not 200."""

    error: ErrorBody


class PromptDetails(BaseModel):
    """Of the prompt's tokens."""

    cached_tokens: int


class Usage(BaseModel):
    """Tokens of one request, all of its answers together."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails


class ChatMessage(BaseModel):
    """What the assistant says."""

    role: Literal["assistant"] = "assistant"
    content: str
    refusal: None = None


class ChatChoice(BaseModel):
    """One answer."""

    index: int
    message: ChatMessage
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class ChatAnswer(BaseModel):
    """POST /v1/chat/completions"""

    id: str
    object: Literal["chat.completion"] = "chat.completion"
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class TextChoice(BaseModel):
    """One continuation."""

    index: int
    text: str
    logprobs: dict[str, Any] | None
    finish_reason: Literal["stop", "length"]


class TextAnswer(BaseModel):
    """POST /v1/completions"""

    id: str
    object: Literal["text_completion"] = "text_completion"
    created: int
    model: str
    choices: list[TextChoice]
    usage: Usage


class Model(BaseModel):
    """What is served."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str = "colossi"
    max_model_len: int


class Models(BaseModel):
    """GET /v1/models"""

    object: Literal["list"] = "list"
    data: list[Model]


class Health(BaseModel):
    """GET /health"""

    status: Literal["ok"] = "ok"
    model: str


def usage(prompt: int, said: int, reused: int) -> Usage:
    """Counts of tokens."""
    details = PromptDetails(cached_tokens=reused)
    return Usage(
        prompt_tokens=prompt,
        completion_tokens=said,
        total_tokens=prompt + said,
        prompt_tokens_details=details,
    )


def chat_logprobs(tokenizer: Tokenizer, said: Sequence[Said]) -> dict[str, Any]:
    """`logprobs` of a chat's answer."""
    content = []
    for each in said:
        assert isinstance(each.likely, Likely)
        top = [_one_logprob(tokenizer, token, value) for token, value in each.likely.top]
        content.append(_one_logprob(tokenizer, each.token, each.likely.logprob) | {"top_logprobs": top})
    return {"content": content, "refusal": None}


def text_logprobs(tokenizer: Tokenizer, said: Sequence[Said], offset: int) -> dict[str, Any]:
    """`logprobs` of a completion, whose text so far is `offset` characters long."""
    names = [name_of(tokenizer, each.token) for each in said]
    offsets = []
    for name in names:
        offsets.append(offset)
        offset += len(name)
    values = [each.likely for each in said if each.likely is not None]
    return {
        "tokens": names,
        "token_logprobs": [value.logprob for value in values],
        "top_logprobs": [{name_of(tokenizer, token): p for token, p in value.top} for value in values],
        "text_offset": offsets,
    }


def name_of(tokenizer: Tokenizer, token: int) -> str:
    """A token as text: bytes that are no character become U+FFFD, a special token its name."""
    text = tokenizer.decode([token])
    return text or tokenizer.inner.id_to_token(token) or f"<{token}>"


def _one_logprob(tokenizer: Tokenizer, token: int, value: float) -> dict[str, Any]:
    raw = tokenizer.bytes_of([token])
    return {"token": name_of(tokenizer, token), "logprob": value, "bytes": list(raw) if raw else None}


def event(value: Any) -> str:
    """One event of a stream."""
    return f"data: {json.dumps(value, ensure_ascii=False, separators=(',', ':'))}\n\n"


LAST_EVENT = "data: [DONE]\n\n"
