"""
A stand-in for the API of a cluster: an HTTP server that keeps objects in memory and answers as the API is
documented to (https://kubernetes.io/docs/reference/using-api/api-concepts/): discovery, create with its
conflicts, server-side apply, lists with a resource version, watches as lines of JSON in chunks, errors as
Status objects.

It runs nothing and checks no schema; a test says what happens to the pods.
"""

import json
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

KINDS = {
    "v1": {
        "secrets": "Secret",
        "configmaps": "ConfigMap",
        "serviceaccounts": "ServiceAccount",
        "pods": "Pod",
    },
    "rbac.authorization.k8s.io/v1": {"roles": "Role", "rolebindings": "RoleBinding"},
    "jobset.x-k8s.io/v1alpha2": {"jobsets": "JobSet"},
}
POLL_SECONDS = 0.01


class Cluster:
    """What is on the cluster, and what was asked of it."""

    def __init__(self, namespaces: tuple[str, ...] = ("research",), without: str = "") -> None:
        self.kinds = {version: kinds for version, kinds in KINDS.items() if version != without}
        self.namespaces, self.url = namespaces, ""
        self.objects: dict[tuple[str, str, str], dict[str, Any]] = {}  # by namespace, plural and name
        self.asked: list[tuple[str, str]] = []  # method and path of what changes anything
        self.watches: list[queue.SimpleQueue[dict[str, Any] | None]] = []  # of pods, one for each request
        self.failing: list[int] = []  # statuses that the next requests for pods get instead of an answer
        self.version = 100

    def put(self, namespace: str, plural: str, body: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        body["metadata"] = body["metadata"] | {"resourceVersion": str(self.version)}
        self.objects[namespace, plural, body["metadata"]["name"]] = body
        return body

    def pod(self, change: str, name: str, node: str = "", phase: str = "Pending", **status: Any) -> None:
        """A change of a pod, seen by the lists and by all who watch."""
        metadata = {"name": name, "uid": f"uid-{name}", "namespace": "research"}
        body = {"metadata": metadata, "spec": {"nodeName": node}, "status": {"phase": phase} | status}
        self.put("research", "pods", body)
        if change == "DELETED":
            del self.objects["research", "pods", name]
        for watch in self.watches:
            watch.put({"type": change, "object": {"apiVersion": "v1", "kind": "Pod"} | body})

    def gone(self) -> None:
        """The version that a watch would go on from is too old."""
        status = {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old resource version"}
        for watch in self.watches:
            watch.put({"type": "ERROR", "object": status})

    def close_watches(self) -> None:
        """As when their time is over."""
        for watch in self.watches:
            watch.put(None)

    def end(self, name: str, how: str, why: str) -> None:
        """The JobSet has ended; those who watch pods will look at it next."""
        conditions = [{"type": how, "status": "True", "message": why}]
        self.objects["research", "jobsets", name]["status"] = {"conditions": conditions}
        self.close_watches()


class Answer(BaseHTTPRequestHandler):
    """One request."""

    protocol_version = "HTTP/1.1"
    cluster: Cluster

    def log_message(self, *_: Any) -> None:
        pass

    def do_GET(self) -> None:
        where, query = self._where()
        if where == ["version"]:
            self._send({"gitVersion": "v1.37.0"})
        elif where == ["apis"]:
            groups = [self._group(each) for each in self.cluster.kinds if "/" in each]
            self._send({"kind": "APIGroupList", "groups": groups})
        elif "namespaces" not in where:
            self._discover("/".join(where[1:]))
        elif where[-1] == "pods" and self.cluster.failing:
            self._refuse(self.cluster.failing.pop(0), "not now")
        elif where[-1] == "pods" and "watch" in query:
            self._watch()
        elif where[-1] == "pods":
            pods = [body for (_, plural, _), body in self.cluster.objects.items() if plural == "pods"]
            self._send(
                {"kind": "PodList", "metadata": {"resourceVersion": str(self.cluster.version)}, "items": pods}
            )
        else:
            found = self.cluster.objects.get((where[-3], where[-2], where[-1]))
            self._send(found) if found else self._refuse(404, f'{where[-2]} "{where[-1]}" not found')

    def do_POST(self) -> None:
        where, _ = self._where()
        body = self._body()
        if (where[-2], where[-1], body["metadata"]["name"]) in self.cluster.objects:
            self._refuse(409, f'{where[-1]} "{body["metadata"]["name"]}" already exists')
        else:
            self._keep(where[-2], where[-1], body)

    def do_PATCH(self) -> None:
        where, query = self._where()
        assert self.headers["Content-Type"] == "application/apply-patch+yaml"
        assert query["fieldManager"] == ["colossi"]
        self._keep(where[-3], where[-2], self._body())

    def _keep(self, namespace: str, plural: str, body: dict[str, Any]) -> None:
        self.cluster.asked.append((self.command, f"{plural}/{body['metadata']['name']}"))
        if namespace not in self.cluster.namespaces:
            self._refuse(404, f'namespaces "{namespace}" not found')
        else:
            self._send(self.cluster.put(namespace, plural, body), 201)

    def _watch(self) -> None:
        events: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.cluster.watches.append(events)
        while (event := events.get()) is not None:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
            if event["type"] == "ERROR":
                break
        self.cluster.watches.remove(events)
        self.wfile.write(b"0\r\n\r\n")

    def _group(self, version: str) -> dict[str, Any]:
        group, _, number = version.partition("/")
        entry = {"groupVersion": version, "version": number}
        return {"name": group, "versions": [entry], "preferredVersion": entry}

    def _discover(self, version: str) -> None:
        if version not in self.cluster.kinds:
            self._refuse(404, "the server could not find the requested resource")
            return
        verbs = ["create", "get", "list", "patch", "watch"]
        resources = [
            {"name": plural, "singularName": kind.lower(), "kind": kind, "namespaced": True, "verbs": verbs}
            for plural, kind in self.cluster.kinds[version].items()
        ]
        self._send({"kind": "APIResourceList", "groupVersion": version, "resources": resources})

    def _where(self) -> tuple[list[str], dict[str, list[str]]]:
        url = urlsplit(self.path)
        return url.path.strip("/").split("/"), parse_qs(url.query)

    def _body(self) -> dict[str, Any]:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def _refuse(self, code: int, message: str) -> None:
        self._send({"kind": "Status", "status": "Failure", "code": code, "message": message}, code)

    def _send(self, body: dict[str, Any], code: int = 200) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@contextmanager
def served(cluster: Cluster) -> Iterator[Cluster]:
    """The cluster behind a port of this machine."""
    answer = type("AnswerFor", (Answer,), {"cluster": cluster})
    server = ThreadingHTTPServer(("127.0.0.1", 0), answer)
    cluster.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,))
    thread.start()
    try:
        yield cluster
    finally:
        cluster.close_watches()
        server.shutdown()
        server.server_close()
        thread.join()
