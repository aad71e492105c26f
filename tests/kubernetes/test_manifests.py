"""What is asked of the cluster: held against the published schemas, and against what the run needs."""

import copy
import re
import subprocess
import sys
import tomllib
from typing import Any

import jsonschema
import kubernetes_validate
import pydantic
import pytest
import yaml
from kubeflow_trainer_api.models import JobsetV1alpha2JobSet

from colossi.engines.manifests import OF_JOB, OF_JOBSET, Document, manifests, to_yaml
from colossi.errors import SpecError
from colossi.spec import build_spec

from .specs import TOPOLOGY, spec_with

KUBERNETES = "1.37"  # the newest whose schemas kubernetes-validate carries

SPECS = {
    "plain": (),
    "cpu": ("cluster.device=cpu", "cluster.nodes=1", "cluster.workers_per_node=2", "training.global_batch=2"),
    "queue": ("kubernetes.queue=training",),
    "topology": ("kubernetes.queue=training", f"kubernetes.topology={TOPOLOGY}"),
    "rack": ("kubernetes.queue=training", f"kubernetes.topology={TOPOLOGY}", "kubernetes.placement=required"),
    "other GPUs": ("kubernetes.gpus=amd.com/gpu",),
}


def documents(*overrides: str) -> list[Document]:
    return manifests(spec_with(*overrides), "cloud", "secret")


def of_kind(kind: str, among: list[Document]) -> Document:
    (found,) = [each for each in among if each["kind"] == kind]
    return found


def check(document: Document) -> None:
    """Against the schema of its kind, as published; unknown keys are refused too.

    The core kinds: Kubernetes' own OpenAPI schemas, carried by the package kubernetes-validate (Apache-2.0).
    JobSet: the models that Kubeflow makes of its OpenAPI document, in kubeflow-trainer-api (Apache-2.0). They
    drop what they do not know, so what comes back must be what went in. A JobSet holds templates of Jobs.
    """
    if document["kind"] != "JobSet":
        kubernetes_validate.validate(document, KUBERNETES, strict=True)
        return
    assert JobsetV1alpha2JobSet.from_dict(copy.deepcopy(document)).to_dict() == document
    for each in document["spec"]["replicatedJobs"]:
        job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": each["name"]}} | each["template"]
        kubernetes_validate.validate(job, KUBERNETES, strict=True)


@pytest.mark.parametrize("overrides", SPECS.values(), ids=SPECS)
def test_every_document_keeps_to_its_published_schema(overrides: tuple[str, ...]) -> None:
    found = documents(*overrides)
    for each in found:
        check(each)
    kinds = ["ServiceAccount", "Role", "RoleBinding", "Secret", "ConfigMap", "JobSet"]
    assert [each["kind"] for each in found] == kinds
    assert {each["metadata"]["namespace"] for each in found} == {"research"}


def _agents(jobset: Document) -> Any:
    return jobset["spec"]["replicatedJobs"][1]["template"]["spec"]


WRONG = {
    "a misspelt key of a Job": lambda jobset: _agents(jobset).update(completion=3),
    "text for a number": lambda jobset: _agents(jobset).update(completions="3"),
    "a misspelt key of a pod": lambda jobset: _agents(jobset)["template"]["spec"].update(affinty={}),
    "a misspelt key of a JobSet": lambda jobset: jobset["spec"].update(succesPolicy={}),
    "text for a number of a JobSet": lambda jobset: jobset["spec"]["failurePolicy"].update(maxRestarts="3"),
    "no rules' action": lambda jobset: jobset["spec"]["failurePolicy"]["rules"][0].pop("action"),
}


@pytest.mark.parametrize("spoil", WRONG.values(), ids=WRONG)
def test_the_check_would_notice(spoil: Any) -> None:
    jobset = of_kind("JobSet", documents())
    spoil(jobset)
    with pytest.raises((AssertionError, jsonschema.ValidationError, pydantic.ValidationError)):
        check(jobset)


@pytest.mark.parametrize("overrides", SPECS.values(), ids=SPECS)
def test_what_jobset_demands_beyond_its_schema(overrides: tuple[str, ...]) -> None:
    """The enums, patterns and rules of its types and its webhook (kubernetes-sigs/jobset, v1alpha2)."""
    jobset = of_kind("JobSet", documents(*overrides))
    spec, name = jobset["spec"], jobset["metadata"]["name"]
    jobs = {each["name"]: each for each in spec["replicatedJobs"]}
    assert list(jobs) == ["controller", "agents"]
    assert spec["failurePolicy"]["restartStrategy"] in ("Recreate", "BlockingRecreate", "InPlaceRestart")
    assert spec["successPolicy"]["operator"] in ("All", "Any")
    assert set(spec["successPolicy"]["targetReplicatedJobs"]) <= set(jobs)
    for rule in spec["failurePolicy"]["rules"]:
        assert re.fullmatch(r"[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?", rule["name"])
        assert rule["action"] in ("FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts")
        assert set(rule["onJobFailureReasons"]) <= {
            "BackoffLimitExceeded",
            "FailedIndexes",
            "PodFailurePolicy",
        }
    for each in jobs.values():
        job = each["template"]["spec"]
        assert job["completionMode"] == "Indexed" and job["completions"] == job["parallelism"]
        assert len(f"{name}-{each['name']}-0-{job['completions'] - 1}-abcde") <= 63
    assert jobs["controller"].get("dependsOn") is None  # the first may not
    (before,) = jobs["agents"]["dependsOn"]
    assert before["name"] == "controller" and before["status"] in ("Ready", "Complete")
    assert "startupPolicy" not in spec  # excludes dependsOn


