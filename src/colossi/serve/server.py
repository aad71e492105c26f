"""A process that serves, from its engine to its end."""

import os
import signal
import socket
import sys
import time
from collections.abc import Sequence

import torch
import uvicorn
from fastapi import APIRouter

from colossi.serve.api import app
from colossi.serve.door import CONNECTIONS
from colossi.serve.engine import Engine, Limits
from colossi.serve.load import Loaded
from colossi.serve.replies import Served

GRACE = 60  # seconds that running answers have to end when the server is stopped
# The engine's thread gives the interpreter away in each operation and wants it back microseconds later;
# the default of 5 ms is longer than a step.
SWITCH = 0.0005  # seconds
# Products of narrower models are over before a second thread has woken up.
WIDE = 1024
CACHE = 1 << 16  # positions, where the memory is there
CACHE_SHARE = 0.125  # of the machine's memory


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
    if served.engine.grok.model.hidden < WIDE:
        torch.set_num_threads(1)
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
