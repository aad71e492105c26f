# ruff: noqa: T201 (a script talks by printing)
"""
The network's own speed: `PYTHONPATH=src python benchmarks/network.py [--peer BINARY]`.

One step of 204,800 GPUs (25,600 nodes of 8, three tiers of 128 ports) on one core: the aim is under 60 s and
8 GB. Memory is the process's peak so far. With --peer, the same collectives also by the congestion-aware
network backend of ASTRA-sim (peers/astra_network.cpp says how to build it): seconds simulated, seconds taken,
and the ratio of these.
"""

import argparse
import itertools
import os
import resource
import subprocess
import time
from collections.abc import Callable

os.environ["OMP_NUM_THREADS"] = "1"

import numpy as np

from colossi.site.fabric import Fabric, clos
from colossi.spec.fabric import FabricSpec
from colossi.spec.hardware import Collective, node
from colossi.world.network import PAYLOAD, collective_seconds, line_rate_share
from colossi.world.routing import Routing, whole
from colossi.world.traffic import Job

GIB = 2.0**30
NODES = 25_600
AIM_SECONDS, AIM_BYTES = 60.0, 8e9
ROUTINGS: tuple[Routing, ...] = ("ecmp", "flowlet", "adaptive")
PEER_OPS: tuple[Collective, ...] = ("all_reduce", "all_to_all")
PEER_WORKERS = (16, 256, 1024)


def timed(what: str, work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    result = work()
    took = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    over = "" if took < AIM_SECONDS and peak < AIM_BYTES else "  over the aim"
    print(f"{what:66}{took:>8.2f} s{peak / 1e9:>7.2f} GB   {result}{over}")
    return took


def large() -> None:
    fabric: list[Fabric] = []
    timed("generate the fabric of 204,800 GPUs", lambda: fabric.append(clos(NODES, 8, FabricSpec(radix=128))))
    timed("count its switches and cables", lambda: fabric[0].counts)
    everyone = np.arange(NODES * 8)
    scattered = (np.random.default_rng(0).permutation(NODES)[:, None] * 8 + np.arange(8)).ravel()
    server = node("DGX-H100")
    for name, gpus, algorithm in (
        ("hierarchical", everyone, "hierarchical"),
        ("hierarchical, nodes in random order", scattered, "hierarchical"),
        ("tree", everyone, "tree"),
    ):
        for routing in ROUTINGS:
            job = Job(gpus, server, algorithm)  # type: ignore[arg-type]

            def step(job: Job = job, routing: Routing = routing) -> str:
                return f"{collective_seconds(fabric[0], job, 'all_reduce', GIB, routing, 0):.4g} s"

            timed(f"all-reduce of 1 GiB, {name}, {routing}", step)
    cut = np.random.default_rng(1).choice(len(fabric[0].leaf_spine), len(fabric[0].leaf_spine) // 100)
    health = whole(fabric[0]).with_("leaf_spine", cut)

    def wounded() -> str:
        return f"{collective_seconds(fabric[0], job, 'all_reduce', GIB, 'adaptive', 0, health):.4g} s"

    timed("the last one, 1% of the cables between leaves and spines cut", wounded)
    timed(
        "all-to-all of 1 GiB, adaptive",
        lambda: f"{collective_seconds(fabric[0], job, 'all_to_all', GIB, 'adaptive', 0):.4g} s",
    )
    for routing in ROUTINGS:

        def permutation(routing: Routing = routing) -> str:
            share = line_rate_share(fabric[0], routing, 0)
            return f"{share.mean:.0%} of the line rate, the slowest NIC {share.slowest:.0%}"

        timed(f"a permutation of all NICs, {routing}", permutation)


def peer(binary: str) -> None:
    """Workers with a NIC each: there a ring of direct links, or a switch; here one leaf."""
    single = node("DGX-H100").model_copy(update={"gpus": 1, "domain": 1, "nics": 1})
    rate = 50e9 * PAYLOAD / GIB
    size = 1024 * GIB  # so that our delays, which the peer has not, are nothing
    print(f"\n{'1 TiB':32}{'ASTRA-sim':>12}{'ours':>10}{'apart':>8}{'ASTRA-sim':>13}{'ours':>10}{'ratio':>8}")
    for op, workers in itertools.product(PEER_OPS, PEER_WORKERS):
        theirs = "ring" if op == "all_reduce" else op
        run = [binary, theirs, str(workers), str(size), f"{rate:.9g}"]
        said = subprocess.run(run, capture_output=True, text=True, check=True).stdout.split()
        fabric = clos(workers, 1, FabricSpec(radix=2 * workers))
        begin = time.perf_counter()
        ours = collective_seconds(fabric, Job(np.arange(workers), single), op, size, "adaptive", 0)
        took = time.perf_counter() - begin
        simulated, spent = float(said[0]) / 1e9, float(said[1])
        print(
            f"{op + f', {workers} workers':32}{simulated:>10.4f} s{ours:>8.4f} s"
            f"{100 * (ours / simulated - 1):>+7.2f}%{spent:>11.4f} s{took:>8.4f} s{spent / took:>8.3g}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peer", help="the binary built from peers/astra_network.cpp")
    chosen = parser.parse_args()
    large()
    if chosen.peer:
        peer(chosen.peer)


if __name__ == "__main__":
    main()
