"""
What a run asks of a Kubernetes cluster, as documents: one JobSet, and what its pods read.

Why a JobSet (jobset.x-k8s.io) and not a Job beside a Job: the run is one controller and N agents, two kinds
of pod that live and end together. A JobSet queues them as one workload (all or none), starts the agents when
the controller is ready, ends them when it is done, and says in one place what counts as failed. The agents
are one indexed Job: an index is a seat, and whoever dies is seated anew without touching the others, whose
memory holds the snapshots. Nobody needs a name or a service: the controller's address is in the run folder.

Pure: the same spec gives the same documents. Knows nothing of a live cluster; `kubernetes.py` does.
"""

import re
from typing import Any

import yaml

from colossi.errors import SpecError
from colossi.spec import Spec
from colossi.spec.kubernetes import KubernetesSpec

Document = dict[str, Any]

JOBSET = "jobset.x-k8s.io/v1alpha2"
CONTROLLER, AGENTS = "controller", "agents"  # the replicated jobs
RUNS = "/runs"  # where the volume claim is mounted: the run folder is /runs/NAME
GIVEN = "/etc/colossi"  # in the controller's pod: spec.toml and token, from which it makes the run folder
OF_JOBSET = "jobset.sigs.k8s.io/jobset-name"  # labels that the JobSet puts on its pods
OF_JOB = "jobset.sigs.k8s.io/replicatedjob-name"

LONGEST_NAME = 40  # with "-controller-0-0-abcde" behind it a pod's name keeps within a DNS label's 63
MOST_AGENTS = 100_000  # of an indexed Job (batch/v1, JobSpec.completionMode)
RESTARTS = 10  # deaths of one pod that no disruption explains, before its seat is given up
LIVES = 3  # of the whole JobSet after that: all pods anew, the state from the disk
GRACE_SECONDS = 120  # after SIGTERM: a step and a checkpoint must fit in
REFUSED, GAVE_UP = 2, 3  # exit codes after which another try would end alike; 1 is any traceback's
CONTROLLER_NEEDS = {"cpu": "1", "memory": "2Gi"}  # it tokenises the data, then decides


def manifests(spec: Spec, run_name: str, token: str) -> list[Document]:
    """All that the run needs but the volume claim, in the order in which it can be made."""
    table = checked(spec, run_name)
    around = f"colossi-{run_name}"
    return [
        _document("v1", "ServiceAccount", around, table, run_name),
        *_may_watch_pods(around, table, run_name),
        _document("v1", "Secret", around, table, run_name)
        | {"immutable": True, "type": "Opaque", "stringData": {"token": token}},
        _document("v1", "ConfigMap", around, table, run_name) | {"data": {"spec.toml": spec.to_toml()}},
        _jobset(run_name, table, [_controller_job(run_name, table), _agents_job(run_name, spec, table)]),
    ]


def checked(spec: Spec, run_name: str) -> KubernetesSpec:
    """The table, if the spec says all that the manifests need; else one line on what to write."""
    table, cluster = spec.kubernetes, spec.cluster
    if table is None:
        raise SpecError("table [kubernetes] is missing", "add it with image and claim: see docs/spec.md")
    if cluster.device == "auto":
        raise SpecError(
            'cluster.device = "auto" cannot be decided before there is a machine: use "cuda" or "cpu"',
            "the pods must say whether they want GPUs",
        )
    if not re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", run_name) or len(run_name) > LONGEST_NAME:
        raise SpecError(
            f'name = "{run_name}" cannot name a JobSet: use "{_near(run_name)}"',
            f"at most {LONGEST_NAME} small letters, digits and dashes, a letter first: it names the pods",
        )
    if agents_of(spec) > MOST_AGENTS:
        raise SpecError(
            f"cluster.nodes + spares = {agents_of(spec)}: an indexed Job has at most {MOST_AGENTS} pods",
            "use fewer nodes with more workers_per_node",
        )
    return table


def agents_of(spec: Spec) -> int:
    """Nodes that train, and those that wait to."""
    return spec.cluster.nodes + spec.cluster.spares


def to_yaml(documents: list[Document]) -> str:
    """One YAML text of several documents, as `kubectl apply -f -` takes it."""
    return yaml.dump_all(documents, Dumper=_Dumper, sort_keys=False, explicit_start=True, width=100)


