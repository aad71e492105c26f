"""
What befalls a simulated fleet: each fault of the list does to the world what such a fault does.

It decides nothing: it stops training, takes nodes away, makes them slow, flips bits, and lets the controller
hear what a real one would hear, when it would.
"""

from collections.abc import Iterable, Sequence
from functools import partial

from colossi.control import events
from colossi.ledger.events import Event
from colossi.simulation.engine import Simulated
from colossi.simulation.scenario import PLANNED, Scenario
from colossi.simulation.steps import ROUNDING
from colossi.world.failures import Fault

# How long a link may be down before its collective fails: NCCL's default time-out on InfiniBand and RoCE,
# 4.096 us * 2^20 for each of 7 tries (NCCL's documentation, NCCL_IB_TIMEOUT and NCCL_IB_RETRY_CNT).
FLAP_SECONDS = 4.096e-6 * 2**20 * 7
Failure = events.WorkerExited | events.WorkerHung
PEERS = 16  # ranks whose fingerprints are told when copies of the weights differ


def play(scenario: Scenario, faults: Iterable[Fault], arrivals: Sequence[float] = ()) -> list[Event]:
    """The ledger of a run to which these happen; its nodes arrive then, or are all there."""
    return struck(Simulated(scenario, arrivals), faults).play()


def struck(run: Simulated, faults: Iterable[Fault]) -> Simulated:
    """The same run, with these before it."""
    for number, fault in enumerate(faults):
        run.at(fault.time, partial(strike, run, fault, number))
    return run


def strike(run: Simulated, fault: Fault, number: int) -> None:
    scenario = run.scenario
    nodes = [scenario.name_of(node) for node in fault.nodes]
    if fault.effect == "loss":
        _lose(run, [node for node in nodes if node not in run.dead], fault)
    elif fault.effect == "storage":
        run.settle()
        run.steps.storage_until = max(run.steps.storage_until, run.now + fault.repair)
    elif fault.effect == "slow":
        _slow_down(run, nodes[0], fault)
    elif run.stage not in ("starting", "training"):
        return  # nothing is running that could be disturbed
    elif fault.effect == "job":
        assert run.start is not None
        node = run.start.nodes[number * 7919 % len(run.start.nodes)]  # the one that speaks first
        if fault.component == PLANNED:
            _leave_off(run, node, fault)
        else:
            _break(run, fault.component, "all workers ended", _exited(run, node, fault))
    elif nodes[0] not in run.copies.places or nodes[0] in run.dead:
        return
    elif fault.effect == "flap" and fault.repair <= FLAP_SECONDS:
        run.settle()
        run.steps.since += fault.repair
        run.plan_ahead()
    elif fault.effect == "corrupt" and _compares(run):
        _corrupt(run, nodes[0])
    elif fault.effect == "hang":
        hung = events.WorkerHung(
            node=nodes[0], rank=None, incarnation=run.incarnation, seconds=scenario.detection
        )
        _break(run, fault.component, "a collective never returns", hung)
    else:  # a process dies: by itself, as its link is away, or of a flipped bit that nothing compares
        _break(run, fault.component, f"a worker ended ({fault.effect})", _exited(run, nodes[0], fault))


def _lose(run: Simulated, nodes: list[str], fault: Fault) -> None:
    """Nodes are gone until they are repaired."""
    if not nodes:
        return
    run.settle()
    known = run.now + min(run.scenario.detection, fault.repair)
    for node in nodes:
        run.dead.add(node)
        run.untold[node] = known
        run.slow.pop(node, None)
        run.copies.lose(node)
        run.at(known, partial(_notice_loss, run, node, fault))
        run.at(run.now + fault.repair, partial(_repaired, run, node))
    if any(node in run.copies.places for node in nodes):
        run.get_stuck()


def _notice_loss(run: Simulated, node: str, fault: Fault) -> None:
    seated = node in run.copies.places
    del run.untold[node]
    if seated:
        run.note_fault(fault.component, "a node is lost", node)
    run.record("node_lost", node=node, why=fault.component)
    run.hear(events.NodeLost(node=node, why=fault.component))


def _repaired(run: Simulated, node: str) -> None:
    if node in run.untold:
        run.at(run.now, partial(_repaired, run, node))  # it is noticed at this very moment
        return
    run.arrive(node, run.scenario.rack_of(int(node.removeprefix("node-"))))


