"""
A real Slurm on this machine, for tests: munged, slurmctld, and four slurmd in two racks.

A node is a PID namespace with a host name, an address and a /dev/shm of its own. So SIGKILL to its first
process takes the slurmd, its steps and whatever these have started, in one stroke, as a dying machine does;
and a run cannot find by chance, in memory or on 127.0.0.1, what a real cluster would keep from it.
Each daemon dies with the process that started it: nothing is left behind, however the tests end.
Knows Slurm and nothing of colossi.
"""

import getpass
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from string import Template

RACKS = {"leaf1": ("n1", "n2"), "leaf2": ("n3", "n4")}
NODES = tuple(node for nodes in RACKS.values() for node in nodes)
ADDRESSES = {node: f"127.0.1.{number}" for number, node in enumerate(NODES, 1)}
SEARCH_PATH = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"  # where Debian has the daemons
PROGRAMS = ("munged", "slurmctld", "slurmd", "srun", "unshare", "setpriv")

SLURM_CONF = Template("""\
ClusterName=colossi
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmUser=$user
SlurmdUser=$user
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool.%n
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.%n.pid

# A munged of our own. A requeued job waits until its old credentials expire; less than 5 [s] counts as 120.
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket,cred_expire=5

# Nothing that needs a cgroup or a database; a node may have more cores than the machine.
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SlurmdParameters=config_overrides
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
TopologyPlugin=topology/tree

# A node that does not answer is down after SlurmdTimeout [s], and back as soon as it registers again.
SlurmdTimeout=3
ReturnToService=2
SlurmctldTimeout=10
MessageTimeout=4
KillWait=5
InactiveLimit=0
MinJobAge=600
JobRequeue=1
SchedulerType=sched/backfill
SchedulerParameters=batch_sched_delay=0,sched_interval=1,bf_interval=1

# A job of the partition urgent takes the nodes of one of main, which hears of it, and is requeued.
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmctldParameters=preempt_send_user_signal
PartitionName=main Nodes=ALL Default=YES PriorityTier=1 GraceTime=5 MaxTime=INFINITE State=UP
PartitionName=urgent Nodes=ALL PriorityTier=9 MaxTime=INFINITE State=UP
""")
NODE_LINE = "NodeName={name} NodeHostname={name} NodeAddr={address} Port={port} CPUs=8 RealMemory=8000\n"

# Slurm 22.05 always loads a cgroup plugin; with linuxproc and task/none this one touches nothing.
CGROUP_CONF = "CgroupPlugin=cgroup/v1\nCgroupAutomount=no\n"

# The first process of a node: it waits for slurmd, and collects the steps that slurmd leaves to it.
INIT = Template("""\
hostname $name && mount -t tmpfs none /dev/shm && mount --bind $folder/hosts /etc/hosts || exit
slurmd -D -N $name &
wait $$!
""")
MUNGED_OPTIONS = (
    "--foreground",
    "--force",  # where tests write, only their user may look, of which munged complains
    "--key-file={}/munge.key",
    "--socket={}/munge.socket",
    "--seed-file={}/munge.seed",
    "--pid-file={}/munge.pid",
    "--log-file={}/munged.log",
)
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
OWN_NAMESPACES = ("unshare", "--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--uts")


def missing() -> str:
    """What a Slurm cluster lacks on this machine; empty if nothing."""
    absent = [program for program in PROGRAMS if shutil.which(program, path=SEARCH_PATH) is None]
    if absent:
        return f"{', '.join(absent)} not found; apt-get install slurm-wlm munge"
    if os.geteuid() != 0:
        return "a node is a namespace, which needs root"
    return ""


@contextmanager
def cluster(folder: Path) -> Iterator["Cluster"]:
    """Four idle nodes; all is stopped in the end."""
    _write_configuration(folder)
    it = Cluster(folder)
    try:
        it.start()
        yield it
    finally:
        it.stop()


