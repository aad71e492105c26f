"""`[fabric]`: the switches between the nodes."""

from typing import Literal

from pydantic import Field

from colossi.spec.table import Table


class FabricSpec(Table):
    """A rail-optimised Clos: NIC r of every node of a scalable unit is cabled to the unit's leaf r."""

    tiers: Literal[2, 3] | None = Field(
        default=None, description="leaves and spines, or cores too; left out: 2 where they hold all nodes"
    )
    radix: int = Field(default=64, ge=2, description="ports of a switch")
    gigabits: float = Field(default=400.0, gt=0, description="of a port, each way [Gb/s]")
    oversubscription: float = Field(
        default=1.0, gt=0, description="of a leaf: ports down for each port up; 7 means 7:1"
    )
    spine_oversubscription: float = Field(default=1.0, gt=0, description="the same of a spine, with 3 tiers")
    planes: int = Field(default=1, ge=1, description="separate fabrics; a NIC has a port on each")
    ports_per_cable: int = Field(
        default=1, ge=1, description="ports that share a cage and its cable: 2 for twin ports of two planes"
    )
    managers: int = Field(default=0, ge=0, description="ports of leaves given to managers of the fabric")

    @property
    def port(self) -> float:
        """Bandwidth of a port, each way [B/s]."""
        return self.gigabits * 1e9 / 8
