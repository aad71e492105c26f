"""`[site]`: the halls, the power, the cooling and the limits within which a cluster is built."""

from typing import Literal, Self

from pydantic import Field, model_validator

from colossi.spec.table import Table

Redundancy = Literal["N", "N+1", "2N"]


class HallSpec(Table):
    """A hall; the halls stand side by side along their lengths, in this order."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9]+$", description="letters and digits; names of racks begin with it"
    )
    length: float = Field(gt=0, description="along the rows [m]")
    width: float = Field(gt=0, description="across the rows [m]")
    floor_load: float = Field(
        default=1500.0, gt=0, description="that the floor bears [kg/m2], under a rack and half of its aisles"
    )


class FeedSpec(Table):
    """A power feed of the site."""

    name: str = Field(min_length=1, description="such as the substation's")
    megawatts: float = Field(gt=0, description="what it carries")
    day: float = Field(default=0.0, ge=0, description="when it comes, after the start of construction")


class CoolingSpec(Table):
    """Heat that the plant takes away; what is left out is as much as is needed."""

    liquid_mw: float | None = Field(
        default=None, ge=0, description="by the liquid loops, from cold plates through CDUs [MW]"
    )
    air_mw: float | None = Field(default=None, ge=0, description="by air [MW]")
    cdu: str = Field(
        default="cdu", description="in each rack of nodes with cold plates, of the catalogue's equipment"
    )
    overhead: float = Field(
        default=0.1,
        ge=0,
        description="watts of pumps, chillers and losses for each watt in racks; assumption",
    )


class RackSpec(Table):
    """What a rack is and bears."""

    nodes: int | None = Field(
        default=None, ge=1, description="in a rack; left out: as many as power, weight and units allow"
    )
    kilowatts: float = Field(default=45.0, gt=0, description="limit of a rack's power, by either feed alone")
    kilograms: float = Field(default=1400.0, gt=0, description="limit of its weight, the rack included")
    units: int = Field(default=48, ge=1, description="rack units")
    gap: int = Field(default=0, ge=0, description="units left free under each node, such as for a manifold")
    width: float = Field(default=0.6, gt=0, description="[m]")
    depth: float = Field(default=1.2, gt=0, description="[m]")


class FloorSpec(Table):
    """How rows stand, and how cables run."""

    cold_aisle: float = Field(default=1.8, ge=0, description="in front of the racks [m]")
    hot_aisle: float = Field(default=1.2, ge=0, description="behind them [m]")
    margin: float = Field(default=2.0, ge=0, description="free along the walls [m]")
    between_halls: float = Field(default=5.0, ge=0, description="that cables run from hall to hall [m]")
    tray: float = Field(default=2.7, gt=0, description="height of the cable trays over the floor [m]")
    slack: float = Field(default=1.0, ge=0, description="of a cable beyond its way, both ends together [m]")


class StorageSpec(Table):
    """The storage network, a port for each node, and the servers on it."""

    servers: int | None = Field(
        default=None, ge=1, description="left out: one for each 16 nodes, an assumption"
    )
    oversubscription: float = Field(default=3.0, gt=0, description="of its leaves")
    switch: str | None = Field(
        default=None, description="of the catalogue; left out: the usual one for the node's network"
    )


class ManagementSpec(Table):
    """The management network (1 Gb/s to everything that has a controller) and the servers on it."""

    servers: int | None = Field(
        default=None, ge=1, description="left out: one for each 256 nodes and at least 5; an assumption"
    )
    leaf: str = Field(default="SN2201", description="its leaves, of the catalogue")
    spine: str = Field(default="SN4600C", description="its spines, of the catalogue")
    uplinks: int = Field(default=4, ge=1, description="ports of a leaf that go up")


class SiteSpec(Table):
    """Where the cluster is built. `[cluster]` says how many nodes, or `it_megawatts` here does."""

    halls: tuple[HallSpec, ...] = Field(min_length=1, description="where racks may stand")
    feeds: tuple[FeedSpec, ...] = Field(min_length=1, description="of power, in the order they are filled")
    redundancy: Redundancy = Field(
        default="N",
        description="of feeds: N: a rack has one; 2N: it has both of a pair (first with second, and so on) "
        "and either carries it; N+1: it has two, and all racks stay on when any one feed is lost",
    )
    it_megawatts: float | None = Field(
        default=None,
        gt=0,
        description="as many nodes as fit into this, racks together; not with cluster.gpus",
    )
    racks_per_pod: int = Field(
        default=8, ge=1, description="racks of nodes that are built and handed over together"
    )
    switch: str | None = Field(
        default=None,
        description="of the compute fabric, of the catalogue; left out: the one that fits [fabric]",
    )
    cooling: CoolingSpec = Field(default=CoolingSpec(), description="what takes the heat away; below")
    rack: RackSpec = Field(default=RackSpec(), description="limits of a rack; below")
    floor: FloorSpec = Field(default=FloorSpec(), description="aisles and trays; below")
    storage: StorageSpec = Field(default=StorageSpec(), description="its network; below")
    management: ManagementSpec = Field(default=ManagementSpec(), description="its network; below")

    @model_validator(mode="after")
    def _names_and_pairs(self) -> Self:
        for what, names in (("halls", [h.name for h in self.halls]), ("feeds", [f.name for f in self.feeds])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ValueError(f"{what}: two are called {twice!r}: give each a name of its own")
        if self.redundancy == "2N" and len(self.feeds) % 2:
            raise ValueError(f"redundancy = '2N' takes feeds in pairs, not {len(self.feeds)}: add one")
        if self.redundancy == "N+1" and len(self.feeds) < 2:
            raise ValueError("redundancy = 'N+1' takes at least 2 feeds, not 1: add one")
        return self