def _slow_down(run: Simulated, node: str, fault: Fault) -> None:
    if node in run.dead:
        return
    run.slow[node] = (fault.factor, run.now + fault.repair)
    run.at(run.now + fault.repair, partial(_speed_up, run, node))
    if node in run.copies.places:
        run.settle()
        run.set_pace()
        run.watch(node, 1)


def _speed_up(run: Simulated, node: str) -> None:
    if node in run.slow and run.slow[node][1] <= run.now + ROUNDING:
        run.settle()
        del run.slow[node]
        run.set_pace()


def _compares(run: Simulated) -> bool:
    """Whether copies of the weights are compared, so that a flipped bit is found."""
    return bool(
        run.scenario.snapshot_every
        and run.start is not None
        and run.start.replicate > 1
        and run.stage == "training"
    )


def _corrupt(run: Simulated, node: str) -> None:
    """A bit flips; at the end of the next step that is compared the copies differ."""
    run.settle()
    every, step = run.scenario.snapshot_every, run.steps.step + 1
    found = -(-step // every) * every
    when = run.steps.end_of(found)
    run.at(max(when, run.now), partial(_differ, run, node, found, run.course))


def _differ(run: Simulated, node: str, step: int, course: int) -> None:
    if course != run.course or run.start is None or node not in run.copies.places:
        return
    run.settle()
    run.note_fault("gpu", f"copies of the weights differ after step {step}", node)
    rank = run.copies.places[node] * run.scenario.plan.per_node
    run.get_stuck()
    run.hear(
        events.CorruptionSuspected(
            incarnation=run.incarnation,
            step=step,
            fingerprints=_fingerprints(run, wrong=rank),
            agreed=step - run.scenario.snapshot_every,
        )
    )


def _fingerprints(run: Simulated, wrong: int | None) -> dict[int, events.Fingerprint]:
    """Of some ranks that have the same weights; 0 is what is right."""
    assert run.start is not None
    ranks = len(run.start.nodes) * run.scenario.plan.per_node
    own = 0 if wrong is None else wrong
    told = {(own + peer * run.scenario.plan.per_node) % ranks: 0 for peer in range(PEERS)}
    return {rank: int(rank == wrong) for rank in sorted({**told, own: 0})}


def _exited(run: Simulated, node: str, fault: Fault) -> events.WorkerExited:
    rank = run.copies.places[node] * run.scenario.plan.per_node
    return events.WorkerExited(node=node, rank=rank, incarnation=run.incarnation, why=fault.component)


def _break(run: Simulated, component: str, what: str, event: Failure) -> None:
    """Training stops now; the controller hears of it when it is noticed."""
    run.get_stuck()
    run.at(run.now + run.scenario.detection, partial(_notice, run, component, what, event))


def _notice(
    run: Simulated, component: str, what: str, event: Failure, detection: float | None = None
) -> None:
    if event.incarnation == run.incarnation and run.stage == "stuck":
        run.note_fault(component, what, event.node, detection)
        run.hear(event)


def _leave_off(run: Simulated, node: str, fault: Fault) -> None:
    """All are asked to stop: after the step that they are in they save, then end, and nobody wonders why.

    Who is starting ends at once. If something else stops them first, that is the stop.
    """
    asked = _exited(run, node, fault)
    if run.stage == "starting":
        _end_as_asked(run, asked)
        return
    run.settle()
    run.at(max(run.steps.next_end, run.now), partial(_save_as_asked, run, asked))


def _save_as_asked(run: Simulated, asked: events.WorkerExited) -> None:
    if asked.incarnation != run.incarnation or run.stage != "training":
        return
    run.settle()
    if not run.steps.writing:  # else it is time for one anyway
        run.steps.save()
        run.plan_ahead()
    run.at(max(run.steps.since + run.steps.stall, run.now), partial(_end_as_asked, run, asked))


def _end_as_asked(run: Simulated, asked: events.WorkerExited) -> None:
    if asked.incarnation == run.incarnation and run.stage in ("starting", "training"):
        run.get_stuck()
        _notice(run, PLANNED, "all workers were asked to end", asked, detection=0.0)
