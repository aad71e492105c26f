"""promtool reads the configuration with its targets, and the queries of the dashboard."""

import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from colossi.site.exports.grafana import dashboard
from colossi.site.exports.prometheus import prometheus_files

from .small import names, small


def promtool(*words: str | Path) -> str:
    """What it prints; it must find no fault."""
    if shutil.which("promtool") is None:
        if os.environ.get("COLOSSI_NEEDS_PROMETHEUS"):
            pytest.fail("promtool not found")
        pytest.skip("promtool not found")
    done = subprocess.run(["promtool", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def discovered(configuration: Path, job: str) -> list[dict[str, dict[str, str]]]:
    """Targets after relabelling. promtool waits for as long as it may, in case more come."""
    return json.loads(promtool("check", "service-discovery", "--timeout=3s", configuration, job))


def test_promtool_accepts_configuration_and_targets(tmp_path: Path) -> None:
    for name, text in prometheus_files(small(), names()).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    said = promtool("check", "config", tmp_path / "prometheus.yml")
    assert "SUCCESS" in said and "WARNING" not in said
    # What Prometheus makes of a job's targets.
    labels = [each["labels"] for each in discovered(tmp_path / "prometheus.yml", "switch")]
    assert {each["__address__"] for each in labels} == {"127.0.0.1:9116"}  # snmp_exporter asks the switch
    assert "leaf-00000" in {each["instance"] for each in labels}
    gpus = discovered(tmp_path / "prometheus.yml", "gpu")
    assert sorted(each["labels"]["instance"] for each in gpus) == [f"node-{n:05d}" for n in range(64)]


def test_every_server_and_switch_is_a_target_in_its_place() -> None:
    files = prometheus_files(small(), names())
    groups = [group for kind in ("server", "switch") for group in json.loads(files[f"targets/{kind}.json"])]
    places = {host.split(":")[0]: group["labels"] for group in groups for host in group["targets"]}
    assert set(places) == {name for name in names().devices if not name.startswith("cdu")}
    for row, name in enumerate(names().devices):
        if name in places:
            assert places[name]["rack"] == names().racks[small().devices.rack[row]]


def test_promtool_reads_the_dashboards_queries(tmp_path: Path) -> None:
    document = json.loads(dashboard(small()))
    queries = [target["expr"] for panel in document["panels"] for target in panel["targets"]]
    assert len(queries) == 10
    rules = [{"record": f"q{n}", "expr": re.sub(r"\$\w+", ".*", each)} for n, each in enumerate(queries)]
    (tmp_path / "rules.yml").write_text(yaml.safe_dump({"groups": [{"name": "g", "rules": rules}]}))
    assert "10 rules found" in promtool("check", "rules", tmp_path / "rules.yml")
    # Variables in the queries are those that the dashboard defines; panels do not overlap on 24 columns.
    defined = {each["name"] for each in document["templating"]["list"]}
    assert {name for each in queries for name in re.findall(r"\$(\w+)", each)} == defined
    cells = [
        (x, y)
        for panel in document["panels"]
        for at in [panel["gridPos"]]
        for x in range(at["x"], at["x"] + at["w"])
        for y in range(at["y"], at["y"] + at["h"])
    ]
    assert len(cells) == len(set(cells)) and max(x for x, _ in cells) < 24
    assert document["title"].startswith("site") and "512" in document["panels"][0]["title"]
