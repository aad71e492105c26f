"""
The agents of a large fleet, played by one thread: they join, beat, and answer what the controller tells them.

Quick rather than thorough, as their time is part of what is measured: orders are searched for the few values
that matter, and answers are written by hand.
"""

import json
import os
import select
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colossi.channel import LENGTH, Channel, Message, frame, token_of

PER_NODE = 8
BEAT_SECONDS = 5.0


def hello_of(number: int) -> Message:
    """What an agent says first; each has an address of its own for snapshots."""
    return {
        "node": f"node-{number:05}",
        "rack": f"rack-{number // 100}",
        "pid": 0,
        "incarnation": 0,
        "held": [],
        "store": "127.0.0.1:1",
        "data": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1",
    }


class Told:
    """What the agents of a fleet have been told, and what they answer; quick, as its time is measured too."""

    def __init__(self, agents: int) -> None:
        self.incarnation = 0
        self.told = 0  # so many have been told to start it
        self.addresses = [hello_of(n)["data"].encode() for n in range(agents)]
        self.first: dict[int, int] = {}  # agent -> the first rank of its place
        self.agent_of: dict[int, int] = {}
        self.ward: dict[
            bytes, int
        ] = {}  # address for snapshots -> the first rank of the place it is buddy of

    def start(self, agent: int, order: bytes) -> None:
        """The JSON of an order to start."""
        incarnation = int(_after(order, b'"incarnation": '))
        if incarnation != self.incarnation:
            self.incarnation, self.told = incarnation, 0
        self.told += 1
        first = int(_after(order, b'"first": '))
        self.first[agent], self.agent_of[first] = first, agent
        self.ward[_after(order, b'"buddy": ').strip(b'"')] = first

    def stopped(self, agent: int) -> bytes:
        """Each incarnation does one step; a node has two steps of its own ranks and two of its buddy's."""
        new, ranks = self.incarnation, PER_NODE * len(self.first)
        own = self.first[agent]
        ward = self.ward[self.addresses[agent]]
        body = b'{"say": "stopped", "incarnation": %d, "held": [' % new
        if new > 1:
            old = new - 1
            body += b"[%d, %d, %d, %d, %d], " % (old, ranks, own, old, PER_NODE)
            body += b"[%d, %d, %d, %d, %d], " % (old, ranks, ward, old, PER_NODE)
        body += b"[%d, %d, %d, %d, %d], " % (new, ranks, own, new, PER_NODE)
        body += b"[%d, %d, %d, %d, %d]" % (new, ranks, ward, new, PER_NODE)
        body += b'], "store": "127.0.0.1:1"}'
        return LENGTH.pack(len(body)) + body

    def step(self) -> bytes:
        """Of rank 0."""
        n = self.incarnation
        return frame({"say": "step", "rank": 0, "incarnation": n, "step": n, "busy": []})

    def exited(self, rank: int) -> bytes:
        """A worker that was killed."""
        why = "killed by SIGKILL"
        return frame({"say": "exited", "rank": rank, "incarnation": self.incarnation, "why": why})


def _after(order: bytes, key: bytes) -> bytes:
    """The value of a key, which is no list."""
    start = order.index(key) + len(key)
    return order[start : order.index(b",", start)]


class Peers:
    """All agents, in one thread."""

    def __init__(self, folder: Path, agents: int, used: int) -> None:
        address = json.loads((folder / "controller.json").read_text())["address"]
        token = token_of(folder)
        self.used, self.told = used, Told(agents)
        self.sent: dict[int, float] = {}  # agents that failed, and when
        self.failed: list[tuple[int, float]] = []  # incarnation, when
        self.stops: list[float] = []
        self.starts: list[float] = []
        self.channels: list[Channel] = []
        self.agents: dict[int, int] = {}  # file descriptor -> agent
        self.rest: dict[int, bytes] = {}  # of an agent's next message
        self.poll = select.epoll()
        self.begun, self.beaten = time.monotonic(), 0
        with ThreadPoolExecutor(8) as threads:
            for first in range(0, agents, 200):
                some = range(first, min(first + 200, agents))
                for channel in threads.map(
                    lambda n: Channel.connect(address, token, hello_of(n), 60.0), some
                ):
                    self.agents[channel.socket.fileno()] = len(self.channels)
                    self.channels.append(channel)
                    self.poll.register(channel.socket.fileno(), select.EPOLLIN)
                self.live(time.monotonic() + 0.001)

    def live(self, until: float) -> None:
        """Beat and answer, until then."""
        beat, agents = frame({"say": "beat"}), len(self.channels)
        while (now := time.monotonic()) < until:
            due = int((now - self.begun) / BEAT_SECONDS * agents)
            for number in range(self.beaten, due):
                self.channels[number % agents].socket.send(beat)
            self.beaten = due
            for descriptor, _ in self.poll.poll(min(0.01, until - now)):
                agent = self.agents[descriptor]
                self.heard(agent, self.rest.pop(agent, b"") + os.read(descriptor, 1 << 12))

    def heard(self, agent: int, data: bytes) -> None:
        at = 0
        while len(data) >= at + LENGTH.size:
            end = at + LENGTH.size + LENGTH.unpack_from(data, at)[0]
            if len(data) < end:
                break
            self.order(agent, data[at + LENGTH.size : end])
            at = end
        if at < len(data):
            self.rest[agent] = data[at:]

    def order(self, agent: int, order: bytes) -> None:
        line = self.channels[agent].socket
        if order.startswith(b'{"do": "stop"'):
            if agent in self.sent:
                self.stops.append(time.monotonic() - self.sent.pop(agent))
            line.send(self.told.stopped(agent))
        elif order.startswith(b'{"do": "start"'):
            self.told.start(agent, order)
            if self.told.first[agent] == 0:
                line.send(self.told.step())
            if self.told.told == self.used:
                now = time.monotonic()
                over = [failure for failure in self.failed if failure[0] < self.told.incarnation]
                self.starts += [now - sent for _, sent in over]
                self.failed = [failure for failure in self.failed if failure not in over]

    def fail(self, first: int) -> None:
        """A worker of the node at a place, in the incarnation that the node knows."""
        agent = self.told.agent_of[first]
        self.sent[agent] = time.monotonic()
        self.failed.append((self.told.incarnation, self.sent[agent]))
        self.channels[agent].socket.send(self.told.exited(first))
