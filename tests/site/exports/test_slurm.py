"""A real slurmctld on the files as they are written: it sees the tree, and places jobs by it."""

import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from colossi.site.design import Design
from colossi.site.exports.slurm import slurm_files
from colossi.site.naming import hostlist, units_of

from ...slurm.cluster import DIES_WITH_US, MUNGED_OPTIONS, SEARCH_PATH
from .small import large, small

PROGRAMS = ("munged", "slurmctld", "scontrol", "sbatch", "setpriv")

# What is of the place where slurmctld runs, not of the design.
PLACE = (
    "SlurmctldHost|SlurmUser|AuthType|StateSaveLocation|SlurmdSpoolDir|Slurm(?:ctld|d)(?:PidFile|LogFile)"
    "|ProctrackType|TaskPlugin"
)
HERE = """\
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={port}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool.%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmctldLogFile={folder}/slurmctld.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
# Nodes that count as powered down may be given to jobs, and nobody knocks at their doors.
PrivateData=cloud
ResumeProgram=/bin/true
SuspendProgram=/bin/true
SuspendTime=INFINITE
ResumeTimeout=600
"""


def missing() -> str:
    """What is absent here."""
    absent = [each for each in PROGRAMS if shutil.which(each, path=SEARCH_PATH) is None]
    if absent or os.geteuid() != 0:
        return f"{', '.join(absent) or 'root'} not found"
    return ""


@pytest.fixture(autouse=True)
def slurm() -> None:
    why = missing()
    if why and os.environ.get("COLOSSI_NEEDS_SLURM"):
        pytest.fail(why)
    if why:
        pytest.skip(why)


class Controller:
    """A slurmctld that runs, and how it is asked."""

    def __init__(self, folder: Path) -> None:
        self.env = os.environ | {"SLURM_CONF": str(folder / "slurm.conf"), "PATH": SEARCH_PATH}

    def ask(self, *command: object, fails: bool = False) -> str:
        """Standard output and error of one of Slurm's commands, which must go well unless it is to fail."""
        words = [str(word) for word in command]
        done = subprocess.run(
            words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert (done.returncode != 0) == fails, f"{words}: {done.stdout}"
        return done.stdout

    def placed(self, nodes: int, *options: str) -> list[int]:
        """Numbers of the nodes that a job of so many would get now."""
        said = self.ask("sbatch", "--test-only", f"-N{nodes}", "--gpus-per-node=8", *options, "--wrap=true")
        found = re.search(r"on nodes (\S+) in partition", said)
        assert found, said
        hosts = self.ask("scontrol", "show", "hostnames", found[1]).split()
        assert all(re.fullmatch(r"node-\d{5}", host) for host in hosts)
        return [int(host[-5:]) for host in hosts]


@contextmanager
def controller(design: Design, folder: Path) -> Iterator[Controller]:
    """slurmctld on the design's own files; only the lines of PLACE and the nodes' state are others."""
    for name, text in slurm_files(design).items():
        (folder / name).write_text(text)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    own = (folder / "slurm.conf").read_text()
    kept = re.sub(rf"^(?:{PLACE})=.*\n", "", own, flags=re.MULTILINE).replace("State=UNKNOWN", "State=CLOUD")
    here = HERE.format(host=socket.gethostname(), port=port, folder=folder)
    (folder / "slurm.conf").write_text(here + kept)
    (folder / "cgroup.conf").write_text("CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n")
    (folder / "munge.key").write_bytes(os.urandom(1024))
    (folder / "munge.key").chmod(0o400)
    it = Controller(folder)
    daemons = []
    try:
        options = [option.format(folder) for option in MUNGED_OPTIONS]
        daemons.append(_started(folder, it, "munged", *options))
        _until(lambda: (folder / "munge.socket").is_socket())
        daemons.append(_started(folder, it, "slurmctld", "-D"))
        _until(
            lambda: (
                subprocess.run(["scontrol", "ping"], env=it.env, capture_output=True).returncode == 0
                and "UP" in it.ask("scontrol", "ping")
            )
        )
        yield it
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def _started(folder: Path, it: Controller, name: str, *options: str) -> subprocess.Popen[bytes]:
    with (folder / f"{name}.out").open("wb") as out:
        return subprocess.Popen(
            [*DIES_WITH_US, name, *options],
            env=it.env,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            start_new_session=True,
        )


def _until(true: "object") -> None:
    end = time.monotonic() + 180
    assert callable(true)
    while not true():
        assert time.monotonic() < end, "nothing answers"
        time.sleep(0.1)


def check(design: Design, it: Controller, half: int) -> None:
    """The tree is the fabric's; jobs fill whole units and groups."""
    units = units_of(design)
    shown = it.ask("scontrol", "show", "topology")
    leaves = re.findall(r"SwitchName=(unit-\d+) Level=0 LinkSpeed=\d+ Nodes=(\S+)", shown)
    assert len(leaves) == len(units.group)
    for name, nodes in leaves:
        members = np.flatnonzero(units.unit == int(name[5:])).tolist()
        assert nodes == hostlist("node", members)
    assert len(re.findall(r"SwitchName=group-\d+ Level=1", shown)) == units.groups
    assert ("SwitchName=core Level=2" in shown) == (units.groups > 1)

    gpus = design.node.gpus
    node = it.ask("scontrol", "show", "node", "node-00000")
    assert f"Gres=gpu:{design.node.gpu.name.lower()}:{gpus}" in node

    # A unit's worth of nodes fits under one switch: the same leaves for all of them.
    size = int(np.bincount(units.unit)[0])
    one = it.placed(size, "--switches=1")
    assert len(one) == size and len(set(units.unit[one].tolist())) == 1
    # One more does not; with any number of switches it does.
    if units.groups > 1:
        it.ask(
            "sbatch",
            "--test-only",
            f"-N{half}",
            "--gpus-per-node=8",
            "--switches=1",
            "--wrap=true",
            fails=True,
        )
    # Half of the machine: as few groups as can be.
    many = it.placed(half)
    assert len(many) == half
    biggest = np.sort(np.bincount(units.group[units.unit]))[::-1]
    fewest = int(np.searchsorted(np.cumsum(biggest), half)) + 1
    assert len(set(units.group[units.unit[many]].tolist())) == fewest


def test_slurmctld_reads_a_small_design(tmp_path: Path) -> None:
    with controller(small(), tmp_path) as it:
        check(small(), it, 48)


@pytest.mark.long
def test_slurmctld_places_12500_of_25000_nodes(tmp_path: Path) -> None:
    design = large()
    assert len(design.devices_of("node")) == 25_000
    with controller(design, tmp_path) as it:
        check(design, it, 12_500)
