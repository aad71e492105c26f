"""All nodes of a world answer at once: what they hold alike, and what became of it since."""

from collections.abc import Mapping

from colossi.control.actions import DISK, Start
from colossi.control.controller import Controller
from colossi.control.events import NodeJoined, NodeLost, Ring, StepDone, WorkerExited, WorldStopped
from colossi.control.plan import Plan

from .story import Story, one
from .test_cost import FEW, MANY, PER_NODE, calls_of, controller_of

# Four nodes of one worker, in four racks, and only together: three do not divide the batch
PLAN = Plan(places=4, per_node=1, copy=4, shares=1, global_batch=8, steps=100)
RACKS = {f"n{number}": f"r{number}" for number in range(6)}


def story(nodes: int = 4) -> tuple[Story, Start]:
    """It runs, and step 5 is done."""
    told = Story(PLAN)
    starts = [
        action
        for node in list(RACKS)[:nodes]
        for action in told.hear(NodeJoined(node=node, rack=RACKS[node]))
        if isinstance(action, Start)
    ]
    told.step(5)
    return told, starts[0]


def stopped(start: Start, step: int, otherwise: Mapping[int, tuple[str, ...]] = {}) -> WorldStopped:
    """All answer, and hold a step alike but for these places."""
    ring = Ring(
        incarnation=start.incarnation,
        world=4,
        step=step,
        nodes=start.nodes,
        buddies=start.buddies,
        otherwise=otherwise,
    )
    return WorldStopped(incarnation=start.incarnation, rings=(ring,))


def test_a_worker_that_died_goes_on_from_its_own_memory() -> None:
    told, start = story()
    told.exited("n1", 1)
    again = one(told.hear(stopped(start, 5)), Start)
    assert (again.restore, again.fetch, again.nodes) == (5, {}, start.nodes)


def test_a_new_node_gets_it_from_the_buddy() -> None:
    told, start = story(5)
    told.hear(NodeLost(node="n1", why="killed"))
    again = one(told.hear(stopped(start, 5)), Start)
    assert again.nodes[1] == "n4"
    assert (again.restore, again.fetch) == (5, {1: start.buddies[1]})


def test_without_both_it_goes_back_to_the_disk() -> None:
    told, start = story(6)
    for node in ("n1", start.buddies[1]):
        told.hear(NodeLost(node=node, why="killed"))
    assert one(told.hear(stopped(start, 5)), Start).restore == DISK


def test_who_has_it_otherwise_is_believed() -> None:
    told, start = story()
    told.exited("n1", 1)
    again = one(told.hear(stopped(start, 5, {1: ("n3",)})), Start)
    assert (again.restore, again.fetch) == (5, {1: "n3"})
    told, start = story()
    told.exited("n1", 1)
    assert one(told.hear(stopped(start, 5, {1: ()})), Start).restore == DISK


def test_what_is_lost_while_it_waits_for_nodes_is_lost() -> None:
    told, start = story()
    told.hear(NodeLost(node="n1", why="killed"))
    assert told.hear(stopped(start, 5)) != []  # too few: it waits, and says so
    told.hear(NodeLost(node=start.buddies[1], why="killed"))
    told.hear(NodeJoined(node="n4", rack="r4"))
    assert one(told.hear(NodeJoined(node="n5", rack="r5")), Start).restore == DISK


def test_a_late_word_is_not_heard() -> None:
    told, start = story()
    told.exited("n1", 1)
    told.hear(stopped(start, 5))
    assert told.hear(stopped(start, 5)) == []


def cycle(controller: Controller) -> int:
    """The calls that one failure costs, from the loss of a node to the next incarnation."""
    run = controller.run
    n, nodes, buddies = run.incarnation, run.world.nodes, run.world.buddies()
    controller.on(StepDone(incarnation=n, step=7), 3.0)
    world = len(nodes) * PER_NODE
    ring = Ring(incarnation=n, world=world, step=7, nodes=nodes, buddies=buddies, otherwise={})
    died = WorkerExited(node=nodes[1], rank=PER_NODE, incarnation=n, why="killed by SIGKILL")
    answer = WorldStopped(incarnation=n, rings=(ring,))
    cost = calls_of(lambda: (controller.on(died, 3.0), controller.on(answer, 3.0)))
    assert run.phase == "running" and run.newest == 7 and run.incarnation == n + 1
    return cost


def test_a_failure_costs_the_same_at_any_size() -> None:
    assert cycle(controller_of(MANY)) <= cycle(controller_of(FEW)) + 12  # a search by halves
