"""
What a collective sends over the network and over NVLink, by algorithm, as NCCL's do it.

A group's GPUs stand in NVLink domains. It has as many channels as its smallest domain has members; channel
c uses the NIC of the c-th member of each domain, so that with a rail for each GPU it stays on rail c. The
buffer is dealt out to the channels evenly; the rate of a channel is the bytes of its part done in a second.

* ring          through all GPUs, domain after domain.
* hierarchical  reduce-scatter in the domain, a ring of domains on each rail, all-gather in the domain.
* tree          the same chain or switch in the domain, a double binary tree of domains on each rail [1].
* all_to_all    each GPU to each, through the fellow in its domain on the receiver's rail (NCCL's PXN).

[1] P. Sanders et al., "Two-tree algorithms for full bandwidth broadcast, reduction and scan", 2009.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from colossi.errors import BadInput
from colossi.site.fabric import Fabric
from colossi.spec.hardware import Collective, Node
from colossi.world.routing import Index, Transfers

Algorithm = Literal["ring", "tree", "hierarchical"]
PEERS = 16  # all_to_all: how many other domains, drawn at random, stand for all where there are more


@dataclass(frozen=True)
class Job:
    """Some GPUs of the fabric (node * gpus of a node + place), and how they talk.

    Rings and trees join NVLink domains in the order in which `gpus` first names each.
    """

    gpus: NDArray[np.int_]
    node: Node  # of the catalogue
    algorithm: Algorithm = "hierarchical"
    connections: int = 1  # between two NICs, each hashed for itself


@dataclass(frozen=True)
class Traffic:
    """One collective. A flow is a channel; of an all-to-all, what a NIC sends."""

    transfers: Transfers
    channels: int  # among which the buffer is divided
    domain: Index  # [flow] flows with the same number share the NVLink of the same GPUs
    inside: float  # bytes that a GPU sends over NVLink for each byte of the buffer


def members(job: Job) -> list[NDArray[np.int_]]:
    """The group's GPUs, domain by domain, in the order in which the job names the domains."""
    gpus = np.asarray(job.gpus)
    if not len(gpus) or len(np.unique(gpus)) != len(gpus):
        raise BadInput("a job's GPUs are none, or one is named twice", "name each GPU once")
    _, first, which, sizes = np.unique(
        gpus // job.node.domain, return_index=True, return_inverse=True, return_counts=True
    )
    turn = np.argsort(np.argsort(first))
    order = np.argsort(turn[which], kind="stable")
    return np.split(gpus[order], np.cumsum(sizes[np.argsort(first)])[:-1])


def channel_nics(job: Job, fabric: Fabric) -> Index:
    """[domain, channel] the NIC that a channel leaves its domain by."""
    domains = members(job)
    channels = min(len(domain) for domain in domains)
    if len(domains) == 1:
        return np.empty((1, channels), np.int64)
    first = np.stack([domain[:channels] for domain in domains]).astype(np.int64)
    nics = first * job.node.nics // job.node.gpus
    if nics.max() >= fabric.nodes * fabric.rails:
        raise BadInput(
            f"GPU {first.max()} has no NIC on a fabric of {fabric.nodes} nodes with {fabric.rails} rails",
            "name GPUs of the fabric, or give it more nodes",
        )
    return nics


def traffic(job: Job, fabric: Fabric, op: Collective, seed: int) -> Traffic:
    """What the collective sends for each byte of its buffer, the size that nccl-tests prints: a GPU's own of
    all-reduce and all-to-all, the gathered one of all-gather, the one to be scattered of reduce-scatter."""
    nics = channel_nics(job, fabric)
    domains, channels = nics.shape
    ranks = len(job.gpus)
    if op == "all_to_all":
        return _all_to_all(nics, ranks, seed)
    rounds = 2 if op == "all_reduce" else 1
    far = rounds * (domains - 1) / domains
    inside = rounds * (channels - 1) / channels
    if job.algorithm == "ring":
        far = inside = rounds * (ranks - 1) / ranks
    if job.algorithm == "tree" and op == "all_reduce":
        edges = _double_tree(domains)
        weight = 0.5  # each tree has half of the data, up and down
    else:
        here = np.arange(domains)
        edges = np.stack([here, (here + 1) % domains]) if domains > 1 else np.empty((2, 0), np.int64)
        weight = far
    source, target = nics[edges[0]], nics[edges[1]]  # [edge, channel]
    flow = np.broadcast_to(np.arange(channels), source.shape)
    weights = np.full(source.size, weight)
    transfers = Transfers(source.ravel(), target.ravel(), flow.ravel(), weights)
    return Traffic(transfers, channels, np.zeros(channels, np.int64), inside)


def _all_to_all(nics: Index, ranks: int, seed: int) -> Traffic:
    """Shifts: domain i sends to i + k, for all k or for PEERS random ones, which then have all the bytes."""
    domains, channels = nics.shape
    shifts = np.arange(1, domains)
    if len(shifts) > PEERS:
        shifts = np.random.default_rng(seed).choice(shifts, PEERS, replace=False)
    here, near = np.arange(domains), ranks / domains
    source = np.broadcast_to(nics, (len(shifts), domains, channels))
    target = nics[(here + shifts[:, None]) % domains]
    flow = np.broadcast_to(np.arange(domains * channels).reshape(domains, channels), source.shape)
    leaves = near * (domains - 1) / domains  # of the buffers in a domain, in buffers
    weights = np.full(source.size, leaves / max(len(shifts), 1))
    transfers = Transfers(source.ravel(), target.ravel(), flow.ravel(), weights)
    return Traffic(transfers, channels, np.repeat(here, channels), (near - 1) / near)


def _double_tree(n: int) -> Index:
    """[2, edges], up and down, of two binary trees on n domains; who is inner in one is a leaf in the other.

    In the first the parent of i has one trailing 0 bit more; odd places are leaves. The second is the first
    mirrored (n even) or moved by one (n odd), which turns odd places into even ones [1].
    """
    child = np.arange(1, n)
    bit = child & -child
    parent = (child ^ bit) | (bit << 1)
    parent = np.where(parent >= n, child ^ bit, parent)
    first = np.stack([child, parent])
    second = n - 1 - first if n % 2 == 0 else (first - 1) % n
    up = np.concatenate([first, second], axis=1)
    return np.concatenate([up, up[::-1]], axis=1)
