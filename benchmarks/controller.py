# ruff: noqa: T201 (a script talks by printing)
"""
The controller under the load of a large fleet: `PYTHONPATH=src python benchmarks/controller.py [--agents N]`.

One process is the controller with its channel, as `colossi train` runs it; a second one plays the agents over
loopback: each proves the token, sends a heartbeat every 5 s, and answers Stop with what it has in memory. No
agent has workers; what is measured is the controller, not training. Workers "exit", so many a minute.

    some   64 nodes are in the run, the others stand by
    all    all nodes are in the run: every failure stops and starts each of them

Reaction: from the moment an agent sends "exited" until it has its order to stop, and until the last node of
the run has its order to start again. Aims: under one core, and under 1 s at the 99th percentile.

A machine may not have 25,000 open files to give. So the same is done for 25,000 nodes without sockets: the
bytes of the agents go straight into the controller's lines, and what comes back is thrown away.
"""

import argparse
import asyncio
import json
import os
import resource
import select
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from colossi.channel import LENGTH, Channel, Message, frame, token_of
from colossi.control.controller import Controller
from colossi.control.detector import Heartbeats
from colossi.control.plan import Plan
from colossi.engines.command import Command
from colossi.ledger.run import Run

FLEET = 25_000
PER_NODE = 8
BEAT_SECONDS = 5.0
AIM_CORES = 1.0


def command_of(run: Run, ledger: "object", used: int) -> Command:
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
            usage = resource.getrusage(resource.RUSAGE_SELF)
            here = {
                "agents": len(command.agents),
                "cpu": usage.ru_utime + usage.ru_stime,
                "system": usage.ru_stime,
                "mib": usage.ru_maxrss / 1024,
            }
            print(json.dumps(here), flush=True)

        async def main() -> None:
            asyncio.get_running_loop().add_reader(
                sys.stdin.fileno(), lambda: (sys.stdin.readline(), answer())
            )
            await command.serve()

        if os.environ.get("PROFILE"):
            import cProfile, threading, signal
            profile = cProfile.Profile()
            def dump(*_):
                profile.disable()
                import pstats
                pstats.Stats(profile, stream=open(os.environ["PROFILE"], "w")).sort_stats("tottime").print_stats(40)
                os._exit(0)
            signal.signal(signal.SIGTERM, dump)
            signal.signal(signal.SIGUSR1, lambda *_: profile.enable())
        asyncio.run(main())


def hello_of(number: int) -> Message:
    """What an agent says first; each has an address of its own for snapshots."""
    return {
        "node": f"node-{number:05}",
        "rack": f"rack-{number // 100}",
        "pid": 0,
        "incarnation": 0,
        "held": [],
        "store": "127.0.0.1:1",
        "data": f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}:1",
    }


class Told:
    """What the agents of a fleet have been told, and what they answer; quick, as its time is measured too."""

    def __init__(self, agents: int) -> None:
        self.incarnation = 0
        self.told = 0  # so many have been told to start it
        self.addresses = [hello_of(n)["data"].encode() for n in range(agents)]
        self.first: dict[int, int] = {}  # agent -> the first rank of its place
        self.agent_of: dict[int, int] = {}
        self.ward: dict[bytes, int] = {}  # address for snapshots -> the first rank of the place it is buddy of

    def start(self, agent: int, order: bytes) -> None:
        """The JSON of an order to start."""
        incarnation = int(_after(order, b'"incarnation": '))
        if incarnation != self.incarnation:
            self.incarnation, self.told = incarnation, 0
        self.told += 1
        first = int(_after(order, b'"first": '))
        self.first[agent], self.agent_of[first] = first, agent
        self.ward[_after(order, b'"buddy": ').strip(b'"')] = first

    def stopped(self, agent: int) -> bytes:
        """Each incarnation does one step; a node has two steps of its own ranks and two of its buddy's."""
        new, ranks = self.incarnation, PER_NODE * len(self.first)
        own = self.first[agent]
        ward = self.ward[self.addresses[agent]]
        body = b'{"say": "stopped", "incarnation": %d, "held": [' % new
        if new > 1:
            old = new - 1
            body += b"[%d, %d, %d, %d, %d], " % (old, ranks, own, old, PER_NODE)
            body += b"[%d, %d, %d, %d, %d], " % (old, ranks, ward, old, PER_NODE)
        body += b"[%d, %d, %d, %d, %d], " % (new, ranks, own, new, PER_NODE)
        body += b"[%d, %d, %d, %d, %d]" % (new, ranks, ward, new, PER_NODE)
        body += b'], "store": "127.0.0.1:1"}'
        return LENGTH.pack(len(body)) + body

    def step(self) -> bytes:
        """Of rank 0."""
        n = self.incarnation
        return frame({"say": "step", "rank": 0, "incarnation": n, "step": n, "busy": []})

    def exited(self, rank: int) -> bytes:
        """A worker that was killed."""
        why = "killed by SIGKILL"
        return frame({"say": "exited", "rank": rank, "incarnation": self.incarnation, "why": why})


def _after(order: bytes, key: bytes) -> bytes:
    """The value of a key, which is no list."""
    start = order.index(key) + len(key)
    return order[start : order.index(b",", start)]


