"""Command of a run, from its ledger: a new controller, or one in the place of another that was killed."""

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

from colossi.control import policy
from colossi.control.controller import Controller
from colossi.control.events import CorruptionSuspected
from colossi.control.plan import Plan
from colossi.engines.chaos import Chaos
from colossi.engines.clock import Clock
from colossi.engines.command import Command
from colossi.errors import BadInput
from colossi.ledger.events import Event
from colossi.ledger.run import Run, step_of
from colossi.ledger.store import Ledger
from colossi.spec import Spec
from colossi.spec.layout import LayoutSpec


def command_of(
    run: Run,
    ledger: Ledger,
    spec: Spec,
    host: str = "127.0.0.1",
    chaos: Chaos | None = None,
    agents_live: bool = True,
) -> tuple[Command, bool]:
    """What serves the agents of a run, heard on `host`; and whether it takes over from another."""
    chaos = chaos or Chaos()
    command = commanding(
        run,
        ledger,
        plan_of(spec, chaos),
        spec.layout.copy_ranks,
        snapshot_every=spec.checkpoint.snapshot_every,
        host=host,
        chaos=chaos,
        agents_live=agents_live,
    )
    return command, command.took_over


def commanding(
    run: Run,
    ledger: Ledger,
    plan: Plan,
    copy_ranks: int,
    *,
    snapshot_every: int = 1,
    host: str = "127.0.0.1",
    chaos: Chaos | None = None,
    agents_live: bool = True,
    clock: Clock | None = None,
) -> Command:
    """The same for a plan, on any clock."""
    clock = clock or Clock()
    controller, took_over = controller_of(ledger, plan, agents_live, clock)
    return Command(
        run,
        ledger,
        controller,
        per_node=plan.per_node,
        copy_ranks=copy_ranks,
        snapshot_every=snapshot_every,
        host=host,
        chaos=chaos or Chaos(),
        clock=clock,
        took_over=took_over,
        incarnation=ledger.next_incarnation() - 1,
        places=tuple(controller.run.world.nodes) if took_over else (),
        quarantined=quarantined_of(ledger),
    )


def plan_of(spec: Spec, chaos: Chaos) -> Plan:
    """What the run of a spec asks of its nodes."""
    assert spec.training is not None and spec.layout.replicate is not None
    return Plan(
        places=spec.cluster.nodes,
        per_node=spec.cluster.workers_per_node,
        copy=spec.layout.copy_ranks,
        shares=_shares(spec.layout),
        global_batch=spec.training.global_batch,
        steps=spec.training.total_steps,
        spares=spec.cluster.spares,
        wait_seconds=spec.cluster.wait_seconds,
        strikes=None if chaos.on else policy.STRIKES,  # faults on purpose say nothing about a node
    )


def controller_of(
    ledger: Ledger, plan: Plan, agents_live: bool = True, clock: Clock | None = None
) -> tuple[Controller, bool]:
    """The controller of a run: a new one, or one that takes over where another was killed.

    Where it is certain that no agent lives any more, there is nothing to take over.
    """
    clock = clock or Clock()
    history = [event for _, event in ledger.events()]
    ends = [e.incarnation for e in history if e.kind in ("finished", "stopped", "gave_up")]
    started = [e for e in history if e.kind == "incarnation_started"]
    counts = since_readmitted(history)
    quarantined = [e.text("node") for e in counts if e.kind == "quarantined"]
    strikes = strikes_of(counts, clock.now() - clock.date())
    corruptions = Counter(e.text("node") for e in counts if e.kind == "corrupted")
    took_over = agents_live and bool(started) and started[-1].incarnation not in ends
    if took_over:
        last = started[-1]
        done = [e.step or 0 for e in history if e.kind == "step_done" and e.incarnation == last.incarnation]
        fruitless = cast(Mapping[str, int], last.data.get("fruitless", {}))
        controller = Controller.take_over(
            plan,
            incarnation=last.incarnation,
            nodes=_nodes(last),
            replicate=last.whole("replicate") or plan.replicate,
            quarantined=quarantined,
            strikes=strikes,
            corruptions=corruptions,
            step=max(done, default=0),
            restored=int(last.number("restore") or 0),
            saved=saved_of(history),
            before=[(e.incarnation, int(e.number("restore") or 0)) for e in started[:-1]],
            first_done=min(done, default=None),
            fruitless=fruitless,
            aside=aside_of(history),
            suspicion=suspicion_of(history),
        )
    else:
        controller = Controller(
            plan,
            ledger.next_incarnation(),
            saved=saved_of(history),
            quarantined=quarantined,
            strikes=strikes,
            corruptions=corruptions,
        )
    return controller, took_over


