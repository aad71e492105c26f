"""
A stand-in for a server of OpenAI's API that streams what a test wants, as slowly as it wants.

It is not a model: it is here so that an answer can be Markdown, can fail half-way and can be stopped. The
page before the real server is tested in test_chat_server.py.
"""

import asyncio
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse

from colossi.web.chat import chat_page


@dataclass
class StandIn:
    """What it shall say, and what it was asked."""

    answer: str = "Hello."
    pause: float = 0.0  # [s] between pieces
    key: str = ""
    breaks_after: int | None = None  # pieces
    asked: list[dict[str, Any]] = field(default_factory=list)
    gone: int = 0  # clients that went away before the end


def app_of(stand_in: StandIn) -> FastAPI:
    app = FastAPI()
    app.include_router(chat_page())

    def refused(request: Request) -> Response | None:
        if not stand_in.key or request.headers.get("authorization") == f"Bearer {stand_in.key}":
            return None
        return JSONResponse({"error": {"message": "a key is needed", "code": "invalid_api_key"}}, 401)

    @app.get("/v1/models")
    def models(request: Request) -> Any:
        return refused(request) or {"object": "list", "data": [{"id": "stand-in", "object": "model"}]}

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        if no := refused(request):
            return no
        stand_in.asked.append(await request.json())
        return StreamingResponse(pieces(), media_type="text/event-stream")

    async def pieces() -> AsyncIterator[str]:
        words = stand_in.answer.split(" ")
        try:
            for number, word in enumerate(words):
                if number == stand_in.breaks_after:
                    return
                yield chunk({"content": word if number == 0 else f" {word}"}, None)
                await asyncio.sleep(stand_in.pause)
            yield chunk({}, "stop")
            yield "data: [DONE]\n\n"
        except asyncio.CancelledError:
            stand_in.gone += 1
            raise

    return app


def chunk(delta: dict[str, str], finish: str | None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return "data: " + json.dumps({"object": "chat.completion.chunk", "choices": [choice]}) + "\n\n"


@contextmanager
def listening(app: FastAPI) -> Iterator[str]:
    """The application on a free port, in a thread; its address."""
    with socket.create_server(("127.0.0.1", 0)) as door:
        server = uvicorn.Server(uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [door]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield f"http://127.0.0.1:{door.getsockname()[1]}/"
        server.should_exit = True
        thread.join(10)
