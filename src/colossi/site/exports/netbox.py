"""
NetBox bulk import: a file for each form, numbered in the order in which they are to be loaded.

Columns are those of NetBox 4's import forms (netbox/dcim/forms/bulk_import.py of v4.6.8). Device types carry
their interfaces, so that devices come with them; interfaces.csv is for those who have device types of these
models already, whose ports are called otherwise.
"""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence

import yaml

from colossi.site.design import KINDS, NETWORKS, Design
from colossi.site.naming import NIC, WORDS, Names, first_ports, kinds_of, media_of, model_of, switches
from colossi.spec.equipment import switch, switch_names

MANUFACTURER = "As designed"  # the catalogue does not say who makes a thing
CABLE_TYPES = {"DAC": "dac-passive", "AOC": "aoc", "fibre": "smf", "Cat6": "cat6"}
COLORS = ("3f51b5", "2196f3", "009688", "4caf50", "ffc107", "ff9800", "ff5722", "9c27b0")
INFINIBAND = {200: "infiniband-hdr", 400: "infiniband-ndr", 800: "infiniband-xdr"}  # by Gb/s of a port
ETHERNET = {
    1: "1000base-t",
    100: "100gbase-x-qsfp28",
    200: "200gbase-x-qsfp56",
    400: "400gbase-x-osfp",
    800: "800gbase-x-osfp",
}
Row = Sequence[object]


def netbox_files(design: Design, names: Names) -> dict[str, str]:
    """Text by name."""
    site = design.name
    kinds = kinds_of(design)
    roles = ((kind, _slug(kind), color) for kind, color in zip(kinds, COLORS * 2, strict=False))
    halls = ((site, hall, _slug(f"{site}-{hall}"), "planned") for hall in design.halls)
    return {
        "01-sites.csv": _table("name,slug,status", [(site, _slug(site), "planned")]),
        "02-locations.csv": _table("site,name,slug,status", halls),
        "03-racks.csv": _table(
            "site,location,name,status,width,u_height,weight,weight_unit,description", _racks(design, names)
        ),
        "04-manufacturers.csv": _table("name,slug", [(MANUFACTURER, _slug(MANUFACTURER))]),
        "05-device-roles.csv": _table("name,slug,color", roles),
        "06-device-types.yaml": yaml.safe_dump_all(
            device_types(design), sort_keys=False, explicit_start=True
        ),
        "07-devices.csv": _table(
            "name,role,manufacturer,device_type,status,site,location,rack,position,face",
            _devices(design, names),
        ),
        "08-cables.csv": _table(
            "side_a_device,side_a_type,side_a_name,side_b_device,side_b_type,side_b_name,"
            "type,status,label,length,length_unit",
            _cables(design, names),
        ),
        "interfaces.csv": _table("device,name,type", _interfaces(design, names)),
    }


def _table(header: str, rows: Iterable[Row]) -> str:
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header.split(","))
    writer.writerows(rows)
    return out.getvalue()


def _racks(design: Design, names: Names) -> Iterator[Row]:
    racks = design.racks
    height = int((design.devices.unit + design.devices.height - 1).max(initial=42))
    for row, name in enumerate(names.racks):
        says = f"{racks.watts[row] / 1e3:.1f} kW, pod {racks.pod[row]}" if racks.pod[row] >= 0 else "all pods"
        hall = design.halls[racks.hall[row]]
        yield (
            design.name,
            hall,
            name,
            "planned",
            19,
            max(height, 42),
            f"{racks.kilograms[row]:.1f}",
            "kg",
            says,
        )


