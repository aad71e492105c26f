"""
A check of all nodes through an engine: who is tested, what is done about who fails, and who comes back.

The measuring is in colossi.acceptance; here agents are started, on this machine or through Slurm, and the
decisions of the rules are carried out and written into the run's ledger: a controller uses nobody who is out.
"""

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from colossi.acceptance import agent, fleet, rules
from colossi.acceptance.checks import GROUPS
from colossi.acceptance.result import Result, Status, reasons, verdict
from colossi.acceptance.rules import Bound, Drain
from colossi.engines import drains, slurm
from colossi.engines.local import alone
from colossi.engines.takeover import quarantined_of
from colossi.errors import BadInput, WorkFailed
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger
from colossi.spec import Spec
from colossi.spec.acceptance import Acceptance, acceptance_of
from colossi.spec.hardware import node as server

JOIN_SECONDS = 60.0  # for the agents of nodes that are free: a Python has to start on each
END_SECONDS = 5.0


@dataclass(slots=True)
class Outcome:
    """Of one check of a fleet."""

    results: dict[str, list[Result]]
    racks: dict[str, str]
    tested: float  # [unix s]
    fleet: int  # nodes, tested or not
    skipped: dict[str, str] = field(default_factory=dict)  # node -> why it was not tested
    out: dict[str, str] = field(default_factory=dict)  # taken out now -> the reason as it was given
    left: dict[str, str] = field(default_factory=dict)  # failed and not taken out -> why not
    returned: dict[str, str] = field(default_factory=dict)  # came back -> why
    refused: dict[str, str] = field(default_factory=dict)  # was to come back and does not -> why

    def verdicts(self) -> dict[str, Status]:
        """Of each node that was tested."""
        return {node: verdict(results) for node, results in self.results.items()}

    def failed(self) -> dict[str, str]:
        """The nodes that failed, and why."""
        return {node: reasons(self.results[node]) for node, each in self.verdicts().items() if each == "fail"}

    def as_json(self) -> dict[str, Any]:
        """One object."""
        verdicts = self.verdicts()
        nodes = {
            node: {
                "verdict": verdicts[node],
                "rack": self.racks.get(node, ""),
                "results": [result.as_json() for result in results],
            }
            for node, results in self.results.items()
        }
        rest = ("skipped", "out", "left", "returned", "refused")
        return {"nodes": nodes} | {key: getattr(self, key) for key in rest}


@dataclass(frozen=True, slots=True)
class Asked:
    """What somebody wants of a check."""

    named: Sequence[str]  # nodes; all if none
    readmit: Sequence[str]  # nodes that are to come back
    groups: Sequence[str]  # of checks
    bound: Bound
    watch: fleet.Watch


def limits_of(spec: Spec) -> Acceptance:
    """By the GPU that the spec's nodes have."""
    cluster = spec.cluster
    return acceptance_of(server(cluster.node).gpu.name if cluster.node else cluster.gpu)


def check_through(
    run: Run,
    spec: Spec,
    watch: fleet.Watch,
    *,
    named: Sequence[str] = (),
    readmit: Sequence[str] = (),
    groups: Sequence[str] = GROUPS,
    bound: Bound,
) -> Outcome:
    """On the engine of the spec; `named` nodes or all, and those that are to come back."""
    on_slurm = spec.cluster.engine == "slurm"
    if on_slurm and shutil.which("srun") is None:
        raise BadInput("srun: not found", "Slurm's commands must be on the PATH; or use --engine local")
    with alone(run.folder), run.ledger() as ledger:
        asked = Asked(named, readmit, groups, bound, watch)
        return (_through_slurm if on_slurm else _here)(run, spec, ledger, quarantined_of(ledger), asked)


def _here(
    run: Run,
    spec: Spec,
    ledger: Ledger,
    held: Mapping[str, str],
    asked: Asked,
) -> Outcome:
    """All nodes are this machine: one is tested after the other, and a quarantined one only to come back."""
    known = [f"node-{n}" for n in range(spec.cluster.nodes + spec.cluster.spares)]
    named, readmit = asked.named, asked.readmit
    refuse_unknown(asked, known, held)
    wanted = [
        node for node in known if node in readmit or (node not in held and (not named or node in named))
    ]
    skipped = {node: f"out already: {why}" for node, why in held.items() if node not in readmit}
    command = [sys.executable, "-m", "colossi.acceptance.agent", str(run.folder)]
    commands = [[*command, node] for node in wanted]
    outcome = _measure(run, "127.0.0.1", wanted, commands, limits_of(spec), asked, at_once=False)
    outcome.fleet, outcome.skipped = len(known), skipped
    already = {node: Drain(why) for node, why in held.items() if node not in readmit}
    decide(outcome, ledger, already, readmit, asked.bound, {}, time.time())
    record(outcome, ledger)
    return outcome


