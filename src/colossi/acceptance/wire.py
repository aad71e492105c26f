"""
How fast two nodes are together: blocks sent there and back over TCP, for a given time.

Each side must receive and send all, so the rate is that of the slower one; a node that is held up by anything
(its processor, its memory, its network) holds up every pair that it is in. One stream of Python is far from
what a fast network can do: the figure compares nodes, it is not the network's peak.
"""

import contextlib
import socket
import threading
import time

from colossi.acceptance.result import Result
from colossi.channel import Channel, Refused

BLOCK = 1 << 20  # [B]
SILENT_SECONDS = 10.0  # a peer that does not go on for so long is gone
LOOPBACK_SECONDS = 0.1
LOOPBACK_TRIES = 5


class Echo:
    """A node's open ear: whoever proves to know the token gets back what it sends."""

    def __init__(self, host: str, token: bytes) -> None:
        self._token = token
        self._listening = socket.create_server((host, 0), backlog=128)
        self.address = "{}:{}".format(*self._listening.getsockname()[:2])
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listening.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                connected, _ = self._listening.accept()
                threading.Thread(target=self._echo, args=(connected,), daemon=True).start()

    def _echo(self, connected: socket.socket) -> None:
        block = memoryview(bytearray(BLOCK))
        with connected, contextlib.suppress(OSError, Refused):
            channel, _ = Channel.accept(connected, self._token)
            channel.socket.settimeout(SILENT_SECONDS)
            while channel.read_into(block):
                channel.socket.sendall(block)


def exchange(address: str, token: bytes, seconds: float) -> float:
    """Bytes a second, each counted once in each direction; an OSError or Refused if it cannot be."""
    channel = Channel.connect(address, token, {"node": "pair"}, timeout=SILENT_SECONDS)
    block, sent = memoryview(bytearray(BLOCK)), 0
    try:
        channel.socket.settimeout(SILENT_SECONDS)
        begun = time.perf_counter()
        while (spent := time.perf_counter() - begun) < seconds:
            channel.socket.sendall(block)
            if not channel.read_into(block):
                raise OSError("the other side is gone")
            sent += BLOCK
    finally:
        channel.close()
    return 2 * sent / spent


def loopback() -> list[Result]:
    """This node with itself: what no network takes part in."""
    token = b"loopback"
    echo = Echo("127.0.0.1", token)
    try:  # the best of some, as for memory: others may use the cores meanwhile
        best = max(exchange(echo.address, token, LOOPBACK_SECONDS) for _ in range(LOOPBACK_TRIES))
        return [Result("loopback.rate", value=best, unit="B/s")]
    finally:
        echo.close()
