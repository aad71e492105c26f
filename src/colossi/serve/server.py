"""A process that serves: its socket, its keys, its end."""

import ipaddress
import os
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import uvicorn
from fastapi import APIRouter

from colossi.errors import BadInput
from colossi.serve.api import app
from colossi.serve.engine import Engine, Limits
from colossi.serve.load import Loaded
from colossi.serve.replies import Served

GRACE = 60  # seconds that running answers have to end when the server is stopped
CONNECTIONS = 1024
CACHE = 1 << 16  # positions, where the memory is there
CACHE_SHARE = 0.125  # of the machine's memory


def read_keys(path: Path) -> frozenset[str]:
    """One key a line; empty lines and those that begin with # are none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise BadInput(f"{path}: cannot be read: {error}", "give a file with a key on each line") from None
    keys = {line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")}
    if not keys:
        raise BadInput(f"{path}: has no key", "write one on each line")
    return frozenset(keys)


def listen(host: str, port: int, keys: bool) -> socket.socket:
    """A socket that listens; refused beyond loopback where everybody could ask."""
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    except OSError as error:
        raise BadInput(f"--host {host}: {error}", "give an address of this machine") from None
    if not keys and not ipaddress.ip_address(str(address[0])).is_loopback:
        raise BadInput(f"--host {host}: everybody there could ask", "give --keys FILE, or leave --host out")
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind(address)
        sock.listen(CONNECTIONS)
    except OSError as error:
        sock.close()
        raise BadInput(f"{host}:{port}: {error.strerror}", "give another --port, or 0 for any") from None
    return sock


def serving(loaded: Loaded, name: str, keys: frozenset[str], batch: int, queue: int) -> Served:
    """An engine with as large a cache as `CACHE` and the memory allow."""
    model = loaded.grok.model
    per_position = 2 * 4 * model.layers * model.kv_heads * model.head_dim  # bytes: k and v in float32
    room = int(CACHE_SHARE * os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")) // per_position
    cache = min(max(CACHE, model.max_positions), room)
    limits = Limits(running=batch, waiting=queue, cache=cache)
    return Served(Engine(loaded.grok, limits), loaded.tokenizer, name, int(time.time()), keys)


def run(served: Served, sock: socket.socket, pages: Sequence[APIRouter] = ()) -> None:
    """Answer until SIGTERM or Ctrl-C; what runs then is finished, what is new is refused."""
    config = uvicorn.Config(
        app(served, pages),
        log_level="warning",
        access_log=False,
        timeout_graceful_shutdown=GRACE,
        limit_concurrency=CONNECTIONS,
        server_header=False,
    )
    sys.setswitchinterval(SWITCH)
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn sends itself again what it was stopped by
        signal.signal(number, lambda *_: None)
    uvicorn.Server(config).run(sockets=[sock])


# The engine's thread gives the interpreter away in each operation and wants it back microseconds later;
# the default of 5 ms is longer than a step.
SWITCH = 0.0005  # seconds