def _through_slurm(
    run: Run,
    spec: Spec,
    ledger: Ledger,
    held: Mapping[str, str],
    asked: Asked,
) -> Outcome:
    """All nodes that are idle, at once; those that are to come back in reservations of ours."""
    before = drains.nodes()
    ours = dict(held) | {n: s.drain.why for n, s in before.items() if s.drain is not None and s.drain.ours}
    theirs = {n: s for n, s in before.items() if s.drain is not None and not s.drain.ours}
    named, readmit = asked.named, asked.readmit
    refuse_unknown(asked, before, ours, {n: "" for n in theirs})
    back = [node for node in readmit if node not in theirs]
    refused = {node: theirs[node].why_not for node in readmit if node in theirs}
    free = [
        n
        for n, s in before.items()
        if s.idle and n not in held and n not in back and (not named or n in named)
    ]
    if not free and not back:
        return Outcome(
            {}, {}, time.time(), len(before), {n: s.why_not for n, s in before.items()}, refused=refused
        )
    host = _route_to(slurm.address_of((free or back)[0]))
    with _reserved(back, {n: ours.get(n, "") for n in back}) as (reservations, settle):
        commands = [_srun(run.folder, free)] if free else []
        commands += [_srun(run.folder, [node], reservations[node]) for node in back]
        outcome = _measure(run, host, [*free, *back], commands, limits_of(spec), asked, at_once=True)
        now = drains.nodes()
        outcome.fleet, outcome.refused = len(before), refused
        outcome.skipped = {n: s.why_not for n, s in before.items() if n not in outcome.results}
        already = {n: s.drain for n, s in now.items() if s.drain is not None and n not in back}
        already |= {n: Drain(why) for n, why in held.items() if n not in already and n not in back}
        started = {n: s.started for n, s in now.items() if s.started is not None}
        decide(outcome, ledger, already, back, asked.bound, started, time.time())
        for node, why in outcome.out.items():
            drains.drain(node, why)
        settle(outcome)
        record(outcome, ledger)
    return outcome


@contextmanager
def _reserved(
    nodes: Sequence[str], reasons_before: Mapping[str, str]
) -> Iterator[tuple[dict[str, str], Callable[[Outcome], None]]]:
    """Nodes to be tested again, kept from all others and no longer drained.

    Whatever happens, they are drained again, unless `settle` was told that they have passed.
    """
    names: dict[str, str] = {}
    passed: set[str] = set()

    def settle(outcome: Outcome) -> None:
        passed.update(outcome.returned)
        for node in nodes:
            if node in outcome.refused:
                again[node] = rules.reason(outcome.refused[node].removeprefix(rules.OURS))

    again = {node: why or rules.reason("its test did not end") for node, why in reasons_before.items()}
    try:
        for node in nodes:
            names[node] = drains.reserve(node)
            drains.undrain(node)
        yield names, settle
    finally:
        for node in names:
            if node not in passed:
                drains.drain(node, again[node])
        drains.release(names.values())


def decide(
    outcome: Outcome,
    ledger: Ledger,
    already: Mapping[str, Drain],
    readmit: Sequence[str],
    bound: Bound,
    started: Mapping[str, float],
    now: float,
) -> None:
    """By the rules: who is taken out, who comes back."""
    failed = outcome.failed()
    for node in readmit:
        if node not in outcome.results:
            continue
        outs = [event.time for _, event in ledger.events("quarantined") if event.text("node") == node]
        if node in failed:
            outcome.refused[node] = failed[node]
            continue
        may, why = rules.may_return(outcome.tested, outs, now)
        (outcome.returned if may else outcome.refused)[node] = why
    fresh: dict[str, str] = {}
    for node, why in failed.items():
        if node in readmit:
            continue
        stale = rules.is_stale(outcome.tested, now, started.get(node)) if node in started else ""
        if stale:
            outcome.left[node] = f"its test says nothing any more: {stale}"
        else:
            fresh[node] = why
    still = {node: Drain("its test") for node in outcome.refused if node not in already}
    taken = rules.take_out(fresh, outcome.fleet, {**already, **still}, bound)
    who = f"{getpass.getuser()}@{socket.gethostname()}"
    outcome.out = {node: rules.reason(failed[node], who) for node in taken.out}
    outcome.left |= taken.left


