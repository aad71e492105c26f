"""`[power]`: what the grid allows, and the battery between it and the site."""

from typing import Self

from pydantic import Field, model_validator

from colossi.spec.table import Table


class PowerSpec(Table):
    """What the site's load must keep to, and with what."""

    ramp: float = Field(
        default=25.0,
        gt=0,
        description="MW a minute by which the draw may change; the default is what a gas turbine follows",
    )
    battery_mw: float | None = Field(
        default=None, gt=0, description="of the battery that there is; left out: the smallest that suffices"
    )
    battery_mwh: float | None = Field(default=None, gt=0, description="what it holds, with `battery_mw`")
    round_trip: float = Field(
        default=0.91, gt=0, le=1, description="energy out of the battery over energy into it"
    )
    floor: float = Field(
        default=0.0, ge=0, le=1, description="share of TDP below which no GPU of the job falls, idle or not"
    )

    @model_validator(mode="after")
    def _whole_battery(self) -> Self:
        if (self.battery_mw is None) != (self.battery_mwh is None):
            raise ValueError("a battery is battery_mw and battery_mwh: give both, or neither")
        return self

    @property
    def watts_per_second(self) -> float:
        """`ramp` [W/s]."""
        return self.ramp * 1e6 / 60
