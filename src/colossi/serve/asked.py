"""
What clients may ask, in the shapes of OpenAI's API: chat completions and completions.

What would change the answer and is not supported is refused by name; what cannot change it is accepted.
"""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, model_validator

CHOICES = 16  # answers to one request
DEFAULT_TOKENS = 16  # of a completion, as OpenAI has it


def _whole(text: str) -> str:
    """JSON can spell half a character, which no encoding can."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("half a surrogate pair is no text") from None
    return text


Text = Annotated[str, StringConstraints(strict=True), AfterValidator(_whole)]
Stop = Annotated[Text, StringConstraints(min_length=1, max_length=200)]
Token = Annotated[int, Field(strict=True, ge=1, lt=1 << 31)]


class TextPart(BaseModel):
    """A part of a message; only text is known."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: Text


class AskedMessage(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="ignore")  # clients send back answers whole, with fields of their own
    role: Literal["system", "developer", "user", "assistant"]
    content: Text | list[TextPart]

    def plain(self) -> dict[str, str]:
        """As the chat template knows it."""
        text = self.content if isinstance(self.content, str) else "".join(p.text for p in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class StreamOptions(BaseModel):
    """Options of a streamed answer."""

    model_config = ConfigDict(extra="ignore")
    include_usage: bool | None = None


class ResponseFormat(BaseModel):
    """Only text; a grammar is not supported."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]


class Asked(BaseModel):
    """What both kinds of requests have."""

    model_config = ConfigDict(extra="forbid")
    model: Text
    max_tokens: int | None = Field(None, ge=1, description="longest answer")
    temperature: float | None = Field(None, ge=0, le=2, description="0 takes the likeliest; 1 if left out")
    top_p: float | None = Field(None, ge=0, le=1)
    n: int | None = Field(None, ge=1, le=CHOICES, description="answers")
    seed: int | None = Field(
        None, ge=-(1 << 63), lt=1 << 63, description="of the draws; at random if left out"
    )
    stop: Stop | Annotated[list[Stop], Field(max_length=4)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    frequency_penalty: Literal[0] | None = None
    presence_penalty: Literal[0] | None = None
    logit_bias: Annotated[dict[str, Any], Field(max_length=0)] | None = None
    user: Text | None = None
    metadata: dict[str, Any] | None = None
    store: bool | None = None
    service_tier: Text | None = None
    safety_identifier: Text | None = None
    prompt_cache_key: Text | None = None

    @model_validator(mode="after")
    def _options_of_a_stream(self) -> "Asked":
        if self.stream_options is not None and not self.stream:
            raise ValueError("stream_options is for stream = true only")
        return self

    @property
    def stops(self) -> tuple[str, ...]:
        """Strings that end an answer."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with the counts of tokens."""
        return bool(self.stream_options and self.stream_options.include_usage)


class AskedChat(Asked):
    """POST /v1/chat/completions"""

    messages: Annotated[list[AskedMessage], Field(min_length=1)]
    max_completion_tokens: int | None = Field(None, ge=1, description="the newer name of max_tokens")
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    response_format: ResponseFormat | None = None
    tools: Annotated[list[Any], Field(max_length=0)] | None = None
    tool_choice: Literal["none", "auto"] | None = None
    parallel_tool_calls: bool | None = None
    modalities: list[Literal["text"]] | None = None

    @model_validator(mode="after")
    def _likeliest_of_logprobs(self) -> "AskedChat":
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs needs logprobs = true")
        return self


class AskedText(Asked):
    """POST /v1/completions"""

    prompt: (
        Text
        | Annotated[list[Text], Field(min_length=1, max_length=64)]
        | Annotated[list[Token], Field(min_length=1)]
        | Annotated[list[Annotated[list[Token], Field(min_length=1)]], Field(min_length=1, max_length=64)]
    )
    logprobs: int | None = Field(None, ge=0, le=5)
    echo: bool | None = Field(None, description="the prompt before the answer; not with logprobs")
    best_of: int | None = Field(None, ge=1, le=CHOICES, description="n, or left out")
    suffix: Literal[""] | None = None

    @model_validator(mode="after")
    def _what_is_not_supported(self) -> "AskedText":
        if self.best_of is not None and self.best_of != (self.n or 1):
            raise ValueError("best_of is supported only where it is n")
        if self.echo and self.logprobs is not None:
            raise ValueError("echo is not supported with logprobs")
        return self