@pytest.mark.parametrize("overrides", SPECS.values(), ids=SPECS)
def test_what_a_job_demands_beyond_its_schema(overrides: tuple[str, ...]) -> None:
    """https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy"""
    for each in of_kind("JobSet", documents(*overrides))["spec"]["replicatedJobs"]:
        job = each["template"]["spec"]
        assert job["template"]["spec"]["restartPolicy"] == "Never"  # of a podFailurePolicy
        assert job["podReplacementPolicy"] == "Failed"  # the only one beside a podFailurePolicy
        containers = {container["name"] for container in job["template"]["spec"]["containers"]}
        for rule in job["podFailurePolicy"]["rules"]:
            assert rule["action"] in ("FailJob", "FailIndex", "Ignore", "Count")
            assert len({"onExitCodes", "onPodConditions"} & set(rule)) == 1
            exits = rule.get("onExitCodes", {"containerName": each["name"], "values": [1]})
            assert exits["containerName"] in containers and 0 not in exits["values"]
            assert exits["values"] == sorted(set(exits["values"]))


def pod(name: str, *overrides: str) -> Any:
    jobs = {each["name"]: each for each in of_kind("JobSet", documents(*overrides))["spec"]["replicatedJobs"]}
    return jobs[name]["template"]["spec"]["template"]


def test_agents_are_nodes_and_spares() -> None:
    assert _agents(of_kind("JobSet", documents()))["completions"] == 4
    assert _agents(of_kind("JobSet", documents("cluster.spares=2")))["parallelism"] == 6


def test_commands_meet() -> None:
    """Agents find the controller through the run folder, where it says its pod's address."""
    (controller,), (agent,) = pod("controller")["spec"]["containers"], pod("agents")["spec"]["containers"]
    host = ["--host", "$(POD_IP)"]
    assert controller["command"] == ["python", "-m", "colossi.engines.kubernetes", "/runs/cloud", *host]
    assert controller["readinessProbe"]["exec"]["command"] == ["test", "-s", "/runs/cloud/controller.json"]
    options = ["--node", "$(NODE_NAME)", "--host", "$(POD_IP)", "--workers", "8"]
    assert agent["command"] == ["python", "-m", "colossi.engines.agent", "/runs/cloud", *options]
    paths = {each["name"]: each["valueFrom"]["fieldRef"]["fieldPath"] for each in agent["env"]}
    assert paths == {"NODE_NAME": "spec.nodeName", "POD_IP": "status.podIP"}
    assert [controller["env"][0]] == [each for each in agent["env"] if each["name"] == "POD_IP"]


