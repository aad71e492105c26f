"""NCCL's node, containerlab's slice, and the labels."""

import re
import zlib
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml

from colossi.errors import BadInput
from colossi.site.design import NETWORKS
from colossi.site.exports.containerlab import containerlab
from colossi.site.exports.labels import cables_of_pod, label_sheets, label_table
from colossi.site.exports.nccl import nccl_topology
from colossi.spec.hardware import node, node_names

from .small import names, rows, small


@pytest.mark.parametrize("name", node_names())
def test_each_gpu_and_each_nic_is_in_ncclstopology_once(name: str) -> None:
    server = node(name)
    text = nccl_topology(server)
    assert "<?xml" not in text  # NCCL's reader knows elements and comments only
    system = ElementTree.fromstring(text)
    assert system.tag == "system" and system.get("version") == "1"
    kinds = [pci.get("class") for pci in system.iter("pci")]
    nic = "0x020700" if server.network == "infiniband" else "0x020000"
    assert kinds.count("0x030200") == server.gpus and kinds.count(nic) == server.nics
    addresses = [pci.get("busid") for pci in system.iter("pci")]
    assert len(set(addresses)) == len(addresses)
    assert all(re.fullmatch(r"0000:[0-9a-f]{2}:00\.0", each or "") for each in addresses)
    masks = [int((cpu.get("affinity") or "").replace(",", ""), 16) for cpu in system.iter("cpu")]
    assert sum(mask.bit_count() for mask in masks) == 56 * len(masks)
    assert not masks[0] & masks[-1] or len(masks) == 1


def test_on_a_dgx_each_gpu_has_a_nic_of_its_own_under_the_same_bridge() -> None:
    system = ElementTree.fromstring(nccl_topology(node("DGX-H100")))
    bridges = [pci for cpu in system for pci in cpu]
    assert [[pci.get("class") for pci in bridge] for bridge in bridges] == [["0x030200", "0x020700"]] * 8


def test_the_slice_is_wired_as_the_design() -> None:
    design = small()
    document = yaml.safe_load(containerlab(design, names()))
    nodes, links = document["topology"]["nodes"], document["topology"]["links"]
    assert set(nodes) == {
        *(f"node-{n:05d}" for n in range(4)),
        *("leaf-00000", "leaf-00001", "spine-00000", "spine-00001"),
    }
    # containerlab.dev, topology definition: a link has two endpoints node:interface; Linux takes 15 letters.
    ends = [end for link in links for end in link["endpoints"]]
    assert all(re.fullmatch(r"eth[1-9]\d*", end.split(":")[1]) for end in ends)
    assert len(set(ends)) == len(ends)
    assert all(each["kind"] == "linux" and each["image"] for each in nodes.values())
    cables, compute = design.cables, NETWORKS.index("compute")
    wired = {
        (f"{names().devices[a]}:eth{p + 1}", f"{names().devices[b]}:eth{q + 1}")
        for a, p, b, q, network in zip(
            cables.lower.tolist(),
            cables.lower_port.tolist(),
            cables.upper.tolist(),
            cables.upper_port.tolist(),
            cables.network.tolist(),
            strict=True,
        )
        if network == compute and {names().devices[a], names().devices[b]} <= set(nodes)
    }
    assert {tuple(link["endpoints"]) for link in links} == wired
    assert len(wired) == 4 * 2 + 2 * 2 * 4  # by hand: 32 uplinks of a leaf to 8 spines, 4 to each


def test_the_table_of_labels_says_where_each_cable_goes() -> None:
    table = rows(label_table(small(), names()))
    design, cables = small(), small().cables
    assert len({row["label"] for row in table}) == len(cables) == len(table)
    for at in (0, 600, len(cables) - 1):
        row, lower = table[at], int(cables.lower[at])
        rack = int(design.devices.rack[lower])
        assert row["a_device"] == design.device_name(lower)
        assert row["a_rack"] == design.rack_name(rack)
        assert int(row["a_row"]) == design.racks.row[rack]
        assert int(row["a_unit"]) == design.devices.unit[lower]
        assert float(row["metres"]) == pytest.approx(float(cables.metres[at]))
    ends = [(row[f"{side}_device"], row[f"{side}_port"]) for row in table for side in "ab"]
    assert len(set(ends)) == len(ends)
    # By hand: NIC 3 of a node goes to the fourth leaf, and management runs over twisted pairs.
    third = next(row for row in table if row["a_device"] == "node-00000" and row["a_port"] == "nic3")
    assert (third["b_device"], third["b_port"]) == ("leaf-00003", "p1")
    assert {row["medium"] for row in table if row["a_port"] == "mgmt0"} == {"Cat6"}


def test_a_pods_stickers_are_two_for_each_of_its_cables() -> None:
    pdf = label_sheets(small(), names(), 1)
    pod = cables_of_pod(small(), 1)
    text = b"".join(
        zlib.decompress(part) for part in re.findall(rb"stream\n(.*?)\nendstream", pdf, re.DOTALL)
    )
    labels = re.findall(rb"\(([CSM]\d{6})\)", text)
    wanted = np.repeat(np.array(names().cables)[pod], 2).tolist()
    assert sorted(label.decode() for label in labels) == sorted(wanted)
    assert pdf.count(b"/Type /Page\n") == -(-len(wanted) // 21)
    assert b"to h1-" in text


def test_a_pod_that_is_none_is_refused() -> None:
    with pytest.raises(BadInput, match=r"--pod 2: site has pods 0 to 1"):
        cables_of_pod(small(), 2)
