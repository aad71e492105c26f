"""
Labels of cables for printing: a table of all, and sheets of stickers of one pod.

A cable has two stickers, one for each end: its own label in large letters, this end, then the far end.
Sheets are A4 with three by seven stickers of 63.5 by 38.1 mm, which label makers sell under many names. All
stickers of 100,000 GPUs would be 33,000 pages, so a sheet is for a pod, which is what is cabled in a day.
"""

import csv
import io
from collections.abc import Iterator

import numpy as np

from colossi.errors import BadInput
from colossi.site.design import NETWORKS, Design
from colossi.site.naming import WORDS, Names, media_of

COLUMNS, ROWS = 3, 7
WIDTH, HEIGHT, LEFT, TOP, GAP = 63.5, 38.1, 7.25, 15.15, 2.5  # [mm]
END = ("device", "port", "hall", "row", "rack", "unit")
HEADER = ("label", "network", "medium", "metres", *(f"{side}_{what}" for side in "ab" for what in END))


def label_table(design: Design, names: Names) -> str:
    """CSV: a row for each cable, both ends with hall, row, rack and unit."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(HEADER)
    writer.writerows(_rows(design, names))
    return out.getvalue()


def _rows(design: Design, names: Names) -> Iterator[tuple[object, ...]]:
    cables, devices, racks = design.cables, design.devices, design.racks
    rack = devices.rack.tolist()
    hall = [design.halls[each] for each in racks.hall.tolist()]
    row, unit = racks.row.tolist(), devices.unit.tolist()
    ends = [
        (names.devices[d], hall[rack[d]], row[rack[d]], names.racks[rack[d]], unit[d])
        for d in range(len(devices))
    ]
    columns = zip(
        names.cables,
        cables.network.tolist(),
        media_of(design).tolist(),
        cables.metres.tolist(),
        cables.lower.tolist(),
        names.ports[0],
        cables.upper.tolist(),
        names.ports[1],
        strict=True,
    )
    for label, network, medium, metres, a, a_port, b, b_port in columns:
        (device_a, *place_a), (device_b, *place_b) = ends[a], ends[b]
        what = (label, NETWORKS[network], WORDS[medium], f"{metres:g}")
        yield *what, device_a, a_port, *place_a, device_b, b_port, *place_b


def cables_of_pod(design: Design, pod: int) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Rows of the cables with an end in a rack of the pod. BadInput where there is no such pod."""
    if not 0 <= pod < design.pods:
        raise BadInput(f"--pod {pod}: {design.name} has pods 0 to {design.pods - 1}", "--pod 0")
    of_device = design.racks.pod[design.devices.rack]
    cables = design.cables
    return np.flatnonzero((of_device[cables.lower] == pod) | (of_device[cables.upper] == pod))


def label_sheets(design: Design, names: Names, pod: int) -> bytes:
    """PDF of the stickers of a pod's cables, in the order of racks and units, as they are met."""
    from fpdf import FPDF  # the extra "site"

    rows = cables_of_pod(design, pod)
    media = media_of(design)
    stickers = sorted(
        sticker for row in rows.tolist() for sticker in _stickers(design, names, row, WORDS[media[row]])
    )
    pdf = FPDF(format="A4")
    pdf.set_auto_page_break(False)
    pdf.set_title(f"{design.name}, pod {pod}: {len(rows)} cables")
    for number, (_, label, here, there, what) in enumerate(stickers):
        at = number % (COLUMNS * ROWS)
        if at == 0:
            pdf.add_page()
        x = LEFT + at % COLUMNS * (WIDTH + GAP) + 2.0
        y = TOP + at // COLUMNS * HEIGHT
        pdf.set_font("Helvetica", "B", 15)
        pdf.text(x, y + 9.0, label)
        pdf.set_font("Helvetica", "", 8.5)
        for line, text in enumerate((*here, *there, what)):
            pdf.text(x, y + 14.5 + 4.4 * line, text)
    return bytes(pdf.output())


def _stickers(
    design: Design, names: Names, row: int, medium: str
) -> Iterator[tuple[str, str, tuple[str, ...], tuple[str, ...], str]]:
    """Of both ends: place to sort by, label, this end, far end, what the cable is."""
    cables = design.cables
    ends = [
        (names.places[device], f"{names.devices[device]} {ports[row]}")
        for device, ports in (
            (int(cables.lower[row]), names.ports[0]),
            (int(cables.upper[row]), names.ports[1]),
        )
    ]
    what = f"{NETWORKS[cables.network[row]]}, {medium}, {cables.metres[row]:g} m"
    for near, far in (ends, ends[::-1]):
        yield near[0], names.cables[row], near, (f"to {far[0]}", far[1]), what
