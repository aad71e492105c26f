"""Around the whole application: no request is longer than a bound, and every answer is counted."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colossi.serve.metrics import Metrics

LONGEST_BODY = 4 << 20  # bytes: far more than any model's positions of text


class Guard:
    """An ASGI application around another."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        read = 0

        async def bounded() -> Message:
            nonlocal read
            message = await receive()
            read += len(message.get("body", b""))
            if read > LONGEST_BODY:
                raise HTTPException(413, f"the request is longer than {LONGEST_BODY} bytes")
            return message

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(_route(scope), str(message["status"])).inc()
            await send(message)

        await self._app(scope, bounded, counted)


def _route(scope: Scope) -> str:
    """The path as the application has it; what it has not is one label, whatever it is."""
    route: Any = scope.get("route")
    return str(getattr(route, "path", "other"))
