"""
From one incarnation to the next: when nothing runs any more, end, or begin anew, or wait for nodes.

The one place where deciding costs the size of the world, as every node must hear where it sits.
"""

from colossi.control import policy
from colossi.control.actions import DISK, Action, Distrust, Finish, GiveUp, Note, Start
from colossi.control.restoring import choose
from colossi.control.standing import Standing


def go_on(run: Standing, now: float) -> list[Action]:
    """Nothing runs: what now."""
    _judge(run)
    actions: list[Action] = []
    doubt = run.suspicion
    if doubt and not doubt.told:
        doubt.told = True
        why = f"copies of the same weights differ after step {doubt.step}"
        actions.append(Distrust(step=doubt.trusted, why=why))
    if run.doom:
        return actions + run.end(run.doom)
    if run.stop_wanted:
        return actions + run.end(Finish(step=run.newest, stopped=True))
    replicate = _affordable(run, now)
    return actions + (_wait(run, now) if replicate is None else _begin(run, replicate, now))


def _judge(run: Standing) -> None:
    """Whether the incarnation that has just ended got anywhere, and whether the next one would."""
    if run.first_done is not None and run.trusts(run.first_done):
        run.fruitless = {}  # also where nothing failed: a node was replaced, the world grew
    elif run.failed:
        run.fruitless[run.failed] = run.fruitless.get(run.failed, 0) + 1
    run.failed = ""
    by_workers, by_nodes = run.fruitless.get("worker", 0), run.fruitless.get("node", 0)
    if run.doom is None and policy.is_hopeless(by_workers, by_nodes, run.plan.fruitless, len(run.world)):
        why = f"{by_workers + by_nodes} times in a row no step was done; the last time: {run.why}"
        run.doom = GiveUp(why=why, hint="the log of the worker that failed first says more")


def _affordable(run: Standing, now: float) -> int | None:
    """How many copies of the model to go on with now; None to wait for more nodes."""
    most = run.plan.largest(run.available)
    if most is None or most >= (run.world.replicate or run.plan.replicate):
        return most
    since = now if run.waiting_since is None else run.waiting_since
    return most if now >= since + _patience(run) else None


def _patience(run: Standing) -> float:
    out = sum(node in run.fleet.racks for node in run.fleet.quarantined)
    all_came = run.available + out >= run.plan.places + run.plan.spares
    return run.plan.patience_seconds if len(run.world) or all_came else run.plan.wait_seconds


def _wait(run: Standing, now: float) -> list[Action]:
    actions: list[Action] = []
    short = f"there are {run.available} nodes, and {run.plan.places} are wanted"
    if run.waiting_since is None:
        run.waiting_since = now
        if len(run.world):
            actions.append(Note(kind="waiting", why=short))
    limit = _patience(run)
    if run.plan.largest(run.available) is None:
        limit = max(limit, run.plan.wait_seconds)
    if now >= run.waiting_since + limit:
        hint = "not one copy of the model fits on them"
        return actions + run.end(GiveUp(why=f"{short}; no other came in {limit:.0f} s", hint=hint))
    run.phase, run.deadline = "waiting", run.waiting_since + limit
    return actions


def _begin(run: Standing, replicate: int, now: float) -> list[Action]:
    notes = _seat(run, replicate)
    run.incarnation = run.highest = max(run.incarnation, run.highest) + 1
    doubt = run.suspicion
    trusted = doubt.trusted if doubt and not doubt.redone else None
    source = choose(run.memory, run.world, run.plan.per_node, trusted, run.saved)
    if doubt and (doubt.redone or doubt.world != run.ranks):  # in another world fingerprints say nothing
        run.suspicion = doubt = None
    run.memory.begin(run.incarnation, source.restore, run.world)
    run.fleet.runs.begin(run.incarnation, run.world.places)
    run.newest = run.saved if source.restore == DISK else source.restore
    run.first_done, run.failed, run.why, run.waiting_since = None, "", "", None
    run.phase, run.absent = "running", 0
    run.set_checkpoint(now)
    start = Start(
        incarnation=run.incarnation,
        nodes=run.world.nodes,
        buddies=run.world.buddies(),
        replicate=replicate,
        restore=source.restore,
        fetch=source.fetch,
        sources=source.sources,
        verify=doubt.step if doubt else 0,
    )
    return [*notes, start]


def _seat(run: Standing, replicate: int) -> list[Note]:
    """Give every place of the next world a node."""
    before, places = run.world.replicate or run.plan.replicate, run.plan.nodes(replicate)
    if len(run.world) == places:
        promoted = run.world.fill(run.fleet)
        return [
            Note(kind="promoted", why=f"it takes the place of {lost}", node=node) for node, lost in promoted
        ]
    run.world.resize(run.fleet, places, replicate)
    if replicate == before:
        return []
    why = f"from {before} to {replicate} copies of the model, on {places} nodes"
    return [Note(kind="grown" if replicate > before else "shrunk", why=why)]
