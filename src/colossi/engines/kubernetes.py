"""
The Kubernetes engine: makes what `manifests.py` describes, and hears from the cluster which pods are gone.

**It has never met a live cluster.** It was tested only against a stand-in, an HTTP server in the tests that
answers as the API is documented to. What places and restarts pods is the cluster; what a loss means for the
run is decided by the controller, in a pod of its own.
"""

import argparse
import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Any

import urllib3
from kubernetes import client, config
from kubernetes.client.exceptions import ApiException
from kubernetes.dynamic import DynamicClient, Resource
from kubernetes.dynamic.exceptions import ResourceNotFoundError

from colossi.control.actions import Finish
from colossi.control.events import NodeLost
from colossi.engines.command import Command
from colossi.engines.manifests import AGENTS, GAVE_UP, GIVEN, JOBSET, OF_JOB, OF_JOBSET, REFUSED, Document
from colossi.engines.pods import Pods
from colossi.engines.takeover import command_of
from colossi.engines.train import begin, is_finished
from colossi.errors import BadInput, TrainingFailed, WorkFailed
from colossi.ledger.run import Run
from colossi.spec import read_spec

MANAGER = "colossi"  # the owner of the fields that are applied
WATCH_SECONDS = 30  # for one request for changes of pods; then the JobSet is asked for
RETRY_SECONDS = 5.0  # while the API does not answer: the run goes on without it
PASSING = (410, 429, 500, 502, 503, 504)  # what the API says of itself, not of us
STOPPED = (
    75  # the controller was asked to end before the goal: its Job must not count as complete (EX_TEMPFAIL)
)

Conduct = Callable[[Run, SimpleQueue[NodeLost]], bool]  # true when the run's goal is reached


def connect() -> DynamicClient:
    """The cluster that this pod runs in; outside of any, the one of KUBECONFIG or ~/.kube/config."""
    try:
        config.load_incluster_config()  # type: ignore[no-untyped-call]
    except config.ConfigException:
        try:
            config.load_kube_config()  # type: ignore[no-untyped-call]
        except config.ConfigException as error:
            raise BadInput(
                f"no Kubernetes cluster is configured: {error}", "set KUBECONFIG, or use --dry-run"
            ) from None
    return dynamic(client.ApiClient())


def dynamic(api: client.ApiClient) -> DynamicClient:
    """A client of all kinds; what it learns about them is not left lying in the common temporary folder."""
    with TemporaryDirectory() as folder, _in_one_line(f"cluster {api.configuration.host}"):
        cache = Path(folder) / "kinds.json"
        return DynamicClient(api, cache_file=str(cache))  # type: ignore[no-untyped-call]


def drive(
    cluster: DynamicClient,
    documents: list[Document],
    hear: Callable[[NodeLost], None],
    pause: Callable[[float], object] = time.sleep,
) -> None:
    """Make the documents, then tell `hear` of every node that is lost until the JobSet ends.

    Tested only against a stand-in for the API. Returns when the JobSet is complete, raises when it failed;
    to stop watching is not to stop the run.
    """
    apply(cluster, documents)
    name, namespace = documents[-1]["metadata"]["name"], documents[-1]["metadata"]["namespace"]
    pods = AgentPods(cluster, namespace, name, pause)
    while (ended := how_it_ended(cluster, namespace, name)) is None:
        for lost in pods.lost(WATCH_SECONDS):
            hear(lost)
    how, why = ended
    if how == "Failed":
        logs = f"kubectl logs -n {namespace} -l {OF_JOBSET}={name} --prefix --tail 20"
        raise TrainingFailed(f"JobSet {namespace}/{name} failed: {why}", logs)


