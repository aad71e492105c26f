"""
Prometheus: targets as files (file_sd), and a configuration that reads them.

A group of targets for each rack, so that hall, row, rack and pod are labels of every series: a query by rack
finds what shares a feed and a CDU. Ports are the defaults of node_exporter, dcgm-exporter (on AMD
device-metrics-exporter) and snmp_exporter.
"""

import json

import numpy as np
import yaml

from colossi.site.design import KINDS, Design
from colossi.site.naming import Names, kinds_of

NODE_PORT, DCGM_PORT, AMD_PORT, SNMP_ADDRESS = 9100, 9400, 5000, "127.0.0.1:9116"
SERVERS = ("node", "storage node", "management server", "manager")


def prometheus_files(design: Design, names: Names) -> dict[str, str]:
    """Text by name."""
    kinds = kinds_of(design)
    servers = [kind for kind in kinds if kind in SERVERS]
    switched = [kind for kind in kinds if kind.split()[-1] in ("leaf", "spine", "core")]
    gpu_port = AMD_PORT if design.node.gpu.link == "xgmi" else DCGM_PORT
    return {
        "prometheus.yml": yaml.safe_dump(_configuration(design), sort_keys=False),
        "targets/server.json": targets(design, names, servers, f":{NODE_PORT}"),
        "targets/gpu.json": targets(design, names, ["node"], f":{gpu_port}"),
        "targets/switch.json": targets(design, names, switched, ""),
    }


def targets(design: Design, names: Names, kinds: list[str], suffix: str) -> str:
    """JSON of the groups: a rack's devices of a kind are one."""
    devices, racks = design.devices, design.racks
    rows = np.flatnonzero(np.isin(devices.kind, [KINDS.index(kind) for kind in kinds]))
    order = rows[np.lexsort((rows, devices.kind[rows], devices.rack[rows]))]
    group = devices.rack[order].astype(np.int64) * len(KINDS) + devices.kind[order]
    groups = []
    for part in np.split(order, np.flatnonzero(np.diff(group)) + 1):
        if len(part):
            rack = int(devices.rack[part[0]])
            labels = {
                "hall": design.halls[racks.hall[rack]],
                "row": str(racks.row[rack]),
                "rack": names.racks[rack],
                "pod": str(racks.pod[rack]),
                "kind": KINDS[devices.kind[part[0]]],
            }
            groups.append(
                {"targets": [names.devices[row] + suffix for row in part.tolist()], "labels": labels}
            )
    return "[\n" + ",\n".join(map(json.dumps, groups)) + "\n]\n"


def _configuration(design: Design) -> dict[str, object]:
    """Three jobs; a target's own name, without its port, is its `instance`."""
    address = ["__address__"]
    name: dict[str, object] = {"source_labels": address, "regex": "([^:]+).*", "target_label": "instance"}
    snmp: list[dict[str, object]] = [
        {"source_labels": address, "target_label": "__param_target"},
        {"source_labels": ["__param_target"], "target_label": "instance"},
        {"target_label": "__address__", "replacement": SNMP_ADDRESS},
    ]

    def job(kind: str, rules: list[dict[str, object]], more: dict[str, object]) -> dict[str, object]:
        files = [{"files": [f"targets/{kind}.json"]}]
        return {"job_name": kind, **more, "file_sd_configs": files, "relabel_configs": rules}

    return {
        "global": {"scrape_interval": "30s", "external_labels": {"cluster": design.name}},
        "scrape_configs": [
            job("server", [{**name}], {}),
            job("gpu", [{**name}], {}),
            job(
                "switch",
                [{**rule} for rule in snmp],
                {"metrics_path": "/snmp", "params": {"module": ["if_mib"]}},
            ),
        ],
    }
