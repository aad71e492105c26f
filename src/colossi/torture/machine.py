"""
A node as the storms see it: an agent that keeps to the protocol of engines/agent.py, workers, and a memory.

The agent's real part here is its memory (engines/memory.py); its processes, threads and sockets are modelled.
Times of the protocol are those of agent.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from colossi.channel import Message
from colossi.engines.agent import CUT_OFF_SECONDS, PATIENCE_SECONDS, SILENT_SECONDS, STOP_SECONDS
from colossi.engines.memory import Memory
from colossi.engines.sources import of_another_world, of_this_world
from colossi.torture.state import Manifest, copy_to, take, take_from
from colossi.torture.wire import Wire

if TYPE_CHECKING:
    from colossi.torture.gang import Gang
    from colossi.torture.site import Site

LOOK_SECONDS = 0.05  # an agent looks around so often


@dataclass(slots=True)
class Worker:
    """A process with a rank; one that is gone is forgotten."""

    rank: int
    incarnation: int
    state: Literal["works", "stands", "hangs"] = "works"  # stands: in a collective; hangs: as a process


class Machine:
    """Up or down. Each life of its agent has a number; what belongs to an earlier one does not happen."""

    def __init__(self, site: "Site", name: str, rack: str) -> None:
        self.site, self.clock, self.name, self.rack = site, site.clock, name, rack
        self.up, self.life = False, 0
        self.frozen = self.up_held = self.down_held = self.apart = 0.0  # [s] until when
        self.mute = False  # its kernel ends no process any more
        self.broken = False  # it fails its checks
        self.slow_until = 0.0
        self.flips: int = 0  # results that will be wrong
        self._born()

    def _born(self) -> None:
        self.memory = Memory()
        self.line: Wire | None = None
        self.workers: dict[int, Worker] = {}
        self.ranks = range(0)
        self.incarnation = 0
        self.stopping: tuple[int, float] | None = None
        self.unsent: list[Message] = []
        self.heard = self.lost_at = self.clock.now()
        self.gang: Gang | None = None
        self.verify = 0
        self.leaving = False
        self.orphaned = False  # its connection has ended, it does not know why, and its workers go on

    @property
    def address(self) -> str:
        """Where other agents find this life of it."""
        return f"{self.name}/{self.life}"

    @property
    def awake(self) -> bool:
        """Whether its processes run."""
        return self.up and self.frozen <= self.clock.now()

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """In this life of it, and not while it is frozen."""
        self.clock.later(seconds, self._if_awake, self.life, call, *arguments)

    def _if_awake(self, life: int, call: Callable[..., None], *arguments: Any) -> None:
        if life != self.life:
            return
        if self.frozen > self.clock.now():
            self.clock.later(self.frozen - self.clock.now(), self._if_awake, life, call, *arguments)
        else:
            call(*arguments)

    # --- it comes and goes --------------------------------------------------------------------------------

    def boot(self) -> None:
        """Its agent starts, and knows nothing."""
        if self.up:
            return
        self.up, self.mute = True, False
        self.frozen = self.up_held = self.down_held = self.apart = 0.0
        self.life += 1
        self._born()
        self.site.tell(f"{self.name} comes")
        self.later(self.site.draw.uniform(0.2, 3.0), self._connect)

    def die(self, why: str, silently: bool = False) -> None:
        """Its agent and all below; with a power cut nobody says that the connection has ended."""
        if not self.up:
            return
        self.site.tell(f"{self.name} {why}")
        line, gang = self.line, self.gang
        self.free()
        self.up, self.frozen = False, 0.0
        self.life += 1
        self._born()
        if line is not None and silently:
            line.cut = True
            self.site.tick_when_silent()
        elif line is not None:
            line.reset(0.0, self.site.draw.uniform(0.0, 0.3))
        if gang is not None:
            gang.broken(self)

    def free(self) -> None:
        """Its memory goes back to the machine that this runs on."""
        self.memory.keep_only(())

    def look(self) -> None:
        """What is due, when a word of the controller may be missing."""
        line = self.line
        if line is None:
            return
        quiet = self.clock.now() - self.heard
        if quiet > CUT_OFF_SECONDS:
            if not self.leaving:
                self.site.tell(f"{self.name} is cut off, and ends its workers")
                self.leaving = True
                self._stop(self.incarnation, patience=0.0)
        else:
            self.later(CUT_OFF_SECONDS - quiet + LOOK_SECONDS, self._look_again, line)

    def _look_again(self, line: Wire) -> None:
        """Once more for as long as the trouble lasts."""
        if self.line is line and (self.clock.now() - self.heard > 1.5 or self.held):
            self.look()

    @property
    def held(self) -> bool:
        """Whether packets between it and the controller are held up."""
        return max(self.up_held, self.down_held) > self.clock.now()

    # --- the controller -----------------------------------------------------------------------------------

    def _come_back(self) -> None:
        self.later(self.site.draw.uniform(LOOK_SECONDS, 0.5), self._connect)

    def _connect(self) -> None:
        if self.line is not None:
            return
        now, site = self.clock.now(), self.site
        if now - self.lost_at >= PATIENCE_SECONDS:
            self.die("has waited long enough for a controller, and ends")
            return
        if site.command is None or site.command.ended or site.frozen > now or self.held:
            self._come_back()
            return
        self.line, self.heard = Wire(self, site.command, site.wires()), now
        self.line.tell(self._hello())
        for message in self.unsent:
            self.line.tell(message)
        self.unsent = []

    def _hello(self) -> Message:
        return {
            "node": self.name,
            "rack": self.rack,
            "call": self.clock.date(),
            "incarnation": self.incarnation if self.workers else 0,
            "held": self.memory.held(),
        }

    def tell(self, message: Message) -> None:
        """Now, or when there is a controller again."""
        if self.line is not None:
            self.line.tell(message)
        elif message["say"] != "step":
            self.unsent.append(message)

    def report(self, rank: int, message: Message) -> None:
        """Of a worker; some news comes twice, and late."""
        message = message | {"rank": rank, "incarnation": self.incarnation}
        self.tell(message)
        if self.site.shape.twice and self.site.draw.random() < self.site.shape.twice:
            self.later(self.site.draw.uniform(0.0, 10.0), self.tell, message)

    def from_controller(self, line: Wire, message: Message | None) -> None:
        """Do as it says."""
        if line is not self.line:
            return
        if message is None:
            self.line, self.lost_at, self.orphaned = None, self.clock.now(), True
            self.leaving = False
            self._come_back()
            return
        kind = message["do"]
        if kind == "beat":
            self.heard = line.asked.popleft()
        elif kind == "start":
            self._start(message)
        elif kind == "stop":
            self._stop(message["incarnation"])
        elif kind == "wish" and self.gang is not None and self.workers:
            self.gang.wish(message["wish"])
        elif kind == "check":
            why = "core 0 multiplied wrongly" if self.broken else ""
            self.later(1.0, self.tell, {"say": "checked", "why": why})
        elif kind == "quit":
            self.die("is told to quit")

    # --- workers ------------------------------------------------------------------------------------------

    def _start(self, order: Message) -> None:
        self.incarnation, self.stopping = order["incarnation"], None
        self.verify = order["verify"]
        self.memory.begin(order["copy_ranks"], order["restore"])
        ranks = range(order["first"], order["first"] + self.site.plan.per_node)
        self.site.checks.starts(self, order)
        self.ranks = ranks
        self.workers = {rank: Worker(rank, self.incarnation) for rank in ranks}
        self.gang = self.site.gang(order)
        missing = [rank for rank in ranks if not self._restore(rank, order)]
        if missing:
            self.later(0.1, self.worker_ends, missing[0], "Damaged: no snapshot")
        self.gang.join(self)

    def _restore(self, rank: int, order: Message) -> bool:
        """Whether the rank gets its snapshot."""
        step = order["restore"]
        if step < 0:
            return True
        assert self.gang is not None
        if order["sources"] is not None:
            found = of_another_world(order, rank, self.memory, self.address, self._fetch)
            return len(found) == len(order["sources"]) and self.gang.restored(rank, list(map(take, found)))
        local = of_this_world(order, rank, self.memory, self._fetch)
        return local is not None and self.gang.restored(rank, [take_from(*local)])

    def _fetch(self, address: str, rank: int, step: int) -> Any:
        name = address.partition("/")[0]
        other = self.site.machines.get(name)
        if other is None or other.address != address or not self.reaches(other):
            return None
        return other.memory.get(rank, step)

    def reaches(self, other: "Machine") -> bool:
        """Whether what this one sends gets there."""
        now = self.clock.now()
        return self.awake and other.awake and (self is other or max(self.apart, other.apart) <= now)

    def snapshot(self, worker: Worker, step: int, content: int, manifest: Manifest, ranks: int) -> None:
        """Of one rank, whole in this node's memory."""
        copy_to(self.memory, worker.rank, step, content, manifest, (worker.incarnation, ranks))
        self.memory.keep_only(self.ranks)
        if step == self.verify:
            fingerprint = self.site.fingerprint(step, content)
            self.report(worker.rank, {"say": "fingerprint", "step": step, "fingerprint": fingerprint})

    def works_in(self, incarnation: int) -> bool:
        """Whether all of its workers get on, if the others do."""
        return (
            self.awake
            and len(self.workers) == self.site.plan.per_node
            and all(w.incarnation == incarnation and w.state == "works" for w in self.workers.values())
        )

    def worker_ends(self, rank: int, why: str, fatal: bool = False) -> None:
        """A process is gone without being asked to."""
        if rank not in self.workers or self.mute:
            return
        del self.workers[rank]
        if self.stopping is None:
            if fatal:
                self.report(rank, {"say": "failed", "why": why, "fatal": True})
            self.report(rank, {"say": "exited", "why": why})
        if self.gang is not None:
            self.gang.broken(self)
        self._finish_stopping()

    def worker_hangs(self, rank: int) -> None:
        """A process is stopped; its agent finds out."""
        if worker := self.workers.get(rank):
            worker.state = "hangs"
            self.later(SILENT_SECONDS + LOOK_SECONDS, self._tell_of_hanging, worker)

    def _tell_of_hanging(self, worker: Worker) -> None:
        if self.workers.get(worker.rank) is worker:
            self.report(worker.rank, {"say": "hung", "seconds": SILENT_SECONDS})

    def idle(self) -> None:
        """Its workers are done, and wait for an order."""
        self.workers = {}
        self._finish_stopping()

    def _stop(self, incarnation: int, patience: float = STOP_SECONDS) -> None:
        """All workers idle or dead; the answer follows."""
        if self.gang is not None:
            self.gang.settle(self)
        self.stopping = (incarnation, self.clock.now() + patience)
        draw = self.site.draw
        for worker in list(self.workers.values()):
            slow = draw.random() < 0.05  # it does not listen, and is killed
            seconds = patience + LOOK_SECONDS if slow else draw.uniform(0.001, 0.1)
            self.later(seconds, self._stopped, worker)
        self._finish_stopping()

    def _stopped(self, worker: Worker) -> None:
        if self.workers.get(worker.rank) is worker and self.stopping is not None and not self.mute:
            del self.workers[worker.rank]
            self._finish_stopping()

    def _finish_stopping(self) -> None:
        if self.stopping is None or self.workers:
            return
        incarnation, _ = self.stopping
        self.stopping = None
        if self.leaving and self.line is not None:
            self.line.tell(None)
            self.line, self.lost_at, self.leaving = None, self.clock.now(), False
            self._come_back()
            return
        self.tell(
            {
                "say": "stopped",
                "incarnation": incarnation,
                "held": self.memory.held(),
                "store": f"{self.name}:0",
            }
        )
