"""Which nodes are lost, from what a cluster says of pods: a table of stories."""

from typing import Any

import pytest

from colossi.control.events import NodeLost
from colossi.engines.pods import Pods

Said = tuple[str, dict[str, Any]]


def pod(name: str, node: str = "", phase: str = "Pending", **status: Any) -> dict[str, Any]:
    metadata = {"name": name, "uid": f"uid-{name}"}
    return {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase} | status}


def disrupted(reason: str, message: str = "") -> dict[str, Any]:
    condition = {"type": "DisruptionTarget", "status": "True", "reason": reason, "message": message}
    return {"conditions": [{"type": "Ready", "status": "False"}, condition]}


def ended(code: int, reason: str) -> dict[str, Any]:
    return {"containerStatuses": [{"state": {"terminated": {"exitCode": code, "reason": reason}}}]}


RUNS = ("MODIFIED", pod("a", "m1", "Running"))
KILLED = ("MODIFIED", pod("a", "m1", "Failed", **ended(137, "OOMKilled")))
GONE = ("DELETED", pod("a", "m1", "Running"))

STORIES: dict[str, tuple[list[Said], list[tuple[str, str]]]] = {
    "waits, is placed, runs": ([("ADDED", pod("a")), ("MODIFIED", pod("a", "m1")), RUNS], []),
    "killed": ([RUNS, KILLED], [("m1", "pod a failed: exit code 137 (OOMKilled)")]),
    "killed, then cleared away": ([RUNS, KILLED, GONE], [("m1", "pod a failed: exit code 137 (OOMKilled)")]),
    "deleted": ([RUNS, GONE], [("m1", "pod a was deleted")]),
    "preempted": (
        [RUNS, ("MODIFIED", pod("a", "m1", "Failed", **disrupted("PreemptionByScheduler", "for pod b")))],
        [("m1", "pod a failed: PreemptionByScheduler, for pod b")],
    ),
    "drained": (
        [RUNS, ("DELETED", pod("a", "m1", "Running", **disrupted("EvictionByEvictionAPI")))],
        [("m1", "pod a was deleted: EvictionByEvictionAPI")],
    ),
    "asked to go, still there": (
        [RUNS, ("MODIFIED", pod("a", "m1", "Running", **disrupted("EvictionByEvictionAPI")))],
        [],
    ),
    "the machine does not answer": (
        [RUNS, ("MODIFIED", pod("a", "m1", "Running", **disrupted("DeletionByTaintManager")))],
        [("m1", "the machine of pod a does not answer the cluster")],
    ),
    "evicted by its machine": (
        [RUNS, ("MODIFIED", pod("a", "m1", "Failed", reason="Evicted"))],
        [("m1", "pod a failed: Evicted")],
    ),
    "done": ([RUNS, ("MODIFIED", pod("a", "m1", "Succeeded")), ("DELETED", pod("a", "m1", "Succeeded"))], []),
    "failed before it ran": ([("ADDED", pod("a", "m1")), KILLED], []),
    "a second pod on the machine": (
        [RUNS, KILLED, ("ADDED", pod("b", "m1", "Running")), ("DELETED", pod("a", "m1", "Failed"))],
        [("m1", "pod a failed: exit code 137 (OOMKilled)")],
    ),
}


@pytest.mark.parametrize(("said", "lost"), STORIES.values(), ids=STORIES)
def test_stories(said: list[Said], lost: list[tuple[str, str]]) -> None:
    pods = Pods()
    found = [each for change, seen in said if (each := pods.changed(change, seen))]
    assert found == [NodeLost(node=node, why=why) for node, why in lost]


def test_what_was_missed_is_seen_in_the_next_list() -> None:
    pods = Pods()
    three = [pod(name, f"m{name}", "Running") for name in "abc"]
    assert pods.listed([*three, pod("z", "mz", "Failed")]) == []  # z failed before anybody looked
    failed = pod("b", "mb", "Failed", **ended(1, "Error"))
    again = pod("d", "mc", "Running")  # c is gone, and its machine has another pod
    assert pods.listed([failed, again]) == [
        NodeLost(node="mb", why="pod b failed: exit code 1 (Error)"),
        NodeLost(node="ma", why="its pod is gone"),
    ]
    assert pods.listed([again]) == []
