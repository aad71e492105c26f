"""
How long collectives take over NVLink and the network. [seconds]

A group is `ranks` GPUs, `stride` apart in rank order; those of one NVLink domain talk over it. A ring that
leaves the domain goes through the network cards of all its members there, one on each rail.

[1] R. Thakur et al., "Optimization of Collective Communication Operations in MPICH", 2005: ring algorithms.
"""

import numpy as np

from colossi.plan.case import Machine, Number
from colossi.plan.efficiency import Efficiency


def inside(ranks: Number, stride: Number, machine: Machine) -> Number:
    """How many of a group stand in one NVLink domain."""
    return np.clip(np.floor(machine.domain / stride), 1.0, ranks)


def gather(bytes_: Number, ranks: Number, stride: Number, machine: Machine, e: Efficiency) -> Number:
    """All-gather to, or reduce-scatter of, so many bytes on each rank [1]: (n - 1) / n of them go round."""
    near = inside(ranks, stride, machine)
    leaves = near < ranks
    link, nic = machine.link * e.link_share, machine.nic * e.nic_share * near
    rate = np.where(leaves, np.minimum(link, nic), link)
    delay = e.link_delay + e.hop_delay * np.where(leaves, ranks, 0.0)
    return np.where(ranks > 1, (ranks - 1) / ranks * bytes_ / rate + delay, 0.0)


def reduce(bytes_: Number, ranks: Number, stride: Number, machine: Machine, e: Efficiency) -> Number:
    """All-reduce of so many bytes: a reduce-scatter and an all-gather [1]."""
    return e.reduce_rounds * gather(bytes_, ranks, stride, machine, e)


def all_to_all(bytes_: Number, ranks: Number, stride: Number, machine: Machine, e: Efficiency) -> Number:
    """Each rank has so many bytes, equal parts for all; those within a domain and those beyond go at once."""
    near = inside(ranks, stride, machine)
    local = bytes_ * (near - 1) / ranks / (machine.link * e.link_share)
    far = bytes_ * (ranks - near) / ranks / (machine.nic * e.nic_share)
    delay = e.link_delay + e.hop_delay * np.where(near < ranks, ranks / near, 0.0)
    return np.where(ranks > 1, np.maximum(local, far) + delay, 0.0)


def send(bytes_: Number, stride: Number, machine: Machine, e: Efficiency) -> Number:
    """To the rank `stride` further on."""
    far = stride >= machine.domain
    rate = np.where(far, machine.nic * e.nic_share, machine.link * e.link_share)
    return bytes_ / rate + e.link_delay
