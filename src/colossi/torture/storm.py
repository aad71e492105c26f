"""
One storm: a cluster, its policies and many faults, all drawn from a seed; then calm, in which it must end.

Faults come at moments, or lie in wait for something to happen (a start, a stop, a checkpoint, a takeover), so
that recoveries are hit as often as steps are.
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from colossi.control.actions import Finish
from colossi.control.plan import Plan
from colossi.torture.checks import Broken
from colossi.torture.clock import BEGIN
from colossi.torture.machine import Machine
from colossi.torture.site import Shape, Site

CALM_SECONDS = (
    4000.0  # [s] of calm in which a run must end: 600 to start, 600 to wait, 120 to stop, and again
)
LARGE = 500  # of so many seeds one is a large cluster

# places, workers on a node, ranks of a copy, shares of a copy, batch
SMALL = (
    (2, 1, 1, 1, 4),
    (3, 1, 1, 1, 12),
    (4, 1, 1, 1, 4),
    (1, 2, 1, 1, 4),
    (2, 2, 2, 2, 8),
    (4, 2, 4, 2, 8),
    (2, 1, 2, 2, 4),
    (8, 1, 4, 2, 16),
    (6, 2, 2, 1, 12),
    (12, 1, 2, 1, 24),
    (1, 1, 1, 1, 2),
    (5, 1, 1, 1, 60),
)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a storm ended."""

    seed: int
    nodes: int
    faults: int
    incarnations: int
    steps: int
    controllers: int
    seconds: float  # [s] of virtual time
    ended: str  # finished, stopped or gave up
    broken: str = ""  # which promise, if one was


def shape_of(draw: Random, large: bool) -> Shape:
    """A cluster and its policies."""
    places, per_node, copy, shares, batch = (200, 1, 4, 4, 1600) if large else draw.choice(SMALL)
    plan = Plan(
        places=places,
        per_node=per_node,
        copy=copy,
        shares=shares,
        global_batch=batch,
        steps=8 if large else draw.randint(10, 40),
        patience_seconds=draw.choice((0.0, 0.0, 10.0)),
        wait_seconds=draw.choice((60.0, 600.0)),
        checkpoint_seconds=draw.choice((None, None, 7.0)),
        strikes=draw.choice((None, 2, 3)),
        fruitless=draw.choice((3, 3, 6)),
    )
    return Shape(
        plan=plan,
        racks=draw.choice((1, 2, 3)),
        spares=draw.choice((0, 1, 1, 2, 3)),
        copy_ranks=copy,
        step_seconds=draw.choice((0.3, 0.7, 2.0)),
        snapshot_every=draw.choice((1, 1, 1, 3)),
        save_every=draw.choice((2, 5, 10)),
        keep=draw.choice((1, 2, 3)),
        late=draw.choice((0.0, 0.0, 0.02, 0.2)),
        twice=draw.choice((0.0, 0.0, 0.1)),
        repair_seconds=draw.choice((0.5, 5.0, 30.0)),
        kills_lost=draw.random() < 0.3,
    )


def run(seed: int, tell: Callable[[str], object] | None = None) -> Outcome:
    """The storm of a seed, from its beginning to its end."""
    draw = Random(seed)
    large = seed % LARGE == LARGE - 1
    site = Site(shape_of(draw, large), draw, tell)
    storm = Storm(site)
    broken = ""
    try:
        storm.blow()
    except Broken as words:
        broken = str(words)
    except Exception as error:  # whatever it is, it is what we look for
        broken = f"{type(error).__name__}: {error}"
    finally:
        for machine in site.machines.values():
            machine.free()
    checks = site.checks
    return Outcome(
        seed=seed,
        nodes=len(site.machines),
        faults=storm.made,
        incarnations=checks.incarnations,
        steps=checks.steps,
        controllers=storm.controllers,
        seconds=site.clock.now() - BEGIN,
        ended=storm.how,
        broken=broken,
    )


