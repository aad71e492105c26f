"""
All files of a design in one folder, with a README that says what each is for and how it is loaded.

Each file is whole or not there (colossi.files); a folder that is exported into again has its files replaced.
"""

from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path

from colossi.errors import BadInput
from colossi.files import write_whole
from colossi.site.design import Design
from colossi.site.drawing.elevation import elevations
from colossi.site.drawing.fabric import fabric_diagram
from colossi.site.drawing.floor import floor_plan
from colossi.site.drawing.page import page, summary
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


def write_all(design: Design, folder: Path, pod: int, tell: Tell) -> list[Path]:
    """Write every file; the paths, in order. BadInput where there is no such pod, or no such folder."""
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
    text = files("colossi.site.exports").joinpath("readme.md").read_text(encoding="utf-8")
    return text.replace("NAME", design.name, 1).replace("SUMMARY", summary(design), 1)
