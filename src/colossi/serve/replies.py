"""
An answer as the client gets it: whole, or as the events of a stream.

A client that goes away cancels its answer at the engine.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Coroutine
from dataclasses import dataclass
from typing import Any, TypeVar

from fastapi import Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from colossi.data.tokenizer import Tokenizer
from colossi.serve import answers
from colossi.serve.answering import Answering, Late, Part, Stopped
from colossi.serve.asked import Asked, AskedChat, AskedText
from colossi.serve.engine import Engine
from colossi.serve.refusals import ApiError, stopped

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Served:
    """What a server answers with."""

    engine: Engine
    tokenizer: Tokenizer
    name: str  # of the model
    created: int  # seconds since 1970
    keys: frozenset[str] = frozenset()  # none: everybody may ask


@dataclass(slots=True)
class Reply:
    """What both kinds of answers have: an answer whole, or as the events of a stream."""

    served: Served
    id: str
    asked: Asked
    answering: Answering
    prompt_tokens: int

    def head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": int(time.time()), "model": self.served.name}

    def usage(self) -> answers.Usage:
        return answers.usage(self.prompt_tokens, self.answering.tokens, self.answering.reused)

    def whole(self, parts: list[Part]) -> dict[str, Any]:
        raise NotImplementedError

    def events(self, part: Part, first: bool) -> list[dict[str, Any]]:
        raise NotImplementedError

    @property
    def kind(self) -> str:
        raise NotImplementedError


def _merged(parts: list[Part]) -> list[Part]:
    """One part for each answer, in order."""
    by_index: dict[int, list[Part]] = {}
    for part in parts:
        by_index.setdefault(part.index, []).append(part)
    return [
        Part(index, "".join(p.text for p in some), [s for p in some for s in p.said], some[-1].finish)
        for index, some in sorted(by_index.items())
    ]


class Chat(Reply):
    kind = "chat.completion.chunk"

    def _logprobs(self, part: Part) -> dict[str, Any] | None:
        wanted = isinstance(self.asked, AskedChat) and self.asked.logprobs
        return answers.chat_logprobs(self.served.tokenizer, part.said) if wanted else None

    def whole(self, parts: list[Part]) -> dict[str, Any]:
        choices = [
            {
                "index": part.index,
                "message": {"role": "assistant", "content": part.text, "refusal": None},
                "logprobs": self._logprobs(part),
                "finish_reason": part.finish,
            }
            for part in _merged(parts)
        ]
        return self.head("chat.completion") | {"choices": choices}

    def events(self, part: Part, first: bool) -> list[dict[str, Any]]:
        deltas: list[tuple[dict[str, Any], dict[str, Any] | None, str | None]] = []
        if first:
            deltas.append(({"role": "assistant", "content": "", "refusal": None}, None, None))
        if part.text or (part.said and self._logprobs(part)):
            deltas.append(({"content": part.text}, self._logprobs(part), None))
        if part.finish:
            deltas.append(({}, None, part.finish))
        return [
            {"index": part.index, "delta": delta, "logprobs": logprobs, "finish_reason": finish}
            for delta, logprobs, finish in deltas
        ]


class Continuation(Reply):
    kind = "text_completion"

    def __init__(self, *common: Any) -> None:
        *rest, self.echoes = common
        super().__init__(*rest)
        self.lengths: dict[int, int] = {}

    def _logprobs(self, part: Part) -> dict[str, Any] | None:
        if not isinstance(self.asked, AskedText) or self.asked.logprobs is None:
            return None
        offset = self.lengths.get(part.index, 0)
        self.lengths[part.index] = offset + len(part.text)
        return answers.text_logprobs(self.served.tokenizer, part.said, offset)

    def whole(self, parts: list[Part]) -> dict[str, Any]:
        choices = [choice for part in _merged(parts) for choice in self.events(part, True)]
        return self.head("text_completion") | {"choices": choices}

    def events(self, part: Part, first: bool) -> list[dict[str, Any]]:
        echo = self.echoes[part.index // (self.asked.n or 1)] if first else ""
        if not (echo or part.text or part.finish or part.said):
            return []
        return [
            {
                "index": part.index,
                "text": echo + part.text,
                "logprobs": self._logprobs(part),
                "finish_reason": part.finish,
            }
        ]


async def reply_to(reply: Reply, request: Request) -> Response:
    """The whole answer, or a stream once there is something to say, so that a refusal is no stream."""
    parts = reply.answering.parts()
    if not reply.asked.stream:
        whole = await _unless_gone(_all_of(parts), request)
        if whole is None:
            return Response(status_code=499)  # nobody reads it
        return JSONResponse(reply.whole(whole) | {"usage": reply.usage().model_dump()})
    first = await _unless_gone(_first_of(parts), request)
    if first is None:
        return Response(status_code=499)
    return StreamingResponse(_stream(reply, first, parts), media_type="text/event-stream")


async def _stream(reply: Reply, first: Part, parts: AsyncIterator[Part]) -> AsyncIterator[str]:
    usage = {"usage": None} if reply.asked.wants_usage else {}
    begun: set[int] = set()

    def events(part: Part) -> str:
        some = reply.events(part, part.index not in begun)
        begun.add(part.index)
        return "".join(answers.event(reply.head(reply.kind) | {"choices": [each]} | usage) for each in some)

    try:
        yield events(first)
        async for part in parts:
            if text := events(part):
                yield text
        if usage:
            counts = {"choices": [], "usage": reply.usage().model_dump()}
            yield answers.event(reply.head(reply.kind) | counts)
        yield answers.LAST_EVENT
    except Stopped:
        yield answers.event(stopped().body)
    finally:
        reply.answering.cancel()


async def _all_of(parts: AsyncIterator[Part]) -> list[Part]:
    return [part async for part in parts]


async def _first_of(parts: AsyncIterator[Part]) -> Part:
    return await anext(parts)


async def _unless_gone(work: Coroutine[Any, Any, T], request: Request) -> T | None:
    """What it gives, or None as soon as the client is gone; then it is cancelled."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else None
    except Late:
        raise ApiError(503, "it waited too long for its turn", "server_error", "timeout") from None
    except Stopped:
        raise stopped() from None
    finally:
        task.cancel()
        gone.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
