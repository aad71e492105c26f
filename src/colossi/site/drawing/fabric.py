"""
The networks as SVG: tiers of devices with how many there are, and how many cables join them.

Drawn at the level of units, groups and tiers: a line stands for all cables between two kinds of device, and
is the wider the more there are. Nobody could see 400,000 lines.
"""

import math

import numpy as np

from colossi.site.design import KINDS, MEDIA, NETWORKS, Design
from colossi.site.drawing.paint import COLORS, STYLE, escape
from colossi.site.naming import model_of, units_of

BOX, TALL, STEP, WIDE = 190, 48, 120, 700  # [pixels]
MANY = 16  # groups that are drawn as boxes; more are counted


def fabric_diagram(design: Design) -> str:
    """SVG: a row of drawings, one for each network, from the ends at the bottom to the top tier."""
    drawn = [(network, joints(design, network)) for network in NETWORKS]
    drawn = [(network, found) for network, found in drawn if found]
    width, height = WIDE * len(drawn), STEP * max(len(_tiers(found)) for _, found in drawn) + 200
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="fabric" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}"><style>{STYLE}.fabric text{{font-size:12px;text-anchor:middle}}'
        ".fabric .n{font-size:16px;font-weight:600}"
        ".fabric .c{fill:#444;font-size:11px;paint-order:stroke;stroke:#fff;stroke-width:3px}"
        ".fabric .m{fill:#444;font-size:11px}</style>",
        f'<rect width="{width}" height="{height}" fill="#fff"/>',
    ]
    for number, (network, found) in enumerate(drawn):
        inner = _network(design, network, found)
        parts.append(f'<g transform="translate({number * WIDE} 0)">{inner}</g>')
    return "".join(parts) + "</svg>\n"


def joints(design: Design, network: str) -> dict[tuple[str, str], int]:
    """Cables of a network between each two kinds of device."""
    cables, kind = design.cables, design.devices.kind
    mine = cables.network == NETWORKS.index(network)
    pairs = np.stack([kind[cables.lower[mine]], kind[cables.upper[mine]]], axis=1)
    found, counts = np.unique(pairs, axis=0, return_counts=True)
    return {(KINDS[a], KINDS[b]): int(n) for (a, b), n in zip(found.tolist(), counts.tolist(), strict=True)}


def _network(design: Design, network: str, found: dict[tuple[str, str], int]) -> str:
    tiers = _tiers(found)
    places = {}
    for level, kinds in enumerate(tiers):
        y = 90 + (len(tiers) - 1 - level) * STEP
        for at, kind in enumerate(kinds):
            places[kind] = ((at + 1) * WIDE / (len(kinds) + 1), y)
    parts = [f'<text class="n" x="{WIDE / 2}" y="32">{network}: {sum(found.values()):,} cables</text>']
    most = max(found.values())
    for (lower, upper), count in found.items():
        (x1, y1), (x2, y2) = places[lower], places[upper]
        stroke = 1 + 7 * math.log1p(count) / math.log1p(most)
        parts.append(
            f'<line x1="{x1:.0f}" y1="{y1}" x2="{x2:.0f}" y2="{y2 + TALL}" stroke="#9db4d6" '
            f'stroke-width="{stroke:.1f}"/><text class="c" x="{(x1 + x2) / 2:.0f}" '
            f'y="{(y1 + y2 + TALL) / 2 + 4:.0f}">{count:,}</text>'
        )
    slim = min(BOX, WIDE / max(map(len, tiers)) - 12)
    for kind, (x, y) in places.items():
        number = len(design.devices_of(kind))
        parts.append(
            f'<rect x="{x - slim / 2:.0f}" y="{y}" width="{slim:.0f}" height="{TALL}" rx="6" '
            f'fill="{COLORS[kind]}"/><text x="{x:.0f}" y="{y + 20}">{number:,} {kind}</text>'
            f'<text class="m" x="{x:.0f}" y="{y + 37}">{escape(model_of(design, kind))}</text>'
        )
    if network == "compute":
        parts.append(_groups(design, 110 + len(tiers) * STEP))
    media = np.bincount(design.cables.medium[design.cables.network == NETWORKS.index(network)], minlength=3)
    says = ", ".join(f"{n:,} {medium}" for medium, n in zip(MEDIA, media.tolist(), strict=True) if n)
    parts.append(f'<text class="c" x="{WIDE / 2}" y="52">{says}</text>')
    return "".join(parts)


def _tiers(found: dict[tuple[str, str], int]) -> list[list[str]]:
    """Kinds by how far they are above the lowest; a cable goes from a lower to a higher."""
    level = {kind: 0 for pair in found for kind in pair}
    for _ in level:
        for lower, upper in found:
            if upper != lower:
                level[upper] = max(level[upper], level[lower] + 1)
    ends = max(level.values())
    return [[kind for kind in level if level[kind] == at] for at in range(ends + 1)]


def _groups(design: Design, y: int) -> str:
    """Boxes of the groups that share spines, with the units in each."""
    units = units_of(design)
    counts = np.bincount(units.group)
    parts = [
        f'<text x="{WIDE / 2}" y="{y}">{len(units.group):,} units (nodes that share leaves) '
        f"in {units.groups:,} groups (units that share spines)</text>"
    ]
    shown = counts[:MANY].tolist()
    step = (WIDE - 40) / len(shown)
    for number, count in enumerate(shown):
        x = 20 + number * step
        parts.append(
            f'<rect x="{x:.0f}" y="{y + 14}" width="{step - 6:.0f}" height="36" rx="4" fill="#dfe8f7"/>'
            f'<text class="m" x="{x + step / 2 - 3:.0f}" y="{y + 36}">{count}</text>'
        )
    if len(counts) > MANY:
        parts.append(
            f'<text class="c" x="{WIDE / 2}" y="{y + 70}">and {len(counts) - MANY} more groups</text>'
        )
    return "".join(parts)
