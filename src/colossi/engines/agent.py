"""
`python -m colossi.engines.agent RUN --node NAME`: what runs on a node.

It keeps the node's workers and the memory for their snapshots, tells the controller what happens to them,
and does what the controller says. It decides nothing but this: a worker that does not stop when told is
killed; an agent whose controller has died waits for a new one, its workers going on; an agent that is cut off
from a controller which may well live ends its workers, as others may be in their place by now.

It imports no torch: workers are forked by a warm standby, `python -m colossi.train RUN --standby FD`.
"""

import argparse
import contextlib
import json
import os
import queue
import signal
import sys
import threading
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from colossi.acceptance.cores import CHECK_SECONDS, GLANCE_SECONDS, examine, slower
from colossi.channel import Channel, Message, Refused, pair, token_of
from colossi.engines.memory import Memory
from colossi.engines.peers import Peers, free_address
from colossi.engines.sources import sources_of
from colossi.engines.standby import start_standby
from colossi.engines.worker import Worker, in_words

BEAT_SECONDS = 1.0  # to the controller
SILENT_SECONDS = 2.0  # a worker that has not beaten so long has stopped (it beats four times a second)
STOP_SECONDS = 1.0  # a worker that was told to stop is killed after these
CUT_OFF_SECONDS = 4.0  # since the newest beat that was answered was sent: the controller, which heard that
# beat, waits for longer (SILENT_NODE_SECONDS), by enough to kill workers
PATIENCE_SECONDS = 60.0  # for a new controller, after the old one's connection ended


@dataclass(frozen=True, slots=True)
class Place:
    """Which node this is, and what it has."""

    node: str
    rack: str
    host: str  # the address that others reach it by
    interface: str  # of the network, for collectives; "" lets the library choose
    workers: int
    share: int  # nodes that share this machine's cores


