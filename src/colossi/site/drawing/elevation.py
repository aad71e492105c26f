"""
Rack elevations as SVG: what is in each unit, one drawing for each arrangement that there is.

A cluster of 2,000 racks has some dozen arrangements; each is drawn once, with how many racks are so and the
name of the first. The page draws any single rack with the names of its devices.
"""

from dataclasses import dataclass

import numpy as np

from colossi.site.design import KINDS, Design
from colossi.site.drawing.paint import STYLE, escape

UNIT, RACK, LEFT, TOP = 14, 190, 34, 66  # [pixels]
ACROSS = 6  # drawings side by side


@dataclass(frozen=True)
class Arrangement:
    """Racks whose units hold the same: their rows, and what is in them as (kind, lowest unit, height)."""

    racks: tuple[int, ...]
    things: tuple[tuple[int, int, int], ...]


def arrangements(design: Design) -> list[Arrangement]:
    """All there are, the most frequent first."""
    devices = design.devices
    order = np.lexsort((devices.kind, devices.unit, devices.rack))
    rows = np.stack([devices.kind, devices.unit, devices.height], axis=1).astype(int)[order]
    bounds = np.searchsorted(devices.rack[order], np.arange(len(design.racks) + 1)).tolist()
    found: dict[tuple[tuple[int, int, int], ...], list[int]] = {}
    for rack in range(len(design.racks)):
        things = tuple((k, u, h) for k, u, h in rows[bounds[rack] : bounds[rack + 1]].tolist())
        found.setdefault(things, []).append(rack)
    listed = [Arrangement(tuple(racks), things) for things, racks in found.items()]
    return sorted(listed, key=lambda each: -len(each.racks))


def elevations(design: Design, names: list[str]) -> str:
    """SVG of all arrangements."""
    listed = arrangements(design)
    units = int((design.devices.unit + design.devices.height - 1).max(initial=42))
    wide, tall = RACK + 2 * LEFT, units * UNIT + TOP + 24
    width, height = wide * min(ACROSS, len(listed)), tall * -(-len(listed) // ACROSS)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="racks" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{STYLE}.racks text{{font-size:10px}}'
        ".racks .n{font-size:13px}.racks .u{fill:#999;font-size:8px;text-anchor:end}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, each in enumerate(listed):
        x, y = number % ACROSS * wide, number // ACROSS * tall
        parts.append(f'<g transform="translate({x} {y})">{_drawn(design, each, units, names)}</g>')
    return "".join(parts) + "</svg>\n"


def _drawn(design: Design, each: Arrangement, units: int, names: list[str]) -> str:
    watts, weight = design.racks.watts[list(each.racks)], design.racks.kilograms[list(each.racks)]
    parts = [
        f'<text class="n" x="{LEFT}" y="22">{len(each.racks)} x as {escape(names[each.racks[0]])}</text>',
        f'<text x="{LEFT}" y="40">{watts.max() / 1e3:.1f} kW, {weight.max():.0f} kg at most</text>',
        f'<rect x="{LEFT}" y="{TOP}" width="{RACK}" height="{units * UNIT}" fill="none" stroke="#444"/>',
    ]
    for unit in range(1, units + 1):
        y = TOP + (units - unit + 1) * UNIT - 4
        parts.append(f'<text class="u" x="{LEFT - 4}" y="{y}">{unit}</text>')
    for kind, unit, height in each.things:
        if height:
            y = TOP + (units - unit - height + 1) * UNIT
            parts.append(
                f'<rect class="k{kind}" x="{LEFT}" y="{y}" width="{RACK}" height="{height * UNIT}" '
                f'stroke="#fff"/><text x="{LEFT + 6}" y="{y + height * UNIT / 2 + 4:.0f}">'
                f"{KINDS[kind]}</text>"
            )
    return "".join(parts)
