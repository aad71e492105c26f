"""Silent corruption: what follows when copies of the same weights differ, and when the step is done again."""

from colossi.control import policy
from colossi.control.actions import Action, GiveUp, Note
from colossi.control.events import CorruptionSuspected, FingerprintsTaken
from colossi.control.standing import Standing
from colossi.control.suspicion import Suspicion


def suspect(run: Standing, event: CorruptionSuspected, now: float) -> list[Action]:
    """Stop, and go back to the state before; several ranks that say the same are one suspicion."""
    old, new = run.suspicion, Suspicion.of(event, run.ranks)
    if old and old.incarnation == new.incarnation and old.step <= new.step:
        if old.step == new.step:
            old.add(new)
        return []
    if old and not old.redone:
        new.trusted = min(new.trusted, old.trusted)
    if old and old.step == new.step:
        new.times = old.times + 1
    run.suspicion = new
    run.newest = min(run.newest, new.trusted)
    if run.saved > new.trusted:
        run.saved = 0  # there may be an older one
    why = f"copies of the same weights differ after step {event.step}"
    if new.times >= run.plan.fruitless and run.doom is None:
        hint = "the program may not compute the same twice"
        run.doom = GiveUp(why=f"{why}, {new.times} times in a row", hint=hint)
    return run.fail(why, "worker", now) if run.live else []


def compare(run: Standing, event: FingerprintsTaken, now: float) -> list[Action]:
    """Who computed something else the first time is to blame."""
    doubt = run.suspicion
    if doubt is None or doubt.incarnation == run.incarnation or doubt.step != event.step:
        return []
    actions: list[Action] = []
    nodes: dict[str, None] = {}
    for rank in doubt.culprits(event.fingerprints):
        node = run.world.nodes[rank // run.plan.per_node]
        nodes[node] = None
        why = "its result was another one when the step was done again"
        actions.append(Note(kind="corrupted", why=why, node=node, rank=rank, step=event.step))
    doubt.redone = doubt.redone or not doubt.first
    excluded = [action for node in nodes for action in _blame(run, node, now)]
    if excluded and run.live:
        excluded += run.stop("a node whose results were wrong is replaced", now)
    return actions + excluded


def _blame(run: Standing, node: str, now: float) -> list[Action]:
    """A node has spoilt a step: it is out if there is a spare, or if it does so again and again."""
    fleet = run.fleet
    fleet.strike(node, now)
    times = fleet.corruptions[node] = fleet.corruptions.get(node, 0) + 1
    if fleet.spare_count > len(run.world.vacant) or policy.is_corrupting(times):
        return run.exclude(node, f"its results were wrong, {times} time(s) in this run", readable=False)
    return []
