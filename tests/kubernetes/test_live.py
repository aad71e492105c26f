"""Making the documents and following the pods, against the stand-in for a cluster; no live one was met."""

import json
import signal
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from queue import SimpleQueue

import pytest
from kubernetes import client
from kubernetes.dynamic import DynamicClient

from colossi.channel import Channel
from colossi.control.events import NodeLost
from colossi.engines.kubernetes import (
    AgentPods,
    apply,
    conduct,
    connect,
    controller,
    drive,
    dynamic,
    put_token,
)
from colossi.engines.manifests import Document, manifests
from colossi.errors import BadInput, TrainingFailed, WorkFailed
from colossi.ledger.run import Run

from .fake_api import Cluster, served
from .specs import spec_with

WAIT_SECONDS = 20.0


def client_of(cluster: Cluster) -> DynamicClient:
    return dynamic(client.ApiClient(client.Configuration(host=cluster.url)))


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with served(Cluster()) as cluster:
        yield cluster


@pytest.fixture
def documents() -> list[Document]:
    return manifests(spec_with(), "cloud", "secret")


def until(there: Callable[[], object]) -> None:
    """Wait for another thread; a test that waits too long fails."""
    timer = threading.Event()
    for _ in range(int(WAIT_SECONDS / 0.01)):
        if there():
            return
        timer.wait(0.01)
    pytest.fail("waited too long")


def test_everything_is_made_in_order(cluster: Cluster, documents: list[Document]) -> None:
    apply(client_of(cluster), documents)
    assert cluster.asked == [
        ("PATCH", "serviceaccounts/colossi-cloud"),
        ("PATCH", "roles/colossi-cloud"),
        ("PATCH", "rolebindings/colossi-cloud"),
        ("POST", "secrets/colossi-cloud"),
        ("PATCH", "configmaps/colossi-cloud"),
        ("POST", "jobsets/cloud"),
    ]
    made = cluster.objects["research", "jobsets", "cloud"]
    assert made["spec"] == documents[-1]["spec"]


def test_a_run_that_is_there_is_refused_and_left_alone(cluster: Cluster, documents: list[Document]) -> None:
    apply(client_of(cluster), documents)
    cluster.asked.clear()
    with pytest.raises(BadInput, match="JobSet research/cloud is there already"):
        apply(client_of(cluster), documents)
    assert cluster.asked == []


def test_a_run_that_comes_again_keeps_its_token(cluster: Cluster, documents: list[Document]) -> None:
    apply(client_of(cluster), documents)
    del cluster.objects["research", "jobsets", "cloud"]
    apply(client_of(cluster), manifests(spec_with(), "cloud", "another"))
    assert cluster.objects["research", "secrets", "colossi-cloud"]["stringData"] == {"token": "secret"}


def test_a_cluster_without_jobset_is_refused_before_anything_is_made(documents: list[Document]) -> None:
    with served(Cluster(without="jobset.x-k8s.io/v1alpha2")) as cluster:
        with pytest.raises(BadInput, match=r"the cluster has no JobSet") as refusal:
            apply(client_of(cluster), documents)
        assert "install JobSet" in refusal.value.hint
        assert cluster.asked == []


def test_a_namespace_that_is_not_there(documents: list[Document]) -> None:
    with served(Cluster(namespaces=())) as cluster, pytest.raises(WorkFailed) as refusal:
        apply(client_of(cluster), documents)
    assert refusal.value.message == 'ServiceAccount colossi-cloud: namespaces "research" not found (404)'


def test_no_cluster_answers() -> None:
    with served(Cluster()) as cluster:
        pass
    configuration = client.Configuration(host=cluster.url)
    configuration.retries = False
    with pytest.raises(WorkFailed, match="no answer"):
        dynamic(client.ApiClient(configuration))


def test_no_cluster_is_configured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(BadInput, match="no Kubernetes cluster is configured"):
        connect()
    assert capsys.readouterr().out == ""


