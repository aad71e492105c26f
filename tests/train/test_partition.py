"""
Two agents that cannot reach each other or the controller: real network namespaces on a bridge, one cut off.

The workers of the node that is cut off hang in a collective, and so do their peers; no connection ends.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colossi.engines.train import begin
from colossi.spec import read_spec

from .runs import colossi, events_of, kill_all, report_of, spec_file, wait_for_step

STEPS = 150
BRIDGE, GATE = "colossi-br", "10.77.13.1"
NODES = {f"node-{n}": f"10.77.13.{n + 2}" for n in range(3)}
CONTROLLER = """
import sys
from pathlib import Path
from queue import SimpleQueue
from colossi.engines.kubernetes import conduct
from colossi.ledger.run import Run
conduct(Run(Path(sys.argv[1])), SimpleQueue(), sys.argv[2])
"""


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


@pytest.fixture
def network() -> Iterator[None]:
    """A bridge with the controller at its gate, and a namespace for each node."""
    try:
        ip("link", "add", BRIDGE, "type", "bridge")
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("making network namespaces needs root and iproute2")
    try:
        ip("addr", "add", f"{GATE}/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for number, (node, address) in enumerate(NODES.items()):
            ip("netns", "add", node)
            ip("link", "add", f"colossi{number}", "type", "veth", "peer", "name", "eth0", "netns", node)
            ip("link", "set", f"colossi{number}", "master", BRIDGE, "up")
            ip("-n", node, "addr", "add", f"{address}/24", "dev", "eth0")
            for device in ("eth0", "lo"):
                ip("-n", node, "link", "set", device, "up")
        yield
    finally:
        for node in NODES:
            subprocess.run(["ip", "netns", "del", node], capture_output=True)
        subprocess.run(["ip", "link", "del", BRIDGE], capture_output=True)


def start_agent(run: Path, node: str) -> subprocess.Popen[bytes]:
    words = ["ip", "netns", "exec", node, sys.executable, "-m", "colossi.engines.agent", str(run)]
    words += ["--node", node, "--host", NODES[node], "--interface", "eth0", "--share", "2"]
    with (run / "logs" / f"{node}.log").open("ab") as log:
        return subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


def test_a_node_is_cut_off_and_the_spare_takes_over_from_memory(network: None, tmp_path: Path) -> None:
    quiet = colossi("train", spec_file(tmp_path, STEPS, workers=1, nodes=2), "--run", tmp_path / "quiet")
    assert quiet.returncode == 0, quiet.stderr
    folder = tmp_path / "run"
    spec = read_spec(spec_file(tmp_path, STEPS, workers=1, nodes=2, spares=1), needs=("data", "training"))
    begin(folder, spec, lambda *_: None)
    controller = subprocess.Popen(
        [sys.executable, "-c", CONTROLLER, str(folder), GATE], start_new_session=True
    )
    agents = {node: start_agent(folder, node) for node in ("node-0", "node-1")}
    try:
        wait_for_step(folder, 10, controller)
        agents["node-2"] = start_agent(folder, "node-2")
        while len(events_of(folder, "node_joined")) < 3:
            assert controller.poll() is None
            time.sleep(0.05)
        ip("link", "set", "colossi1", "nomaster")  # node-1 hears nobody, and nobody hears it
        assert controller.wait(timeout=90) == 0
    finally:
        kill_all(controller, folder)
        for agent in agents.values():
            agent.wait(timeout=10)
    assert report_of(folder).losses == report_of(tmp_path / "quiet").losses
    (lost,) = events_of(folder, "node_lost")
    assert lost.text("node") == "node-1" and "silent" in lost.text("why")
    assert [event.text("node") for event in events_of(folder, "promoted")] == ["node-2"]
    assert [event.text("source") for event in events_of(folder, "restored")][-1] in ("memory", "buddy")
