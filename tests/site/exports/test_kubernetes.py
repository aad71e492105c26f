"""Nodes' labels by Kubernetes' own schema, and Kueue's objects by the rules of their definitions."""

import re

import kubernetes_validate
import yaml

from colossi.site.exports.kubernetes import kubernetes_files
from colossi.site.naming import units_of

from .small import names, small

# Of a node label's key and value (kubernetes.io, labels), and of Kueue's nodeLabel.
KEY = re.compile(r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")


def test_nodes_are_valid_and_labelled_by_the_fabric() -> None:
    nodes = list(yaml.safe_load_all(kubernetes_files(small(), names())["nodes.yaml"]))
    assert len(nodes) == 64
    units = units_of(small())
    for number, node in enumerate(nodes):
        kubernetes_validate.validate(node, "1.31", strict=True)
        labels = node["metadata"]["labels"]
        assert node["metadata"]["name"] == f"node-{number:05d}"
        assert all(KEY.fullmatch(key) and VALUE.fullmatch(value) for key, value in labels.items())
        assert labels["topology.colossi/unit"] == f"unit-{units.unit[number]:04d}"
    # By hand: a leaf has 32 ports down, so two units of 32 nodes, all of which reach the same spines.
    of_unit = [node["metadata"]["labels"]["topology.colossi/unit"] for node in nodes]
    assert of_unit == ["unit-0000"] * 32 + ["unit-0001"] * 32
    assert {node["metadata"]["labels"]["topology.colossi/group"] for node in nodes} == {"group-0000"}


def test_kueue_schedules_by_labels_that_nodes_have() -> None:
    files = kubernetes_files(small(), names())
    topology, flavor = yaml.safe_load_all(files["kueue.yaml"])
    labels = next(yaml.safe_load_all(files["nodes.yaml"]))["metadata"]["labels"]
    levels = [level["nodeLabel"] for level in topology["spec"]["levels"]]
    assert topology["kind"] == "Topology" and topology["apiVersion"] == flavor["apiVersion"]
    assert 1 <= len(levels) == len(set(levels)) <= 8  # as Kueue's definition says
    assert levels[-1] == "kubernetes.io/hostname"  # allowed at the lowest level only
    assert set(levels[:-1]) <= set(labels)
    # A flavor with a topology must have a label of nodes.
    assert flavor["spec"]["topologyName"] == topology["metadata"]["name"]
    assert flavor["spec"]["nodeLabels"].items() <= labels.items()
