"""Colours, and text that stands in SVG and HTML."""

from html import escape

import numpy as np

from colossi.site.design import KINDS, Design, Ints

__all__ = ["COLORS", "STYLE", "escape", "main_kinds"]

# A colour for each kind of device: computing green, its fabric blue, storage orange, management grey.
COLORS = {
    "node": "#7fb77e",
    "leaf": "#a9c4f7",
    "spine": "#86aaf0",
    "core": "#6f95dd",
    "storage node": "#f2b263",
    "storage leaf": "#eda35d",
    "storage spine": "#dd8a4b",
    "management leaf": "#b9bec7",
    "management spine": "#979eaa",
    "management server": "#d3d6dc",
    "cdu": "#7fd1d8",
    "manager": "#b58be0",
}
STYLE = "text{font-family:system-ui,sans-serif;fill:#222}" + "".join(
    f".k{number}{{fill:{COLORS[kind]}}}" for number, kind in enumerate(KINDS)
)


def main_kinds(design: Design) -> Ints:
    """Of each rack, the kind that fills most of its units, into KINDS; -1 where it is empty."""
    devices = design.devices
    units = np.zeros((len(design.racks), len(KINDS)), np.int64)
    np.add.at(units, (devices.rack, devices.kind), devices.height)
    found = units.argmax(axis=1).astype(np.int32)
    found[units.sum(axis=1) == 0] = -1
    return found
