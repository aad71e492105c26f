"""The states of nodes, and the map that they are drawn on."""

from pathlib import Path

import numpy as np
import pytest

from colossi.ledger.events import JSON, Event
from colossi.site.cluster import design
from colossi.spec import read_spec
from colossi.web.fleet import CODES, NAMES, Fleet, late
from colossi.web.places import Map, by_design, by_rack

ROOT = Path(__file__).parents[2]

# (kind, data), and the states of nodes a, b, c after it
STORY: list[tuple[str, dict[str, JSON], str, str, str]] = [
    ("node_joined", {"node": "a", "rack": "r1"}, "spare", "", ""),
    ("node_joined", {"node": "b"}, "spare", "spare", ""),
    ("node_joined", {"node": "c"}, "spare", "spare", "spare"),
    ("incarnation_started", {"nodes": ["a", "b"]}, "training", "training", "spare"),
    ("fault", {"node": "b", "cause": "worker 1 killed"}, "training", "failed", "spare"),
    ("incarnation_started", {"nodes": ["a", "b"]}, "training", "training", "spare"),
    ("node_lost", {"node": "a", "why": "silent"}, "failed", "training", "spare"),
    ("incarnation_started", {"nodes": ["c", "b"]}, "failed", "training", "training"),
    ("node_joined", {"node": "a"}, "spare", "training", "training"),
    ("straggler", {"node": "b", "why": "slow"}, "spare", "set aside", "training"),
    ("incarnation_started", {"changed": {"1": "a"}}, "training", "set aside", "training"),
    ("checked", {"node": "b", "passed": True}, "training", "spare", "training"),
    ("fault", {"node": "c", "cause": "worker 0 killed"}, "training", "spare", "failed"),
    ("incarnation_started", {"changed": {}}, "training", "spare", "training"),
    ("quarantined", {"node": "c", "why": "bad"}, "training", "spare", "quarantined"),
    ("node_lost", {"node": "c", "why": "gone"}, "training", "spare", "quarantined"),
    ("readmitted", {"node": "c"}, "training", "spare", "absent"),
    ("finished", {}, "spare", "spare", "absent"),
]


def test_the_states_of_three_nodes() -> None:
    fleet = Fleet()
    for number, (kind, data, *expected) in enumerate(STORY, 1):
        fleet.on(number, Event(time=float(number), kind=kind, incarnation=1, data=data))
        found = [
            NAMES[fleet.states[fleet.numbers[name]]] if name in fleet.numbers else ""
            for name in ("a", "b", "c")
        ]
        assert found == expected, f"after {number}: {kind} {data}"
    assert fleet.racks == {"a": "r1"}
    assert fleet.count()["spare"] == 2


def test_the_changes_have_the_states_of_every_moment() -> None:
    fleet, states = Fleet(), [CODES["absent"]] * 3
    for number, (kind, data, *expected) in enumerate(STORY, 1):
        fleet.on(number, Event(time=float(number), kind=kind, incarnation=1, data=data))
        for change in (change for change in fleet.changes if change.id == number):
            states[change.first : change.first + change.count] = [change.state] * change.count
        assert [NAMES[state] for state in states] == [state or "absent" for state in expected]


def test_who_joins_first_of_all_was_not_there() -> None:
    story: list[tuple[str, dict[str, JSON]]] = [
        ("incarnation_started", {"nodes": ["a"]}),
        ("node_lost", {"node": "a"}),
        ("node_joined", {"node": "b"}),  # built meanwhile
        ("incarnation_started", {"changed": {"0": "c"}}),
        ("node_joined", {"node": "a"}),  # back
        ("node_joined", {"node": "c"}),
    ]
    assert late(Event(time=1.0, kind=kind, incarnation=1, data=data) for kind, data in story) == {"b"}
    fleet = Fleet.standing_by(["a", "b", "c"], 0.0, {"b"})
    assert [NAMES[state] for state in fleet.states] == ["spare", "absent", "spare"]


def test_a_site_is_drawn_as_it_is_built() -> None:
    spec = read_spec(ROOT / "examples" / "site.toml", needs=("site",))
    assert spec.site is not None
    built = design(spec)
    names = [f"node-{number:05}" for number in range(built.nodes)]
    found = by_design(names, built, spec.site)
    outlines = {name: box for name, *box in found.racks}
    for number, name in enumerate(names):
        device = int(built.devices_of("node")[number])
        assert built.device_name(device) == name
        left, top, wide, high = outlines[built.rack_name(int(built.devices.rack[device]))]
        assert left - 1e-6 <= found.x[number] and found.x[number] + 1 <= left + wide + 1e-6
        assert top - 1e-6 <= found.y[number] and found.y[number] + 1 <= top + high + 1e-6
    assert_apart(found)


def test_nodes_that_are_not_built_stand_below() -> None:
    spec = read_spec(ROOT / "examples" / "site.toml", needs=("site",))
    assert spec.site is not None
    found = by_design(["node-00000", "visitor", "node-00001"], design(spec), spec.site)
    assert found.y[1] > max(found.y[0], found.y[2])
    assert_apart(found)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 1000])
def test_racks_stand_side_by_side(count: int) -> None:
    found = by_rack([f"n{i}" for i in range(count)], {}, 8)
    assert len(found.racks) == -(-count // 8)
    assert_apart(found)
    assert max(found.x) < found.width and max(found.y) < found.height


def test_nodes_are_where_they_say() -> None:
    found = by_rack(["a", "b", "c"], {"a": "r1", "b": "r2", "c": "r1"}, 8)
    assert found.x[0] == found.x[2] != found.x[1]
    assert [name for name, *_ in found.racks] == ["r1", "r2"]


def assert_apart(found: Map) -> None:
    """No two cells overlap."""
    x, y = np.array(found.x), np.array(found.y)
    near = (abs(x[:, None] - x) < 1 - 1e-6) & (abs(y[:, None] - y) < 1 - 1e-6)
    assert near.sum() == len(x)  # each with itself
