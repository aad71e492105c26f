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
    Watts,
)

Format = Literal["bf16", "fp16", "fp8", "fp4", "tf32", "fp32"]
Collective = Literal["all_reduce", "all_gather", "reduce_scatter", "all_to_all"]


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


class Node(Table):
    """One server: its GPUs, and what joins them to each other and to other servers."""

    name: str
    gpu: Gpu
    gpus: int = Field(ge=1)
    domain: int = Field(ge=1)  # GPUs that the links join at full speed; above `gpus`, it spans servers
    nics: int = Field(ge=1)  # of the compute fabric; storage and management have their own
    nic_bandwidth: BytesPerSecond  # of one, one direction
    network: Literal["infiniband", "ethernet"]
    power: Watts  # the whole server at full load
    cost: Dollars  # to buy, GPUs included

    @property
    def network_bandwidth(self) -> float:
        """Bandwidth out of the server for one GPU, one direction [B/s]."""
        return self.nics * self.nic_bandwidth / self.gpus


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
