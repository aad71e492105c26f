"""
How a build stands: which nodes of which pods are accepted, by the tests in a ledger, and beside a plan.

A ledger knows of a node what tests said; that one was delivered or is cabled it does not know. A plan is the
table that `colossi schedule --export` writes; taken from it is when each pod is to be accepted, no more.
"""

import csv
import io
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

from colossi.errors import DataError
from colossi.ledger.events import Event

State = Literal["accepted", "failed", "out", "awaited"]
STATES: tuple[State, ...] = ("accepted", "failed", "out", "awaited")
POINTS = 12  # of a burn-down


@dataclass(slots=True)
class NodeStanding:
    """What the ledger knows of a node; `failed` is one that failed its last test and was left in."""

    pod: str
    state: State = "awaited"
    tests: int = 0
    first: str = ""  # the verdict of its first test
    since: float = 0.0  # [unix s] in this state
    why: str = ""


@dataclass(slots=True)
class PodStanding:
    """Nodes of a pod by state; `due` [unix s] is when a plan wants it accepted."""

    pod: str
    nodes: dict[State, int]
    accepted: float | None  # [unix s] since when all of it is
    due: float | None = None

    @property
    def state(self) -> str:
        """accepted, in test, or awaited."""
        if self.accepted is not None:
            return "accepted"
        return "awaited" if self.nodes["awaited"] == sum(self.nodes.values()) else "in test"

    def late(self, now: float) -> bool:
        """Whether the plan wanted it by now."""
        return self.due is not None and self.due <= now and self.accepted is None


@dataclass(slots=True)
class Build:
    """All of it. Yields are of the nodes that were tested at all."""

    nodes: dict[State, int]  # by state
    pods: list[PodStanding]
    first_yield: float | None  # passed their first test
    last_yield: float | None  # are accepted now
    whys: dict[str, str] = field(default_factory=dict)  # node that failed or is out -> why
    burn_down: list[tuple[float, int, int | None]] = field(default_factory=list)  # time, accepted, planned

    def as_json(self) -> dict[str, Any]:
        """One object."""
        pods = [asdict(pod) | {"state": pod.state} for pod in self.pods]
        return asdict(self) | {"pods": pods}


def standing(
    events: Iterable[Event], pods: Mapping[str, str], number: int, due: Mapping[str, float], now: float
) -> Build:
    """From the ledger's events; `pods` node -> pod as far as known, `number` of nodes there shall be."""
    nodes = {node: NodeStanding(pod) for node, pod in pods.items()}
    steps: list[tuple[float, int]] = []
    accepted = 0
    for event in sorted(events, key=lambda each: each.time):
        if event.kind not in ("node_tested", "quarantined", "readmitted"):
            continue
        node = event.text("node")
        own = nodes.setdefault(node, NodeStanding(event.text("rack") or "all"))
        if node not in pods and event.text("rack"):
            own.pod = event.text("rack")
        before = own.state
        _follow(own, event)
        accepted += (own.state == "accepted") - (before == "accepted")
        if own.state != before:
            own.since = event.time
            steps.append((event.time, accepted))
    unseen = max(0, number - len(nodes))
    counts = {state: sum(each.state == state for each in nodes.values()) for state in STATES}
    counts["awaited"] += unseen
    tested = [each for each in nodes.values() if each.tests]
    return Build(
        nodes=counts,
        pods=_pods(nodes, unseen, due),
        first_yield=_share(sum(each.first != "fail" for each in tested), len(tested)),
        last_yield=_share(sum(each.state == "accepted" for each in tested), len(tested)),
        whys={node: each.why for node, each in sorted(nodes.items()) if each.state in ("failed", "out")},
        burn_down=_burn_down(steps, nodes, due, now),
    )


def _follow(own: NodeStanding, event: Event) -> None:
    """One more event of a node."""
    if event.kind == "quarantined":
        own.state, own.why = "out", event.text("why")
    elif event.kind == "readmitted":
        own.state, own.why = ("accepted" if own.tests else "awaited"), ""
    else:
        verdict = event.text("verdict")
        own.tests += 1
        own.first = own.first or verdict
        if own.state != "out":  # a test alone brings nobody back
            own.state = "failed" if verdict == "fail" else "accepted"
            own.why = event.text("why") if verdict == "fail" else ""


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None


def _pods(nodes: Mapping[str, NodeStanding], unseen: int, due: Mapping[str, float]) -> list[PodStanding]:
    """By name; nodes of which nothing is known are a pod of their own."""
    members: dict[str, list[NodeStanding]] = {}
    for each in nodes.values():
        members.setdefault(each.pod, []).append(each)
    found = []
    for pod, own in sorted(members.items()):
        counts = {state: sum(each.state == state for each in own) for state in STATES}
        whole = counts["accepted"] == len(own)
        found.append(PodStanding(pod, counts, max(n.since for n in own) if whole else None, due.get(pod)))
    if unseen:
        found.append(PodStanding("not seen yet", {**dict.fromkeys(STATES, 0), "awaited": unseen}, None))
    return found


def _burn_down(
    steps: Sequence[tuple[float, int]],
    nodes: Mapping[str, NodeStanding],
    due: Mapping[str, float],
    now: float,
) -> list[tuple[float, int, int | None]]:
    """Nodes accepted, and those that a plan wanted by then, at a few moments from the first to now."""
    moments = [time for time, _ in steps] + [time for time in due.values() if time <= now]
    if not moments:
        return []
    first = min(moments)
    size: dict[str, int] = {}
    for each in nodes.values():
        size[each.pod] = size.get(each.pod, 0) + 1
    found = []
    for number in range(POINTS):
        at = first + (now - first) * number / (POINTS - 1)
        accepted = [count for time, count in steps if time <= at]
        planned = sum(size.get(pod, 0) for pod, time in due.items() if time <= at) if due else None
        found.append((at, accepted[-1] if accepted else 0, planned))
    return found


def due_of(table: str, where: str) -> dict[str, float]:
    """Pod -> when a plan wants it accepted [unix s], from the text of plan.csv; times are local."""
    rows = csv.DictReader(io.StringIO(table))
    if not {"kind", "group", "end"} <= set(rows.fieldnames or ()):
        raise DataError(
            f"{where}: no columns kind, group and end", "give the plan.csv of colossi schedule --export"
        )
    found: dict[str, float] = {}
    for row in rows:
        if row["kind"] == "acceptance" and (pod := pod_name(row["group"])):
            try:
                end = datetime.fromisoformat(row["end"]).timestamp()
            except ValueError:
                raise DataError(f"{where}: {row['end']!r} is no time", "as 2026-11-25T14:00:00") from None
            found[pod] = max(found.get(pod, 0.0), end)
    if not found:
        raise DataError(f"{where}: no acceptance of a pod in it", "its kind is acceptance, its group pod-003")
    return found


def pod_name(text: str) -> str:
    """Such as pod-003, however many digits it is written with; "" for what is no pod."""
    found = re.fullmatch(r"pod[-_](\d+)", text)
    return f"pod-{int(found[1]):03d}" if found else ""
