"""`[prices]`: what GPUs and energy cost."""

from pydantic import Field

from colossi.spec.table import Table


class PricesSpec(Table):
    """Assumptions of yours; the defaults are round numbers of 2025 and no offer of anybody's."""

    gpu_hour: float | None = Field(
        default=None, gt=0, description="dollars for a GPU and hour; left out: the catalogue's"
    )
    kilowatt_hour: float = Field(default=0.08, ge=0, description="dollars, if energy is not in gpu_hour")
    pue: float = Field(
        default=1.25,
        ge=1,
        description="power usage effectiveness: power of the site over that of its servers",
    )
    energy_included: bool = Field(
        default=True, description="gpu_hour contains energy, as a rented GPU's does"
    )
