# ruff: noqa: T201 (a script talks by printing)
"""
The controller under the load of a large fleet: `PYTHONPATH=src python benchmarks/controller.py [--agents N]`.

One process is the controller with its channel, as `colossi train` runs it; a second one plays the agents over
loopback: each proves the token, sends a heartbeat every 5 s, and answers Stop with what it has in memory. No
agent has workers; what is measured is the controller, not training. Three cases:

    beats  64 nodes are in the run, the others stand by, and nothing happens
    some   the same, and workers "exit": 100 a minute
    all    every node is in the run, so each failure stops and starts each of them; the next one comes when it
           is due, 100 a minute, but not before all have been told to start again

Reaction: from the moment that an agent sends "exited" until it has its order to stop, and until the last node
of the run has its order to start again. Aims: under one core, and under 1 s at the 99th percentile.

A machine may not have 25,000 open files to give. So `all` is also done for 25,000 nodes without sockets: what
agents send goes straight into the controller's lines, and what it answers is only counted. That leaves out
the kernel and asyncio's loop, and has all the rest: JSON, decisions, orders, ledger.
"""

import argparse
import asyncio
import gc
import json
import os
import resource
import select
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fleet import BEAT_SECONDS, PER_NODE, Peers, Told, hello_of

from colossi.channel import LENGTH, frame, message_of, proof, token_of
from colossi.control.controller import Controller
from colossi.control.detector import Heartbeats
from colossi.control.plan import Plan
from colossi.engines.command import GARBAGE, Command
from colossi.engines.line import Line
from colossi.ledger.run import Run
from colossi.ledger.store import Ledger

FLEET = 25_000
SOME = 64
FAILURES_A_MINUTE = 100
AIM_CORES = 1.0


def command_of(run: Run, ledger: Ledger, used: int) -> Command:
    """As `colossi train` makes it; no node is ever quarantined."""
    plan = Plan(
        places=used,
        per_node=PER_NODE,
        copy=PER_NODE,
        shares=PER_NODE,
        global_batch=PER_NODE * used,
        steps=10**9,
        strikes=None,
    )
    lost = Heartbeats(3 * BEAT_SECONDS)
    return Command(run, ledger, Controller(plan), per_node=PER_NODE, copy_ranks=PER_NODE, _heartbeats=lost)


def serve(folder: Path, used: int) -> None:
    """The controller's process, until it is killed; a line on stdin asks for its CPU seconds and memory."""
    run = Run(folder)
    with run.ledger() as ledger:
        command = command_of(run, ledger, used)

        def answer() -> None:
            sys.stdin.readline()
            usage = resource.getrusage(resource.RUSAGE_SELF)
            here = {
                "agents": len(command.agents),
                "cpu": usage.ru_utime + usage.ru_stime,
                "kernel": usage.ru_stime,
                "mib": usage.ru_maxrss / 1024,
            }
            print(json.dumps(here), flush=True)

        async def main() -> None:
            asyncio.get_running_loop().add_reader(sys.stdin.fileno(), answer)
            await command.serve()

        asyncio.run(main())


def ask(server: "subprocess.Popen[str]", peers: Peers) -> dict[str, float]:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    while not select.select([server.stdout], [], [], 0)[0]:
        peers.live(time.monotonic() + 0.05)
    return dict(json.loads(server.stdout.readline()))


def measure(
    folder: Path, server: "subprocess.Popen[str]", agents: int, used: int, failures: int, seconds: float
) -> dict[str, float]:
    """So many failures, evenly over these seconds if the controller keeps up with them."""
    start = time.monotonic()
    peers = Peers(folder, agents, used)
    joined = time.monotonic() - start
    while peers.told.told < used:
        peers.live(time.monotonic() + 0.1)
    peers.live(time.monotonic() + 2)
    before, begun = ask(server, peers), time.monotonic()
    for number in range(failures):
        peers.live(begun + number * seconds / failures)
        while peers.failed:
            peers.live(time.monotonic() + 0.01)
        peers.fail(PER_NODE * (number * 7 % used))
    while peers.failed or time.monotonic() < begun + seconds:
        peers.live(time.monotonic() + 0.01)
    after, elapsed = ask(server, peers), time.monotonic() - begun
    cpu = after["cpu"] - before["cpu"]
    row = {
        "agents": after["agents"],
        "used": used,
        "joined_seconds": joined,
        "mib": after["mib"],
        "cores": cpu / elapsed,
        "kernel": (after["kernel"] - before["kernel"]) / cpu,
        "failures": failures,
    }
    if failures:
        stops, starts = sorted(peers.stops), sorted(peers.starts)
        row |= {
            "a_minute": failures / elapsed * 60,
            "cpu_seconds": cpu / failures,
            "stop_median": statistics.median(stops),
            "stop_p99": stops[int(0.99 * (len(stops) - 1))],
            "start_median": statistics.median(starts),
            "start_p99": starts[int(0.99 * (len(starts) - 1))],
        }
    return row