def test_lost_pods_are_lost_nodes_until_the_run_is_complete(
    cluster: Cluster, documents: list[Document]
) -> None:
    heard: list[NodeLost] = []
    driving = threading.Thread(target=drive, args=(client_of(cluster), documents, heard.append))
    driving.start()
    until(lambda: cluster.watches)
    for node in ("m1", "m2", "m3"):
        cluster.pod("ADDED", f"pod-{node}", node)
        cluster.pod("MODIFIED", f"pod-{node}", node, "Running")
    cluster.pod("MODIFIED", "pod-m2", "m2", "Failed")
    cluster.pod("DELETED", "pod-m3", "m3", "Running")
    until(lambda: len(heard) == 2)
    cluster.end("cloud", "Completed", "")
    driving.join(WAIT_SECONDS)
    assert not driving.is_alive()
    assert [each.node for each in heard] == ["m2", "m3"]


def test_a_run_that_fails_raises_with_the_reason(cluster: Cluster, documents: list[Document]) -> None:
    api = client_of(cluster)
    pauses: list[float] = []
    apply(api, documents)
    cluster.end("cloud", "Failed", "jobset failed due to one or more job failures")
    state = cluster.objects.pop(("research", "jobsets", "cloud"))["status"]
    documents[-1]["status"] = state  # as a JobSet that fails at once
    with pytest.raises(TrainingFailed, match="JobSet research/cloud failed: jobset failed due to") as failure:
        drive(api, documents, lambda lost: None, pauses.append)
    assert failure.value.hint.startswith("kubectl logs -n research -l jobset.sigs.k8s.io/jobset-name=cloud")
    assert failure.value.exit_code == 1 and pauses == []


def follow(cluster: Cluster, pauses: list[float]) -> tuple[AgentPods, threading.Thread, list[NodeLost]]:
    """Two rounds of watching, in a thread."""
    pods, heard = AgentPods(client_of(cluster), "research", "cloud", pauses.append), list[NodeLost]()

    def rounds() -> None:
        for _ in range(2):
            heard.extend(pods.lost(30))

    thread = threading.Thread(target=rounds)
    thread.start()
    return pods, thread, heard


def test_what_happens_while_nobody_watches_is_seen_after(cluster: Cluster) -> None:
    """410 Gone: the changes since the last one are forgotten, and everything is listed anew."""
    pauses: list[float] = []
    cluster.pod("ADDED", "a", "m1", "Running")
    _, thread, heard = follow(cluster, pauses)
    until(lambda: cluster.watches)
    del cluster.objects["research", "pods", "a"]  # nobody is told
    cluster.gone()
    until(lambda: heard)
    until(lambda: cluster.watches)
    cluster.close_watches()
    thread.join(WAIT_SECONDS)
    assert heard == [NodeLost(node="m1", why="its pod is gone")] and pauses == [0.0]


def test_an_api_that_is_away_stops_nothing(cluster: Cluster) -> None:
    pauses: list[float] = []
    cluster.failing += [503]
    cluster.pod("ADDED", "a", "m1", "Running")
    _, thread, heard = follow(cluster, pauses)
    until(lambda: cluster.watches)
    cluster.pod("MODIFIED", "a", "m1", "Failed")
    until(lambda: heard)
    cluster.close_watches()
    thread.join(WAIT_SECONDS)
    assert [each.node for each in heard] == ["m1"] and pauses == [5.0]


def test_not_being_allowed_to_watch_is_said(cluster: Cluster) -> None:
    cluster.failing += [403]
    pods = AgentPods(client_of(cluster), "research", "cloud", lambda seconds: None)
    with pytest.raises(WorkFailed, match=r"pods cannot be watched: not now \(403\)"):
        list(pods.lost(30))


def test_the_token_is_for_its_owner_only(tmp_path: Path) -> None:
    put_token(tmp_path / "token", "first")
    put_token(tmp_path / "token", "second")
    assert (tmp_path / "token").read_text() == "second"
    assert (tmp_path / "token").stat().st_mode & 0o777 == 0o600


