"""
All files of a design in one folder, with a README that says what each is for and how it is loaded.

Each file is whole or not there (colossi.files); a folder that is exported into again has its files replaced.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from colossi.errors import BadInput
from colossi.files import write_whole
from colossi.site.design import Design
from colossi.site.drawing.elevation import elevations
from colossi.site.drawing.fabric import fabric_diagram
from colossi.site.drawing.floor import floor_plan
from colossi.site.drawing.page import page
from colossi.site.exports.ansible import inventory
from colossi.site.exports.containerlab import containerlab
from colossi.site.exports.grafana import dashboard
from colossi.site.exports.kubernetes import kubernetes_files
from colossi.site.exports.labels import cables_of_pod, label_sheets, label_table
from colossi.site.exports.nccl import nccl_topology
from colossi.site.exports.netbox import netbox_files
from colossi.site.exports.prometheus import prometheus_files
from colossi.site.exports.slurm import slurm_files
from colossi.site.naming import Names

Tell = Callable[[str, float, float | None], None]  # label, done, total
Content = dict[str, str | bytes]

README = """\
# {name}: hand-over files

{nodes:,} nodes of {model}, {racks:,} racks, {cables:,} cables. Devices, racks and cables have the same names in
every file here. What the design does not know, and each file assumes, is said where it is assumed.

| file | for | how |
|---|---|---|
| `index.html` | people: floor, racks, fabric, bill; search for a cable, device or rack | open it in a browser |
| `drawings/*.svg` | the same pictures alone: a plan of each hall, rack arrangements, the fabric | any browser, Inkscape |
| `slurm/` | slurmctld and slurmd: nodes, GPUs, the tree of units and groups | to /etc/slurm on all nodes; first put what `slurmd -C` prints on a node into the line `NodeName=DEFAULT` |
| `netbox/` | NetBox 4: sites, racks, device types, devices, cables | bulk import, in the order of the numbers; `interfaces.csv` only if you use device types of your own. NetBox reads a file within one request: cut the long ones into some thousand rows each, with the header |
| `kubernetes/nodes.yaml` | labels of nodes | `kubectl apply --server-side -f nodes.yaml`, once the nodes are there |
| `kubernetes/kueue.yaml` | Kueue (0.14 or later): Topology and ResourceFlavor | `kubectl apply -f kueue.yaml` |
| `ansible/inventory.ini` | Ansible: groups by kind, hall and pod | `ansible -i inventory.ini pod_0000 -m ping` |
| `prometheus/` | Prometheus: targets with hall, row, rack, pod as labels | the folder is its working folder: `prometheus --config.file=prometheus.yml` |
| `grafana/dashboard.json` | Grafana | Dashboards, Import |
| `nccl/topology.xml` | NCCL or RCCL, in virtual machines | put true PCI addresses in (`lspci -D`), then `NCCL_TOPO_FILE=topology.xml` |
| `containerlab/slice.clab.yml` | containerlab: a slice of the fabric on one machine | `containerlab deploy -t slice.clab.yml` |
| `labels/cables.csv` | a label printer: every cable, both ends | |
| `labels/pod-*.pdf` | stickers of one pod's cables, 21 to an A4 sheet of 63.5 x 38.1 mm | print at 100%; `--pod N` for another pod |
"""


def write_all(design: Design, folder: Path, pod: int, tell: Tell) -> list[Path]:
    """Write every file; the paths, in order. BadInput where the pod is none, or the folder cannot be written."""
    cables_of_pod(design, pod)
    names = Names(design)
    written = []
    try:
        for number, (part, content) in enumerate(parts(design, names, pod)):
            for name, text in content.items():
                path = folder / part / name
                path.parent.mkdir(parents=True, exist_ok=True)
                write_whole(path, text)
                written.append(path)
            tell("export", number + 1, PARTS)
    except OSError as error:
        raise BadInput(f"{folder}: cannot be written: {error.strerror}", "give a folder") from None
    return written


PARTS = 11  # that `parts` yields


def parts(design: Design, names: Names, pod: int) -> Iterator[tuple[str, Content]]:
    """Folder and its files, one after the other, as the largest fill some hundred megabytes."""
    yield "", {"README.md": _readme(design)}
    yield "drawings", _drawings(design, names)
    yield "slurm", dict(slurm_files(design))
    yield "kubernetes", dict(kubernetes_files(design, names))
    yield "ansible", {"inventory.ini": inventory(design)}
    yield "prometheus", dict(prometheus_files(design, names))
    yield "grafana", {"dashboard.json": dashboard(design)}
    yield (
        "",
        {
            "nccl/topology.xml": nccl_topology(design.node),
            "containerlab/slice.clab.yml": containerlab(design, names),
        },
    )
    yield "netbox", dict(netbox_files(design, names))
    yield (
        "labels",
        {
            "cables.csv": label_table(design, names),
            f"pod-{pod:04d}.pdf": label_sheets(design, names, pod),
        },
    )
    yield "", {"index.html": page(design, names)}


def _drawings(design: Design, names: Names) -> Content:
    plans: Content = {
        f"floor-{name}.svg": floor_plan(design, hall, names.racks) for hall, name in enumerate(design.halls)
    }
    return plans | {"racks.svg": elevations(design, names.racks), "fabric.svg": fabric_diagram(design)}


def _readme(design: Design) -> str:
    return README.format(
        name=design.name,
        nodes=design.nodes,
        model=design.node.name,
        racks=len(design.racks),
        cables=len(design.cables),
    )
