"""
The local engine: the nodes of a run are agent processes on this machine, each with its workers.

It starts the agents, brings back one that was lost after a while, as a repaired machine would come back, and
hands Ctrl-C on. All decisions are the controller's.
"""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from colossi.engines.chaos import Chaos
from colossi.engines.command import Command
from colossi.engines.takeover import command_of, readmit
from colossi.errors import RunError
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.spec import Spec

REPAIR_SECONDS = 5.0  # a lost node comes back after so long
END_SECONDS = 2.0  # agents that were told to quit have so long
COME_BACK_SECONDS = 1.0  # agents of a controller that was killed find us in this time


def run_here(
    run: Run, spec: Spec, chaos: Chaos, watch: Callable[[Event], None], readmitted: Sequence[str] = ()
) -> None:
    """Train until the run is finished or stopped; every event from now on goes to `watch`.

    Nodes that are `readmitted` are no longer quarantined.
    """
    with alone(run.folder), run.ledger() as ledger:
        after = ledger.newest()
        readmit(ledger, readmitted)
        command, took_over = command_of(run, ledger, spec, chaos=chaos)
        if not took_over:
            refuse_if_too_few(command)
        nodes = Nodes(run, spec, command, time.monotonic() + (COME_BACK_SECONDS if took_over else 0))
        command.restart = nodes.restart

        def look() -> None:
            nonlocal after
            nodes.start_what_is_due()
            for number, event in ledger.events(after=after):
                after = number
                watch(event)

        try:
            asyncio.run(_serve(command, look))
        finally:
            nodes.end()


async def _serve(command: Command, look: Callable[[], None]) -> None:
    loop, asked = asyncio.get_running_loop(), 0

    def ask() -> None:
        """Once: save and stop. Twice: stop."""
        nonlocal asked
        asked += 1
        if asked == 1:
            command.stop_wanted("asked to stop")
        else:
            command.abandon("interrupted twice")

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, ask)
    await command.serve(look)


def refuse_if_too_few(command: Command) -> None:
    """Here no other node will come for one that is quarantined: to wait for it would be in vain."""
    plan = command.controller.run.plan
    nodes = [f"node-{n}" for n in range(plan.places + plan.spares)]
    out = [node for node in nodes if node in command.quarantined]
    if plan.largest(len(nodes) - len(out)) is None:
        raise RunError(
            "; ".join(f"{node} is quarantined: {command.quarantined[node]}" for node in out),
            f"not one copy of the model fits on the other nodes; --readmit {out[0]} uses it again",
        )


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Hold the run folder; the system frees it when this process ends, however it ends."""
    with (folder / "lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(
                f"{folder}: is being trained by another process", "wait for it, or use --run"
            ) from None
        yield


@dataclass(slots=True)
class Nodes:
    """The agents of this machine: which are to be started, and when."""

    run: Run
    spec: Spec
    command: Command
    first: float  # [monotonic s] not before this
    _due: dict[str, float] = field(default_factory=dict)
    _spares: bool = False
    _started: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        first = [f"node-{n}" for n in range(self.spec.cluster.nodes)]
        self._due = dict.fromkeys([*first, *self.command.places], self.first)

    def restart(self, node: str) -> None:
        """It was lost; it will be back, and what is left of it is gone."""
        self._kill(node)
        self._due[node] = time.monotonic() + REPAIR_SECONDS

    def start_what_is_due(self) -> None:
        """Those that are not there already."""
        now, cluster = time.monotonic(), self.spec.cluster
        for node, agent in self._started.items():
            if agent.poll() and node not in self.command.agents and node not in self._due:
                log = self.run.logs / f"{node}.log"
                self.command.give_up(f"{node}: its agent ended before it could begin", f"its log is {log}")
        # They would only slow the others' beginning, unless they are needed for it.
        if (self.command.step or self.command.quarantined) and not self._spares:
            self._spares = True
            spares = range(cluster.nodes, cluster.nodes + cluster.spares)
            self._due |= {f"node-{n}": now for n in spares}
        for node in [node for node, when in self._due.items() if when <= now]:
            del self._due[node]
            if node not in self.command.agents:
                self._start(node)

    def _start(self, node: str) -> None:
        """In a session of its own: Ctrl-C reaches it only through us, and it outlives a killed controller."""
        cluster = self.spec.cluster
        with (self.run.logs / f"{node}.log").open("ab") as log:
            self._started[node] = subprocess.Popen(
                [
                    *(sys.executable, "-m", "colossi.engines.agent", str(self.run.folder), "--node", node),
                    *("--workers", str(cluster.workers_per_node), "--share", str(cluster.nodes)),
                    *("--interface", "lo"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """The run is over: nothing of it stays behind."""
        deadline = time.monotonic() + END_SECONDS
        for node, agent in list(self._started.items()):
            with suppress(subprocess.TimeoutExpired):
                agent.wait(max(0.0, deadline - time.monotonic()))
            self._kill(node)

    def _kill(self, node: str) -> None:
        """An agent, its standby and its workers are one group of processes."""
        agent = self._started.pop(node, None)
        if agent is not None:
            with suppress(ProcessLookupError):
                os.killpg(agent.pid, signal.SIGKILL)
            agent.wait()