class _Dumper(yaml.SafeDumper):
    """Text of several lines as it stands, and everything written out where it is."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)


def _near(run_name: str) -> str:
    """A name that will do."""
    name = re.sub(r"[^a-z0-9]+", "-", run_name.lower()).strip("-")
    return (name if name[:1].isalpha() else f"run-{name}")[:LONGEST_NAME].rstrip("-")


def _document(version: str, kind: str, name: str, table: KubernetesSpec, run_name: str) -> Document:
    labels = {"app.kubernetes.io/name": "colossi", "app.kubernetes.io/instance": run_name}
    return {
        "apiVersion": version,
        "kind": kind,
        "metadata": {"name": name, "namespace": table.namespace, "labels": labels},
    }


def _may_watch_pods(around: str, table: KubernetesSpec, run_name: str) -> list[Document]:
    """The controller hears from the cluster which pods are lost; it may do nothing else there."""
    group = "rbac.authorization.k8s.io"
    return [
        _document(f"{group}/v1", "Role", around, table, run_name)
        | {"rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]},
        _document(f"{group}/v1", "RoleBinding", around, table, run_name)
        | {
            "roleRef": {"apiGroup": group, "kind": "Role", "name": around},
            "subjects": [{"kind": "ServiceAccount", "name": around, "namespace": table.namespace}],
        },
    ]


def _jobset(run_name: str, table: KubernetesSpec, jobs: list[Document]) -> Document:
    """Done when the controller is; failed when it says so, and else begun anew a few times from the disk."""
    jobset = _document(JOBSET, "JobSet", run_name, table, run_name)
    if table.queue is not None:
        jobset["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = table.queue
    jobset["spec"] = {
        "successPolicy": {"operator": "All", "targetReplicatedJobs": [CONTROLLER]},
        "failurePolicy": {
            "maxRestarts": LIVES,
            "restartStrategy": "BlockingRecreate",  # two lives of a run must never meet
            "rules": [
                {"name": "gave_up", "action": "FailJobSet", "onJobFailureReasons": ["PodFailurePolicy"]}
            ],
        },
        "replicatedJobs": jobs,
    }
    return jobset


def _controller_job(run_name: str, table: KubernetesSpec) -> Document:
    """One pod. Killed, it comes again and takes over from the ledger; what it decided is final."""
    name = f"colossi-{run_name}"
    container = {
        "name": CONTROLLER,
        "image": table.image,
        "command": [
            *("python", "-m", "colossi.engines.kubernetes", f"{RUNS}/{run_name}"),
            *("--host", "$(POD_IP)"),
        ],
        "env": [_from_pod("POD_IP", "status.podIP")],
        # The run folder is made, with the token in it, and says where agents are heard.
        "readinessProbe": {"exec": {"command": ["test", "-s", f"{RUNS}/{run_name}/controller.json"]}},
        "resources": {"requests": CONTROLLER_NEEDS},
        "volumeMounts": [
            {"name": "runs", "mountPath": RUNS},
            {"name": "given", "mountPath": GIVEN, "readOnly": True},
        ],
    }
    # Not into the run folder itself: a folder with a token and no spec is refused as none of ours.
    sources = [{"configMap": {"name": name}}, {"secret": {"name": name}}]
    pod = {
        "serviceAccountName": name,
        "containers": [container],
        "volumes": [_runs(table), {"name": "given", "projected": {"defaultMode": 0o400, "sources": sources}}],
    }
    job = {
        "completions": 1,
        "parallelism": 1,
        "backoffLimit": RESTARTS,
        "podFailurePolicy": _failures(CONTROLLER, [REFUSED, GAVE_UP]),
    }
    return _replicated(CONTROLLER, job, pod)


def _agents_job(run_name: str, spec: Spec, table: KubernetesSpec) -> Document:
    """A pod for each node and spare, one to a machine: buddies must not die at once."""
    container = {
        "name": AGENTS,
        "image": table.image,
        "command": [
            *("python", "-m", "colossi.engines.agent", f"{RUNS}/{run_name}"),
            *("--node", "$(NODE_NAME)", "--host", "$(POD_IP)"),
            *("--workers", str(spec.cluster.workers_per_node)),
        ],
        # The machine's name and not the pod's: a quarantine is the machine's, whichever pod comes to it.
        "env": [_from_pod("NODE_NAME", "spec.nodeName"), _from_pod("POD_IP", "status.podIP")],
        "resources": _resources(spec, table),
        "volumeMounts": [{"name": "runs", "mountPath": RUNS}, {"name": "memory", "mountPath": "/dev/shm"}],
    }
    pod = {
        "automountServiceAccountToken": False,
        "affinity": _one_to_a_machine(run_name),
        "containers": [container],
        "volumes": [_runs(table), {"name": "memory", "emptyDir": {"medium": "Memory"}}],
    }
    asked = {f"kueue.x-k8s.io/podset-{table.placement}-topology": table.topology}
    job = {
        "completions": agents_of(spec),
        "parallelism": agents_of(spec),
        "backoffLimitPerIndex": RESTARTS,
        "podFailurePolicy": _failures(AGENTS, [REFUSED]),
    }
    agents = _replicated(AGENTS, job, pod, asked if table.topology else {})
    return agents | {"dependsOn": [{"name": CONTROLLER, "status": "Ready"}]}  # it makes the run folder


def _replicated(name: str, job: Document, pod: Document, annotations: Document | None = None) -> Document:
    """One Job of the set. Its policy on failures wants pods that never restart in place."""
    pod = {"restartPolicy": "Never", "terminationGracePeriodSeconds": GRACE_SECONDS} | pod
    template = ({"metadata": {"annotations": annotations}} if annotations else {}) | {"spec": pod}
    whole = {"completionMode": "Indexed", "podReplacementPolicy": "Failed"} | job | {"template": template}
    return {"name": name, "replicas": 1, "template": {"spec": whole}}


def _failures(container: str, final: list[int]) -> Document:
    """Evicted, preempted, machine lost: nobody's fault, and not counted. A final exit code ends the Job."""
    exited = {"containerName": container, "operator": "In", "values": final}
    return {
        "rules": [
            {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
            {"action": "FailJob", "onExitCodes": exited},
        ]
    }


def _runs(table: KubernetesSpec) -> Document:
    return {"name": "runs", "persistentVolumeClaim": {"claimName": table.claim}}


def _from_pod(name: str, path: str) -> Document:
    return {"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}}


def _resources(spec: Spec, table: KubernetesSpec) -> Document:
    """A GPU for each worker, or a core."""
    each = str(spec.cluster.workers_per_node)
    if spec.cluster.device == "cuda":
        return {"limits": {table.gpus: each}}
    return {"requests": {"cpu": each}, "limits": {"cpu": each}}


def _one_to_a_machine(run_name: str) -> Document:
    selector = {"matchLabels": {OF_JOBSET: run_name, OF_JOB: AGENTS}}
    apart = {"labelSelector": selector, "topologyKey": "kubernetes.io/hostname"}
    return {"podAntiAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [apart]}}
