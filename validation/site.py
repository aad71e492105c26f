# ruff: noqa: T201 (a script talks by printing)
"""
Designs beside published ones: `PYTHONPATH=src python validation/site.py`.

The first table is NVIDIA's 20 rows of reference designs, each built whole (racks, ports, cables) and
counted in what was built. The second has what is publicly known of real sites; a published figure that is a
bound or a round number is compared as such, and what we miss says so.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from colossi.site.cluster import design
from colossi.site.design import KINDS, NETWORKS, Design
from colossi.site.summary import facts_of
from colossi.spec import Spec, read_spec
from colossi.spec.read import build_spec

ROOT = Path(__file__).parents[1]
TIERS = (("node", "leaf"), ("leaf", "spine"), ("spine", "core"))

# NVIDIA, DGX SuperPOD reference architectures, "network fabrics" (docs.nvidia.com): nodes, then leaves,
# spines, cores, cables node-leaf (with the fabric managers'), leaf-spine, spine-core. 1,296 nodes are printed
# there as 9,216 GPUs, a misprint for 10,368.
H100 = ("DGX-H100", {"managers": 4})
B200 = ("DGX-B200", {})
SPECTRUM = ("DGX-B300", {"radix": 128, "gigabits": 400.0, "planes": 2, "ports_per_cable": 2})
XDR = ("DGX-B300", {"radix": 144, "gigabits": 800.0})
TABLES = (
    ("H100", H100, 31, (8, 4, 0, 252, 256, 0)),
    ("H100", H100, 63, (16, 8, 0, 508, 512, 0)),
    ("H100", H100, 95, (24, 16, 0, 764, 768, 0)),
    ("H100", H100, 127, (32, 16, 0, 1020, 1024, 0)),
    ("B200", B200, 64, (16, 8, 0, 512, 512, 0)),
    ("B200", B200, 128, (32, 16, 0, 1024, 1024, 0)),
    ("B200", B200, 256, (64, 32, 0, 2048, 2048, 0)),
    ("B200", B200, 512, (128, 128, 64, 4096, 4096, 4096)),
    ("B200", B200, 1024, (256, 256, 128, 8192, 8192, 8192)),
    ("B200", B200, 2048, (512, 512, 256, 16384, 16384, 16384)),
    ("B300 Spectrum-X", SPECTRUM, 64, (16, 8, 0, 512, 512, 0)),
    ("B300 Spectrum-X", SPECTRUM, 128, (32, 16, 0, 1024, 1024, 0)),
    ("B300 Spectrum-X", SPECTRUM, 256, (64, 32, 0, 2048, 2048, 0)),
    ("B300 Spectrum-X", SPECTRUM, 512, (128, 64, 0, 4096, 4096, 0)),
    ("B300 Spectrum-X", SPECTRUM, 1024, (256, 128, 0, 8192, 8192, 0)),
    ("B300 XDR", XDR, 72, (8, 4, 0, 576, 576, 0)),
    ("B300 XDR", XDR, 144, (16, 8, 0, 1152, 1152, 0)),
    ("B300 XDR", XDR, 288, (32, 18, 0, 2304, 2304, 0)),
    ("B300 XDR", XDR, 576, (64, 36, 0, 4608, 4608, 0)),
    ("B300 XDR", XDR, 1296, (144, 72, 0, 10368, 10368, 0)),
)


def reference(server: tuple[str, dict[str, object]], nodes: int) -> Design:
    """A reference design on a site that is large enough."""
    fabric = {"radix": 64, "gigabits": 400.0} | server[1]
    site = {
        "halls": [{"name": "h", "length": 200.0, "width": 100.0}],
        "feeds": [{"name": "a", "megawatts": 100.0}],
        "rack": {"nodes": 4, "kilowatts": 60.0},
    }
    if fabric.get("planes") == 2:
        site["switch"] = "SN5600"
    cluster = {"node": server[0], "gpus": 8 * nodes}
    return design(
        build_spec({"name": "reference", "cluster": cluster, "fabric": fabric, "site": site}, "here")
    )


def counted(found: Design) -> tuple[int, ...]:
    """Switches of each tier, and cables between the tiers: ports that share a cage share a cable."""
    cables, kind = found.cables, found.devices.kind
    lanes = (
        2
        if found.node.name == "DGX-B300" and len(np.unique(cables.lower_port[cables.lower == 0])) > 10
        else 1
    )
    between = []
    for lower, upper in TIERS:
        below = [KINDS.index(lower)] + ([KINDS.index("manager")] if lower == "node" else [])
        mine = (
            (cables.network == NETWORKS.index("compute"))
            & np.isin(kind[cables.lower], below)
            & (kind[cables.upper] == KINDS.index(upper))
        )
        cages = cables.lower[mine].astype(np.int64) << 32 | cables.lower_port[mine] // lanes
        between.append(len(np.unique(cages)))
    return (*(len(found.devices_of(upper)) for _, upper in TIERS), *between)


def tables() -> list[str]:
    """The 20 rows: ours, and the published ones where they differ."""
    lines = [
        f"{'NVIDIA DGX SuperPOD':18}{'nodes':>6}{'leaf':>6}{'spine':>7}{'core':>6}{'cables':>9}{'':>8}{'':>8}"
    ]
    right = 0
    for name, server, nodes, published in TABLES:
        ours = counted(reference(server, nodes))
        right += ours == published
        said = "as published" if ours == published else f"published {published}"
        leaf, spine, core, *cables = ours
        rows = "".join(f"{each:>8}" for each in cables)
        lines.append(f"{name:18}{nodes:>6}{leaf:>6}{spine:>7}{core:>6} {rows}  {said}")
    return [*lines, f"{right} of {len(TABLES)} rows as published"]


@dataclass(frozen=True)
class Fact:
    """What is published, as written, and its grade: A first party, B press, C analysts."""

    what: str
    published: str
    grade: str
    ours: Callable[[Design, dict], float]  # type: ignore[type-arg]
    holds: Callable[[float], bool]
    form: str = ",.0f"


def near(value: float, share: float) -> Callable[[float], bool]:
    """Within so much of it."""
    return lambda ours: abs(ours / value - 1) <= share


def _ports(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    """Fast ports of the first server, at 400 Gb/s each [Tb/s]."""
    fast = found.cables.network != NETWORKS.index("management")
    return 0.4 * int(((found.cables.lower == 0) & fast).sum())


def _racks(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    return len(np.unique(found.devices.rack[: found.nodes]))


def _gpus_a_hall(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    hall = found.racks.hall[found.devices.rack[: found.nodes]]
    return float(np.bincount(hall).max()) * found.node.gpus


def _gpus_a_rack(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    return float(np.bincount(found.devices.rack[: found.nodes]).max()) * found.node.gpus


def _tiers(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    return 3 if len(found.devices_of("core")) else 2


def _links(found: Design, _: dict) -> float:  # type: ignore[type-arg]
    return int((found.cables.network == NETWORKS.index("compute")).sum())


COLOSSUS = (
    Fact("GPUs a rack", "64", "B", _gpus_a_rack, near(64, 0)),
    Fact(
        "racks an array", "8", "B", lambda d, f: int((d.racks.liquid & (d.racks.pod == 0)).sum()), near(8, 0)
    ),
    Fact("arrays", "about 200", "B", lambda d, f: d.pods, near(200, 0.05)),
    Fact("racks of GPUs", "more than 1,500", "B", _racks, lambda n: 1500 < n < 1600),
    Fact("GPUs a hall, of four", "about 25,000", "B", _gpus_a_hall, near(25_000, 0.05)),
    Fact("Tb/s a server", "3.6", "B", _ports, near(3.6, 1e-9), ".1f"),
    Fact("tiers of the fabric", "3", "A via B", _tiers, near(3, 0)),
    Fact(
        "kW a rack, rated",
        "more than 60",
        "C",
        lambda d, f: f["racks"][0]["kilowatts_at_most"],
        lambda n: n > 60,
        ".1f",
    ),
    Fact(
        "MW of the site",
        "more than 150",
        "C",
        lambda d, f: f["power"]["site_megawatts"],
        lambda n: n > 150,
        ".1f",
    ),
    Fact(
        "TWh a year, always at full load",
        "1.59",
        "C",
        lambda d, f: f["power"]["site_megawatts"] * 8760 / 1e6,
        near(1.59, 0.05),
        ".2f",
    ),
)
DOUBLED = (
    Fact(
        "200,000 GPUs: MW of the site",
        "300 from the grid",
        "B",
        lambda d, f: f["power"]["site_megawatts"],
        near(300, 0.05),
        ".1f",
    ),
)
META = (
    Fact("Meta 24k: racks of nodes", "1,536", "C", _racks, near(1536, 0)),
    Fact("Meta 24k: pods", "8", "C", lambda d, f: d.pods, near(8, 0)),
    Fact("Meta 24k: racks a pod", "192", "C", lambda d, f: _racks(d, f) / d.pods, near(192, 0)),
)
IMBUE = (
    Fact("Imbue 511 nodes: tiers", "3", "A", _tiers, near(3, 0)),
    Fact("Imbue: links", "more than 12,000", "A", _links, lambda n: 12_000 < n < 13_000),
)
SUPERPOD = (Fact("SuperPOD H100, 127 nodes: racks", "38", "B", lambda d, f: len(d.racks), near(38, 0.05)),)


def sites() -> list[tuple[Spec, tuple[Fact, ...]]]:
    """Specs of what is published, and the facts."""
    hall = {"name": "h", "length": 200.0, "width": 100.0}
    roomy = {"halls": [hall], "feeds": [{"name": "a", "megawatts": 100.0}]}
    meta = {
        "name": "meta",
        "cluster": {"node": "Grand-Teton-H100", "gpus": 24_576},
        "site": roomy | {"racks_per_pod": 192, "rack": {"nodes": 2}},
    }
    imbue = {
        "name": "imbue",
        "cluster": {"node": "DGX-H100", "gpus": 511 * 8},
        "fabric": {"managers": 8},
        "site": roomy,
    }
    superpod = {
        "name": "superpod",
        "cluster": {"node": "DGX-H100", "gpus": 127 * 8},
        "fabric": {"managers": 4},
        "site": roomy,
    }
    colossus = ROOT / "examples/colossus.toml"
    return [
        (read_spec(colossus), COLOSSUS),
        (read_spec(colossus, ["cluster.gpus=200000"]), DOUBLED),
        (build_spec(meta, "here"), META),
        (build_spec(imbue, "here"), IMBUE),
        (build_spec(superpod, "here"), SUPERPOD),
    ]


def facts() -> list[str]:
    """A line for each, ours beside theirs."""
    lines = [f"{'public facts':34}{'published':>20}{'grade':>9}{'ours':>10}"]
    for spec, rows in sites():
        assert spec.site is not None
        found = design(spec)
        known = facts_of(found, spec.site)
        for fact in rows:
            ours = fact.ours(found, known)
            miss = "" if fact.holds(ours) else "  MISS"
            lines.append(f"{fact.what:34}{fact.published:>20}{fact.grade:>9}{ours:>10{fact.form}}{miss}")
    return lines


if __name__ == "__main__":
    print("\n".join([*tables(), "", *facts()]))
