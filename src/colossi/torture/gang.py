"""
The workers of one incarnation together: they form a group, restore, step and save, as train/loop.py does.

A step is done by all or by none. What it computes differs from one incarnation to the next, so that parts of
two tries of a step do not pass for one.
"""

from typing import TYPE_CHECKING

from colossi.channel import Message
from colossi.ledger.fence import Fence
from colossi.torture.state import manifest_of, replicate

if TYPE_CHECKING:
    from colossi.torture.machine import Machine
    from colossi.torture.site import Site

MEET_SECONDS = 60.0  # [s] for all to be there, as train/worker.py has it
PEER_SECONDS = 2.0  # [s] a worker waits for a Stop before it fails for want of a peer, as train/worker.py
LOOK_SECONDS = 0.5  # [s] those that wait for a partition to end are looked at so often
UP_TO = 900.0  # [s] nobody looks at them any longer


class Gang:
    """Of the nodes that an incarnation began with."""

    def __init__(
        self, site: "Site", order: Message, nodes: tuple[str, ...], buddies: tuple[str, ...]
    ) -> None:
        self.site, self.incarnation, self.nodes, self.buddies = site, order["incarnation"], nodes, buddies
        self.restore, self.ranks = order["restore"], order["ranks"]
        self.here: dict[str, Machine] = {}
        self.step = self.content = 0
        self.odd: dict[int, int] = {}  # rank -> its content, where that is another one than the others'
        self.contents: set[int] = set()  # that ranks have restored
        self.over = self.stop_wanted = self.save_wanted = False
        self.began = self.stepped = site.clock.now()
        self.snapped: tuple[int, int] | None = None  # step and content of snapshots under way
        self.done: set[str] = set()  # nodes on which they are whole
        self.saving: tuple[int, int] | None = None
        self.to_tell: list[Message] = []  # of checkpoints, with the next step
        spans = order["copy_ranks"] > site.plan.per_node
        self.fence = Fence(site.ledger, self.incarnation)
        self.manifest = manifest_of(order["replicate"] > 1 and not spans)

    # --- forming ------------------------------------------------------------------------------------------

    def join(self, machine: "Machine") -> None:
        """The workers of one more node are there."""
        if not self.here:
            self.site.clock.later(MEET_SECONDS, self._too_late)
        self.here[machine.name] = machine
        if len(self.here) == len(self.nodes):
            self.site.clock.later(self.site.draw.uniform(0.3, 3.0), self._begin)

    def _too_late(self) -> None:
        if len(self.here) < len(self.nodes):
            for machine in list(self.here.values()):
                self._fail(machine, "timed out: the others did not come")

    def restored(self, rank: int, contents: list[int]) -> bool:
        """A rank has this from memory, right or wrong."""
        self.contents.update(map(self.site.right, contents))
        if len(contents) == 1 and contents[0] in self.site.wrong:
            self.odd[rank] = contents[0]
        return True

    @property
    def well(self) -> bool:
        """Whether all get on, and reach each other."""
        return all(
            machine.works_in(self.incarnation) and machine.reaches(machine) for machine in self.here.values()
        ) and (len(self.here) == 1 or self._linked())

    def _linked(self) -> bool:
        now = self.site.clock.now()
        return all(machine.apart <= now for machine in self.here.values())

    @property
    def first(self) -> "Machine":
        """Where rank 0 is."""
        return self.here[self.nodes[0]]

    def _waits(self, then: str) -> bool:
        """False when all get on. Else it is tried again later, unless nobody is left."""
        if self.well:
            return False
        left = any(
            worker.incarnation == self.incarnation
            for machine in self.here.values()
            if machine.up
            for worker in machine.workers.values()
        )
        if left and self.site.clock.now() - self.stepped < UP_TO:
            self.site.clock.later(LOOK_SECONDS, getattr(self, then))
        else:
            self.over = True
        return True

    def _begin(self) -> None:
        if self.over or self._waits("_begin"):
            return
        checks, disk = self.site.checks, self.site.disk
        self.step, self.content = (
            disk.newest() if self.restore < 0 else (self.restore, checks.one_of(self, self.contents))
        )
        checks.restored(self)
        if self.restore >= 0:  # compared like any other, at the end of a step
            self.snapped, self.done = (self.step, self.content), set(self.nodes)
        self.site.tell(f"incarnation {self.incarnation} has its state after step {self.step}")
        self.stepped = self.site.clock.now()
        if self.step >= self.site.plan.steps:
            self._save(True) if self.step not in disk.whole else self._finish()
        else:
            self._next()

    # --- steps --------------------------------------------------------------------------------------------

    def _next(self) -> None:
        seconds = self.site.step_seconds
        if any(machine.slow_until > self.site.clock.now() for machine in self.here.values()):
            seconds *= 1.5
        self.site.clock.later(seconds, self._step)

    def _step(self) -> None:
        """All have done it; the snapshot of the one before is whole everywhere, as that is part of it."""
        if self.over or self._waits("_step"):
            return
        site = self.site
        for machine in self.here.values():
            self._snapshot(machine, 1.0)
        if self.odd and self.snapped is not None:
            self._corrupted()
            return
        if self.fence.replaced():
            self._fail(self.first, f"incarnation {self.incarnation} has been replaced")
            return
        site.checks.works(self)
        self.step += 1
        self.content = site.new_content(self.incarnation, self.step)
        self.odd = {rank: site.spoilt(self.content) for rank in self.odd}
        self._go_wrong()
        self.stepped = site.clock.now()
        if self.step % site.snapshot_every == 0:
            self.snapped, self.done = (self.step, self.content), set()
        site.record("step_done", self.incarnation, self.step)
        now = site.clock.now()
        busy = [
            site.step_seconds * (2.0 if machine.slow_until > now else 1.0)
            for machine in self.here.values()
            for _ in range(site.plan.per_node)
        ]
        self.first.report(0, {"say": "step", "step": self.step, "busy": busy})
        site.checks.progress()
        self._tell_of_saves()
        last = self.step >= site.plan.steps
        if last or self.stop_wanted or self.save_wanted or self.step % site.save_every == 0:
            self.save_wanted = False
            self._save(last or self.stop_wanted)
        if last or self.stop_wanted:
            return
        self._next()

    def _go_wrong(self) -> None:
        """A bit flips on a node that is bound to."""
        for place, node in enumerate(self.nodes):
            machine = self.here[node]
            if machine.flips and self.ranks > self.site.copy_ranks:
                machine.flips -= 1
                rank = place * self.site.plan.per_node
                self.odd[rank] = self.site.spoilt(self.content)
                self.site.tell(f"a bit flips in rank {rank} on {node} in step {self.step}")

    def _corrupted(self) -> None:
        """The copies differ: every rank says so, and waits for orders."""
        assert self.snapped is not None
        step, content = self.snapped
        self.over = True
        for place, node in enumerate(self.nodes):
            machine = self.here[node]
            for rank in range(place * self.site.plan.per_node, (place + 1) * self.site.plan.per_node):
                fingerprint = self.site.fingerprint(step, self.odd.get(rank, content))
                machine.report(rank, {"say": "corrupted", "step": step, "fingerprint": fingerprint})
            machine.idle()

    # --- snapshots ----------------------------------------------------------------------------------------

    def settle(self, machine: "Machine") -> None:
        """The workers of a node are to stop: what of its snapshots is whole by then."""
        if self.snapped is not None and machine.name not in self.done and machine.works_in(self.incarnation):
            share = (self.site.clock.now() - self.stepped) / self.site.step_seconds
            self._snapshot(machine, 2.0 * share * self.site.draw.random())

    def _snapshot(self, machine: "Machine", share: float) -> None:
        """Its own is there after half of the time, the buddy's copy at the end."""
        if self.snapped is None or machine.name in self.done or share < 0.5:
            return
        step, content = self.snapped
        buddy = self.site.machines.get(self.buddies[self.nodes.index(machine.name)])
        self.done.add(machine.name)
        for worker in list(machine.workers.values()):
            of_rank = self.odd.get(worker.rank, content)
            machine.snapshot(worker, step, of_rank, self.manifest, self.ranks)
            if buddy is not None and share >= 1.0 and self._keeps(machine, buddy):
                replicate(machine.memory, buddy.memory, worker.rank, step)

    def _keeps(self, machine: "Machine", buddy: "Machine") -> bool:
        return machine.reaches(buddy) and buddy.incarnation == self.incarnation

    # --- checkpoints --------------------------------------------------------------------------------------

    def wish(self, wish: str) -> None:
        """Of the controller, to be done at the end of a step."""
        if wish == "stop":
            self.stop_wanted = True
        else:
            self.save_wanted = True

    def _save(self, final: bool) -> None:
        site = self.site
        if self.saving is not None and not final:
            return  # the real one waits for the one before; here the next one is left out
        self.saving = (self.step, self.content)
        site.record("checkpoint_begun", self.incarnation, self.step)
        site.happens("save")
        site.clock.later(site.draw.uniform(0.05, 2.0), self._saved, self.saving, final)

    def _saved(self, saving: tuple[int, int], final: bool) -> None:
        """It is complete, if all were there until now; else those that are left wait, or are stopped."""
        site = self.site
        if self.over or self.saving != saving:
            return
        if not self.well:
            if site.clock.now() - self.stepped < UP_TO:
                site.clock.later(LOOK_SECONDS, self._saved, saving, final)
            return
        self.saving = None
        step, content = saving
        full = site.clock.now() < site.full_until and not final
        why = "No space left on device" if full else ""
        if not full:
            site.disk.save(step, content)
            site.checks.prunes()
        kind = "checkpoint_failed" if full else "checkpoint_complete"
        site.record(kind, self.incarnation, step, **({"why": why} if full else {}))
        self.to_tell.append({"say": "checkpoint", "step": step, "seconds": 1.0, "why": why})
        if final:
            self._tell_of_saves()
            self._finish()

    def _tell_of_saves(self) -> None:
        for message in self.to_tell:
            self.first.report(0, message)
        self.to_tell = []

    def _finish(self) -> None:
        """The run is at its end, or saved as was asked."""
        if self.over:
            return
        self.over = True
        stopped = self.step < self.site.plan.steps
        if stopped:
            self.site.record("stopped", self.incarnation, self.step, why="asked to stop")
        else:
            self.site.record("finished", self.incarnation, self.step)
        self.first.report(0, {"say": "done", "step": self.step, "stopped": stopped})
        for machine in self.here.values():
            machine.idle()

    # --- what goes wrong ----------------------------------------------------------------------------------

    def broken(self, machine: "Machine") -> None:
        """Workers of a node are gone: the others' connections to them are, too."""
        for other in self.here.values():
            if other is not machine and other.gang is self and self.site.draw.random() < 0.5:
                other.later(
                    PEER_SECONDS + self.site.draw.uniform(0.0, 0.5), self._fail, other, "Connection reset"
                )

    def _fail(self, machine: "Machine", why: str) -> None:
        for worker in list(machine.workers.values()):
            if (
                worker.incarnation == self.incarnation
                and worker.state == "works"
                and machine.stopping is None
            ):
                machine.worker_ends(worker.rank, f"RuntimeError: {why}")
                return
