"""
slurm.conf, gres.conf and topology.conf of a design.

The tree plugin: its leaves are the units of the fabric, nodes that share the leaves of all rails; above them
are the groups of units that share spines, and one core. The tree serves a Clos of any number of tiers;
the block plugin wants blocks of equal size that a job should fill, which a Clos without a rack-wide NVLink
domain has not. Slurm knows no rails: one name stands for all leaf switches of a unit.

Taken for granted, as the catalogue does not say it: processors and memory of a node, in one line of
slurm.conf. `slurmd -C` on a node prints what is true.
"""

from colossi.site.design import Design
from colossi.site.naming import Units, hostlist, units_of

PROCESSORS = "Boards=1 SocketsPerBoard=2 CoresPerSocket=56 ThreadsPerCore=1 RealMemory=2000000"  # DGX H100
SPARE_SECONDS = 300  # that a node may be silent before it is down; slurm.conf(5), SlurmdTimeout


def slurm_files(design: Design) -> dict[str, str]:
    """Text by name. Nodes are called as in the design, so that labels, racks and the scheduler agree."""
    units = units_of(design)
    return {
        "slurm.conf": _slurm_conf(design, units),
        "gres.conf": _gres_conf(design),
        "topology.conf": _topology_conf(units),
        "cgroup.conf": "ConstrainCores=yes\nConstrainDevices=yes\nConstrainRAMSpace=yes\n",
    }


def gpu_type(design: Design) -> str:
    """As jobs ask for it: gpu:h100-sxm:8."""
    return design.node.gpu.name.lower()


def _slurm_conf(design: Design, units: Units) -> str:
    lines = [
        f"# {design.name}: {design.nodes} nodes of {design.node.name}, in {len(units.group)} units.",
        f"ClusterName={_word(design.name)}",
        *(f"SlurmctldHost={host}" for host in controllers(design)),
        "SlurmUser=slurm",
        "AuthType=auth/munge",
        "StateSaveLocation=/var/spool/slurmctld",
        "SlurmdSpoolDir=/var/spool/slurmd",
        "SlurmctldPidFile=/run/slurmctld.pid",
        "SlurmdPidFile=/run/slurmd.pid",
        "SlurmctldLogFile=/var/log/slurm/slurmctld.log",
        "SlurmdLogFile=/var/log/slurm/slurmd.log",
        "ProctrackType=proctrack/cgroup",
        "TaskPlugin=task/cgroup,task/affinity",
        "JobAcctGatherType=jobacct_gather/none",
        "AccountingStorageType=accounting_storage/none",
        "MpiDefault=none",
        "",
        "# Whole GPUs, near to each other in the fabric.",
        "GresTypes=gpu",
        "SelectType=select/cons_tres",
        "SelectTypeParameters=CR_Core_Memory",
        "SchedulerType=sched/backfill",
        "TopologyPlugin=topology/tree",
        "",
        "# Messages go through a tree of nodes; a wide one is less deep.",
        "TreeWidth=256",
        "MessageTimeout=60",
        f"SlurmdTimeout={SPARE_SECONDS}",
        "ReturnToService=1",
        "JobRequeue=1",
        "",
        "# Assumed of every node; `slurmd -C` on one prints what is true.",
        f"NodeName=DEFAULT {PROCESSORS} Gres=gpu:{gpu_type(design)}:{design.node.gpus} State=UNKNOWN",
    ]
    halls = _halls(design)
    for (unit, hall), numbers in _by_unit(units, halls).items():
        features = f"{_word(design.halls[hall])},unit{unit:04d}"
        lines.append(f"NodeName={hostlist('node', numbers)} Feature={features}")
    lines.append("PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP")
    return "\n".join(lines) + "\n"


def controllers(design: Design) -> list[str]:
    """Management servers that run slurmctld: the first, and the second in case it is lost."""
    servers = [design.device_name(int(row)) for row in design.devices_of("management server")[:2]]
    return servers or ["slurmctld"]


def _gres_conf(design: Design) -> str:
    numbers = list(range(len(design.devices_of("node"))))
    last = design.node.gpus - 1
    amd = design.node.gpu.link == "xgmi"
    # Render nodes of the kernel's direct rendering manager count from 128.
    files = f"/dev/dri/renderD[128-{128 + last}]" if amd else f"/dev/nvidia[0-{last}]"
    return f"NodeName={hostlist('node', numbers)} Name=gpu Type={gpu_type(design)} File={files}\n"


def _topology_conf(units: Units) -> str:
    lines = [
        f"SwitchName=unit-{unit:04d} Nodes={hostlist('node', numbers)}"
        for (unit, _), numbers in _by_unit(units, [0] * len(units.unit)).items()
    ]
    of_group: dict[int, list[int]] = {}
    for unit, group in enumerate(units.group.tolist()):
        of_group.setdefault(group, []).append(unit)
    for group, members in of_group.items():
        lines.append(f"SwitchName=group-{group:04d} Switches={hostlist('unit', members, 4)}")
    if len(of_group) > 1:
        lines.append(f"SwitchName=core Switches={hostlist('group', list(of_group), 4)}")
    return "\n".join(lines) + "\n"


def _halls(design: Design) -> list[int]:
    """The hall of each node."""
    racks = design.devices.rack[design.devices_of("node")]
    return design.racks.hall[racks].tolist()


def _by_unit(units: Units, halls: list[int]) -> dict[tuple[int, int], list[int]]:
    """Numbers of nodes by unit and hall: a unit may straddle two halls."""
    found: dict[tuple[int, int], list[int]] = {}
    for number, (unit, hall) in enumerate(zip(units.unit.tolist(), halls, strict=True)):
        found.setdefault((unit, hall), []).append(number)
    return found


def _word(name: str) -> str:
    """Letters, digits and dashes, as Slurm's names may have."""
    return "".join(letter if letter.isalnum() else "-" for letter in name)
