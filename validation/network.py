# ruff: noqa: T201 (a script talks by printing)
"""
The simulated network beside what others measured: `PYTHONPATH=src python validation/network.py`.

"fitted" rows are where a constant comes from, "held out" ones use nothing of what they are compared with.
NCCL picks its algorithm by itself, so ours is the faster one of ring and tree, where nobody says which it
was; "seen" rows were added after that pick was seen to be wrong, and take the ring. Fabrics whose shape is
not published are without oversubscription and routed adaptively. A row is a miss if it is off by more than
15%.
"""

import statistics
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from colossi.site.fabric import Fabric, clos
from colossi.spec.fabric import FabricSpec
from colossi.spec.hardware import Collective, Node, node
from colossi.world.network import bus_bandwidth, collective_seconds, line_rate_share
from colossi.world.routing import Routing
from colossi.world.traffic import Algorithm, Job

MIB, GIB = 2.0**20, 2.0**30
MISS = 0.15
SEEDS = 3
COLOSSUS = FabricSpec(radix=128, tiers=3)  # SN5600 as 128 ports of 400G


@dataclass(frozen=True)
class Row:
    """One number of somebody's [GB/s, or percent]."""

    case: str
    published: float
    ours: float
    kind: Literal["fitted", "seen", "held out"]

    @property
    def error(self) -> float:
        return self.ours / self.published - 1


def nccl(machine: str, gpus: int, op: Collective, size: float, algorithms: tuple[Algorithm, ...]) -> float:
    """Bus bandwidth [GB/s] on a fabric of just these GPUs."""
    server = node(machine)
    fabric = _fabric(server, gpus)
    times = [
        collective_seconds(fabric, Job(np.arange(gpus), server, algorithm), op, size, "adaptive", 0)
        for algorithm in algorithms
    ]
    return bus_bandwidth(op, gpus, size, min(times)) / 1e9


