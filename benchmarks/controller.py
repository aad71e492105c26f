# ruff: noqa: T201 (a script talks by printing)
"""
The controller under the load of a large fleet: `PYTHONPATH=src python benchmarks/controller.py [--agents N]`.

One process is the controller with its channel, as `colossi train` runs it; a second one plays the agents over
loopback: each proves the token, sends a heartbeat every 5 s and answers Stop. No agent has workers; what is
measured is the controller, not training.

    used      how many of the nodes are in the run; the others stand by
    failures  workers of used nodes that "exit", 100 a minute

Reaction: from the moment an agent sends "exited" to the moment that agent has its order to stop; and until it
has its order to start again. Aims: under one core, and under 1 s at the 99th percentile.
"""

import argparse
import asyncio
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from colossi.channel import Message, is_proof, new_challenge, proof, token_of
from colossi.control.controller import Controller
from colossi.control.detector import Heartbeats
from colossi.control.plan import Plan
from colossi.engines.command import Command
from colossi.engines.line import read, write
from colossi.ledger.run import Run

BEAT_SECONDS = 5.0
FAILURES_A_MINUTE = 100
NOWHERE = "127.0.0.1:1"  # no worker ever goes there
AIM_CORES = 1.0


def serve(folder: Path, used: int) -> None:
    """The controller's process, until it is killed; a line on stdin asks for its CPU seconds and memory."""
    run = Run(folder)
    with run.ledger() as ledger:
        plan = Plan(
            places=used, per_node=8, copy=8, shares=8, global_batch=8 * used, steps=10**9, strikes=None
        )
        lost = Heartbeats(3 * BEAT_SECONDS)
        command = Command(run, ledger, Controller(plan), per_node=8, copy_ranks=8, _heartbeats=lost)

        def answer() -> None:
            usage = resource.getrusage(resource.RUSAGE_SELF)
            here = {
                "agents": len(command.agents),
                "cpu": usage.ru_utime + usage.ru_stime,
                "mib": usage.ru_maxrss / 1024,
            }
            print(json.dumps(here), flush=True)

        async def main() -> None:
            asyncio.get_running_loop().add_reader(
                sys.stdin.fileno(), lambda: (sys.stdin.readline(), answer())
            )
            await command.serve()

        asyncio.run(main())


