"""
The HTTP side of `colossi serve`: OpenAI's chat completions and completions, models, health, metrics.

Nothing is computed here: engine.py does that, and replies.py says it.
"""

import asyncio
import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import Annotated, Any

import prometheus_client
from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import Response
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from colossi.data.tokenizer import Tokenizer
from colossi.serve.answering import Answering
from colossi.serve.answers import ChatAnswer, ErrorAnswer, Health, Model, Models, TextAnswer
from colossi.serve.asked import DEFAULT_TOKENS, Asked, AskedChat, AskedText
from colossi.serve.engine import Refused, Ticket
from colossi.serve.generate import Sampling
from colossi.serve.guard import Guard
from colossi.serve.refusals import HANDLERS, ApiError, bad, stopped
from colossi.serve.replies import Chat, Continuation, Served, reply_to

REFUSALS: dict[int | str, dict[str, Any]] = {
    code: {"model": ErrorAnswer} for code in (400, 401, 404, 413, 429, 503)
}
STREAM: dict[int | str, dict[str, Any]] = {
    200: {"description": "whole, or with stream = true its events", "content": {"text/event-stream": {}}}
}


def app(served: Served, pages: Sequence[APIRouter] = ()) -> FastAPI:
    """The application; `pages` are further routes that need no key, such as a page to chat on."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        served.engine.start()
        yield
        await asyncio.to_thread(served.engine.stop)

    made = FastAPI(title="colossi serve", lifespan=lifespan, docs_url=None, redoc_url=None)
    made.add_middleware(Guard, metrics=served.engine.metrics)
    for kind, handler in HANDLERS.items():
        made.add_exception_handler(kind, handler)
    made.include_router(_api(served))
    for page in pages:
        made.include_router(page)
    return made


def _api(served: Served) -> APIRouter:
    router = APIRouter()
    key_needed = Depends(_key_check(served.keys))

    @router.get("/health", responses={503: {"model": ErrorAnswer}})
    async def health() -> Health:
        """Whether it answers."""
        if not served.engine.alive:
            raise stopped()
        return Health(model=served.name)

    @router.get("/metrics", response_class=Response, responses=_some(401), dependencies=[key_needed])
    async def metrics() -> Response:
        """For Prometheus."""
        text = prometheus_client.generate_latest(served.engine.metrics.registry)
        return Response(text, media_type=prometheus_client.CONTENT_TYPE_PLAIN_0_0_4)

    @router.get("/v1/models", responses=_some(401), dependencies=[key_needed])
    async def models() -> Models:
        """The one that is served."""
        return Models(data=[_model(served)])

    @router.get("/v1/models/{model}", responses=_some(401, 404), dependencies=[key_needed])
    async def one_model(model: str) -> Model:
        """The same by its name."""
        _check_name(served, model)
        return _model(served)

    @router.post(
        "/v1/chat/completions",
        response_model=ChatAnswer,
        responses=STREAM | REFUSALS,
        dependencies=[key_needed],
    )
    async def chat(asked: AskedChat, request: Request) -> Response:
        """Answer a conversation."""
        prompt = served.tokenizer.encode_prompt([message.plain() for message in asked.messages])
        most = asked.max_completion_tokens or asked.max_tokens
        top = (asked.top_logprobs or 0) if asked.logprobs else None
        answering = _ask(served, asked, [prompt], most, top, trim=True)
        reply = Chat(served, "chatcmpl-" + secrets.token_hex(12), asked, answering, len(prompt))
        return await reply_to(reply, request)

    @router.post(
        "/v1/completions", response_model=TextAnswer, responses=STREAM | REFUSALS, dependencies=[key_needed]
    )
    async def complete(asked: AskedText, request: Request) -> Response:
        """Go on with a text."""
        prompts = _prompts(served.tokenizer, asked.prompt)
        answering = _ask(served, asked, prompts, asked.max_tokens or DEFAULT_TOKENS, asked.logprobs)
        echoes = [served.tokenizer.decode(prompt) if asked.echo else "" for prompt in prompts]
        read = sum(map(len, prompts))
        reply = Continuation(served, "cmpl-" + secrets.token_hex(12), asked, answering, read, echoes)
        return await reply_to(reply, request)

    return router


def _some(*codes: int) -> dict[int | str, dict[str, Any]]:
    return {code: {"model": ErrorAnswer} for code in codes}


def _model(served: Served) -> Model:
    return Model(id=served.name, created=served.created, max_model_len=served.engine.longest)


def _key_check(keys: Iterable[str]) -> Callable[..., None]:
    """Compares hashes, in time that says nothing of how much of a key was right."""
    hashes = [hashlib.sha256(key.encode()).digest() for key in keys]
    bearer = HTTPBearer(auto_error=False)

    def check(given: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> None:
        if not hashes:
            return
        found = hashlib.sha256((given.credentials if given else "").encode()).digest()
        if not any([hmac.compare_digest(found, each) for each in hashes]):
            raise ApiError(401, "a valid API key is needed", "invalid_request_error", "invalid_api_key")

    return check


def _check_name(served: Served, name: str) -> None:
    if name != served.name:
        message = f"the model {name!r} is not served here; {served.name!r} is"
        raise ApiError(404, message, "invalid_request_error", "model_not_found", "model")


def _prompts(tokenizer: Tokenizer, asked: Any) -> list[list[int]]:
    many = asked if isinstance(asked, list) and not isinstance(asked[0], int) else [asked]
    prompts = [tokenizer.encode(each) if isinstance(each, str) else each for each in many]
    for prompt in prompts:
        if not prompt:
            raise bad("the prompt is empty", "prompt")
        if max(prompt) >= tokenizer.vocabulary:
            raise bad(f"the vocabulary has {tokenizer.vocabulary} tokens", "prompt")
    return prompts


def _ask(
    served: Served,
    asked: Asked,
    prompts: list[list[int]],
    most: int | None,
    top: int | None,
    trim: bool = False,
) -> Answering:
    """Tickets for n answers to each prompt."""
    _check_name(served, asked.model)
    room = served.engine.longest - max(map(len, prompts))
    if room < 1:
        raise ApiError(
            400,
            f"the prompt has {max(map(len, prompts))} tokens; with the answer at most "
            f"{served.engine.longest} are possible",
            "invalid_request_error",
            "context_length_exceeded",
            "messages" if trim else "prompt",
        )
    seed = secrets.randbits(63) if asked.seed is None else asked.seed
    temperature = 1.0 if asked.temperature is None else asked.temperature
    top_p = 1.0 if asked.top_p is None else asked.top_p
    stop = frozenset({served.tokenizer.separator, served.tokenizer.eos})
    every = bool(asked.stream or asked.stops)
    tickets = [
        Ticket(prompt, min(most or room, room), Sampling(temperature, top_p, seed + at), stop, top, every)
        for prompt in prompts
        for at in range(asked.n or 1)
    ]
    try:
        return Answering(served.engine, tickets, served.tokenizer, asked.stops, trim)
    except Refused as error:
        raise ApiError(
            429, f"too many requests: {error}", "rate_limit_error", "rate_limit_exceeded"
        ) from None
