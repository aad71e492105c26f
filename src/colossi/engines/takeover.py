"""Command of a run, from its ledger: a new controller, or one in the place of another that was killed."""

from collections.abc import Sequence
from typing import cast

from colossi.control import policy
from colossi.control.controller import Controller
from colossi.control.plan import Plan
from colossi.engines.chaos import Chaos
from colossi.engines.command import Command
from colossi.ledger.run import Run
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
    controller, took_over = controller_of(ledger, spec, chaos, agents_live)
    command = Command(
        run,
        ledger,
        controller,
        per_node=spec.cluster.workers_per_node,
        copy_ranks=spec.layout.copy_ranks,
        snapshot_every=spec.checkpoint.snapshot_every,
        host=host,
        chaos=chaos,
        took_over=took_over,
        incarnation=ledger.next_incarnation() - 1,
        places=tuple(controller.run.world.nodes) if took_over else (),
    )
    return command, took_over


def controller_of(
    ledger: Ledger, spec: Spec, chaos: Chaos, agents_live: bool = True
) -> tuple[Controller, bool]:
    """The controller of a run: a new one, or one that takes over where another was killed.

    Where it is certain that no agent lives any more, there is nothing to take over.
    """
    assert spec.training is not None and spec.layout.replicate is not None
    plan = Plan(
        places=spec.cluster.nodes,
        per_node=spec.cluster.workers_per_node,
        copy=spec.layout.copy_ranks,
        shares=_shares(spec.layout),
        global_batch=spec.training.global_batch,
        steps=spec.training.total_steps,
        strikes=None if chaos.on else policy.STRIKES,  # faults on purpose say nothing about a node
    )
    history = [event for _, event in ledger.events()]
    ends = [e.incarnation for e in history if e.kind in ("finished", "stopped", "gave_up")]
    started = [e for e in history if e.kind == "incarnation_started"]
    took_over = agents_live and bool(started) and started[-1].incarnation not in ends
    if took_over:
        last = started[-1]
        done = [e.step or 0 for e in history if e.kind == "step_done" and e.incarnation == last.incarnation]
        controller = Controller.take_over(
            plan,
            incarnation=last.incarnation,
            nodes=[str(node) for node in cast(Sequence[str], last.data["nodes"])],
            replicate=last.whole("replicate") or plan.replicate,
            quarantined=[e.text("node") for e in history if e.kind == "quarantined"],
            step=max(done, default=0),
            restored=int(last.number("restore") or 0),
            before=[(e.incarnation, int(e.number("restore") or 0)) for e in started[:-1]],
        )
    else:
        controller = Controller(plan, first_incarnation=ledger.next_incarnation())
    return controller, took_over


def _shares(layout: LayoutSpec) -> int:
    """What the batch of a copy of the model must be a multiple of."""
    assert layout.micro_batch is not None
    rounds = layout.micro_batch * layout.pipeline if layout.pipeline > 1 else 1
    return layout.shard * layout.expert * rounds