def one(agents: int, used: int, failures: int, seconds: float) -> dict[str, float]:
    """A case, in a run folder and with a controller of its own."""
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
            return measure(folder, server, agents, used, failures, seconds)
        finally:
            server.kill()
            server.wait()


class Wire(asyncio.Transport):
    """A connection to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[bytes] = []

    def write(self, data: Any) -> None:
        self.sent.append(data)

    def is_closing(self) -> bool:
        return False


async def in_memory(folder: Path, nodes: int, failures: int) -> list[float]:
    """Seconds of CPU for each failure of a run on all of so many nodes, without sockets."""
    run, told, token = Run(folder), Told(nodes), token_of(folder)
    gc.set_threshold(GARBAGE)  # as Command.serve does
    with run.ledger() as ledger:
        command = command_of(run, ledger, nodes)
        lines, wires = [Line(token, command) for _ in range(nodes)], [Wire() for _ in range(nodes)]

        def come(agent: int, data: bytes) -> None:
            lines[agent].get_buffer(-1)[: len(data)] = data
            lines[agent].buffer_updated(len(data))

        def hear() -> None:
            for agent, wire in enumerate(wires):
                for order in wire.sent:
                    if b'{"do": "start"' in order:
                        told.start(agent, order)
                wire.sent.clear()
            assert told.told == nodes

        for agent in range(nodes):
            lines[agent].connection_made(wires[agent])
            come(agent, frame(hello_of(agent) | {"challenge": ""}))
            challenge = message_of(wires[agent].sent[0][LENGTH.size :])["challenge"]
            come(agent, frame({"proof": proof(token, "client", challenge)}))
        hear()
        taken = []
        for number in range(failures):
            first = PER_NODE * (number * 7 % nodes)
            come(told.agent_of[0], told.step())
            failed, answers = told.exited(first), [told.stopped(agent) for agent in range(nodes)]
            start = time.process_time()
            come(told.agent_of[first], failed)
            for agent, answer in enumerate(answers):
                come(agent, answer)
            taken.append(time.process_time() - start)
            hear()
    return taken


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
    parser.add_argument("--agents", type=int, default=FLEET)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--only", choices=["beats", "some", "all", "memory"])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path)
    parser.add_argument("--used", type=int)
    given = parser.parse_args()
    limit = open_files(given.agents + 500)
    if given.serve:
        serve(given.serve, given.used)
        return
    agents, many = min(given.agents, limit - 200), round(FAILURES_A_MINUTE * given.seconds / 60)
    if agents < given.agents:
        print(f"{limit:,} open files are the limit here: {agents:,} agents", file=sys.stderr)
    cases = {"beats": (min(SOME, agents), 0), "some": (min(SOME, agents), many), "all": (agents, many)}
    for name, (used, failures) in cases.items():
        if given.only in (None, name):
            row = one(agents, used, failures, given.seconds)
            print(json.dumps({"case": name} | row) if given.json else in_words(name, row), flush=True)
    if given.only in (None, "memory"):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "checkpoints").mkdir()
            taken = asyncio.run(in_memory(Path(folder), given.agents, 10))
        if given.json:
            print(json.dumps({"case": "memory", "nodes": given.agents, "cpu_seconds": taken}))
        else:
            median, worst = statistics.median(taken), max(taken)
            print(f"{given.agents:,} nodes, no sockets: {median:.2f} s of CPU a failure, {worst:.2f} at most")


def in_words(name: str, row: dict[str, float]) -> str:
    """Of one case."""
    lines = [
        f"{name}: {row['agents']:,.0f} agents, {row['used']:,.0f} in the run",
        f"  all joined in {row['joined_seconds']:.1f} s; {row['mib']:.0f} MiB",
        f"  {row['cores']:.2f} cores (aim < {AIM_CORES:g}), {row['kernel']:.0%} of it in the kernel",
    ]
    if row["failures"]:
        lines += [
            f"  {row['failures']:.0f} failures, {row['a_minute']:.0f} a minute",
            f"  {row['cpu_seconds']:.2f} s of CPU each",
            f"  told to stop: median {row['stop_median']:.3f} s, p99 {row['stop_p99']:.3f} s (aim < 1)",
            f"  all started: median {row['start_median']:.3f} s, p99 {row['start_p99']:.3f} s (aim < 1)",
        ]
    return "\n".join(lines)


if __name__ == "__main__":
    main()