class Peers:
    """All agents, in one thread."""

    def __init__(self, folder: Path, agents: int, used: int) -> None:
        address = json.loads((folder / "controller.json").read_text())["address"]
        token = token_of(folder)
        self.used, self.told = used, Told(agents)
        self.sent: dict[int, float] = {}  # agents that failed, and when
        self.failed: list[tuple[int, float]] = []  # incarnation, when
        self.stops: list[float] = []
        self.starts: list[float] = []
        self.channels: list[Channel] = []
        self.agents: dict[int, int] = {}  # file descriptor -> agent
        self.rest: dict[int, bytes] = {}  # of an agent's next message
        self.poll = select.epoll()
        self.begun, self.beaten = time.monotonic(), 0
        with ThreadPoolExecutor(8) as threads:
            for first in range(0, agents, 200):
                some = range(first, min(first + 200, agents))
                for channel in threads.map(
                    lambda n: Channel.connect(address, token, hello_of(n), 60.0), some
                ):
                    self.agents[channel.socket.fileno()] = len(self.channels)
                    self.channels.append(channel)
                    self.poll.register(channel.socket.fileno(), select.EPOLLIN)
                self.live(time.monotonic() + 0.001)

    def live(self, until: float) -> None:
        """Beat and answer, until then."""
        beat, agents = frame({"say": "beat"}), len(self.channels)
        while (now := time.monotonic()) < until:
            due = int((now - self.begun) / BEAT_SECONDS * agents)
            for number in range(self.beaten, due):
                self.channels[number % agents].socket.send(beat)
            self.beaten = due
            for descriptor, _ in self.poll.poll(min(0.01, until - now)):
                agent = self.agents[descriptor]
                self.heard(agent, self.rest.pop(agent, b"") + os.read(descriptor, 1 << 12))

    def heard(self, agent: int, data: bytes) -> None:
        at = 0
        while len(data) >= at + LENGTH.size:
            end = at + LENGTH.size + LENGTH.unpack_from(data, at)[0]
            if len(data) < end:
                break
            self.order(agent, data[at + LENGTH.size : end])
            at = end
        if at < len(data):
            self.rest[agent] = data[at:]

    def order(self, agent: int, order: bytes) -> None:
        line = self.channels[agent].socket
        if order.startswith(b'{"do": "stop"'):
            if agent in self.sent:
                self.stops.append(time.monotonic() - self.sent.pop(agent))
            line.send(self.told.stopped(agent))
        elif order.startswith(b'{"do": "start"'):
            self.told.start(agent, order)
            if self.told.first[agent] == 0:
                line.send(self.told.step())
            if self.told.told == self.used:
                now = time.monotonic()
                over = [failure for failure in self.failed if failure[0] < self.told.incarnation]
                self.starts += [now - sent for _, sent in over]
                self.failed = [failure for failure in self.failed if failure not in over]

    def fail(self, first: int) -> None:
        """A worker of the node at a place, in the incarnation that the node knows."""
        agent = self.told.agent_of[first]
        self.sent[agent] = time.monotonic()
        self.failed.append((self.told.incarnation, self.sent[agent]))
        self.channels[agent].socket.send(self.told.exited(first))


def ask(server: "subprocess.Popen[str]", peers: Peers) -> dict[str, float]:
    assert server.stdin is not None and server.stdout is not None
    server.stdin.write("\n")
    server.stdin.flush()
    while not select.select([server.stdout], [], [], 0)[0]:
        peers.live(time.monotonic() + 0.05)
    return dict(json.loads(server.stdout.readline()))


def measure(
    folder: Path, server: "subprocess.Popen[str]", agents: int, used: int, failures: int, a_minute: float
) -> dict[str, float]:
    start = time.monotonic()
    peers = Peers(folder, agents, used)
    joined = time.monotonic() - start
    while peers.told.told < used:
        peers.live(time.monotonic() + 0.1)
    peers.live(time.monotonic() + 2)
    if os.environ.get("PROFILE"):
        server.send_signal(10)
    before, begun = ask(server, peers), time.monotonic()
    mine = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
    mine0 = mine()
    for number in range(failures):
        peers.live(begun + number * 60 / a_minute)
        while peers.failed:  # in a run that goes on
            peers.live(time.monotonic() + 0.01)
        peers.fail(PER_NODE * (number * 7 % used))
    while peers.failed and time.monotonic() < begun + 600:
        peers.live(time.monotonic() + 0.01)
    peers.live(begun + failures * 60 / a_minute)
    after, elapsed = ask(server, peers), time.monotonic() - begun
    if os.environ.get("PROFILE"):
        server.terminate()
        server.wait()
    stops, starts = sorted(peers.stops), sorted(peers.starts)
    return {
        "agents": after["agents"],
        "used": used,
        "joined_seconds": joined,
        "failures": len(starts),
        "a_minute": failures / elapsed * 60,
        "cores": (after["cpu"] - before["cpu"]) / elapsed,
        "cpu_per_failure": (after["cpu"] - before["cpu"]) / failures,
        "system_per_failure": (after["system"] - before["system"]) / failures,
        "mib": after["mib"],
        "peers": (mine() - mine0)/failures,
        "stop_median": statistics.median(stops),
        "stop_p99": stops[int(0.99 * (len(stops) - 1))],
        "start_median": statistics.median(starts),
        "start_p99": starts[int(0.99 * (len(starts) - 1))],
    }


def one(agents: int, used: int, failures: int, a_minute: float) -> dict[str, float]:
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
            return measure(folder, server, agents, used, failures, a_minute)
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
    parser.add_argument("--agents", type=int, default=FLEET)
    parser.add_argument("--used", type=int)
    parser.add_argument("--failures", type=int, default=30)
    parser.add_argument("--a-minute", type=float, default=100.0)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", type=Path)
    given = parser.parse_args()
    limit = open_files(given.agents + 500)
    if given.serve:
        serve(given.serve, given.used)
        return
    agents = min(given.agents, limit - 200)
    row = one(agents, min(given.used or agents, agents), given.failures, given.a_minute)
    print(json.dumps(row, indent=1))


if __name__ == "__main__":
    main()
