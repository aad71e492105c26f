"""A web application on a port, until Ctrl-C."""

import socket
from collections.abc import Callable
from contextlib import suppress

import uvicorn
from fastapi import FastAPI

from colossi.errors import BadInput


def listen(app: FastAPI, host: str, port: int, tell: Callable[[str], None]) -> None:
    """Serve it; `tell` hears the address as soon as the port is ours. BadInput where it is not to be had."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        door = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise BadInput(
            f"--host {host} --port {port}: {error.strerror}", "--port 0 takes a free one"
        ) from error
    shown = f"[{host}]" if family == socket.AF_INET6 else host
    tell(f"http://{shown}:{door.getsockname()[1]}/")
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=2))
    with door, suppress(KeyboardInterrupt):
        server.run(sockets=[door])
