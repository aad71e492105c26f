"""
GPUs and servers of the catalogue, in base units.

What a data sheet says, and beside it what was measured on the device; nothing is fitted to training runs.
Peaks are dense (no sparsity). The files in catalogue/gpus and catalogue/nodes give the source of each number.
"""

from functools import cache
from typing import Literal

from pydantic import Field

from colossi.spec.entries import entry_names, read_entry
from colossi.spec.table import Table
from colossi.spec.units import (
    Bytes,
    BytesPerSecond,
    Dollars,
    DollarsPerSecond,
    FlopPerSecond,
    Hertz,
    Kilograms,
    Watts,
)

Format = Literal["bf16", "fp16", "fp8", "fp4", "tf32", "fp32"]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]
Activity = Literal["compute", "memory", "communication", "idle"]


class Peak(Table):
    """Dense peak of matrix products by number format [FLOP/s]; fp32 is the vector units' peak."""

    bf16: FlopPerSecond
    fp16: FlopPerSecond
    fp8: FlopPerSecond | None = None
    fp4: FlopPerSecond | None = None
    tf32: FlopPerSecond
    fp32: FlopPerSecond


class ProductShare(Table):
    """How much of the bf16 peak matrix products with m rows reach, n and k being 4,096 or more."""

    m: int = Field(ge=1)
    share: float = Field(gt=0, lt=1)


class BusPoint(Table):
    """Bus bandwidth, as nccl-tests defines it, of a collective of this size over the node's GPUs."""

    size: Bytes
    bus_bandwidth: BytesPerSecond


class Measured(Table):
    """What was measured on the device itself; collectives among `gpus` of them. Empty where unknown."""

    gpus: int = 8
    products: tuple[ProductShare, ...] = ()
    all_reduce: tuple[BusPoint, ...] = ()
    all_gather: tuple[BusPoint, ...] = ()
    reduce_scatter: tuple[BusPoint, ...] = ()
    all_to_all: tuple[BusPoint, ...] = ()


class Gpu(Table):
    """One GPU as its data sheet has it."""

    name: str
    architecture: Literal["ampere", "hopper", "blackwell", "blackwell-ultra", "cdna3"]
    usual_node: str  # the server that a cluster has if it names none
    compute_units: int = Field(ge=1)  # SMs, or AMD's CUs
    clock: Hertz  # boost, at which the peaks hold
    memory: Bytes  # as the driver reports it, a little under the data sheet's figure or over it
    memory_bandwidth: BytesPerSecond
    l2: Bytes
    link: Literal["nvlink", "xgmi", "pcie"]
    link_bandwidth: BytesPerSecond  # of all links of a GPU to its fellows, one direction
    in_network_reduction: bool  # the switch adds up all-reduces itself (NVLink SHARP)
    power: Watts  # TDP, the limit as delivered
    price: DollarsPerSecond  # rent of one GPU in its server, network included
    peak: Peak
    measured: Measured = Measured()

    def peak_of(self, form: Format) -> float:
        """Dense peak of a number format [FLOP/s]; what a GPU has not it does in the next wider one."""
        wider: dict[Format, tuple[Format, ...]] = {"fp4": ("fp4", "fp8", "bf16"), "fp8": ("fp8", "bf16")}
        found = (getattr(self.peak, each) for each in wider.get(form, (form,)))
        return float(next(value for value in found if value is not None))


class Draw(Table):
    """What a server takes by what it does: shares of the GPUs' TDP, and of the rest's full load.

    [1] I. Latif et al., IEEE Access 13, 2025 (arXiv 2412.08602): 8.4 kW at most of 10.2 kW rated, training on
        eight H100 that are nearly fully used: so GPUs at TDP, and the rest at 2.8 of 4.6 kW.
    [2] P. Patel et al., "Characterizing power management opportunities for LLMs in the cloud", ASPLOS 2024:
        training swings by up to 37.5% of the provisioned power, between computing and communicating: of
        10.2 kW, 68% of the GPUs' TDP.
    [3] wilicc/gpu-burn #114: H100s with a full memory and nothing to do, 140 to 145 W of 700.
    """

    compute: float = Field(default=1.0, gt=0, le=1)  # [1]
    memory: float = Field(default=0.7, gt=0, le=1)  # reading and writing weights; assumption
    communication: float = Field(default=0.32, gt=0, le=1)  # in sight, or waiting for others [2]
    idle: float = Field(default=0.2, gt=0, le=1)  # [3]
    rest_busy: float = Field(default=0.61, ge=0, le=1)  # [1]
    rest_idle: float = Field(default=0.35, ge=0, le=1)  # assumption


class Node(Table):
    """One server: its GPUs, and what joins them to each other and to other servers."""

    name: str
    gpu: Gpu
    gpus: int = Field(ge=1)
    domain: int = Field(ge=1)  # GPUs that the links join at full speed; above `gpus`, it spans servers
    nics: int = Field(ge=1)  # of the compute fabric; storage and management have their own
    nic_bandwidth: BytesPerSecond  # of one, one direction
    network: Literal["infiniband", "ethernet"]
    power: Watts  # the whole server at full load, as rated
    cost: Dollars  # to buy, GPUs included
    height: int = Field(ge=1)  # [rack units]
    weight: Kilograms
    liquid: float = Field(default=0.0, ge=0, le=1)  # share of the heat that its cold plates take; 0: air only
    draw: Draw = Draw()

    @property
    def network_bandwidth(self) -> float:
        """Bandwidth out of the server for one GPU, one direction [B/s]."""
        return self.nics * self.nic_bandwidth / self.gpus

    def watts(self, activity: Activity, floor: float = 0.0) -> float:
        """What it takes when all its GPUs do this [W]; none of them takes less than `floor` of its TDP."""
        chips = self.gpus * self.gpu.power
        rest = self.draw.rest_idle if activity == "idle" else self.draw.rest_busy
        share = max(getattr(self.draw, activity), floor)
        return chips * share + max(self.power - chips, 0.0) * rest


def gpu_names() -> list[str]:
    """GPUs of the catalogue."""
    return entry_names("gpus")


def node_names() -> list[str]:
    """Servers of the catalogue."""
    return entry_names("nodes")


@cache
def gpu(name: str) -> Gpu:
    """A GPU by its name in the catalogue, such as "H100-SXM". SpecError offers the nearest names."""
    return Gpu.model_validate({"name": name, **read_entry("gpus", name, "GPU")})


@cache
def node(name: str) -> Node:
    """A server by its name in the catalogue, such as "DGX-H100", with its GPU. SpecError as for `gpu`."""
    document = read_entry("nodes", name, "node")
    return Node.model_validate({"name": name, **document, "gpu": gpu(document["gpu"])})
