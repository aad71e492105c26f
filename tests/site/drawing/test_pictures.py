"""Pictures are well-formed and show what the design has."""

import re
from xml.etree import ElementTree

import numpy as np

from colossi.site.design import KINDS
from colossi.site.drawing.elevation import arrangements, elevations
from colossi.site.drawing.fabric import fabric_diagram, joints
from colossi.site.drawing.floor import floor_plan

from ..exports.small import large, names, small

SVG = "{http://www.w3.org/2000/svg}"


def test_the_floor_plan_has_each_rack_of_the_hall_where_it_stands() -> None:
    design = small()
    picture = ElementTree.fromstring(floor_plan(design, 0, names().racks))
    racks = {each.get("id"): each for each in picture.iter(f"{SVG}rect") if each.get("id")}
    assert set(racks) == {f"r{rack}" for rack in range(len(design.racks))}
    boxes = [
        tuple(float(each.get(key) or 0) for key in ("x", "y", "width", "height")) for each in racks.values()
    ]
    for rack, box in enumerate(boxes):
        assert abs(box[0] - design.racks.x[rack]) < 0.01 and abs(box[1] - design.racks.y[rack]) < 0.01
    for number, (x, y, wide, tall) in enumerate(boxes):
        for left, top, width, height in boxes[number + 1 :]:
            beside = x + wide <= left + 0.011 or left + width <= x + 0.011
            assert beside or y + tall <= top + 0.011 or top + height <= y + 0.011
    titles = [each.text or "" for each in picture.iter(f"{SVG}title")]
    assert any(title.startswith("h1-r") and "node" in title and "pod 1" in title for title in titles)


def test_arrangements_cover_all_racks_and_all_devices() -> None:
    design = small()
    listed = arrangements(design)
    racks = [rack for each in listed for rack in each.racks]
    assert sorted(racks) == list(range(len(design.racks)))
    assert sum(len(each.racks) * len(each.things) for each in listed) == len(design.devices)
    picture = ElementTree.fromstring(elevations(design, names().racks))
    said = [each.text or "" for each in picture.iter(f"{SVG}text")]
    assert sum(int(text.split(" x as ")[0]) for text in said if " x as " in text) == len(design.racks)
    # A hall of 100,000 GPUs is still a picture that one can look at.
    assert len(arrangements(large(100_000))) < 100


def test_the_fabric_says_how_many_of_everything() -> None:
    design = small()
    # By hand: 64 nodes with 8 NICs; 16 leaves with 32 ports up; 64 nodes with a port for storage.
    assert joints(design, "compute") == {("node", "leaf"): 512, ("leaf", "spine"): 512}
    assert joints(design, "storage")["node", "storage leaf"] == 64
    picture = ElementTree.fromstring(fabric_diagram(design))
    said = [each.text or "" for each in picture.iter(f"{SVG}text")]
    for kind in KINDS:
        count = int(np.count_nonzero(design.devices.kind == KINDS.index(kind)))
        assert (f"{count:,} {kind}" in said) == bool(count), kind
    assert any(re.match(r"2 units .* 1 groups", text) for text in said)
    assert len(fabric_diagram(large(100_000))) < 50_000