def record(outcome: Outcome, ledger: Ledger) -> None:
    """One event for each node that was tested, then what was done about them."""
    incarnation = ledger.next_incarnation() - 1

    def event(kind: str, data: dict[str, Any]) -> Event:
        return Event(time=time.time(), kind=kind, incarnation=incarnation, data=data)

    events = [
        Event(
            time=outcome.tested,
            kind="node_tested",
            incarnation=incarnation,
            data={
                "node": node,
                "rack": outcome.racks.get(node, ""),
                "verdict": status,
                "why": reasons(outcome.results[node], status) if status in ("warn", "fail") else "",
                "results": [result.as_json() for result in outcome.results[node]],
            },
        )
        for node, status in outcome.verdicts().items()
    ]
    events += [event("quarantined", {"node": node, "why": why}) for node, why in outcome.out.items()]
    events += [event("left_in", {"node": node, "why": why}) for node, why in outcome.left.items()]
    events += [event("readmitted", {"node": node, "why": why}) for node, why in outcome.returned.items()]
    ledger.append(*events)


def refuse_unknown(
    asked: Asked,
    known: Mapping[str, Any] | Sequence[str],
    ours: Mapping[str, str],
    theirs: Mapping[str, str] | None = None,
) -> None:
    """Names that mean nothing, nodes that are not out, and tests that would prove nothing."""
    for option, nodes in (("--node", asked.named), ("--readmit", asked.readmit)):
        for node in nodes:
            if node not in known:
                raise BadInput(f"{option} {node}: no such node", f"there are {', '.join(list(known)[:8])}")
    for node in asked.readmit:
        if node in (theirs or {}):
            continue
        if node not in ours:
            hint = f"these are: {', '.join(ours)}" if ours else "no node is"
            raise BadInput(f"--readmit {node}: it is not out", hint)
        missing = rules.groups_needed(ours[node], GROUPS) - set(asked.groups)
        if missing:
            hint = f"it is out as {ours[node]}; leave out --only, or add {', '.join(sorted(missing))}"
            raise BadInput(f"--readmit {node}: --only leaves out what it is to be tested for", hint)


def _measure(
    run: Run,
    host: str,
    nodes: Sequence[str],
    commands: Sequence[Sequence[str]],
    limits: Acceptance,
    asked: Asked,
    *,
    at_once: bool,
) -> Outcome:
    """Start the agents, ask them all, let them go."""
    run.logs.mkdir(exist_ok=True)
    with fleet.gathering(run.folder, host) as (listening, _), _started(commands, run.logs) as alive:
        members = fleet.join(listening, run.folder, nodes, JOIN_SECONDS, asked.watch, alive)
        if not members:
            raise WorkFailed(
                f"no node could be tested: {alive() or 'none answered'}", f"see {run.logs}/check.log"
            )
        it = fleet.Fleet(members, at_once)
        try:
            results = fleet.check_fleet(it, limits, asked.watch, asked.groups)
        finally:
            it.end()
    for node in nodes:
        if node not in members:
            why = f"its agent did not come in {JOIN_SECONDS:.0f} s"
            results[node] = [Result("agent.answers", "fail", why=why)]
    racks = {node: member.rack for node, member in members.items()}
    return Outcome(dict(sorted(results.items())), racks, time.time(), len(nodes))


@contextmanager
def _started(commands: Sequence[Sequence[str]], logs: Path) -> Iterator[Callable[[], str]]:
    """What starts the agents; inside, a function that says why no more will come, "" while some may."""
    with (logs / "check.log").open("ab") as log:
        running = [
            subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
            for command in commands
        ]

        def alive() -> str:
            ended = [process.returncode for process in running if process.poll() is not None]
            return f"their agents ended with exit code {ended[0]}" if len(ended) == len(running) else ""

        try:
            yield alive
        finally:
            deadline = time.monotonic() + END_SECONDS
            for process in running:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, deadline - time.monotonic()))
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, 15)
            for process in running:
                process.wait()


def _srun(folder: Path, nodes: Sequence[str], reservation: str = "") -> list[str]:
    """One step with an agent on each; the death of one is no other's, and who is busy is not waited for."""
    options = [
        *("--job-name=colossi-check", f"--nodes={len(nodes)}", "--ntasks-per-node=1", "--exclusive"),
        *("--mem=0", "--no-kill", "--kill-on-bad-exit=0", "--cpu-bind=none", "--input=none"),
        *(f"--immediate={JOIN_SECONDS:.0f}", f"--nodelist={','.join(nodes)}"),
        *([f"--reservation={reservation}"] if reservation else []),
    ]
    return ["srun", *options, sys.executable, "-m", "colossi.engines.checking", str(folder.resolve())]


def _route_to(address: str) -> str:
    """This machine's own address on the way to another."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:  # nothing is sent
        probe.connect((address, 9))
        return str(probe.getsockname()[0])


def main() -> int:
    """An agent that Slurm has started: it knows the node and what is above it."""
    node = os.environ["SLURMD_NODENAME"]
    rack = slurm.rack_of(os.environ.get("SLURM_TOPOLOGY_ADDR", ""))
    sys.argv = [sys.argv[0], sys.argv[1], node, rack]
    return agent.main()


if __name__ == "__main__":
    sys.exit(main())
