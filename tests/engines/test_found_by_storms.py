"""What `colossi torture` found in the agent and beside the controller, piece by piece."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from colossi.engines import agent as agents
from colossi.engines.agent import Agent, Place
from colossi.engines.command import SILENT_NODE_SECONDS
from colossi.engines.memory import Memory, Whole
from colossi.engines.sources import of_another_world, of_this_world
from colossi.engines.takeover import saved_of
from colossi.ledger.events import Event
from colossi.ledger.fence import Fence
from colossi.ledger.store import Ledger

MANIFEST = {"unique": 1, "total": 1}


def snapshot(memory: Memory, rank: int, step: int, value: int, incarnation: int, world: int) -> None:
    region = memory.region(rank, MANIFEST)
    slot = region.to_overwrite()
    region.view(slot)[:] = bytes([value])
    memory.written(rank, slot, step, (value, value), (incarnation, world))


def whole(value: int, incarnation: int, world: int) -> Whole:
    return Whole(MANIFEST, (value, value), (incarnation, world), (bytes([value]),))


def test_a_fetched_snapshot_is_not_hidden_by_another_try_of_the_step() -> None:
    memory = Memory()
    snapshot(memory, 2, 15, value=1, incarnation=1, world=4)  # before the run went back to step 14
    order = {"restore": 15, "fetch": {"2": "b"}}
    found = of_this_world(order, 2, memory, lambda address, rank, step: whole(2, 2, 4))
    assert found is not None
    assert bytes(found[0].view(found[1])) == b"\x02"


def test_a_snapshot_that_cannot_be_fetched_is_not_replaced_by_another_try_of_the_step() -> None:
    memory = Memory()
    snapshot(memory, 2, 15, value=1, incarnation=1, world=4)
    order = {"restore": 15, "fetch": {"2": "b"}}
    assert of_this_world(order, 2, memory, lambda address, rank, step: None) is None


def test_snapshots_of_another_world_come_from_where_the_order_says() -> None:
    memory = Memory()
    snapshot(memory, 0, 20, value=1, incarnation=1, world=4)
    snapshot(memory, 1, 20, value=3, incarnation=2, world=2)
    order = {"restore": 20, "copy_ranks": 1, "sources": {"0": "b", "1": "here"}}
    found = of_another_world(order, 0, memory, "here", lambda address, rank, step: whole(2, 2, 2))
    assert [bytes(each.pieces[0]) for each in found] == [b"\x02", b"\x03"]


def event(kind: str, incarnation: int = 1, step: int | None = None, **data: Any) -> Event:
    return Event(time=0.0, kind=kind, incarnation=incarnation, step=step, data=data)


def test_what_was_set_aside_is_not_on_the_disk() -> None:
    history = [event("checkpoint_complete", step=step) for step in (5, 10)]
    assert saved_of(history) == 10
    assert saved_of([*history, event("checkpoint_damaged", folder="step-00000010")]) == 5
    assert saved_of([]) == 0


def test_who_was_replaced_may_not_write(tmp_path: Path) -> None:
    with Ledger.create_or_open(tmp_path / "ledger.sqlite") as ledger:
        ledger.append(event("incarnation_started", 1))
        fence = Fence(ledger, 1)
        assert not fence.replaced()
        ledger.append(event("step_done", 1, 1), event("incarnation_started", 2))
        assert fence.replaced()
        assert Fence(ledger, 1).replaced() and not Fence(ledger, 2).replaced()


def test_an_agent_that_is_cut_off_has_ended_its_workers_before_it_is_replaced() -> None:
    """Counted from a beat that was heard; it looks around every 0.05 s, and a kill takes milliseconds."""
    assert agents.CUT_OFF_SECONDS + 0.05 + 0.5 < SILENT_NODE_SECONDS


@pytest.fixture
def agent(tmp_path: Path) -> Agent:
    """Without processes; its threads wait for ever, and end with ours."""
    return Agent(tmp_path, Place("a", "", "127.0.0.1", "", 2, 1))


class TestAgent:
    """The agent's own part of what the storms found."""

    def test_only_answered_beats_prove_that_the_controller_hears_it(self, agent: Agent) -> None:
        old: Any = object()
        new: Any = object()
        agent.asked.extend([(old, 1.0), (new, 2.0), (new, 3.0)])
        agent._answered(new)
        assert agent.heard == 2.0

    def test_idle_workers_are_not_said_to_run(self, agent: Agent) -> None:
        agent.incarnation = 3
        agent.workers[1] = SimpleNamespace(rank=0)  # type: ignore[assignment]
        assert agent._hello()["incarnation"] == 3
        agent.workers[1].rank = None
        assert agent._hello()["incarnation"] == 0

    def test_the_snapshots_of_a_worker_that_died_stay(self, agent: Agent) -> None:
        agent.own = range(2)
        for rank in (0, 1):
            snapshot(agent.memory, rank, 8, value=1, incarnation=1, world=4)
        alive: Any = SimpleNamespace(number=1, rank=0, channel=SimpleNamespace(send=print))
        agent.workers = {1: alive}
        message = {"say": "snapshot", "slot": 1, "step": 9, "sums": (1, 1)}
        agent.memory.region(0, MANIFEST)
        agent._from_worker(alive, message | {"fingerprint": (0, 1)})
        assert {(rank, step) for _, _, rank, step, _ in agent.memory.held()} >= {(0, 8)}
        assert agent.memory.local(1, 8) is not None