class Peers:
    """All agents, in one event loop."""

    def __init__(self, folder: Path) -> None:
        self.token = token_of(folder)
        self.address = json.loads((folder / "controller.json").read_text())["address"]
        self.writers: dict[str, asyncio.StreamWriter] = {}
        self.incarnation = 0
        self.places: dict[int, str] = {}  # first rank -> node
        self.first_of: dict[str, int] = {}
        self.sent: dict[str, float] = {}
        self.stops: list[float] = []
        self.starts: list[float] = []

    async def come(self, node: str) -> None:
        host, _, port = self.address.rpartition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        challenge = new_challenge()
        hello = {
            "node": node,
            "rack": node[:-2],
            "pid": 0,
            "incarnation": 0,
            "held": [],
            "challenge": challenge,
        }
        write(writer, hello | {"store": "127.0.0.1:1", "data": "127.0.0.1:1"})
        asked = await read(reader)
        assert is_proof(self.token, "server", challenge, asked["proof"])
        write(writer, {"proof": proof(self.token, "client", asked["challenge"])})
        assert await read(reader) == {"welcome": True}
        self.writers[node] = writer
        asyncio.get_running_loop().create_task(self.live(node, reader, writer))

    async def live(self, node: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        beating = asyncio.get_running_loop().create_task(self.beat(node, writer))
        try:
            while True:
                self.heard(node, writer, await read(reader))
        except (EOFError, OSError):
            beating.cancel()

    async def beat(self, node: str, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(BEAT_SECONDS * (hash(node) % 1000) / 1000)
        while True:
            write(writer, {"say": "beat"})
            await asyncio.sleep(BEAT_SECONDS)

    def heard(self, node: str, writer: asyncio.StreamWriter, order: Message) -> None:
        now = time.monotonic()
        if order["do"] == "start":
            self.incarnation = order["incarnation"]
            self.places[order["first"]], self.first_of[node] = node, order["first"]
            if node in self.sent:
                self.starts.append(now - self.sent.pop(node))
            if order["first"] == 0:
                step = {
                    "say": "step",
                    "rank": 0,
                    "incarnation": self.incarnation,
                    "step": self.incarnation,
                    "busy": [],
                }
                write(writer, step)
        elif order["do"] == "stop":
            if node in self.sent:
                self.stops.append(now - self.sent[node])
            held = [
                [order["incarnation"], 8 * len(self.places), rank, order["incarnation"]]
                for rank in self.ranks(node)
            ]
            write(
                writer,
                {"say": "stopped", "incarnation": order["incarnation"], "held": held, "store": "127.0.0.1:1"},
            )

    def ranks(self, node: str) -> Sequence[int]:
        """Of a node, by the place that it was last given."""
        first = self.first_of.get(node)
        return range(first, first + 8) if first is not None else ()

    def fail(self, node: str, rank: int) -> None:
        self.sent[node] = time.monotonic()
        message = {"say": "exited", "rank": rank, "incarnation": self.incarnation, "why": "killed by SIGKILL"}
        write(self.writers[node], message)


def ask(server: "subprocess.Popen[str]") -> dict[str, float]:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    return dict(json.loads(server.stdout.readline()))


async def measure(
    folder: Path, server: "subprocess.Popen[str]", agents: int, used: int, seconds: float, failures: int
) -> dict[str, float]:
    peers = Peers(folder)
    start = time.monotonic()
    for first in range(0, agents, 200):
        await asyncio.gather(*(peers.come(f"node-{n:05}") for n in range(first, min(first + 200, agents))))
    joined = time.monotonic() - start
    while len(peers.places) < used:
        await asyncio.sleep(0.1)
    await asyncio.sleep(2)
    before, begun = ask(server), time.monotonic()
    pause = 60.0 / FAILURES_A_MINUTE if failures > 1 else 0.0
    for number in range(failures):
        due = begun + number * pause
        await asyncio.sleep(max(0.0, due - time.monotonic()))
        first = 8 * (number * 7 % used)
        peers.fail(peers.places[first], first)
    while len(peers.starts) < failures and time.monotonic() - begun < seconds + 60:
        await asyncio.sleep(0.05)
    await asyncio.sleep(max(0.0, begun + seconds - time.monotonic()))
    after, elapsed = ask(server), time.monotonic() - begun
    stops, starts = sorted(peers.stops), sorted(peers.starts)
    return {
        "agents": after["agents"],
        "used": used,
        "joined_seconds": joined,
        "failures": len(starts),
        "cores": (after["cpu"] - before["cpu"]) / elapsed,
        "mib": after["mib"],
        "stop_median": statistics.median(stops) if stops else float("nan"),
        "stop_p99": stops[int(0.99 * (len(stops) - 1))] if stops else float("nan"),
        "start_median": statistics.median(starts) if starts else float("nan"),
        "start_p99": starts[int(0.99 * (len(starts) - 1))] if starts else float("nan"),
    }


def one(agents: int, used: int, seconds: float, failures: int) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "checkpoints").mkdir()
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", name, "--used", str(used)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        try:
            while not (folder / "controller.json").exists():
                time.sleep(0.05)
            return asyncio.run(measure(folder, server, agents, used, seconds, failures))
        finally:
            server.kill()
            server.wait()


def open_files(wanted: int) -> int:
    """Ask for so many at once; root may have more than the limit that it was given."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(wanted, hard), max(wanted, hard)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--agents", type=int, default=25_000)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--used", type=int, default=64)
    given = parser.parse_args()
    limit = open_files(given.agents + 500)
    if given.serve:
        serve(given.serve, given.used)
        return
    agents = min(given.agents, limit - 200)
    many = round(FAILURES_A_MINUTE * given.seconds / 60)
    rows = [one(agents, min(given.used, agents), given.seconds, many), one(agents, agents, 5.0, 1)]
    if given.json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(f"{row['agents']:,.0f} agents, {row['used']:,.0f} in the run, {row['failures']:.0f} failures:")
        print(f"  all joined in {row['joined_seconds']:.1f} s; {row['mib']:.0f} MiB")
        print(f"  {row['cores']:.2f} cores (aim < {AIM_CORES:g})")
        print(f"  told to stop: median {row['stop_median']:.3f} s, p99 {row['stop_p99']:.3f} s (aim < 1)")
        print(f"  told to start: median {row['start_median']:.3f} s, p99 {row['start_p99']:.3f} s")


if __name__ == "__main__":
    main()