def apply(cluster: DynamicClient, documents: list[Document]) -> None:
    """Make all documents, the JobSet last; a run that is there is refused before anything is changed."""
    kinds = [_kind(cluster, document) for document in documents]
    jobset = documents[-1]["metadata"]
    if _jobset(cluster, jobset["namespace"], jobset["name"]) is not None:
        raise BadInput(
            f"JobSet {jobset['namespace']}/{jobset['name']} is there already",
            f"kubectl delete jobset -n {jobset['namespace']} {jobset['name']} ends it; the run folder stays",
        )
    for kind, document in zip(kinds, documents, strict=True):
        with _in_one_line(f"{document['kind']} {document['metadata']['name']}"):
            if document["kind"] == "Secret":
                _make_unless_there(kind, document)
            elif document["kind"] == "JobSet":
                kind.create(body=document)
            else:
                kind.server_side_apply(body=document, field_manager=MANAGER, force_conflicts=True)


class AgentPods:
    """The pods of a run's agents, followed: each that is lost is a node that is lost."""

    def __init__(
        self, cluster: DynamicClient, namespace: str, run_name: str, pause: Callable[[float], object]
    ) -> None:
        self._kind = _kind(cluster, {"apiVersion": "v1", "kind": "Pod"})
        self._where = {
            "namespace": namespace,
            "label_selector": f"{OF_JOBSET}={run_name},{OF_JOB}={AGENTS}",
        }
        self._pause, self._pods, self._version = pause, Pods(), ""

    def lost(self, seconds: int) -> Iterator[NodeLost]:
        """Nodes that are lost within the next `seconds`; while the API is away, none."""
        try:
            if not self._version:
                answer = self._kind.get(**self._where, serializer=_plain)
                self._version = answer["metadata"]["resourceVersion"]
                yield from self._pods.listed(answer["items"])
            yield from self._changes(seconds)
        except ApiException as error:
            if error.status not in PASSING:
                raise WorkFailed(f"pods cannot be watched: {_said(error)}") from None
            self._version = ""  # what is missed meanwhile is seen in the next list
            self._pause(0.0 if error.status == 410 else RETRY_SECONDS)
        except urllib3.exceptions.HTTPError:
            self._version = ""
            self._pause(RETRY_SECONDS)

    def _changes(self, seconds: int) -> Iterator[NodeLost]:
        for event in self._kind.watch(**self._where, resource_version=self._version, timeout=seconds):
            pod = event["raw_object"]
            self._version = pod["metadata"]["resourceVersion"]
            lost = self._pods.changed(event["type"], pod)
            if lost:
                yield lost


def how_it_ended(cluster: DynamicClient, namespace: str, name: str) -> tuple[str, str] | None:
    """("Completed" or "Failed", why) of a JobSet; None while it goes on, and while the API does not say."""
    try:
        jobset = _jobset(cluster, namespace, name)
    except WorkFailed:
        return None
    if jobset is None:
        raise WorkFailed(f"JobSet {namespace}/{name} was deleted", "the run folder on the claim is whole")
    for condition in jobset.get("status", {}).get("conditions", []):
        if condition["type"] in ("Completed", "Failed") and condition["status"] == "True":
            return condition["type"], condition.get("message", "")
    return None


def controller(
    folder: Path, given: Path, cluster: DynamicClient, conduct: Conduct, say: Callable[[str], object]
) -> int:
    """What the controller's pod does; returns its exit code, by which the JobSet knows what to do next.

    `given` holds spec.toml and token. `conduct` decides; it hears of lost pods through the queue.
    """
    over = Event()
    try:
        spec = read_spec(given / "spec.toml", needs=("data", "training", "kubernetes"))
        assert spec.kubernetes is not None
        if is_finished(Run(folder), spec):
            return 0
        run, _ = begin(folder, spec, lambda *_: None)
        put_token(folder / "token", (given / "token").read_text())
        lost: SimpleQueue[NodeLost] = SimpleQueue()
        pods = AgentPods(cluster, spec.kubernetes.namespace, folder.name, over.wait)
        Thread(target=_follow, args=(pods, lost, over), daemon=True).start()
        return 0 if conduct(run, lost) else STOPPED
    except (BadInput, TrainingFailed) as error:  # anything else is another try's: the cluster counts them
        say(f"error: {error}\n")
        return REFUSED if isinstance(error, BadInput) else GAVE_UP
    finally:
        over.set()


