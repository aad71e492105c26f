"""The floor plan of a hall as SVG: a rectangle for each rack, to scale, in metres."""

import numpy as np

from colossi.site.design import KINDS, Design
from colossi.site.drawing.paint import STYLE, escape, main_kinds

DEPTH = 1.2  # of a rack [m]; the design says where a rack's front left corner is, not how deep it is
WIDTH = 0.6  # where there is no neighbour to measure it by
MARGIN = 2.0


def floor_plan(design: Design, hall: int, names: list[str]) -> str:
    """SVG of a hall; each rack is `<rect id="r12">` by its row in the design, with its name as a title."""
    racks = design.racks
    mine = np.flatnonzero(racks.hall == hall)
    width = rack_width(design)
    kinds = main_kinds(design)
    across = float(racks.x[mine].max(initial=0.0)) + width + MARGIN
    along = float(racks.y[mine].max(initial=0.0)) + DEPTH + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {across:.2f} {along:.2f}" class="floor">',
        f"<style>{STYLE}.floor rect{{stroke:#fff;stroke-width:.04}}.e{{fill:#eee}}.row{{font-size:.8px}}",
        "</style>",
        f'<rect width="{across:.2f}" height="{along:.2f}" fill="#f6f7f9"/>',
        f"<title>Hall {escape(design.halls[hall])}: {len(mine)} racks</title>",
    ]
    for rack in mine.tolist():
        kind = kinds[rack]
        pod = f", pod {racks.pod[rack]}" if racks.pod[rack] >= 0 else ""
        says = (
            f"{names[rack]}: {KINDS[kind] if kind >= 0 else 'empty'}, {racks.watts[rack] / 1e3:.1f} kW{pod}"
        )
        parts.append(
            f'<rect id="r{rack}" class="{f"k{kind}" if kind >= 0 else "e"}" x="{racks.x[rack]:.2f}" '
            f'y="{racks.y[rack]:.2f}" width="{width:.2f}" height="{DEPTH}"><title>{escape(says)}</title>'
            "</rect>"
        )
    rows, first = np.unique(racks.row[mine], return_index=True)
    for row, at in zip(rows.tolist(), first.tolist(), strict=True):
        y = racks.y[mine[at]] + DEPTH / 2 + 0.3
        parts.append(f'<text class="row" x=".2" y="{y:.2f}">r{row:02d}</text>')
    return "".join(parts) + "</svg>\n"


def rack_width(design: Design) -> float:
    """The least distance between neighbours in a row [m]."""
    racks = design.racks
    order = np.lexsort((racks.x, racks.row, racks.hall))
    same = (np.diff(racks.hall[order]) == 0) & (np.diff(racks.row[order]) == 0)
    steps = np.diff(racks.x[order])[same]
    steps = steps[steps > 1e-6]
    return float(steps.min()) if len(steps) else WIDTH