def device_types(design: Design) -> list[dict[str, object]]:
    """A model for each kind, with all interfaces that any device of the kind uses, and a switch's others."""
    found = []
    kinds = design.devices.kind
    for kind in kinds_of(design):
        rows = kinds == KINDS.index(kind)
        model = _model(design, kind)
        height = int(design.devices.height[rows].max())
        interfaces = [{"name": name, "type": type_} for name, type_ in ports_of(design, kind)]
        found.append(
            {
                "manufacturer": MANUFACTURER,
                "model": model,
                "slug": _slug(model),
                "u_height": height,
                "is_full_depth": True,
                "interfaces": interfaces,
            }
        )
    return found


def ports_of(design: Design, kind: str) -> list[tuple[str, str]]:
    """Name and NetBox's type of each interface of a kind of device."""
    cables, number = design.cables, KINDS.index(kind)
    own = switches()[number]
    first = first_ports(design)[number]
    found: list[tuple[str, str]] = []
    for column, network in enumerate(NETWORKS):
        ports = 0
        for ends, at in ((cables.lower, cables.lower_port), (cables.upper, cables.upper_port)):
            mine = (design.devices.kind[ends] == number) & (cables.network == column)
            ports = max(ports, int(at[mine].max(initial=-1)) + 1)
        if own[column]:
            model = model_of(design, kind)
            ports = max(ports, switch(model).ports if model in switch_names() else 0)
            found += [(f"p{port + 1}", interface_type(design, network)) for port in range(ports)]
        else:
            count = max(0, ports - int(first[column]))
            found += [(f"{NIC[network]}{port}", interface_type(design, network)) for port in range(count)]
    return found


def interface_type(design: Design, network: str) -> str:
    """NetBox's word for a port of the network, by its leaves' model; "other" where the catalogue has none."""
    prefix = "" if network == "compute" else f"{network} "
    model = model_of(design, f"{prefix}leaf")
    if model not in switch_names():
        return "other"
    found = switch(model)
    types = INFINIBAND if found.network == "infiniband" else ETHERNET
    return types.get(round(found.gigabits), "other")


def _model(design: Design, kind: str) -> str:
    """Two kinds of switches may be of one model; their device types differ by what is cabled, not by name."""
    model = model_of(design, kind)
    return model if kind == "node" or _slug(model) == _slug(kind) else f"{model} {kind}"


def _devices(design: Design, names: Names) -> Iterator[Row]:
    devices, racks = design.devices, design.racks
    models = {number: _model(design, kind) for number, kind in enumerate(KINDS)}
    columns = zip(
        names.devices,
        devices.kind.tolist(),
        devices.rack.tolist(),
        devices.unit.tolist(),
        devices.height.tolist(),
        strict=True,
    )
    hall = racks.hall.tolist()
    for name, kind, rack, unit, height in columns:
        mounted = (unit, "front") if height else ("", "")
        place = (design.name, design.halls[hall[rack]], names.racks[rack])
        yield name, KINDS[kind], MANUFACTURER, models[kind], "planned", *place, *mounted


def _interfaces(design: Design, names: Names) -> Iterator[Row]:
    cables = design.cables
    types = [interface_type(design, network) for network in NETWORKS]
    network = cables.network.tolist()
    for ends, ports in zip((cables.lower.tolist(), cables.upper.tolist()), names.ports, strict=True):
        for device, port, net in zip(ends, ports, network, strict=True):
            yield names.devices[device], port, types[net]


def _cables(design: Design, names: Names) -> Iterator[Row]:
    cables = design.cables
    types = [CABLE_TYPES[medium] for medium in WORDS]
    columns = zip(
        cables.lower.tolist(),
        names.ports[0],
        cables.upper.tolist(),
        names.ports[1],
        media_of(design).tolist(),
        names.cables,
        cables.metres.tolist(),
        strict=True,
    )
    device, what = names.devices, "dcim.interface"
    for lower, port, upper, other, medium, label, metres in columns:
        ends = (device[lower], what, port, device[upper], what, other)
        yield *ends, types[medium], "planned", label, f"{metres:g}", "m"


def _slug(name: str) -> str:
    return "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in name.lower()).strip(
        "-"
    )