def conduct(run: Run, lost: SimpleQueue[NodeLost], host: str) -> bool:
    """The controller's loop until the run ends, heard on `host`; true when its goal is reached."""
    spec = run.spec()
    with run.ledger() as ledger:
        command, _ = command_of(run, ledger, spec, host)
        asyncio.run(_serve(command, lost))
    return isinstance(command.ended, Finish) and not command.ended.stopped


async def _serve(command: Command, lost: SimpleQueue[NodeLost]) -> None:
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, command.stop_wanted, "the cluster wants its machines back")
    await command.serve(lambda: hang_up(command, lost))


def hang_up(command: Command, lost: SimpleQueue[NodeLost]) -> None:
    """Close the lines to agents whose pods are gone: to the controller a line that broke, only sooner."""
    while not lost.empty():
        if agent := command.agents.get(lost.get().node):
            agent.close()


def put_token(path: Path, token: str) -> None:
    """The run's token, readable by its owner only from the first moment on."""
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(token)


def _follow(pods: AgentPods, lost: SimpleQueue[NodeLost], over: Event) -> None:
    while not over.is_set():
        for each in pods.lost(WATCH_SECONDS):
            lost.put(each)


def _kind(cluster: DynamicClient, document: Document) -> Resource:
    version, kind = document["apiVersion"], document["kind"]
    with _in_one_line(f"{kind} ({version})"):
        try:
            return cluster.resources.get(api_version=version, kind=kind)
        except ResourceNotFoundError:
            hint = "install JobSet: https://jobset.sigs.k8s.io/docs/installation" if version == JOBSET else ""
            raise BadInput(f"the cluster has no {kind} ({version})", hint) from None


def _jobset(cluster: DynamicClient, namespace: str, name: str) -> dict[str, Any] | None:
    kind = _kind(cluster, {"apiVersion": JOBSET, "kind": "JobSet"})
    with _in_one_line(f"JobSet {namespace}/{name}"):
        try:
            found: dict[str, Any] = kind.get(name=name, namespace=namespace, serializer=_plain)
        except ApiException as error:
            if error.status == 404:
                return None
            raise
        return found


def _make_unless_there(kind: Resource, document: Document) -> None:
    """A run keeps its first token: pods that know it may still be there."""
    try:
        kind.create(body=document)
    except ApiException as error:
        if error.status != 409:
            raise


def _plain(_: Any, answer: dict[str, Any]) -> dict[str, Any]:
    return answer


@contextmanager
def _in_one_line(what: str) -> Iterator[None]:
    """What the API refuses, and that it does not answer, as an error of ours."""
    try:
        yield
    except ApiException as error:
        raise WorkFailed(f"{what}: {_said(error)}") from None
    except urllib3.exceptions.HTTPError as error:
        raise WorkFailed(f"{what}: no answer: {error}", "is the cluster of your kubeconfig up?") from None


def _said(error: ApiException) -> str:
    """The message of the API's answer, or its status."""
    try:
        return f"{json.loads(error.body or '')['message']} ({error.status})"
    except (TypeError, ValueError, KeyError):
        return f"{error.reason} ({error.status})"


def main() -> int:
    """The controller's pod."""
    parser = argparse.ArgumentParser(prog="python -m colossi.engines.kubernetes")
    parser.add_argument("run", type=Path)
    parser.add_argument("--host", required=True, help="this pod's address, by which the agents reach it")
    asked = parser.parse_args()
    return controller(asked.run, Path(GIVEN), connect(), partial(conduct, host=asked.host), sys.stderr.write)


if __name__ == "__main__":
    sys.exit(main())