def since_readmitted(history: Sequence[Event]) -> list[Event]:
    """What still counts: of a node that was readmitted only what came after."""
    last = {e.text("node"): number for number, e in enumerate(history) if e.kind == "readmitted"}
    return [e for number, e in enumerate(history) if number > last.get(e.text("node"), -1)]


def quarantined_of(ledger: Ledger) -> dict[str, str]:
    """The nodes that are not to be used, and why."""
    said = sorted(
        (number, event) for kind in ("quarantined", "readmitted") for number, event in ledger.events(kind)
    )
    history = [event for _, event in said]
    return {e.text("node"): e.text("why") for e in since_readmitted(history) if e.kind == "quarantined"}


def readmit(ledger: Ledger, nodes: Sequence[str]) -> None:
    """Forget all that was held against these nodes; an error if one of them is not quarantined."""
    quarantined = quarantined_of(ledger)
    for node in nodes:
        if node not in quarantined:
            hint = f"these are: {', '.join(quarantined)}" if quarantined else "no node of this run is"
            raise BadInput(f"--readmit {node}: it is not quarantined", hint)
    incarnation = ledger.next_incarnation() - 1
    for node in dict.fromkeys(nodes):
        data = {"node": node, "why": "somebody asked"}
        ledger.append(Event(time=time.time(), kind="readmitted", incarnation=incarnation, data=data))


def strikes_of(history: Sequence[Event], offset: float) -> dict[str, list[float]]:
    """When each node failed, on the controller's clock, which is so much [s] ahead of the ledger's.

    By losing a worker, by going while it was in the run, by being so slow that it was replaced and checked,
    or by a wrong result; what happened under a controller that made faults on purpose says nothing.
    """
    strikes: dict[str, list[float]] = {}
    nodes: Sequence[str] = ()
    on_purpose = False
    for event in history:
        node = event.text("node")
        if event.kind == "incarnation_started":
            nodes = _nodes(event)
        elif event.kind == "controller_started":
            on_purpose = event.data.get("chaos") is True
        elif not on_purpose and (
            (event.kind == "fault" and event.whole("rank") is not None)
            or (event.kind == "node_lost" and node in nodes)
            or event.kind in ("checked", "corrupted")
        ):
            strikes.setdefault(node, []).append(event.time + offset)
    return strikes


def aside_of(history: Sequence[Event]) -> dict[str, str]:
    """Nodes that were still to be checked, and why: as the last incarnation began, and not gone since."""
    aside: dict[str, str] = {}
    for event in history:
        if event.kind == "incarnation_started":
            aside = dict(cast(Mapping[str, str], event.data.get("aside", {})))
        elif event.kind in ("checked", "node_lost", "quarantined"):
            aside.pop(event.text("node"), None)
    return aside


def saved_of(history: Sequence[Event]) -> int:
    """The newest step whose checkpoint is complete, and was not set aside since; 0 for none."""
    steps: set[int] = set()
    for event in history:
        if event.kind == "checkpoint_complete":
            steps.add(event.step or 0)
        elif event.kind == "checkpoint_damaged":
            steps.discard(step_of(Path(event.text("folder"))))
    return max(steps, default=0)


def suspicion_of(history: Sequence[Event]) -> CorruptionSuspected | None:
    """The last one, unless its step was done again since, and the next one too."""
    event = next((event for event in reversed(history) if event.kind == "suspected"), None)
    if event is None or any(
        e.kind == "step_done" and e.incarnation > event.incarnation and (e.step or 0) > (event.step or 0)
        for e in history
    ):
        return None
    fingerprints = cast(Mapping[str, Sequence[int]], event.data["fingerprints"])
    return CorruptionSuspected(
        incarnation=event.incarnation,
        step=event.step or 0,
        fingerprints={int(rank): tuple(both) for rank, both in fingerprints.items()},
        agreed=event.whole("agreed"),
    )


def _nodes(started: Event) -> list[str]:
    """Of an incarnation, by place."""
    return [str(node) for node in cast(Sequence[str], started.data["nodes"])]


def _shares(layout: LayoutSpec) -> int:
    """What the batch of a copy of the model must be a multiple of."""
    assert layout.micro_batch is not None
    rounds = layout.micro_batch * layout.pipeline if layout.pipeline > 1 else 1
    return layout.shard * layout.expert * rounds
