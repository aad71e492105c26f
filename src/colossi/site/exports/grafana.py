"""
A Grafana dashboard of a design: what is up, what it draws, how hot it is, which links lose data.

The queries ask for the series of node_exporter, dcgm-exporter and snmp_exporter with the labels that
prometheus.py gives. Limits in the panels are the design's own: how many GPUs there are, what the feeds carry.
"""

import json
from typing import Any

from colossi.site.design import Design

WHERE = 'hall=~"$hall",pod=~"$pod"'


def dashboard(design: Design) -> str:
    """JSON for Grafana's import page; it asks there which Prometheus to use."""
    gpus = design.nodes * design.node.gpus
    megawatts = sum(feed.watts for feed in design.feeds)
    panels = [
        _stat("GPUs that answer", f"count(DCGM_FI_DEV_GPU_TEMP{{{WHERE}}})", gpus),
        _stat("Nodes that answer", f'sum(up{{job="server",kind="node",{WHERE}}})', design.nodes),
        _stat("Switches that answer", f'sum(up{{job="switch",{WHERE}}})', None),
        _stat("Power of GPUs [W]", f"sum(DCGM_FI_DEV_POWER_USAGE{{{WHERE}}})", megawatts or None),
        _graph(
            "Power of GPUs by hall [W]", f"sum by (hall) (DCGM_FI_DEV_POWER_USAGE{{{WHERE}}})", "{{hall}}"
        ),
        _graph("Load of GPUs by pod", f"avg by (pod) (DCGM_FI_DEV_GPU_UTIL{{{WHERE}}})", "pod {{pod}}"),
        _graph("Hottest racks [C]", f"topk(10, max by (rack) (DCGM_FI_DEV_GPU_TEMP{{{WHERE}}}))", "{{rack}}"),
        _graph(
            "GPUs with an Xid, last hour",
            f"count by (rack) (changes(DCGM_FI_DEV_XID_ERRORS{{{WHERE}}}[1h]) > 0)",
            "{{rack}}",
        ),
        _graph(
            "Ports of switches with errors",
            f"topk(10, sum by (instance) (rate(ifInErrors{{{WHERE}}}[5m])))",
            "{{instance}}",
        ),
        _table("Nodes that do not answer", f'up{{job="server",kind="node",{WHERE}}} == 0'),
    ]
    for number, panel in enumerate(panels):
        wide, tall = (6, 4) if number < 4 else (12, 8)
        at = number - 4
        x, y = (6 * number, 0) if number < 4 else (at % 2 * 12, 4 + at // 2 * 8)
        panel |= {"id": number + 1, "gridPos": {"h": tall, "w": wide, "x": x, "y": y}}
    return json.dumps(_document(design, panels), indent=1) + "\n"


def _document(design: Design, panels: list[dict[str, Any]]) -> dict[str, Any]:
    source = {
        "name": "DS_PROMETHEUS",
        "label": "Prometheus",
        "type": "datasource",
        "pluginId": "prometheus",
        "pluginName": "Prometheus",
    }
    return {
        "__inputs": [source],
        "title": f"{design.name}: the machine",
        "uid": None,
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_variable("hall"), _variable("pod")]},
        "panels": panels,
    }


def _variable(label: str) -> dict[str, Any]:
    return {
        "name": label,
        "type": "query",
        "datasource": _SOURCE,
        "query": f"label_values(up, {label})",
        "refresh": 1,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


_SOURCE = {"type": "prometheus", "uid": "${DS_PROMETHEUS}"}


def _panel(kind: str, title: str, query: str, **more: Any) -> dict[str, Any]:
    target = {"refId": "A", "expr": query, "datasource": _SOURCE, **more}
    return {"type": kind, "title": title, "datasource": _SOURCE, "targets": [target]}


def _stat(title: str, query: str, most: float | None) -> dict[str, Any]:
    shown = title if most is None else f"{title}, of {most:,.0f}"
    return _panel("stat", shown, query, instant=True)


def _graph(title: str, query: str, legend: str) -> dict[str, Any]:
    return _panel("timeseries", title, query, legendFormat=legend)


def _table(title: str, query: str) -> dict[str, Any]:
    return _panel("table", title, query, instant=True, format="table")
