"""
Snapshots between nodes: an agent brings copies of its own to its buddy, and serves what others must restore.

Agents speak to each other over one authenticated channel each (see channel.py); the bytes follow the message.
"""

import contextlib
import queue
import socket
import threading
from collections.abc import Callable

from colossi.channel import Channel, Message, Refused
from colossi.engines.memory import Copy, Memory, Whole


class Peers:
    """An agent's side of it; the threads live as long as the process."""

    def __init__(
        self, node: str, host: str, token: bytes, memory: Memory, tell: Callable[[Message], None]
    ) -> None:
        self.node, self.token, self.memory, self.tell = node, token, memory, tell
        self.listening = socket.create_server((host, 0), backlog=128)
        self.address = "{}:{}".format(*self.listening.getsockname()[:2])
        self._buddy = ""
        self._to_buddy: Channel | None = None
        self._copies: queue.Queue[tuple[int, int, Callable[[], None]]] = queue.Queue()
        for work in (self._serve, self._replicate):
            threading.Thread(target=work, daemon=True).start()

    def set_buddy(self, address: str) -> None:
        """Who keeps copies from now on; "" for nobody."""
        old, self._to_buddy, self._buddy = self._to_buddy, None, address
        if old is not None:
            old.close()  # should it not answer, nobody waits for it any more

    def replicate(self, rank: int, step: int, then: Callable[[], None]) -> None:
        """Send a snapshot to the buddy, and `then` when it is there, or when it cannot be."""
        self._copies.put((rank, step, then))

    def _replicate(self) -> None:
        while True:
            rank, step, then = self._copies.get()
            try:
                self._send_copy(rank, step)
            except (
                OSError,
                Refused,
                ValueError,
            ):  # as a rule the buddy is lost, and the controller will say so
                self._to_buddy = None
            with contextlib.suppress(OSError):
                then()

    def _send_copy(self, rank: int, step: int) -> None:
        found = self.memory.local(rank, step)
        if found is None or not self._buddy:
            return
        to = self._to_buddy = self._to_buddy or Channel.connect(self._buddy, self.token, {"node": self.node})
        region, number = found
        slot, unique = region.slots[number], region.manifest["unique"]
        what = {"rank": rank, "step": step, "manifest": region.manifest}
        to.send(
            {"do": "keep", "sums": slot.sums, "origin": slot.origin} | what,
            region.view(number)[:unique],
        )
        if to.receive() is None:
            raise OSError("the buddy is gone")

    def _serve(self) -> None:
        while True:
            connected, _ = self.listening.accept()
            threading.Thread(target=self._serve_one, args=(connected,), daemon=True).start()

    def _serve_one(self, connected: socket.socket) -> None:
        """Another agent, until it goes."""
        with connected, contextlib.suppress(OSError, ValueError):
            try:
                channel, _ = Channel.accept(connected, self.token)
            except Refused as why:
                self.tell({"say": "refused", "peer": str(connected.getpeername()[0]), "why": str(why)})
                return
            while (message := channel.receive()) is not None:
                if message["do"] == "keep":
                    self._keep(channel, message)
                elif message["do"] == "get":
                    self._give(channel, message)

    def _keep(self, channel: Channel, message: Message) -> None:
        unique = bytearray(message.get("bytes", 0))
        if channel.read_into(memoryview(unique)):
            copy = Copy(message["manifest"], tuple(message["sums"]), tuple(message["origin"]), unique)
            self.memory.keep(message["rank"], message["step"], copy)
            channel.send({"kept": True})

    def _give(self, channel: Channel, message: Message) -> None:
        whole = self.memory.get(message["rank"], message["step"])
        if whole is None:
            channel.send({"found": False})
            return
        sizes = [len(piece) for piece in whole.pieces]
        answer = {"found": True, "manifest": whole.manifest, "sums": whole.sums}
        channel.send(answer | {"origin": whole.origin, "sizes": sizes})
        for piece in whole.pieces:
            channel.socket.sendall(piece)


def fetch_snapshot(address: str, token: bytes, rank: int, step: int) -> Whole | None:
    """From the memory of another agent; None if it cannot be had."""
    try:
        channel = Channel.connect(address, token, {"node": "fetch"})
        channel.send({"do": "get", "rank": rank, "step": step})
        answer = channel.receive()
        if answer is None or not answer["found"]:
            return None
        pieces = tuple(bytearray(size) for size in answer["sizes"])
        if not all(channel.read_into(memoryview(piece)) for piece in pieces):
            return None
        channel.close()
        return Whole(answer["manifest"], tuple(answer["sums"]), tuple(answer["origin"]), pieces)
    except (OSError, ValueError, Refused):
        return None


def free_address(host: str) -> str:
    """Where rank 0 of the next incarnation can meet the others. Taken by then, another follows."""
    with socket.create_server((host, 0)) as probe:
        return "{}:{}".format(*probe.getsockname()[:2])
