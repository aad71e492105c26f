"""
How long collectives take on a fabric, and how much of the line rate its traffic reaches.

Rates are max-min fair shares of the links. A channel moves at the pace of its slowest link, as the steps of a
ring wait for each other. Transfer and start-up are added; NCCL's protocols trade one for the other, and the
fastest counts. What is reduced in the switches of the network (SHARP) is not here.

[1] NVIDIA/nccl 5067397, src/graph/tuning.cc: baseLatencies, hwLatencies, and the shares of LL and LL128.
[2] stas00/ml-engineering, network/benchmarks, all-reduce of 16 GiB (B200: 8): ring over NVLink 234.9 of 300
    GB/s (A100), 367.6 of 450 (H200), 682.2 of 900 (B200); reduced in the NVLink switch 482.3 (H200), 838
    (B200), 850 (NVL72).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2

import numpy as np

from colossi.site.fabric import Fabric
from colossi.spec.hardware import Collective
from colossi.world.fairshare import fair_rates
from colossi.world.routing import Health, Index, Loads, Real, Routing, Transfers, loads, whole
from colossi.world.traffic import Job, Traffic, channel_nics, traffic

# RoCEv2 on Ethernet: 4,096 bytes of payload, and preamble 8, Ethernet 14 + 4, gap 12, IPv4 20, UDP 8, BTH 12,
# invariant CRC 4 (InfiniBand specification, annex A17; IEEE 802.3). Bytes of payload for each on the line.
PAYLOAD = 4096 / (4096 + 82)
RING_SHARE = 0.80  # of NVLink's rate that rings and all-to-alls reach: 0.78, 0.82, 0.76 in [2]
SWITCH_SHARE = (
    1.0  # the bus bandwidth of all-reduce with reduction in the NVLink switch: 1.07, 0.93, 0.94 in [2]
)


@dataclass(frozen=True)
class Protocol:
    """One of NCCL's ways to move data [1]: the share of the rate it reaches, and its delays [s]."""

    share: float
    start: float
    link: float  # a step over NVLink
    net: float  # a step over the network
    tree: float  # a level of a tree over the network


PROTOCOLS = (
    Protocol(share=0.5, start=6.6e-6, link=0.6e-6, net=2.7e-6, tree=5.0e-6),  # LL: 4 of 8 bytes are flags
    Protocol(share=0.92, start=14.0e-6, link=1.9e-6, net=4.0e-6, tree=8.5e-6),  # LL128
    Protocol(share=1.0, start=8.4e-6, link=3.4e-6, net=14.0e-6, tree=14.0e-6),  # Simple
)
TIE = 1e-9  # relative: collectives that end nearer to each other than this end together
SWITCH_DELAY = 25e-6  # reduction in the NVLink switch, which only Simple has [1]


@dataclass(frozen=True)
class Work:
    """A collective of a job on so many bytes, as nccl-tests counts them."""

    job: Job
    op: Collective
    bytes: float


@dataclass(frozen=True)
class Share:
    """Payload over line rate, of NICs that all send: the mean, and the slowest NIC's."""

    mean: float
    slowest: float


def collective_seconds(
    fabric: Fabric,
    job: Job,
    op: Collective,
    bytes: float,
    routing: Routing,
    seed: int,
    health: Health | None = None,
) -> float:
    """Of one collective that has the fabric for itself. Infinite if a cut leaves a GPU without a way."""
    return together(fabric, [Work(job, op, bytes)], routing, seed, health)[0]


def together(
    fabric: Fabric, works: Sequence[Work], routing: Routing, seed: int, health: Health | None = None
) -> list[float]:
    """The seconds of each of several collectives that begin at once.

    Shares are worked out anew whenever one of them ends; a channel that is done before its fellows keeps its
    share until then. Raises BadInput for GPUs without NICs on the fabric.
    """
    health = health or whole(fabric)
    flows = [traffic(work.job, fabric, work.op, seed) for work in works]
    counts = [len(flow.domain) for flow in flows]
    owner = np.repeat(np.arange(len(works)), counts)
    matrix = _matrix(fabric, works, flows, routing, seed, health)
    left = np.concatenate(
        [np.full(n, work.bytes / f.channels) for work, f, n in zip(works, flows, counts, strict=True)]
    )
    seconds, now = np.full(len(works), np.inf), 0.0
    waiting = np.ones(len(works), bool)
    while waiting.any():
        rate = _rates(matrix, waiting[owner], len(left))
        needs = np.divide(left, rate, out=np.where(left > 0, np.inf, 0.0), where=rate > 0)
        ends = np.full(len(works), -np.inf)
        np.maximum.at(ends, owner, needs)
        first = ends[waiting].min()
        if first == np.inf:
            break
        over = waiting & (ends <= first * (1 + TIE))
        now += first
        seconds[over] = now
        waiting &= ~over
        left = np.where(
            waiting[owner], np.maximum(left - np.where(waiting[owner], rate, 0.0) * first, 0.0), 0.0
        )
    return [with_delays(work, fabric, float(moving)) for work, moving in zip(works, seconds, strict=True)]