class Agent:
    """One thread handles all that happens, from one queue; others only wait for things to happen."""

    def __init__(self, folder: Path, place: Place) -> None:
        self.folder, self.place, self.node = folder, place, place.node
        self.token = token_of(folder)
        self.memory = Memory()
        self.happened: queue.Queue[tuple[str, Any, Any]] = queue.Queue()
        self.controller: Channel | None = None
        self.unsent: list[Message] = []
        self.heard = self.lost_at = time.monotonic()  # heard: when the newest answered beat was sent
        self.asked: deque[tuple[Channel, float]] = deque()  # beats without an answer
        self.leaving = False  # cut off: the connection is closed when nothing runs any more
        self.workers: dict[int, Worker] = {}
        self.incarnation = 0
        self.stopping: tuple[int, float] | None = None  # incarnation, deadline
        self.ranks = 0  # of all nodes
        self.own = range(0)  # ranks of this node
        self.verify = 0  # a step whose fingerprints the controller wants
        self.numbers = 0
        self.peers = Peers(place.node, place.host, self.token, self.memory, self._tell)
        self.standby: Channel | None = None
        self.warm = False
        self.usual = 0.0  # [s] how long a piece of work took on this node when it came; 0 while not known

    def run(self) -> int:
        """Until the controller says that it is over, or there is none any more."""
        for work in (self._beat, self._glance):
            threading.Thread(target=work, daemon=True).start()
        self._start_standby()
        while True:
            with contextlib.suppress(queue.Empty):
                kind, who, message = self.happened.get(timeout=0.05)
                if kind == "controller" and not self._from_controller(who, message):
                    self._kill_all()
                    return 0
                if kind == "worker":
                    self._from_worker(who, message)
                if kind == "standby":
                    if message is None and not self.warm:
                        return 1  # it cannot even start: another would not either; its log says why
                    self._from_standby(message)
            if not self._look_after():
                self._kill_all()
                return 1

    # --- the controller -----------------------------------------------------------------------------------

    def _connect(self) -> None:
        """To the controller of the moment, whose address is in the run folder."""
        try:
            address = json.loads((self.folder / "controller.json").read_text(encoding="utf-8"))["address"]
            channel = Channel.connect(address, self.token, self._hello(), timeout=2.0)
        except (OSError, ValueError, KeyError, Refused):
            return
        self.controller, self.heard = channel, time.monotonic()
        for message in self.unsent:
            self._tell(message)
        self.unsent = []
        threading.Thread(target=self._listen_to, args=("controller", channel, channel), daemon=True).start()

    def _beat(self) -> None:
        while True:
            if (controller := self.controller) is not None:
                self.asked.append((controller, time.monotonic()))
            self._tell({"say": "beat"})
            time.sleep(BEAT_SECONDS)

    def _answered(self, channel: Channel) -> None:
        """The controller lived when it heard our oldest beat that it had not answered yet."""
        while self.asked:
            over, sent = self.asked.popleft()
            if over is channel:
                self.heard = sent
                return

    def _hello(self) -> Message:
        return {
            "node": self.node,
            "rack": self.place.rack,
            "pid": os.getpid(),
            "call": time.time(),
            "incarnation": self.incarnation if self._busy() else 0,
            "held": self.memory.held(),
            "store": free_address(self.place.host),
            "data": self.peers.address,
        }

    def _tell(self, message: Message) -> None:
        """Now, or when there is a controller again."""
        try:
            if self.controller is not None:
                self.controller.send(message)
                return
        except OSError:
            pass
        if message["say"] not in ("beat", "step"):
            self.unsent.append(message)

    def stop_wanted(self, why: str) -> None:
        """A scheduler wants this node back; any thread may say so."""
        self._tell({"say": "stop_wanted", "why": why})

    def _from_controller(self, channel: Channel, message: Message | None) -> bool:
        """False when it is over."""
        if channel is not self.controller:
            return True
        if message is None:
            self.controller, self.lost_at, self.leaving = None, time.monotonic(), False
            return True
        kind = message["do"]
        if kind == "start":
            self._start(message)
        elif kind == "stop":
            self._stop(message["incarnation"])
        elif kind == "wish":
            for worker in self.workers.values():
                if worker.rank is not None:
                    worker.tell(message)
        elif kind == "fault":
            for worker in self.workers.values():
                if worker.rank == message["rank"]:
                    worker.fault(message)
        elif kind == "check":
            threading.Thread(target=self._check, daemon=True).start()
        return bool(kind != "quit")

    def _glance(self) -> None:
        self.usual = examine(GLANCE_SECONDS).seconds

    def _check(self) -> None:
        """Nothing runs here meanwhile; whether it ever will again depends on the answer."""
        finding = examine(CHECK_SECONDS)
        self._tell({"say": "checked", "why": finding.why or slower(finding.seconds, self.usual)})

    def _look_after(self) -> bool:
        """What is due; False when nobody needs this node any more."""
        now = time.monotonic()
        if self.controller is None and self.warm:  # before that we are of no use
            self._connect()
        elif self.controller is not None and not self.leaving and now - self.heard > CUT_OFF_SECONDS:
            self.leaving = True  # it may live, and will replace us
            self._stop(self.incarnation, patience=0.0)
        for worker in self.workers.values():
            silent = now - worker.heard if worker.heard is not None else 0.0
            if worker.rank is not None and not worker.hung and silent > SILENT_SECONDS:
                worker.hung = True
                self._report(worker.rank, {"say": "hung", "seconds": silent})
        if self.stopping is not None:
            self._finish_stopping(now)
        return self.controller is not None or now - self.lost_at < PATIENCE_SECONDS

    # --- workers ------------------------------------------------------------------------------------------

    def _start_standby(self) -> None:
        """A process that imports torch now and forks workers later."""
        log = self.folder / "logs" / f"{self.node}.log"
        self.standby = start_standby(self.folder, log, self.place.interface)
        threading.Thread(
            target=self._listen_to, args=("standby", self.standby, self.standby), daemon=True
        ).start()

    def _fork(self) -> Worker:
        mine, its = pair()
        self.numbers += 1
        worker = Worker(self.numbers, Channel(mine))
        assert self.standby is not None
        self.standby.send({"worker": worker.number}, files=[its.fileno()])
        its.close()
        self.workers[worker.number] = worker
        threading.Thread(target=self._listen_to, args=("worker", worker, worker.channel), daemon=True).start()
        return worker

    def _start(self, order: Message) -> None:
        """The part of this node in an incarnation."""
        self.incarnation, self.stopping = order["incarnation"], None
        self.verify, self.ranks = order["verify"], order["ranks"]
        restore = order["restore"]
        self.peers.set_buddy(order["buddy"])
        self.memory.begin(order["copy_ranks"], restore)
        ranks = self.own = range(order["first"], order["first"] + self.place.workers)
        # A process keeps its rank: to torch's DTensor a mesh of another incarnation is the same if its ranks
        # are, with this process's old place in it.
        idle = {w.was: w for w in self.workers.values() if w.rank is None and not w.hung}
        for worker in [worker for was, worker in idle.items() if was not in ranks]:
            worker.kill()
        cores = len(os.sched_getaffinity(0))  # that we may use: a scheduler may have given us some of all
        for local_rank, rank in enumerate(ranks):
            worker = idle.get(rank) or self._fork()
            worker.rank = worker.was = rank
            sources, files = sources_of(order, rank, self.memory, self.token, self.peers.address)
            worker.channel.send(
                {
                    "do": "start",
                    "incarnation": self.incarnation,
                    "rank": rank,
                    "ranks": order["ranks"],
                    "local_rank": local_rank,
                    "threads": max(1, cores // (self.place.workers * self.place.share)),
                    "store": order["store"],
                    "replicate": order["replicate"],
                    "restore": restore,
                    "sources": sources,
                    "fetched": str(rank) in order["fetch"],
                    "alike_nearby": order["copy_ranks"] <= self.place.workers,
                },
                files=files,
            )
            if order["sources"] is not None:  # made for this worker; a region's own descriptor stays open
                for descriptor in files:
                    os.close(descriptor)

    def _stop(self, incarnation: int, patience: float = STOP_SECONDS) -> None:
        """All workers idle or dead; the answer follows."""
        self.stopping = (incarnation, time.monotonic() + patience)
        for worker in list(self.workers.values()):
            if worker.hung or not patience:
                worker.kill()
            elif worker.rank is not None:
                worker.tell({"do": "stop", "incarnation": incarnation})
        self._finish_stopping(time.monotonic())

    def _finish_stopping(self, now: float) -> None:
        assert self.stopping is not None
        incarnation, deadline = self.stopping
        busy = self._busy()
        if busy and now > deadline:
            for worker in busy:
                worker.kill()
        if not busy:
            self.stopping = None
            if self.leaving and self.controller is not None:
                self.controller.close()
                self.controller, self.lost_at, self.leaving = None, now, False
                return  # the next hello says that nothing runs here
            self._tell(
                {
                    "say": "stopped",
                    "incarnation": incarnation,
                    "held": self.memory.held(),
                    "store": free_address(self.place.host),
                }
            )

    def _busy(self) -> list[Worker]:
        """Those that run."""
        return [worker for worker in list(self.workers.values()) if worker.rank is not None]

    def _kill_all(self) -> None:
        for worker in self.workers.values():
            worker.kill()
        if self.standby is not None:
            self.standby.close()

    # --- what comes in ------------------------------------------------------------------------------------

    def _listen_to(self, kind: str, who: Any, channel: Channel) -> None:
        message: Message | None = {}
        while message is not None:
            try:
                message = channel.receive()
            except (OSError, ValueError):
                message = None
            # Here, not when it is handled: fetching a snapshot may keep the handling thread for seconds.
            if kind == "controller" and message is not None and message["do"] == "beat":
                self._answered(channel)
            elif kind == "worker":
                who.heard = time.monotonic()
            self.happened.put((kind, who, message))

    def _from_standby(self, message: Message | None) -> None:
        if message is None:  # killed; its workers with it, as they live by it
            self._kill_all()
            for worker in list(self.workers.values()):
                self._exited(worker, "lost its standby")
            self._start_standby()
        elif message["say"] == "warm":
            self.warm = True
        elif message["say"] == "forked":
            if forked := self.workers.get(message["worker"]):
                forked.pid = message["pid"]
        elif message["say"] == "exited":
            for worker in list(self.workers.values()):
                if worker.pid == message["pid"]:
                    self._exited(worker, in_words(message["code"]))

    def _exited(self, worker: Worker, how: str) -> None:
        del self.workers[worker.number]
        worker.channel.close()
        if worker.rank is not None and self.stopping is None:
            why = worker.why or how
            self._report(worker.rank, {"say": "exited", "why": why})

    def _from_worker(self, worker: Worker, message: Message | None) -> None:
        if message is None or worker.number not in self.workers:
            return  # its exit is told by the standby
        kind, rank = message["say"], worker.rank
        if kind == "stopped":
            if message["incarnation"] == self.incarnation:
                worker.rank = None
        elif rank is None or kind == "beat":
            return
        elif kind == "region":
            region = self.memory.region(rank, message["manifest"])
            worker.channel.send({"do": "region", "slot": region.to_overwrite()}, files=[region.descriptor])
        elif kind == "writing":
            self.memory.writing(rank, message["slot"])
        elif kind == "snapshot":
            origin = (self.incarnation, self.ranks)
            self.memory.written(rank, message["slot"], message["step"], tuple(message["sums"]), origin)
            self.memory.keep_only(self.own)  # those of a worker that has just died, too
            replicated = {"do": "replicated", "step": message["step"]}
            self.peers.replicate(rank, message["step"], lambda: worker.channel.send(replicated))
            if message["step"] == self.verify:
                self._report(rank, message | {"say": "fingerprint"})
        elif kind == "damaged":
            self.memory.discard(rank, message["step"])
        elif kind == "failed":
            worker.why = message["why"]
            if message["fatal"]:
                self._report(rank, message)
        else:  # step, checkpoint, done, corrupted: for the controller
            self._report(rank, message)

    def _report(self, rank: int, message: Message) -> None:
        self._tell(message | {"rank": rank, "incarnation": self.incarnation})


def main() -> int:
    """The exit code: 0 when the controller said that it is over."""
    parser = argparse.ArgumentParser(prog="python -m colossi.engines.agent")
    parser.add_argument("run", type=Path)
    parser.add_argument("--node", required=True)
    parser.add_argument("--rack", default="")
    parser.add_argument("--host", default="127.0.0.1", help="the address that others reach this node by")
    parser.add_argument("--interface", default="", help="the network interface for collectives")
    parser.add_argument("--workers", type=int, default=1, help="on this node")
    parser.add_argument("--share", type=int, default=1, help="nodes that share this machine's cores")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    place = Place(given.node, given.rack, given.host, given.interface, given.workers, given.share)
    return Agent(given.run, place).run()


if __name__ == "__main__":
    sys.exit(main())
