"""
A worker's connection to the agent of its node: orders come in, signs of life and news go out.

A thread listens, so that an order to stop reaches a worker that waits in a collective for a peer that is
gone: its connections to the others are shut, which is what the death of a peer looks like, and a signal
interrupts what the main thread does. Another thread says every quarter of a second that the worker lives.
"""

import contextlib
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

from colossi.channel import Channel

BEAT_SECONDS = 0.25
NUDGE_SECONDS = 0.05  # between signals to a main thread that has not yet noticed
CHECKPOINT, SAVE_AND_STOP = 1, 2  # wishes, as bits


class Interrupted(BaseException):
    """The incarnation is over: the state in memory is no longer of use. No Exception: nothing may eat it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A worker's part in an incarnation, and the files (descriptors) that came with it."""

    incarnation: int
    rank: int
    ranks: int
    local_rank: int
    threads: int  # its share of the cores
    store: str  # host:port of the rendezvous
    replicate: int  # copies of the model
    restore: int  # a step in memory, or -1: the newest checkpoint
    sources: list[dict[str, Any]]  # of the snapshots to restore from: manifest, sums, and where in which file
    fetched: bool  # the sources came from another node
    alike_nearby: bool  # every node has workers with each part of the model
    files: list[int] = field(default_factory=list)


class Link:
    """The worker's end. One incarnation at a time."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.orders: queue.Queue[Order] = queue.Queue()
        self.regions: queue.Queue[tuple[int, int]] = queue.Queue()
        self.wishes = 0
        self.faults: queue.Queue[dict[str, Any]] = queue.Queue()  # made on purpose, by --chaos
        self._current = 0  # the incarnation that is on; 0 for none
        self._stopped = 0  # all up to this one must end
        self._sheltered = 0
        self._ending = False
        self._before: set[int] = set()
        self._connections: list[int] = []
        self._replicated = 0
        self._news = threading.Condition()
        self._main = threading.main_thread().ident or 0

    def listen(self) -> None:
        """From now on, in threads of their own."""
        signal.signal(signal.SIGUSR1, self._on_nudge)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the controller
        for name, work in (("orders", self._receive), ("pulse", self._beat)):
            threading.Thread(target=work, name=name, daemon=True).start()

    def say(self, kind: str, **data: Any) -> None:
        """Tell the agent."""
        with contextlib.suppress(OSError):  # without an agent there is nobody to tell, and soon no worker
            self.channel.send({"say": kind} | data)

    def region(self, **wanted: Any) -> tuple[int, int]:
        """Ask the agent for memory: its descriptor, and which of its two slots may be overwritten first."""
        self.say("region", **wanted)
        while True:
            with contextlib.suppress(queue.Empty):
                return self.regions.get(timeout=0.05)

    def take_wish(self, wish: int) -> int:
        """The wish if it was made, and then it is forgotten."""
        made = self.wishes & wish
        self.wishes &= ~wish
        return made

    @contextlib.contextmanager
    def incarnation(self, number: int) -> Iterator[None]:
        """Inside, an order to stop raises Interrupted in the main thread."""
        self._connections, self._before = [], _sockets()
        self._current, self._ending = number, False
        try:
            self._raise_if_stopped()
            yield
        finally:
            self._current = 0

    def connected(self) -> None:
        """All groups are formed: what was opened since `incarnation` is what to shut when it must end."""
        self._connections = sorted(_sockets() - self._before)

    def ending(self) -> None:
        """It is over for another reason, or we know already: no interruption while we clear up."""
        self._ending = True

    @contextlib.contextmanager
    def sheltered(self) -> Iterator[None]:
        """What stands here happens wholly or not at all."""
        self._sheltered += 1
        try:
            yield
        finally:
            self._sheltered -= 1
        self._raise_if_stopped()

    def wait_for_replica(self, step: int) -> None:
        """Until the agent says that the buddy has it (or that there is none)."""
        with self._news:
            while self._replicated < step and not self._must_stop():
                self._news.wait(0.05)
        self._raise_if_stopped()

    def wait_for_stop(self, seconds: float) -> None:
        """Give an order to stop the time to arrive."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._must_stop():
                raise Interrupted
            time.sleep(0.01)

    def _must_stop(self) -> bool:
        return 0 < self._current <= self._stopped

    def _raise_if_stopped(self) -> None:
        if self._must_stop() and not self._sheltered and not self._ending:
            raise Interrupted

    def _on_nudge(self, number: int, frame: FrameType | None) -> None:
        self._raise_if_stopped()

    def _receive(self) -> None:
        while True:
            message, files = self.channel.receive_with_files()
            if message is None:
                os._exit(3)  # without its agent a worker has no node
            kind = message.pop("do")
            if kind == "start":
                self.wishes, self._replicated = 0, 0
                self.orders.put(Order(**message, files=files))
            elif kind == "region":
                self.regions.put((files[0], message["slot"]))
            elif kind == "stop":
                self._stop(message["incarnation"])
            elif kind == "replicated":
                with self._news:
                    self._replicated = max(self._replicated, message["step"])
                    self._news.notify_all()
            elif kind == "wish":
                self.wishes |= CHECKPOINT if message["wish"] == "checkpoint" else SAVE_AND_STOP
            elif kind == "fault":
                self.faults.put(message)

    def _stop(self, incarnation: int) -> None:
        """Wake the main thread, wherever it is; it answers. Idle, the answer is ours."""
        self._stopped = incarnation
        if self._must_stop():
            threading.Thread(target=self._nudge, name="nudge", daemon=True).start()
        else:
            self.say("stopped", incarnation=incarnation)

    def _nudge(self) -> None:
        while self._must_stop() and not self._ending:
            for descriptor in self._connections or sorted(_sockets() - self._before):
                _shut(descriptor)
            signal.pthread_kill(self._main, signal.SIGUSR1)
            with self._news:
                self._news.notify_all()
            time.sleep(NUDGE_SECONDS)

    def _beat(self) -> None:
        while True:
            self.say("beat")
            time.sleep(BEAT_SECONDS)


def _sockets() -> set[int]:
    """The descriptors of this process that are sockets of the network."""
    found = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError), _borrowed(int(name)) as each:
            if each.family != socket.AF_UNIX:
                found.add(int(name))
    return found


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A socket of somebody else, which stays open; an OSError for what is no socket."""
    each = socket.socket(fileno=descriptor)
    try:
        yield each
    finally:
        each.detach()


def _shut(descriptor: int) -> None:
    """gloo cannot abort a collective; a connection that ends makes it fail at once.

    Its listening sockets (without a peer, so an OSError here) must stay: it dies of a broken one.
    """
    with contextlib.suppress(OSError), _borrowed(descriptor) as each:
        each.getpeername()
        each.shutdown(socket.SHUT_RDWR)
