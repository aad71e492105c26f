"""Metrics as a real Prometheus reads them."""

import json
import os
import re
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from prometheus_client.openmetrics.exposition import generate_latest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from colossi import web
from colossi.errors import BadInput
from colossi.ledger.events import Event
from colossi.ledger.report import report
from colossi.ledger.run import Run, begin_run
from colossi.serve.metrics import Metrics
from colossi.spec import read_spec
from colossi.web.metrics import registry_of, serve_metrics

from ..serve.served import model_folder, server

ROOT = Path(__file__).parents[2]
PROMETHEUS, PROMTOOL = Path("/usr/bin/prometheus"), Path("/usr/bin/promtool")
NAME = re.compile(r"\bcolossi_[a-z0-9_]+")


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Two incarnations, a fault between them, a checkpoint."""
    run = begin_run(tmp_path / "night", read_spec(ROOT / "examples" / "laptop.toml"))
    facts = {"flops_per_token": 10.0, "peak_flops": 4000.0, "steps": 9, "parameters": 123}
    world = {"nodes": ["node-0", "node-1"], "workers": 2, "spares": 0, "missing": 0}
    done = {"loss": 2.5, "tokens": 100, "seconds": 1.0}
    saved = {"seconds": 0.5, "stall_seconds": 0.0, "bytes": 4096}
    events = [
        (1000.0, "node_joined", 0, None, {"node": "node-0"}),
        (1000.0, "node_joined", 0, None, {"node": "node-1"}),
        (1001.0, "incarnation_started", 1, None, world),
        (1001.5, "run_started", 1, None, facts),
        (1003.0, "step_done", 1, 1, done),
        (1003.5, "checkpoint_complete", 1, 1, saved),
        (1004.0, "fault", 1, 1, {"cause": "killed", "node": "node-1", "seconds_to_detect": 0.5}),
        (1005.0, "incarnation_started", 2, None, world),
        (1007.0, "step_done", 2, 2, done | {"loss": 2.0}),
    ]
    with run.ledger() as ledger:
        ledger.append(
            *(
                Event(time=time, kind=kind, incarnation=number, step=step, data=data)
                for time, kind, number, step, data in events
            )
        )
    return run


def test_what_it_says_is_what_the_ledger_says(run: Run) -> None:
    told, found = report(run.events()), samples(run)
    label = ("run", "night")
    expected = {
        "colossi_run_step": 2.0,
        "colossi_run_loss": 2.0,
        "colossi_run_tokens_total": 200.0,
        "colossi_run_tokens_per_second": 100.0,
        "colossi_run_mfu_ratio": 0.25,  # 100 tokens/s * 10 FLOP / 4000 FLOP/s
        "colossi_run_goodput_ratio": told.goodput,
        "colossi_run_incarnation": 2.0,
        "colossi_run_restarts_total": 1.0,
        "colossi_run_faults_total": 1.0,
        "colossi_run_workers": 2.0,
        "colossi_run_checkpoint_timestamp_seconds": 1003.5,
        "colossi_run_checkpoint_size_bytes": 4096.0,
        "colossi_run_event_timestamp_seconds": 1007.0,
    }
    assert {name: found[name, label] for name in expected} == expected
    assert found["colossi_run_nodes", label, ("state", "training")] == 2.0
    assert found["colossi_run_worker_seconds_total", ("part", "productive"), label] == told.time["productive"]


def test_a_run_that_has_not_begun_says_nothing(tmp_path: Path) -> None:
    assert samples(Run(tmp_path / "nothing")) == {}


@pytest.mark.parametrize("address", ["x", "70000", "127.0.0.1:"])
def test_a_wrong_address_is_refused(run: Run, address: str) -> None:
    with pytest.raises(BadInput):
        serve_metrics(run, address)


def test_a_port_that_is_taken_is_refused(run: Run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(BadInput, match="in use"):
        serve_metrics(run, str(taken.getsockname()[1]))


def test_prometheus_finds_nothing_wrong_with_the_names(run: Run) -> None:
    need_prometheus()
    with served(run) as address:
        text = fetch(f"http://{address}/metrics")
    done = subprocess.run(
        [PROMTOOL, "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr + done.stdout) == (0, "")


def test_prometheus_scrapes_them_and_answers(run: Run, tmp_path: Path) -> None:
    need_prometheus()
    with served(run) as address, prometheus(tmp_path, address) as asked:
        wait_for(asked, "colossi_run_step", 2.0)
        assert query(asked, "sum(colossi_run_nodes)") == 2.0
        spent = "colossi_run_worker_seconds_total"
        share = f'{spent}{{part="productive"}} / ignoring(part) sum without(part)({spent})'
        assert 0 < query(asked, share) < 1
        assert query(asked, 'up{job="colossi"}') == 1.0
        step = Event(time=1008.0, kind="step_done", incarnation=2, step=3, data={"loss": 1.5})
        with run.ledger() as ledger:
            ledger.append(step)
        wait_for(asked, "colossi_run_step", 3.0)  # the next scrape has what is new


def test_prometheus_scrapes_the_server_too(tmp_path: Path) -> None:
    need_prometheus()
    with server(model_folder(tmp_path / "small")) as (url, _):
        target = url.removeprefix("http://").removesuffix("/v1")
        done = subprocess.run(
            [PROMTOOL, "check", "metrics"],
            input=fetch(f"http://{target}/metrics"),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert (done.returncode, done.stderr + done.stdout) == (0, "")
        body = {"model": "small", "prompt": "the quick", "max_tokens": 4, "temperature": 0}
        with prometheus(tmp_path, target) as asked:
            assert httpx.post(f"{url}/completions", json=body, timeout=60).status_code == 200
            wait_for(asked, 'sum(colossi_requests_total{status="200",path="/v1/completions"})', 1.0)
            assert query(asked, "colossi_first_token_seconds_count") == 1.0


def test_the_dashboard_of_grafana_asks_for_what_there_is(run: Run) -> None:
    board = json.loads((Path(web.__file__).parent / "grafana.json").read_text())
    asked = {
        name
        for panel in board["panels"]
        for each in panel.get("targets", [])
        for name in NAME.findall(each["expr"])
    }
    there = {name for name, *_ in samples(run)}
    ours = {name for name in asked if name.startswith("colossi_run_")}
    assert len(ours) > 10 and ours <= there, ours - there
    theirs = {metric.name for metric in Metrics().registry.collect()}
    suffixes = re.compile("_(total|bucket|sum|count)$")
    assert {suffixes.sub("", name) for name in asked - ours} <= theirs
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))


def samples(run: Run) -> dict[tuple[object, ...], float]:
    """(name, label, ...) -> value, as the reference parser of OpenMetrics reads them."""
    text = generate_latest(registry_of([run])).decode()
    assert text.endswith("# EOF\n")
    families = text_string_to_metric_families(text)
    return {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in families
        for sample in family.samples
    }


def need_prometheus() -> None:
    if not (PROMETHEUS.is_file() and PROMTOOL.is_file()) and not os.environ.get("COLOSSI_NEEDS_PROMETHEUS"):
        pytest.skip("no Prometheus")


@contextmanager
def served(run: Run) -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    end = serve_metrics(run, str(port))
    try:
        yield f"127.0.0.1:{port}"
    finally:
        end()


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[str]:
    """One that scrapes the target five times a second; its address."""
    settings = folder / "prometheus.yml"
    settings.write_text(
        "global: {scrape_interval: 200ms}\n"
        f"scrape_configs: [{{job_name: colossi, static_configs: [{{targets: ['{target}']}}]}}]\n"
    )
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    command = [PROMETHEUS, f"--config.file={settings}", f"--storage.tsdb.path={folder / 'tsdb'}"]
    with (
        (folder / "prometheus.log").open("w") as log,
        subprocess.Popen([*command, f"--web.listen-address={address}"], stdout=log, stderr=log) as process,
    ):
        try:
            yield address
        finally:
            process.terminate()


def fetch(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def query(address: str, expression: str) -> float | None:
    """The value of an instant query that has one; None where there is none (yet)."""
    try:
        told = json.loads(
            fetch(f"http://{address}/api/v1/query?{urllib.parse.urlencode({'query': expression})}")
        )
    except OSError:
        return None
    assert told["status"] == "success", told
    found = told["data"]["result"]
    return float(found[0]["value"][1]) if found else None


def wait_for(address: str, expression: str, value: float) -> None:
    deadline = time.monotonic() + 60
    while (found := query(address, expression)) != value:
        assert time.monotonic() < deadline, f"{expression} is {found}"
        time.sleep(0.1)


def test_the_page_lists_every_metric(run: Run) -> None:
    page = (ROOT / "docs" / "metrics.md").read_text()
    listed = set(re.findall(r"^\| `(colossi_run_\w+)`", page, re.MULTILINE))
    families = text_string_to_metric_families(generate_latest(registry_of([run])).decode())
    suffix = {"counter": "_total", "info": "_info"}
    assert listed == {family.name + suffix.get(family.type, "") for family in families}
