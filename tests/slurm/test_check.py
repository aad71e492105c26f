"""`colossi check` through a real Slurm: a slow node is found, drained, tested again, and let back."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from colossi.engines import drains

from ..train.runs import events_of
from .cluster import NODES, Cluster

SPEC = 'name = "hall"\n[cluster]\nnodes = 4\nengine = "slurm"\n'
STOPPED, RUNNING = 0.09, 0.01  # [s]: a node that gets a tenth of the time


@contextmanager
def slowed(slurm: Cluster, node: str) -> Iterator[None]:
    """What a node exchanges with others stands still nine tenths of the time; its own checks do not."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            agents = [pid for pid, words in slurm.processes(node).items() if "engines.checking" in words]
            signal_all(agents, signal.SIGSTOP)
            time.sleep(STOPPED)
            signal_all(agents, signal.SIGCONT)
            time.sleep(RUNNING)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def signal_all(pids: list[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # it has ended meanwhile
            os.kill(pid, number)


def check(slurm: Cluster, folder: Path, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code, and what it says."""
    (folder / "hall.toml").write_text(SPEC)
    words = [
        sys.executable,
        "-m",
        "colossi.cli",
        "check",
        "hall.toml",
        "--run",
        "run",
        "--json",
        "--only",
        "pairs",
        *options,
    ]
    done = subprocess.run(words, cwd=folder, env=slurm.env, capture_output=True, text=True, timeout=200)
    assert done.returncode in (0, 1), done.stderr
    return done.returncode, json.loads(done.stdout)


def failures(said: dict[str, Any]) -> list[str]:
    return [node for node, each in said["nodes"].items() if each["verdict"] == "fail"]


def whys(said: dict[str, Any]) -> list[tuple[str, Any]]:
    """All that did not pass, for the message of a test that fails."""
    found = [(node, each) for node, own in said["nodes"].items() for each in own["results"]]
    return [(node, each) for node, each in found if each["status"] == "fail" or each["check"] == "pairs.rate"]


def reason_of(slurm: Cluster, node: str) -> str:
    found = drains.parse(slurm.run("scontrol", "-o", "show", "node", node))[node].drain
    return found.why if found else ""


@pytest.fixture
def undrained(slurm: Cluster) -> Iterator[Cluster]:
    """Whatever a test leaves drained or reserved is undone, as the other tests want idle nodes."""
    yield slurm
    for line in slurm.run("scontrol", "-o", "show", "reservation").splitlines():
        if line.startswith("ReservationName="):
            slurm.run("scontrol", "delete", line.split()[0])
    for node in NODES:
        if reason_of(slurm, node):
            slurm.run("scontrol", "update", f"nodename={node}", "state=resume")


def test_a_slow_node_is_found_drained_tested_again_and_let_back(undrained: Cluster, tmp_path: Path) -> None:
    slurm = undrained
    with slowed(slurm, "n3"):
        code, said = check(slurm, tmp_path)
    assert code == 1 and set(said["nodes"]) == set(NODES)
    assert failures(said) == ["n3"], whys(said)
    assert "pairs.rate" in said["out"]["n3"]
    assert reason_of(slurm, "n3") == said["out"]["n3"] and said["out"]["n3"].startswith("colossi: ")
    assert said["nodes"]["n3"]["rack"] == "spine.leaf2"
    (taken,) = events_of(tmp_path / "run", "quarantined")
    assert taken.text("node") == "n3"
    # Nobody else gets it while it is out; it is well again, and comes back only after a test.
    code, said = check(slurm, tmp_path, "--readmit", "n3")
    assert code == 0 and list(said["returned"]) == ["n3"] and len(said["nodes"]) == 4
    assert reason_of(slurm, "n3") == ""
    slurm.wait_for_node("n3", "idle")
    assert [event.text("node") for event in events_of(tmp_path / "run", "readmitted")] == ["n3"]
    assert "ReservationName" not in slurm.run("scontrol", "-o", "show", "reservation")


def test_somebody_elses_drain_is_never_touched(undrained: Cluster, tmp_path: Path) -> None:
    slurm = undrained
    slurm.run("scontrol", "update", "nodename=n2", "state=drain", "reason=fan to be changed, ask Ann")
    code, said = check(slurm, tmp_path, "--node", "n1", "--readmit", "n2")
    assert code == 1 and list(said["nodes"]) == ["n1"]
    assert "fan to be changed, ask Ann" in said["refused"]["n2"]
    assert reason_of(slurm, "n2") == "fan to be changed, ask Ann"


@pytest.mark.long
def test_a_node_that_fails_again_stays_out(undrained: Cluster, tmp_path: Path) -> None:
    slurm = undrained
    slurm.run("scontrol", "update", "nodename=n3", "state=drain", "reason=colossi: pairs.rate: slow")
    with slowed(slurm, "n3"):
        code, said = check(slurm, tmp_path, "--readmit", "n3")
    assert code == 1 and "n3" in said["refused"] and not said["returned"]
    assert reason_of(slurm, "n3").startswith("colossi: pairs.rate")
    assert "ReservationName" not in slurm.run("scontrol", "-o", "show", "reservation")