@dataclass(slots=True)
class Cluster:
    """The daemons, by name: munged, slurmctld, n1 to n4; what one can ask of them, and do to them."""

    folder: Path
    daemons: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def env(self) -> dict[str, str]:
        """The environment in which sbatch, srun and colossi find this cluster."""
        return os.environ | {"SLURM_CONF": str(self.folder / "slurm.conf"), "PATH": SEARCH_PATH}

    # Its life.

    def start(self) -> None:
        self._spawn("munged", ["munged", *(word.format(self.folder) for word in MUNGED_OPTIONS)])
        self._wait_until((self.folder / "munge.socket").is_socket, "munged listens")
        self._spawn("slurmctld", ["slurmctld", "-D"])
        self._wait_until(lambda: self._try("sinfo").returncode == 0, "slurmctld answers")
        for node in NODES:
            self.start_node(node)
        self.wait_for_nodes()

    def stop(self) -> None:
        for node in NODES:
            if node in self.daemons:
                self.kill_node(node)
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            daemon.wait()

    def mend(self) -> None:
        """No job is left, each node is up and idle: as before the first test."""
        self.run("scancel", "--user", getpass.getuser())
        for node in NODES:
            if node in self.daemons:
                self.thaw_node(node)
            else:
                self.start_node(node)
        self.wait_for_nodes()

    def _spawn(self, name: str, command: list[str]) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [*DIES_WITH_US, *command],
                env=self.env,
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for the tests, which then stop us in order
            )

    # What one can ask.

    def run(self, *command: object) -> str:
        """One of Slurm's commands, or any other in its environment; what it printed."""
        done = self._try(*command)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def _try(self, *command: object) -> subprocess.CompletedProcess[str]:
        words = [str(word) for word in command]
        return subprocess.run(words, env=self.env, capture_output=True, text=True, timeout=60)

    def node_state(self, node: str) -> str:
        """As `sinfo` says it: idle, mixed, allocated, completing, down; * if it does not answer."""
        return self.run("sinfo", "-h", "-n", node, "-p", "main", "-o", "%T").strip()

    def job(self, job: int, key: str) -> str:
        """A value of `scontrol show job`: JobState, Reason, Restarts, NodeList, BatchHost, ExitCode…"""
        found = re.search(rf"(?:^|\s){key}=(\S*)", self.run("scontrol", "show", "job", job))
        assert found, f"job {job} has no {key}"
        return found[1]

    def processes(self, node: str) -> dict[int, str]:
        """All processes of a node with their command lines, numbered as on this machine."""
        first = self._first_process(node)
        pids = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        namespace = _namespace(first) if first else "none"
        return {pid: _command_line(pid) for pid in pids if _namespace(pid) == namespace}

    def _first_process(self, node: str) -> int | None:
        parent = self.daemons[node].pid
        children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        return int(children[0]) if children else None

    def wait_for_nodes(self, *nodes: str) -> None:
        """Until these nodes, or all, are idle."""
        for node in nodes or NODES:
            self.wait_for_node(node, "idle")

    def wait_for_node(self, node: str, *states: str) -> None:
        self._wait_until(lambda: self.node_state(node) in states, f"{node} is {' or '.join(states)}")

    def wait_for_job(self, job: int, *states: str) -> None:
        """Until it is PENDING, RUNNING, COMPLETED…"""
        self._wait_until(lambda: self.job(job, "JobState") in states, f"job {job} is {' or '.join(states)}")

    def _wait_until(self, true: Callable[[], bool], what: str) -> None:
        def true_or_dead() -> bool:
            ended = [name for name, daemon in self.daemons.items() if daemon.poll() is not None]
            assert not ended, f"{ended} ended by themselves"
            return true()

        try:
            wait_until(true_or_dead, what)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self._logs()}") from None

    def _logs(self) -> str:
        tails = {path.name: path.read_text(errors="replace")[-800:] for path in self.folder.glob("*.log")}
        return "\n".join(f"== {name}\n{tail}" for name, tail in tails.items())

    # What one can do.

    def submit(self, *command: object) -> int:
        """A job, by its number: options of sbatch, then a script; or `--wrap=COMMAND`."""
        return int(self.run("sbatch", "--parsable", *command))

    def requeue(self, job: int) -> None:
        self.run("scontrol", "requeue", job)

    def preempt(self, nodes: int, seconds: float) -> int:
        """A more urgent job takes some nodes for some seconds; its number."""
        options = ("--partition=urgent", f"--nodes={nodes}", "--exclusive", "--output=/dev/null")
        return self.submit(*options, f"--wrap=sleep {seconds}")

    def start_node(self, node: str) -> None:
        """The node boots, or boots again; its /dev/shm is empty."""
        self._spawn(node, [*OWN_NAMESPACES, "sh", "-c", INIT.substitute(name=node, folder=self.folder)])

    def kill_node(self, node: str) -> None:
        """The node dies: slurmd, steps, and all that they started, at once. Returns when none is left."""
        if first := self._first_process(node):
            os.kill(first, signal.SIGKILL)
        self.daemons.pop(node).wait()

    def freeze_node(self, node: str) -> None:
        """The node falls silent, and closes no connection: what a power cut looks like from outside."""
        self._signal_all(node, signal.SIGSTOP)

    def thaw_node(self, node: str) -> None:
        self._signal_all(node, signal.SIGCONT)

    def _signal_all(self, node: str, number: signal.Signals) -> None:
        for pid in self.processes(node):
            with suppress(ProcessLookupError):  # it has ended meanwhile
                os.kill(pid, number)


def wait_until(true: Callable[[], bool], what: str, seconds: float = 150) -> None:
    """Look every tenth of a second."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"waited {seconds} s in vain until {what}"
        time.sleep(0.1)


def _write_configuration(folder: Path) -> None:
    ports = _free_ports(len(NODES) + 1)
    (folder / "state").mkdir()
    for node in NODES:
        (folder / f"spool.{node}").mkdir()
    key = folder / "munge.key"
    key.write_bytes(random.randbytes(128))
    key.chmod(0o600)
    conf = SLURM_CONF.substitute(
        host=socket.gethostname(), port=ports.pop(), user=getpass.getuser(), folder=folder
    )
    nodes = (NODE_LINE.format(name=name, address=ADDRESSES[name], port=ports.pop()) for name in NODES)
    (folder / "slurm.conf").write_text(conf + "".join(nodes))
    switches = [f"SwitchName={leaf} Nodes={','.join(nodes)}\n" for leaf, nodes in RACKS.items()]
    spine = f"SwitchName=spine Switches={','.join(RACKS)}\n"
    (folder / "topology.conf").write_text("".join(switches) + spine)
    (folder / "cgroup.conf").write_text(CGROUP_CONF)
    hosts = [f"{address} {name}\n" for name, address in ADDRESSES.items()]
    (folder / "hosts").write_text(Path("/etc/hosts").read_text() + "".join(hosts))


def _free_ports(count: int) -> list[int]:
    """Below those that the kernel hands to clients, so that a node finds its port free when it comes back."""
    free: list[int] = []
    while len(free) < count:
        port = random.randrange(20000, 32000)
        with socket.socket() as one:
            if one.connect_ex(("127.0.0.1", port)) != 0 and port not in free:
                free.append(port)
    return free


def _namespace(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has ended
        return ""


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""