def _fabric(server: Node, gpus: int) -> Fabric:
    return clos(-(-gpus // server.gpus), server.nics, FabricSpec(radix=64))


ANY: tuple[Algorithm, ...] = ("ring", "tree")
OPS: tuple[Collective, ...] = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

LARGE = [  # stas00/ml-engineering, network/benchmarks: one node, where RING_SHARE and SWITCH_SHARE come from
    ("DGX-A100", 8, 16 * GIB, "ring", 234.9),
    ("DGX-H200", 8, 16 * GIB, "ring", 367.6),
    ("DGX-B200", 8, 8 * GIB, "ring", 682.2),
    ("DGX-H200", 8, 16 * GIB, "tree", 482.3),
    ("DGX-B200", 8, 8 * GIB, "tree", 838.0),
    ("GB200-NVL72", 72, 16 * GIB, "tree", 850.0),
]
MANY = [  # all-reduce among nodes
    ("2 nodes H100, Nebius", "DGX-H100", 16, 1e6, ANY, 22.0),
    ("2 nodes H100, Nebius", "DGX-H100", 16, 1e7, ANY, 125.0),
    ("2 nodes H100, Nebius", "DGX-H100", 16, 1e8, ANY, 304.0),
    ("2 nodes H100, Nebius", "DGX-H100", 16, 1e9, ANY, 435.0),
    ("4 nodes H200, EFA, ring", "DGX-H200", 32, 4 * GIB, ("ring",), 364.9),
    ("4 nodes H200, EFA, NVLSTree", "DGX-H200", 32, 4 * GIB, ("tree",), 310.0),
    ("12 nodes H100, CoreWeave, SHARP", "DGX-H100", 96, 512 * MIB, ANY, 356.0),
    ("12 nodes H100, CoreWeave, SHARP", "DGX-H100", 96, 1 * GIB, ANY, 366.0),
    ("12 nodes H100, CoreWeave, SHARP", "DGX-H100", 96, 8 * GIB, ANY, 386.0),
    ("1 rack GB200, CoreWeave", "GB200-NVL72", 72, 512 * MIB, ANY, 586.0),
    ("1 rack GB200, CoreWeave", "GB200-NVL72", 72, 8 * GIB, ANY, 835.0),
    ("2 racks GB200, CoreWeave", "GB200-NVL72", 144, 512 * MIB, ANY, 494.0),
    ("2 racks GB200, CoreWeave", "GB200-NVL72", 144, 8 * GIB, ANY, 793.0),
    ("2 racks GB200, CoreWeave", "GB200-NVL72", 144, 16 * GIB, ANY, 810.0),
    ("20 racks GB200, CoreWeave", "GB200-NVL72", 1440, 512 * MIB, ANY, 151.0),
    ("20 racks GB200, CoreWeave", "GB200-NVL72", 1440, 1 * GIB, ANY, 219.0),
    ("20 racks GB200, CoreWeave", "GB200-NVL72", 1440, 8 * GIB, ANY, 381.0),
    ("20 racks GB200, CoreWeave", "GB200-NVL72", 1440, 16 * GIB, ANY, 406.0),
]
RINGS = [(144, 512 * MIB, 494.0), (144, 8 * GIB, 793.0), (1440, 512 * MIB, 151.0), (1440, GIB, 219.0)]
RINGS += [(1440, 8 * GIB, 381.0), (1440, 16 * GIB, 406.0)]
# DeepEP on H800 (DeepSeek, ISCA 2025), dispatch. What it counts is not said; ours: buffer over time.
EXPERTS = [(16, 43.05), (32, 58.02), (64, 50.58), (128, 45.34)]


def one_node() -> Iterator[Row]:
    """The catalogue's measured collectives (NCCL 2.27 to 2.29, data shipped in ai-dynamo/aiconfigurator)."""
    for machine, gpus, size, how, published in LARGE:
        ours = nccl(machine, gpus, "all_reduce", size, (how,))  # type: ignore[arg-type]
        yield Row(f"{machine} all_reduce {how} {size / GIB:.0f} GiB", published, ours, "fitted")
    for machine in ("DGX-A100", "DGX-H100", "DGX-H200", "DGX-B200", "DGX-B300"):
        for op in OPS:
            for point in getattr(node(machine).gpu.measured, op):
                ours = nccl(machine, 8, op, point.size, ANY)
                case = f"{machine} {op} {point.size / MIB:g} MiB"
                yield Row(case, point.bus_bandwidth / 1e9, ours, "held out")


def many_nodes() -> Iterator[Row]:
    for case, machine, gpus, size, algorithms, published in MANY:
        ours = nccl(machine, gpus, "all_reduce", size, algorithms)  # type: ignore[arg-type]
        yield Row(f"{case} {size / MIB:.0f} MiB", published, ours, "held out")
    for gpus, size, published in RINGS:
        ours = nccl("GB200-NVL72", gpus, "all_reduce", size, ("ring",))
        yield Row(f"{gpus // 72} racks GB200, ring {size / MIB:.0f} MiB", published, ours, "seen")
    for gpus, published in EXPERTS:
        server, size = node("DGX-H800"), GIB
        job = Job(np.arange(gpus), server)
        taken = collective_seconds(_fabric(server, gpus), job, "all_to_all", size, "adaptive", 0)
        yield Row(f"{gpus} H800 all_to_all, DeepEP dispatch", published, size / taken / 1e9, "held out")


def shares(fabric: Fabric, routing: Routing, connections: int) -> float:
    """Percent of the line rate, the mean of some seeds, each a permutation of all NICs."""
    found = [line_rate_share(fabric, routing, seed, connections).mean for seed in range(SEEDS)]
    return 100 * statistics.mean(found)


def routings() -> Iterator[Row]:
    """NVIDIA of Colossus (2024-10-28): 95% data throughput, standard Ethernet 60%; the pattern is not said.

    Ours: every NIC of 12,500 nodes sends to another one, drawn at random. Two connections between two NICs
    are what NCCL opens where it knows no better (src/graph/paths.cc: nNetChannels = 2).
    """
    fabric = clos(12_500, 8, COLOSSUS)
    yield Row("100,000 GPUs, ecmp, 2 connections", 60.0, shares(fabric, "ecmp", 2), "held out")
    yield Row("100,000 GPUs, adaptive", 95.0, shares(fabric, "adaptive", 1), "held out")
    # arXiv 2605.21187: Spectrum-X with several planes, 98% of the line rate.
    planes = clos(1024, 8, FabricSpec(radix=128, planes=2))
    yield Row("8,192 GPUs, two planes, adaptive", 98.0, shares(planes, "adaptive", 1), "held out")


def show(title: str, rows: list[Row]) -> None:
    print(f"{title:52}{'published':>10}{'ours':>8}{'error':>8}")
    for row in rows:
        kind = "" if row.kind == "held out" else f"  {row.kind}"
        miss = "  miss" if abs(row.error) > MISS else ""
        print(f"{row.case:52}{row.published:>10.4g}{row.ours:>8.4g}{100 * row.error:>+7.0f}%{miss}{kind}")
    print()


def show_connections() -> None:
    """What is left open by the published figure: how many connections, which fabric."""
    print("percent of the line rate, every NIC sending to a random other one: the mean / the slowest NIC")
    counts = (1, 2, 4, 8, 16)
    print(f"{'connections between two NICs':42}" + "".join(f"{count:>10}" for count in counts))
    for name, fabric, routings in (
        ("100,000 GPUs, three tiers", clos(12_500, 8, COLOSSUS), ("ecmp", "adaptive")),
        ("4,096 GPUs, two tiers", clos(512, 8, FabricSpec(radix=128)), ("ecmp", "flowlet", "adaptive")),
        ("512 GPUs, two tiers", clos(64, 8, FabricSpec(radix=64)), ("ecmp", "flowlet", "adaptive")),
    ):
        for routing in routings:
            cells = [line_rate_share(fabric, routing, 0, count) for count in counts]  # type: ignore[arg-type]
            said = [f"{100 * cell.mean:.0f} / {100 * cell.slowest:.0f}" for cell in cells]
            print(f"{name + ', ' + routing:42}" + "".join(f"{each:>10}" for each in said))


def show_placement() -> None:
    """Hashed rings of all GPUs, by the order of the nodes in them; large enough that delays are nothing."""
    print("\nrate of hierarchical all-reduces of 204,800 GPUs with ecmp, over that with adaptive routing")
    counts = (1, 2, 4, 8, 16)
    print(f"{'connections between two NICs':42}" + "".join(f"{count:>10}" for count in counts))
    fabric, server = clos(25_600, 8, FabricSpec(radix=128)), node("DGX-H100")
    nodes = np.arange(25_600)
    for name, order in (("as cabled", nodes), ("random", np.random.default_rng(0).permutation(nodes))):
        gpus = (order[:, None] * 8 + np.arange(8)).ravel()
        jobs = [Job(gpus, server, connections=count) for count in counts]
        best = collective_seconds(fabric, jobs[0], "all_reduce", 2**50, "adaptive", 0)
        rates = [best / collective_seconds(fabric, job, "all_reduce", 2**50, "ecmp", 0) for job in jobs]
        print(f"{'order of the nodes ' + name:42}" + "".join(f"{rate:>10.2f}" for rate in rates))


def main() -> None:
    tables = {
        "one node, bus bandwidth [GB/s]": list(one_node()),
        "many nodes [GB/s]": list(many_nodes()),
        "routing, share of the line rate [%]": list(routings()),
    }
    for title, rows in tables.items():
        show(title, rows)
    held = [row for rows in tables.values() for row in rows if row.kind == "held out"]
    errors = sorted(abs(row.error) for row in held)
    worst = max(held, key=lambda row: abs(row.error))
    misses = sum(error > MISS for error in errors)
    print(
        f"{len(held)} held out: median error {100 * statistics.median(errors):.0f}%, {misses} misses, worst "
        f"{worst.case}: {100 * worst.error:+.0f}%\n"
    )
    show_connections()
    show_placement()


if __name__ == "__main__":
    main()
