"""The storms have teeth: what is broken on purpose is found, and so are bugs that they found, put back."""

from collections.abc import Callable
from typing import Any

import pytest

from colossi.control import forming, memory
from colossi.control.actions import Action
from colossi.control.controller import Controller
from colossi.control.detector import Progress
from colossi.control.events import NodeJoined, NodeLost, NodeStopped
from colossi.control.fleet import Fleet
from colossi.control.standing import Standing
from colossi.engines import takeover
from colossi.engines.command import Command
from colossi.engines.memory import Memory
from colossi.ledger.fence import Fence
from colossi.torture import machine
from colossi.torture.machine import Machine
from colossi.torture.storm import run

Break = Callable[[pytest.MonkeyPatch], None]


def forgets_the_quarantine(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fleet, "quarantine", lambda self, node, *, readable: self.drop_spare(node))


def begins_before_all_have_stopped(patch: pytest.MonkeyPatch) -> None:
    real = Controller._stopped

    def first_answer(self: Controller, event: NodeStopped, now: float) -> list[Action]:
        actions = real(self, event, now)
        self.run.fleet.runs.clear()
        return actions

    patch.setattr(Controller, "_stopped", first_answer)


def restores_what_is_not_whole(patch: pytest.MonkeyPatch) -> None:
    real = memory.Whole.by_rank

    def by_rank(self: memory.Whole) -> dict[int, tuple[str, ...]]:
        found = real(self)
        return {rank: found.get(rank, found[min(found)]) for rank in range(self.world)}

    patch.setattr(memory, "_cover", lambda blocks, world: True)
    patch.setattr(memory.Whole, "by_rank", by_rank)


def takes_any_course(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(memory.Memory, "_key", lambda self, incarnation, world, step: (world, step, 0))


def trusts_a_state_in_doubt(patch: pytest.MonkeyPatch) -> None:
    real = forming.choose
    patch.setattr(
        forming,
        "choose",
        lambda memory, world, per_node, trusted, saved: real(memory, world, per_node, None, saved),
    )


def numbers_an_incarnation_twice(patch: pytest.MonkeyPatch) -> None:
    real = forming.go_on

    def again(run: Standing, now: float) -> list[Action]:
        run.incarnation, run.highest = max(0, run.incarnation - 1), max(0, run.incarnation - 1)
        return real(run, now)

    patch.setattr("colossi.control.controller.go_on", again)


def forgets_the_quarantine_when_it_takes_over(patch: pytest.MonkeyPatch) -> None:
    real = Controller.take_over
    patch.setattr(Controller, "take_over", lambda plan, **known: real(plan, **{**known, "quarantined": ()}))


def decides_by_what_is_not_in_its_state(patch: pytest.MonkeyPatch) -> None:
    real = Fleet.state
    patch.setattr(Fleet, "state", lambda self: real(self) | {"strikes": {}})


def waits_for_ever_for_an_answer(patch: pytest.MonkeyPatch) -> None:
    def forever(self: Standing, now: float) -> None:
        self.phase, self.deadline = "stopping", None

    patch.setattr(Standing, "await_answers", forever)


# What the storms found, put back


def begins_while_a_node_comes_back(patch: pytest.MonkeyPatch) -> None:
    real = Controller.on

    def two_events(self: Controller, event: Any, now: float) -> list[Action]:
        lost: list[Action] = []
        if isinstance(event, NodeJoined) and event.node in self.run.fleet.racks:
            lost = real(self, NodeLost(node=event.node, why="came back over a new connection"), now)
        return lost + real(self, event, now)

    patch.setattr(Controller, "on", two_events)


def watches_nobody_after_a_takeover(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Command, "__post_init__", lambda self: None)


def watches_nobody_while_saving(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Progress, "linger", lambda self, now: self.pause())


def watches_nobody_after_an_old_stop(patch: pytest.MonkeyPatch) -> None:
    real = Command._tell

    def pausing(self: Command, nodes: Any, message: dict[str, Any]) -> None:
        if message["do"] == "stop":
            self._progress.pause()
        real(self, nodes, message)

    patch.setattr(Command, "_tell", pausing)


def forgets_the_disk_when_it_takes_over(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(takeover, "saved_of", lambda history: 0)


def takes_the_last_call_for_the_newest(patch: pytest.MonkeyPatch) -> None:
    real = Machine._hello
    patch.setattr(Machine, "_hello", lambda self: real(self) | {"call": 0.0})


def writes_though_it_was_replaced(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Fence, "replaced", lambda self: False)


def ends_its_workers_too_late(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(machine, "CUT_OFF_SECONDS", 5.0)


def takes_the_stale_snapshot_of_its_own(patch: pytest.MonkeyPatch) -> None:
    def own(order: Any, rank: int, memory: Memory, fetch: Any) -> Any:
        step = order["restore"]
        if str(rank) in order["fetch"]:
            found = fetch(order["fetch"][str(rank)], rank, step)
            if found is not None:
                memory.put(rank, step, found)
        return memory.local(rank, step)

    patch.setattr(machine, "of_this_world", own)


def takes_a_stale_snapshot_of_another_world(patch: pytest.MonkeyPatch) -> None:
    def any_of_them(order: Any, rank: int, memory: Memory, here: str, fetch: Any) -> list[Any]:
        step = order["restore"]
        found = [
            memory.get(int(old), step) or fetch(holder, int(old), step)
            for old, holder in order["sources"].items()
        ]
        return [whole for whole in found if whole is not None]

    patch.setattr(machine, "of_another_world", any_of_them)


def counts_fruitful_ones_as_fruitless(patch: pytest.MonkeyPatch) -> None:
    real = forming._judge
    patch.setattr(forming, "_judge", lambda run: real(run) if run.failed else None)


SEEDS = 8000  # in so many storms each is found
FAST = (
    forgets_the_quarantine,
    begins_before_all_have_stopped,
    restores_what_is_not_whole,
    takes_any_course,
    trusts_a_state_in_doubt,
    numbers_an_incarnation_twice,
    forgets_the_quarantine_when_it_takes_over,
    decides_by_what_is_not_in_its_state,
    waits_for_ever_for_an_answer,
    begins_while_a_node_comes_back,
    watches_nobody_after_a_takeover,
    writes_though_it_was_replaced,
)
SLOW = (  # hundreds of storms until one does it
    watches_nobody_while_saving,
    watches_nobody_after_an_old_stop,
    forgets_the_disk_when_it_takes_over,
    ends_its_workers_too_late,
    takes_the_last_call_for_the_newest,
    takes_the_stale_snapshot_of_its_own,
    takes_a_stale_snapshot_of_another_world,
    counts_fruitful_ones_as_fruitless,
)


@pytest.mark.parametrize(
    "breaks",
    [*FAST, *(pytest.param(each, marks=pytest.mark.all) for each in SLOW)],
    ids=lambda breaks: breaks.__name__,
)
def test_a_storm_finds_it(breaks: Break, monkeypatch: pytest.MonkeyPatch) -> None:
    breaks(monkeypatch)
    broken = next((outcome for seed in range(SEEDS) if (outcome := run(seed)).broken), None)
    assert broken is not None
    assert run(broken.seed) == broken
    monkeypatch.undo()
    assert not run(broken.seed).broken
