"""
A device as `colossi calibrate` has measured it: one TOML file in the user's data folder, by its name.

By name, as the catalogue's devices are: a spec and the copy of it in a run's folder mean the same device from
wherever they are read, which no path would. Numbers are in base units.
"""

import os
import re
import tomllib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import tomli_w

from colossi.errors import SpecError
from colossi.plan.case import Machine
from colossi.plan.efficiency import Efficiency
from colossi.spec.cluster import NAME


@dataclass(frozen=True, slots=True)
class Measured:
    """One worker, while so many of them compute at once and share the cores and the memory."""

    workers: int
    returned: bool  # memory goes back to the system when freed, as with sharded weights
    peak: float  # [FLOP/s] of large float32 products
    memory: float  # [bytes]
    memory_rate: float  # [bytes/s]
    link: float  # [bytes/s] of gathers
    attention_share: float  # of peak, that the products of attention reach
    efficiency: Efficiency

    def machine(self) -> Machine:
        """As the planner knows machines: no tiles, all workers in one domain."""
        return Machine(
            gpus=self.workers,
            peak=self.peak,
            peak_16=self.peak,
            memory=self.memory,
            memory_rate=self.memory_rate,
            domain=self.workers,
            link=self.link,
            nic=self.link,
            product_share=1.0,
            attention_share=self.attention_share,
            tiles=1,
            tile=1,
            own_host=1,
        )


@dataclass(frozen=True, slots=True)
class Profile:
    """All that was measured of a device."""

    device: str  # in words
    date: str
    worlds: tuple[Measured, ...]

    def as_json(self) -> dict[str, Any]:
        """Plain data, as in the file."""
        return asdict(self)

    def world(self, workers: int, returned: bool) -> Measured:
        """The one with as many workers. SpecError if they were not measured."""
        found = [each for each in self.worlds if each.workers == workers]
        if not found:
            known = sorted({each.workers for each in self.worlds})
            raise SpecError(
                f"the profile of {self.device} has no world of {workers} workers: use "
                f"{' or '.join(map(str, known))}",
                "colossi calibrate measures those",
            )
        return next((each for each in found if each.returned == returned), found[0])


def check_name(name: str) -> None:
    """SpecError if no spec could have it."""
    if not re.fullmatch(NAME, name):
        raise SpecError(f"--name {name}: use letters, digits, dots, dashes and underscores", "--name here")


def profile_path(name: str) -> Path:
    """Where the profile of this name is, or would be."""
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "colossi" / "profiles" / f"{name}.toml"


def write_profile(name: str, profile: Profile) -> Path:
    """Write it, over an older one of that name."""
    path = profile_path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    text = tomli_w.dumps(profile.as_json())
    path.write_text(f"# Measured by `colossi calibrate`, in base units (B, s, FLOP).\n{text}", "utf-8")
    return path


def read_profile(name: str) -> Profile:
    """SpecError if there is none, or it is none."""
    path, hint = profile_path(name), f"colossi calibrate --name {name} measures this device"
    try:
        document = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise SpecError(f"cluster.profile = {name!r}: there is no {path}", hint) from None
    except (OSError, ValueError) as error:
        raise SpecError(f"cluster.profile = {name!r}: {path} cannot be read: {error}", hint) from None
    try:
        worlds = tuple(
            Measured(**{**world, "efficiency": Efficiency(**world["efficiency"])})
            for world in document.pop("worlds")
        )
        return Profile(**document, worlds=worlds)
    except (TypeError, KeyError) as error:
        raise SpecError(f"cluster.profile = {name!r}: {path} is no profile: {error}", hint) from None
