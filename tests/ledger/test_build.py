"""How a build stands, by events that were written down by hand."""

from datetime import datetime

import pytest

from colossi.errors import DataError
from colossi.ledger.build import due_of, pod_name, standing
from colossi.ledger.events import Event

PODS = {"a": "pod-000", "b": "pod-000", "c": "pod-001", "d": "pod-001"}


def was_tested(time: float, node: str, verdict: str, rack: str = "") -> Event:
    data = {
        "node": node,
        "verdict": verdict,
        "why": "memory.copy: slow" if verdict == "fail" else "",
        "rack": rack,
    }
    return Event(time=time, kind="node_tested", incarnation=0, data=data)


def said(time: float, kind: str, node: str) -> Event:
    return Event(
        time=time, kind=kind, incarnation=0, data={"node": node, "why": "colossi: memory.copy: slow"}
    )


HISTORY = [
    was_tested(10, "a", "pass"),
    was_tested(10, "b", "fail"),
    said(11, "quarantined", "b"),
    was_tested(20, "b", "pass"),  # a test alone brings nobody back
    was_tested(30, "c", "warn"),
    said(40, "readmitted", "b"),
    was_tested(50, "c", "fail"),  # and is left in
]


def test_nodes_are_counted_by_what_was_last_said_of_them() -> None:
    found = standing(HISTORY, PODS, 4, {}, now=60)
    assert found.nodes == {"accepted": 2, "failed": 1, "out": 0, "awaited": 1}
    assert {pod.pod: pod.state for pod in found.pods} == {"pod-000": "accepted", "pod-001": "in test"}
    assert found.pods[0].accepted == 40  # when its last node was
    assert found.whys == {"c": "memory.copy: slow"}
    assert found.first_yield == pytest.approx(2 / 3) and found.last_yield == pytest.approx(2 / 3)


@pytest.mark.parametrize(
    ("until", "states"),
    [(11, ["accepted", "out"]), (20, ["accepted", "out"]), (40, ["accepted", "accepted"])],
)
def test_who_is_out_stays_so_until_let_back(until: float, states: list[str]) -> None:
    found = standing([event for event in HISTORY if event.time <= until], PODS, 4, {}, now=60)
    assert (found.nodes["out"] == 1) == ("out" in states)


def test_the_burn_down_counts_nodes_and_what_a_plan_wanted() -> None:
    found = standing(HISTORY, PODS, 4, {"pod-000": 15.0, "pod-001": 1000.0}, now=120)
    by_time = {round(time): (accepted, planned) for time, accepted, planned in found.burn_down}
    assert by_time[10] == (1, 0) and by_time[20] == (1, 2) and by_time[30] == (2, 2)
    assert by_time[40] == (3, 2) and by_time[120] == (2, 2)
    assert [pod.late(now=120) for pod in found.pods] == [False, False]
    assert [pod.late(now=2000) for pod in found.pods] == [False, True]


def test_nodes_of_which_nothing_is_known_are_awaited() -> None:
    found = standing(
        [was_tested(1, "n1", "pass", "spine.leaf1"), was_tested(1, "n3", "pass", "spine.leaf2")], {}, 5, {}, 2
    )
    assert {pod.pod: (pod.state, sum(pod.nodes.values())) for pod in found.pods} == {
        "spine.leaf1": ("accepted", 1),
        "spine.leaf2": ("accepted", 1),
        "not seen yet": ("awaited", 3),
    }
    assert standing([], {}, 0, {}, 1).first_yield is None


def test_a_plan_says_when_each_pod_is_due() -> None:
    table = (
        "task,kind,group,start,end,hours,crews,kilowatts,after\n"
        "acceptance pod-0003,acceptance,pod-0003,2026-01-01T08:00:00,2026-01-02T16:00:00,16,,0,\n"
        "cabling r1,cabling,pod-0003,2026-01-01T08:00:00,2027-01-02T16:00:00,16,,0,\n"
        "acceptance common,acceptance,common-001,2026-01-01T08:00:00,2026-01-02T16:00:00,16,,0,\n"
    )
    assert due_of(table, "plan.csv") == {"pod-003": datetime(2026, 1, 2, 16).timestamp()}
    for wrong in ("a,b\n1,2\n", table.splitlines()[0] + "\n", table.replace("2026-01-02T16:00:00", "soon")):
        with pytest.raises(DataError):
            due_of(wrong, "plan.csv")


@pytest.mark.parametrize(
    ("text", "name"), [("pod-12", "pod-012"), ("pod_0007", "pod-007"), ("hall-1", ""), ("", "")]
)
def test_pods_are_known_however_they_are_written(text: str, name: str) -> None:
    assert pod_name(text) == name