@pytest.mark.parametrize("name", ["controller", "agents"])
def test_the_programs_know_their_options(name: str) -> None:
    (container,) = pod(name)["spec"]["containers"]
    command = [sys.executable, *container["command"][1:3], "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert [each for each in container["command"] if each.startswith("--") and each not in told] == []


@pytest.mark.parametrize(
    ("overrides", "resources"),
    [
        ((), {"limits": {"nvidia.com/gpu": "8"}}),
        (("kubernetes.gpus=amd.com/gpu",), {"limits": {"amd.com/gpu": "8"}}),
        (("cluster.device=cpu",), {"requests": {"cpu": "8"}, "limits": {"cpu": "8"}}),
    ],
    ids=["cuda", "another maker", "cpu"],
)
def test_resources(overrides: tuple[str, ...], resources: dict[str, Any]) -> None:
    (agent,) = pod("agents", *overrides)["spec"]["containers"]
    (controller,) = pod("controller", *overrides)["spec"]["containers"]
    assert agent["resources"] == resources
    assert "nvidia.com/gpu" not in controller["resources"].get("limits", {})


def test_queue_and_topology() -> None:
    labels = of_kind("JobSet", documents())["metadata"]["labels"]
    assert "kueue.x-k8s.io/queue-name" not in labels and "metadata" not in pod("agents")
    assert of_kind("JobSet", documents(*SPECS["queue"]))["metadata"]["labels"] == labels | {
        "kueue.x-k8s.io/queue-name": "training"
    }
    for which, key in (("topology", "preferred"), ("rack", "required")):
        asked = pod("agents", *SPECS[which])["metadata"]["annotations"]
        assert asked == {f"kueue.x-k8s.io/podset-{key}-topology": TOPOLOGY}
        assert "metadata" not in pod("controller", *SPECS[which])


def test_buddies_are_on_different_machines() -> None:
    (apart,) = pod("agents")["spec"]["affinity"]["podAntiAffinity"][
        "requiredDuringSchedulingIgnoredDuringExecution"
    ]
    assert apart["topologyKey"] == "kubernetes.io/hostname"
    assert apart["labelSelector"]["matchLabels"] == {OF_JOBSET: "cloud", OF_JOB: "agents"}


def test_volumes() -> None:
    agent, controller = pod("agents")["spec"], pod("controller")["spec"]
    for each in (agent, controller):
        assert each["volumes"][0] == {"name": "runs", "persistentVolumeClaim": {"claimName": "runs"}}
        assert each["containers"][0]["volumeMounts"][0] == {"name": "runs", "mountPath": "/runs"}
    assert agent["volumes"][1] == {"name": "memory", "emptyDir": {"medium": "Memory"}}
    assert agent["containers"][0]["volumeMounts"][1] == {"name": "memory", "mountPath": "/dev/shm"}
    given = controller["volumes"][1]["projected"]
    assert given["defaultMode"] == 0o400
    assert given["sources"] == [
        {"configMap": {"name": "colossi-cloud"}},
        {"secret": {"name": "colossi-cloud"}},
    ]


def test_the_token_is_in_the_secret_and_nowhere_else() -> None:
    found = documents()
    secret = of_kind("Secret", found)
    assert secret["stringData"] == {"token": "secret"} and secret["immutable"]
    others = to_yaml([each for each in found if each is not secret])
    assert "token" not in others.replace("token: ", "").replace("_per_token", "").replace("tokenizer", "")


def test_the_spec_travels_whole() -> None:
    spec = spec_with(*SPECS["rack"])
    text = of_kind("ConfigMap", manifests(spec, "cloud", "secret"))["data"]["spec.toml"]
    assert build_spec(tomllib.loads(text), "the config map") == spec


def test_only_pods_of_its_namespace_may_be_watched() -> None:
    (rule,) = of_kind("Role", documents())["rules"]
    assert rule == {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}
    assert pod("controller")["spec"]["serviceAccountName"] == "colossi-cloud"
    assert pod("agents")["spec"]["automountServiceAccountToken"] is False


def test_the_yaml_says_the_same() -> None:
    found = documents(*SPECS["rack"])
    text = to_yaml(found)
    assert list(yaml.safe_load_all(text)) == found
    assert text.startswith("---\napiVersion: v1\nkind: ServiceAccount\n")
    assert '  spec.toml: |\n    name = "cloud"\n' in text and "&id" not in text


def test_pure() -> None:
    assert documents() == documents()


REFUSED = {
    ("cluster.device=auto",): 'cluster.device = "auto" cannot be decided before there is a machine: '
    'use "cuda" or "cpu"',
    ("name=My_Run",): 'name = "My_Run" cannot name a JobSet: use "my-run"',
    ("name=70b",): 'name = "70b" cannot name a JobSet: use "run-70b"',
    ("name=" + "a" * 41,): f'name = "{"a" * 41}" cannot name a JobSet: use "{"a" * 40}"',
    ("cluster.nodes=100001", "training.global_batch=800008"): "cluster.nodes + spares = 100001: "
    "an indexed Job has at most 100000 pods",
}


@pytest.mark.parametrize(("overrides", "message"), REFUSED.items(), ids=lambda each: str(each)[:20])
def test_refusals(overrides: tuple[str, ...], message: str) -> None:
    spec = spec_with(*overrides)
    with pytest.raises(SpecError) as refusal:
        manifests(spec, spec.name, "secret")
    assert refusal.value.message == message and refusal.value.hint
    assert refusal.value.exit_code == 2


def test_no_table_is_refused() -> None:
    spec = spec_with().model_copy(update={"kubernetes": None})
    with pytest.raises(SpecError, match=r"^table \[kubernetes\] is missing"):
        manifests(spec, "cloud", "secret")


WANTED = {
    "kubernetes={claim='runs'}": r"kubernetes.image is missing: give text in quotes, matching ^\S+$",
    "kubernetes={image='a'}": "kubernetes.claim is missing: give text in quotes, matching",
    "kubernetes.image=''": 'kubernetes.image = "": give text in quotes, matching',
    "kubernetes.namespace=Research": 'kubernetes.namespace = "Research": give text in quotes, matching',
    "kubernetes.imgae=a": 'unknown key kubernetes.imgae = "a": did you mean image?',
    f"kubernetes.topology={TOPOLOGY}": f'kubernetes.topology = "{TOPOLOGY}" is a request to Kueue, and '
    "queue is missing: add queue, or remove topology",
    "kubernetes.placement=near": 'kubernetes.placement = "near": give "preferred" or "required"',
}


@pytest.mark.parametrize(("override", "message"), WANTED.items(), ids=lambda each: each[:24])
def test_refusals_of_the_table(override: str, message: str) -> None:
    with pytest.raises(SpecError) as refusal:
        spec_with(override)
    assert refusal.value.message.startswith(f"cloud.toml: {message}")
