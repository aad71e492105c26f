"""
What Prometheus may ask of runs: read from their ledgers when it asks, so nothing is spent in between.

    colossi train SPEC --metrics 9400      GET /metrics of the process that trains
    colossi dashboard RUN...               GET /metrics of the page

Names and units follow Prometheus's conventions: base units, `_total` for what only grows, a date where others
would give an age (`time() - colossi_run_checkpoint_timestamp_seconds` is the age). Every series has a label
`run`. docs/metrics.md lists them.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from colossi.errors import BadInput
from colossi.ledger.clock import PARTS
from colossi.ledger.run import Run
from colossi.web.watched import Watched

Value = Callable[[dict[str, Any]], float | None]


def _point(key: str) -> Value:
    return lambda now: now["point"] and now["point"][key]


def _saved(key: str) -> Value:
    return lambda now: now["checkpoint"] and now["checkpoint"].get(key)


# name -> what it says, where the value stands in `Watched.now`; of what is not known there is no sample
GAUGES: dict[str, tuple[str, Value]] = {
    "step": ("The newest step.", _point("step")),
    "goal_steps": ("Steps that there shall be.", lambda now: now["goal"]),
    "loss": ("Cross-entropy of the newest step, in nat per token.", _point("loss")),
    "step_duration_seconds": ("Of the newest step.", _point("step_seconds")),
    "tokens_per_second": ("In the newest step.", _point("tokens_per_second")),
    "mfu_ratio": ("Model FLOPs over the peak, in the newest step.", _point("mfu")),
    "goodput_ratio": ("Productive over all worker-seconds so far.", lambda now: now["goodput"]),
    "ettr_ratio": ("Productive over all wall time so far.", lambda now: now["ettr"]),
    "incarnation": ("The newest life of the run.", lambda now: now["incarnation"]),
    "workers": ("In the newest incarnation.", lambda now: now["workers"]),
    "missing_workers": ("That the spec asks for and that are not there.", lambda now: now["missing"]),
    "checkpoint_step": ("The newest step on disk.", _saved("step")),
    "checkpoint_timestamp_seconds": ("When the newest checkpoint was complete.", _saved("time")),
    "checkpoint_duration_seconds": ("From its beginning to its end.", _saved("seconds")),
    "checkpoint_size_bytes": ("Of all its shards.", _saved("bytes")),
    "snapshot_step": ("The newest step in the memory of nodes.", lambda now: now["snapshot_step"]),
    "snapshot_timestamp_seconds": ("When that step was done.", lambda now: now["snapshot_time"]),
    "event_timestamp_seconds": ("The last event of the ledger.", lambda now: now["heard"]),
}
COUNTERS: dict[str, tuple[str, Value]] = {
    "tokens": ("In steps that count.", lambda now: now["tokens"]),
    "restarts": ("Incarnations after the first.", lambda now: now["restarts"]),
    "interruptions": ("Ends of training that nobody asked for.", lambda now: now["interruptions"]),
    "faults": ("Failures that were noticed.", lambda now: now["faults"]),
}


class Runs(Collector):
    """Runs as Prometheus sees them; each is opened when its ledger is there."""

    def __init__(self, runs: Iterable[Run | Watched]) -> None:
        self._runs = list(runs)

    def collect(self) -> Iterator[Metric]:
        """All families, each with the samples of all runs."""
        nows = [(watched.name, watched.now()) for watched in self._open()]
        for families, kind in ((GAUGES, GaugeMetricFamily), (COUNTERS, CounterMetricFamily)):
            for name, (says, value) in families.items():
                family = kind(f"colossi_run_{name}", says, labels=["run"])
                for run, now in nows:
                    if (found := value(now)) is not None:
                        family.add_metric([run], float(found))
                yield family
        nodes = GaugeMetricFamily("colossi_run_nodes", "By their state.", labels=["run", "state"])
        spent = CounterMetricFamily(
            "colossi_run_worker_seconds", "By what they went to.", labels=["run", "part"]
        )
        about = InfoMetricFamily("colossi_run", "What is trained.", labels=["run"])
        for run, now in nows:
            for state, count in now["fleet"].items():
                nodes.add_metric([run, state], count)
            for part, seconds in zip(PARTS, now["parts_so_far"], strict=True):
                spent.add_metric([run, part], seconds)
            about.add_metric([run], {"parameters": str(now["facts"].get("parameters", ""))})
        yield from (nodes, spent, about)

    def _open(self) -> list[Watched]:
        for place, run in enumerate(self._runs):
            if isinstance(run, Run) and run.ledger_file.is_file():
                self._runs[place] = Watched(run)
        return [run for run in self._runs if isinstance(run, Watched)]


def registry_of(runs: Iterable[Run | Watched]) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(Runs(runs))
    return registry


def serve_metrics(run: Run, address: str) -> Callable[[], None]:
    """GET /metrics on a port of this machine, or on HOST:PORT; what is returned ends it. Else BadInput."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or int(port) > 65535:
        raise BadInput(f"--metrics {address}: not a port", "--metrics 9400, or --metrics 0.0.0.0:9400")
    try:
        server, thread = start_http_server(
            int(port), addr=host.strip("[]") or "127.0.0.1", registry=registry_of([run])
        )
    except OSError as error:
        raise BadInput(f"--metrics {address}: {error.strerror}", "another port") from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return end