class Storm:
    """Faults over a site."""

    def __init__(self, site: Site) -> None:
        self.site, self.draw = site, site.draw
        self.made = self.controllers = 0
        self.how = ""
        self.waiting: list[tuple[str, int, float]] = []  # for what, for which time, how long after it
        site.on_happening = self._ambush

    def blow(self) -> None:
        """Storm, then calm; a Broken if a promise is."""
        site, draw, clock = self.site, self.draw, self.site.clock
        self._new_controller()
        site.pulse()
        window = draw.uniform(5.0, 45.0)
        for _ in range(draw.randint(0, 8)):
            clock.later(draw.uniform(0.0, window), self._fault)
        for _ in range(draw.randint(0, 4)):
            moment = draw.choice(("start", "start", "stop", "stop", "save", "controller"))
            self.waiting.append((moment, draw.randint(1, 3), draw.choice((0.0, 0.0, 0.01, 0.5, 2.0))))
        clock.later(window, self._calm)
        while site.ended is None:
            clock.advance()
            if clock.now() > BEGIN + window + CALM_SECONDS:
                raise Broken(f"it does not end in {CALM_SECONDS:.0f} s of calm")
        ended = site.ended
        self.how = "gave up" if not isinstance(ended, Finish) else "stopped" if ended.stopped else "finished"

    def _ambush(self, what: str) -> None:
        if not self.site.stormy:
            return
        for place, (moment, number, seconds) in enumerate(self.waiting):
            if moment == what:
                self.waiting[place] = (moment, number - 1, seconds)
                if number == 1:
                    self.site.clock.later(seconds, self._fault)

    def _new_controller(self) -> None:
        site = self.site
        if site.command is None and site.ended is None:
            self.controllers += 1
            last = [event for event in site.ledger.list if event.kind in ("finished", "stopped")]
            if last and last[-1].step == site.plan.steps and site.plan.steps in site.disk.whole:
                site.ended = Finish(step=site.plan.steps)  # as engines/train.is_finished has it
                return
            site.command_anew()

    def _calm(self) -> None:
        """Nothing goes wrong any more, and what did ends by and by."""
        site = self.site
        site.stormy = False
        site.tell("calm")
        for machine in site.machines.values():
            machine.slow_until, machine.flips = 0.0, 0
            if not machine.up:
                machine.boot()
        if site.command is None:
            self._new_controller()

    # --- faults -------------------------------------------------------------------------------------------

    def _fault(self) -> None:
        if not self.site.stormy or self.site.ended is not None:
            return
        self.made += 1
        self.draw.choice(FAULTS)(self)

    def _machine(self) -> Machine | None:
        """Most often one that is at work."""
        gang, draw = self.site.newest, self.draw
        names = list(gang.nodes) if gang is not None and draw.random() < 0.8 else list(self.site.machines)
        machine = self.site.machines[draw.choice(names)]
        return machine if machine.up else None

    def kill_machine(self) -> None:
        if machine := self._machine():
            silently = self.draw.random() < 0.3
            machine.die("loses its power" if silently else "is killed", silently)
            self.site.clock.later(self.draw.uniform(0.1, 20.0), machine.boot)

    def kill_rack(self) -> None:
        if victim := self._machine():
            for machine in self.site.machines.values():
                if machine.rack == victim.rack:
                    machine.die("is killed with its rack", silently=True)
                    self.site.clock.later(self.draw.uniform(1.0, 20.0), machine.boot)

    def kill_worker(self) -> None:
        if (machine := self._machine()) and machine.workers:
            rank = self.draw.choice(sorted(machine.workers))
            self.site.tell(f"the worker of rank {rank} on {machine.name} is killed")
            machine.worker_ends(rank, "killed by SIGKILL")

    def stop_worker(self) -> None:
        if (machine := self._machine()) and machine.workers:
            rank = self.draw.choice(sorted(machine.workers))
            self.site.tell(f"the worker of rank {rank} on {machine.name} is stopped")
            machine.worker_hangs(rank)

    def hang(self) -> None:
        if (machine := self._machine()) and machine.workers:
            self.site.tell(f"the workers on {machine.name} wait for ever")
            for worker in machine.workers.values():
                worker.state = "stands"

    def freeze(self) -> None:
        if machine := self._machine():
            seconds = self.draw.choice((1.0, 3.0, 4.5, 5.5, 8.0, 30.0))
            self.site.tell(f"{machine.name} is frozen for {seconds} s")
            machine.frozen = self.site.clock.now() + seconds
            self.site.tick_when_silent()
            machine.later(0.0, machine.look)

    def cut_off(self) -> None:
        """From the controller, from its peers, or from both."""
        if machine := self._machine():
            seconds = self.draw.choice((0.5, 3.0, 4.2, 5.2, 7.0, 15.0, 30.0))
            until = self.site.clock.now() + seconds
            ways = self.draw.choice(("both", "both", "all", "all", "up", "down", "peers"))
            self.site.tell(f"{machine.name} is cut off ({ways}) for {seconds} s")
            if ways in ("both", "all", "up"):
                machine.up_held = max(machine.up_held, until)
            if ways in ("both", "all", "down"):
                machine.down_held = max(machine.down_held, until)
            if ways in ("all", "peers"):
                machine.apart = max(machine.apart, until)
            self.site.tick_when_silent()
            machine.look()

    def reset(self) -> None:
        """A connection breaks; what was under way is lost."""
        if (machine := self._machine()) and machine.line is not None:
            self.site.tell(f"the connection of {machine.name} breaks")
            machine.line.reset(self.draw.choice((0.0, 0.1, 1.0)), self.draw.choice((0.0, 0.1, 1.0, 4.0)))

    def kill_controller(self) -> None:
        if self.site.command is not None:
            self.site.kill_controller()
            seconds = self.draw.choice((0.0, 0.1, 1.0, 5.0, 20.0, 70.0))
            self.site.clock.later(seconds, self._new_controller)

    def freeze_controller(self) -> None:
        seconds = self.draw.choice((1.0, 3.0, 4.5, 6.0, 15.0))
        self.site.tell(f"the controller is frozen for {seconds} s")
        self.site.frozen = self.site.clock.now() + seconds
        for machine in self.site.machines.values():
            if machine.up:
                machine.look()
        self.site.clock.later(seconds, self.site.tick)

    def slow(self) -> None:
        if machine := self._machine():
            self.site.tell(f"{machine.name} is slow")
            machine.slow_until = self.site.clock.now() + 30.0
            machine.broken = self.draw.random() < 0.3

    def flip(self) -> None:
        if machine := self._machine():
            machine.flips = self.draw.choice((1, 1, 2, 5))

    def mute(self) -> None:
        """Rarely: its kernel ends no process any more."""
        if (machine := self._machine()) and self.draw.random() < 0.3:
            self.site.tell(f"{machine.name} cannot stop its workers")
            machine.mute = True

    def full(self) -> None:
        self.site.tell("the disk is full")
        self.site.full_until = self.site.clock.now() + 10.0

    def ask_to_stop(self) -> None:
        """Rarely: it ends the storm."""
        if self.site.command is not None and self.draw.random() < 0.3:
            self.site.tell("somebody asks to stop")
            self.site.command.stop_wanted("asked to stop")

    def fatal(self) -> None:
        """Very rarely: the work itself is wrong."""
        if (machine := self._machine()) and machine.workers and self.draw.random() < 0.1:
            self.site.checks.fatal = True
            machine.worker_ends(min(machine.workers), "the loss is no number", fatal=True)

    def come(self) -> None:
        """A machine that was not there before."""
        if len(self.site.machines) < self.site.plan.places + 6:
            self.site.add(len(self.site.machines))


FAULTS: tuple[Callable[[Storm], None], ...] = (
    *(Storm.kill_machine,) * 4,
    Storm.kill_rack,
    *(Storm.kill_worker,) * 3,
    *(Storm.stop_worker,) * 2,
    Storm.hang,
    *(Storm.freeze,) * 2,
    *(Storm.cut_off,) * 3,
    *(Storm.reset,) * 3,
    *(Storm.kill_controller,) * 3,
    Storm.freeze_controller,
    Storm.slow,
    *(Storm.flip,) * 2,
    Storm.mute,
    Storm.full,
    Storm.ask_to_stop,
    Storm.fatal,
    Storm.come,
)