def line_rate_share(
    fabric: Fabric,
    routing: Routing,
    seed: int,
    connections: int = 1,
    rails: bool = False,
    health: Health | None = None,
) -> Share:
    """When every NIC sends to another one, drawn at random (a permutation), on so many connections.

    `rails`: to one on its own rail. Each connection has a fair share for itself, and the NIC sends their sum.
    """
    rng = np.random.default_rng(seed)
    nics = np.arange(fabric.nodes * fabric.rails)
    target = rng.permutation(nics)
    if rails:
        columns = [rng.permutation(fabric.nodes) * fabric.rails + rail for rail in range(fabric.rails)]
        target = np.stack(columns, axis=1).ravel()
    away = target != nics
    source, target = nics[away], target[away]
    each = Transfers(
        np.repeat(source, connections),
        np.repeat(target, connections),
        np.arange(len(source) * connections),
        np.ones(len(source) * connections),
    )
    put = loads(fabric, health or whole(fabric), each, routing, 1, seed)
    rates = fair_rates(put.link, put.flow, put.weight, put.capacity, len(each.source))
    sent = rates.reshape(-1, connections).sum(axis=1) / fabric.spec.planes * PAYLOAD
    return Share(float(sent.mean()), float(sent.min()))


def bus_bandwidth(op: Collective, ranks: int, bytes: float, seconds: float) -> float:
    """As nccl-tests defines it [bytes/s]: what a link would carry if the collective were a ring's."""
    rounds = 2 if op == "all_reduce" else 1
    return rounds * (ranks - 1) / ranks * bytes / seconds


def with_delays(work: Work, fabric: Fabric, moving: float) -> float:
    """The time with the start-up of the best protocol, where the bytes alone need `moving` seconds."""
    if len(work.job.gpus) == 1:
        return 0.0
    domains = channel_nics(work.job, fabric).shape[0]
    near = len(work.job.gpus) / domains
    rounds = 2 if work.op == "all_reduce" else 1
    steps = rounds * (len(work.job.gpus) - 1)
    far = rounds * (domains - 1)
    times, switched = [], _switched(work)
    for protocol in PROTOCOLS[-1:] if switched else PROTOCOLS:
        inside = SWITCH_DELAY if switched else rounds * (near - 1) * protocol.link
        if work.op == "all_to_all":  # all at once: one step in, one out
            delay = protocol.link + (protocol.net if domains > 1 else 0.0)
        elif work.job.algorithm == "ring" and not switched:
            delay = (steps - far) * protocol.link + far * protocol.net
        elif work.job.algorithm == "tree" and work.op == "all_reduce":
            delay = inside + 2 * log2(domains) * protocol.tree
        else:
            delay = inside + far * protocol.net
        times.append(protocol.start + delay + moving / protocol.share)
    return min(times)


def _switched(work: Work) -> bool:
    """Whether the NVLink switch reduces: in all-reduces, by algorithms that do so in a domain."""
    job = work.job
    return work.op == "all_reduce" and job.node.gpu.in_network_reduction and job.algorithm != "ring"


def _rates(matrix: Loads, active: np.ndarray[tuple[int], np.dtype[np.bool_]], flows: int) -> Real:
    mine = active[matrix.flow]
    return fair_rates(matrix.link[mine], matrix.flow[mine], matrix.weight[mine], matrix.capacity, flows)


def _matrix(
    fabric: Fabric, works: Sequence[Work], flows: list[Traffic], routing: Routing, seed: int, health: Health
) -> Loads:
    """All jobs' flows on the network's links [bytes/s], and after those on the NVLink of each domain."""
    parts: list[tuple[Index, Index, Real]] = []
    inside: list[Real] = []
    network, before = np.empty(0), 0
    for i, (work, flow) in enumerate(zip(works, flows, strict=True)):
        put = loads(fabric, health, flow.transfers, routing, work.job.connections, seed + i)
        network = put.capacity * fabric.spec.port * PAYLOAD
        at = len(network) + sum(len(each) for each in inside)
        parts.append((put.link, put.flow + before, put.weight))
        if flow.inside > 0:
            every = np.arange(len(flow.domain))
            parts.append((at + flow.domain, every + before, np.full(len(every), flow.inside)))
        share = SWITCH_SHARE if _switched(work) else RING_SHARE
        inside.append(np.full(flow.domain.max() + 1, work.job.node.gpu.link_bandwidth * share))
        before += len(flow.domain)
    link, which, weight = (np.concatenate(column) for column in zip(*parts, strict=True))
    return Loads(link, which, weight, np.concatenate([network, *inside]))