def given(folder: Path, *overrides: str) -> Path:
    """What the config map and the secret are to the controller's pod."""
    folder.mkdir()
    (folder / "spec.toml").write_text(spec_with(*overrides).to_toml())
    (folder / "token").write_text("secret")
    return folder


def reach_the_goal(run: Run, lost: SimpleQueue[NodeLost]) -> bool:
    return True


def stop_before(run: Run, lost: SimpleQueue[NodeLost]) -> bool:
    return False


def give_up(run: Run, lost: SimpleQueue[NodeLost]) -> bool:
    raise TrainingFailed("no node is left")


@pytest.mark.parametrize(
    ("conduct", "code"), [(reach_the_goal, 0), (stop_before, 75), (give_up, 3)], ids=lambda each: str(each)
)
def test_exit_codes_of_the_controller(
    cluster: Cluster, tmp_path: Path, conduct: Callable[..., bool], code: int
) -> None:
    """3 ends the JobSet, 75 and anything that is no ColossiError are tries; see the failure policies."""
    said: list[str] = []
    folder = tmp_path / "runs" / "cloud"
    assert controller(folder, given(tmp_path / "given"), client_of(cluster), conduct, said.append) == code
    assert (folder / "spec.toml").is_file() and (folder / "token").read_text() == "secret"
    assert said == (["error: no node is left\n"] if code == 3 else [])
    cluster.close_watches()


def caller(folder: Path, node: str) -> Channel:
    """An agent's line to the controller, without an agent behind it."""
    until((folder / "controller.json").is_file)
    address = json.loads((folder / "controller.json").read_text())["address"]
    hello = {"node": node, "rack": "", "pid": 0, "incarnation": 0, "held": [], "store": "", "data": ""}
    return Channel.connect(address, b"secret", hello)


def test_the_controller_hangs_up_on_lost_pods_and_stops_when_asked(cluster: Cluster, tmp_path: Path) -> None:
    folder, heard = tmp_path / "runs" / "cloud", list[str]()

    def world() -> None:
        line = caller(folder, "m1")
        until(lambda: cluster.watches)
        cluster.pod("ADDED", "a", "m1", "Running")
        cluster.pod("MODIFIED", "a", "m1", "Failed")
        while line.receive() is not None:
            pass
        line.close()
        heard.append("hung up")
        signal.raise_signal(signal.SIGTERM)

    thread = threading.Thread(target=world)
    thread.start()
    here = partial(conduct, host="127.0.0.1")
    code = controller(folder, given(tmp_path / "given"), client_of(cluster), here, heard.append)
    thread.join(WAIT_SECONDS)
    assert (heard, code) == (["hung up"], 75)
    kinds = [event.kind for event in Run(folder).events()]
    assert [kind for kind in kinds if kind.startswith("node_")] == ["node_joined", "node_lost"]


def test_the_controller_refuses_a_folder_of_another_run(cluster: Cluster, tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "cloud"
    folder.mkdir(parents=True)
    (folder / "notes.txt").write_text("not a run")
    said: list[str] = []
    begun = controller(folder, given(tmp_path / "given"), client_of(cluster), reach_the_goal, said.append)
    assert begun == 2 and "not empty, and not a run" in said[0]


def test_the_controller_hears_of_lost_pods(cluster: Cluster, tmp_path: Path) -> None:
    heard: list[NodeLost] = []

    def wait_for_one(run: Run, lost: SimpleQueue[NodeLost]) -> bool:
        until(lambda: cluster.watches)
        cluster.pod("ADDED", "a", "m1", "Running")
        cluster.pod("DELETED", "a", "m1", "Running")
        heard.append(lost.get(timeout=WAIT_SECONDS))
        return True

    folder = tmp_path / "runs" / "cloud"
    assert controller(folder, given(tmp_path / "given"), client_of(cluster), wait_for_one, heard.append) == 0
    assert heard == [NodeLost(node="m1", why="pod a was deleted")]
