"""
Which nodes are lost, as the pods of a cluster tell it. Pure: it is handed what the API said.

A node is the machine that a pod of the agents runs on. That a node has joined is told by its agent, which
knows what is in its memory; that it is gone is often known here first, or only here.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from colossi.control.events import NodeLost

Pod = Mapping[str, Any]
UNREACHABLE = "DeletionByTaintManager"  # a pod's disruption when its machine no longer answers the cluster


class Pods:
    """The agents' pods that run, and the machine of each."""

    def __init__(self) -> None:
        self._nodes: dict[str, str] = {}  # by the pod's uid

    def changed(self, change: str, pod: Pod) -> NodeLost | None:
        """After ADDED, MODIFIED or DELETED; a node is lost once for each pod."""
        uid, node = pod["metadata"]["uid"], pod["spec"].get("nodeName", "")
        why = why_lost(change, pod)
        if not why and pod["status"].get("phase") == "Running":
            self._nodes[uid] = node
            return None
        known = why or pod["status"].get("phase") == "Succeeded"
        was = self._nodes.pop(uid, "") if known else ""
        return NodeLost(node=was, why=why) if why and was else None

    def listed(self, pods: Iterable[Pod]) -> list[NodeLost]:
        """After all pods were asked for, at first and when changes were missed."""
        pods = list(pods)
        lost = [found for pod in pods if (found := self.changed("MODIFIED", pod))]
        there = {pod["metadata"]["uid"] for pod in pods}
        missing = [uid for uid in self._nodes if uid not in there]
        gone = {self._nodes.pop(uid): None for uid in missing}
        # A machine that has a new pod already has told so itself: its agent has joined anew.
        taken = set(self._nodes.values())
        return lost + [NodeLost(node=node, why="its pod is gone") for node in gone if node not in taken]


def why_lost(change: str, pod: Pod) -> str:
    """Why the agent in a pod is gone, in one line; "" while it is not."""
    name, status = pod["metadata"]["name"], pod["status"]
    disrupted = _disruption(status)
    if status.get("phase") == "Failed":
        return (
            f"pod {name} failed: {disrupted or _exit(status) or status.get('reason', 'for no reason given')}"
        )
    if change == "DELETED":
        return f"pod {name} was deleted{f': {disrupted}' if disrupted else ''}"
    if disrupted.startswith(UNREACHABLE):
        return f"the machine of pod {name} does not answer the cluster"
    return ""


def _disruption(status: Mapping[str, Any]) -> str:
    """Preempted, evicted, its machine drained: what the cluster says of it."""
    for condition in status.get("conditions", []):
        if condition["type"] == "DisruptionTarget" and condition["status"] == "True":
            return f"{condition.get('reason', 'disrupted')}, {condition.get('message', '')}".rstrip(", ")
    return ""


def _exit(status: Mapping[str, Any]) -> str:
    """How its container ended."""
    for container in status.get("containerStatuses", []):
        ended = container.get("state", {}).get("terminated")
        if ended:
            return f"exit code {ended['exitCode']} ({ended.get('reason', 'no reason')})"
    return ""
