"""
Those whom `benchmarks/recovery.py` compares: how each is started, and how its log is read.

All get the same spec and a run folder each; none of them knows that it is measured.
"""

import contextlib
import json
import os
import random
import re
import signal
import socket
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from colossi.engines.standby import KEEP_MEMORY
from colossi.engines.train import begin
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.spec import Spec, read_spec

PEERS = Path(__file__).parent
SOURCES = PEERS.parent.parent / "src"
GLOBAL_BATCH = 24
SEQUENCE_LENGTH = 96
MARK = "COLOSSI_RECOVERY"  # in the environment of every process that is started here
SPEC = f"""
name = "recovery"
[model]
preset = "laptop"
[data]
tokenizer = "bytes"
[[data.sources]]
kind = "files"
path = "corpus.txt"
[training]
sequence_length = {SEQUENCE_LENGTH}
global_batch = {GLOBAL_BATCH}
steps = 100000
learning_rate = 1e-3
weight_decay = 0.0
[checkpoint]
every = 20
[cluster]
workers_per_node = 2
device = "cpu"
"""
TEXT = "the quick brown fox number {} jumps over {} lazy dogs and runs away from the {} hounds\n"


@dataclass(frozen=True)
class Step:
    """A completed step, as a contestant's log has it. Times are those of CLOCK_MONOTONIC [s]."""

    time: float
    formed: float  # when its group was formed
    step: int
    samples: int  # of the global batch that went into it
    loss: float


class Processes:
    """All that a contestant has started, found by a mark in their environment wherever they hide."""

    def __init__(self, log: Path) -> None:
        self.log = log
        self.mark = f"{os.getpid()}-{random.getrandbits(64):x}"

    def start(self, *command: object, **environment: str) -> subprocess.Popen[bytes]:
        """In a session of its own, its output in the log."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                [str(word) for word in command],
                env=os.environ
                | KEEP_MEMORY  # as colossi gives its workers
                | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo", MARK: self.mark}
                | {"PYTHONPATH": f"{SOURCES}:{PEERS}"}
                | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def end(self) -> None:
        """Kill those that are left."""
        while left := list(self._left()):
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.05)

    def _left(self) -> Iterator[int]:
        mark = f"{MARK}={self.mark}".encode()
        for entry in Path("/proc").iterdir():
            with contextlib.suppress(OSError):
                if entry.name.isdecimal() and mark in (entry / "environ").read_bytes().split(b"\0"):
                    yield int(entry.name)


class Contestant(ABC):
    """Two workers in a run folder, and those who look after them."""

    name: str
    one_fault_each = False  # a job can be struck once: its next fault needs a new one
    victims: tuple[int, ...] = (0, 1)
    whole_losses = True  # its log has the loss of the whole batch

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.processes = Processes(folder.parent / f"{folder.name}.log")
        self.good_since = 0.0  # [monotonic s] when it was started, or had recovered
        self.steps: list[Step] = []  # of the present job
        self.earlier: list[Step] = []

    def start(self) -> None:
        """A job that goes on from the newest checkpoint in the folder, if there is one."""
        self.look()
        self.earlier, self.steps = self.earlier + self.steps, []
        self.good_since = time.monotonic()
        self.launch()

    @abstractmethod
    def launch(self) -> None:
        """Start its processes."""

    @abstractmethod
    def look(self) -> None:
        """Take in what has been logged since the last look."""

    @abstractmethod
    def pid_of(self, rank: int) -> int:
        """The process that has this rank now."""

    def parts(self, killed: float) -> dict[str, float]:
        """Where the time went since the kill, if it is known [s]."""
        return {}

    def stop(self) -> None:
        """End all of its processes."""
        self.processes.end()


class Colossi(Contestant):
    """`colossi train`, watched through its ledger."""

    name = "colossi"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.seen = 0
        self.events: list[Event] = []
        self.formed: dict[int, float] = {}
        self.ledger = Run(folder).ledger()
        self.offset = time.monotonic() - time.time()

    def launch(self) -> None:
        spec = self.folder.parent / "recovery.toml"
        self.processes.start(sys.executable, "-m", "colossi.cli", "train", spec, "--run", self.folder)

    def look(self) -> None:
        for number, event in self.ledger.events(after=self.seen):
            self.seen = number
            self.events.append(event)
            when = event.time + self.offset
            if event.kind == "incarnation_started":
                self.formed[event.incarnation] = when
            elif event.kind == "step_done":
                samples = (event.whole("tokens") or 0) // SEQUENCE_LENGTH
                formed, loss = self.formed[event.incarnation], event.number("loss") or 0.0
                self.steps.append(Step(when, formed, event.step or 0, samples, loss))

    def pid_of(self, rank: int) -> int:
        log = (self.folder / "logs" / f"rank-{rank}.log").read_text()
        return int(re.findall(r"^--- .* pid (\d+)$", log, re.MULTILINE)[-1])

    def parts(self, killed: float) -> dict[str, float]:
        """Between the ledger's events: each part ends with one."""
        ends = {
            "fault": "detect",
            "workers_stopped": "stop",
            "incarnation_started": "decide",
            "run_started": "re-form",
            "restored": "restore",
            "step_done": "first step",
        }
        found: dict[str, float] = {}
        before = killed
        for event in self.events:
            when = event.time + self.offset
            part = ends.get(event.kind)
            if when < killed or part is None or (event.kind == "step_done" and "re-form" not in found):
                continue
            found[part] = found.get(part, 0.0) + when - before
            before = when
            if event.kind == "step_done":
                break
        return found


class Peer(Contestant):
    """One that writes the log of `peers/trainee.py`."""

    def __init__(self, folder: Path, python: str) -> None:
        super().__init__(folder)
        self.python = python
        self.read = 0
        self.pids: dict[int, int] = {}

    def look(self) -> None:
        log = self.folder / "steps.jsonl"
        if not log.exists():
            return
        with log.open("rb") as file:
            file.seek(self.read)
            new = file.read()
        new = new[: new.rfind(b"\n") + 1]
        self.read += len(new)
        for line in map(json.loads, new.splitlines()):
            if line.pop("kind") == "up":
                self.pids[line["rank"]] = line["pid"]
            else:
                self.steps.append(Step(**line))

    def pid_of(self, rank: int) -> int:
        return self.pids[rank]

    def parts(self, killed: float) -> dict[str, float]:
        """All that its log tells."""
        first = min((step for step in self.steps if step.formed > killed), key=lambda step: step.time)
        return {"new group": first.formed - killed, "restore and first step": first.time - first.formed}


class Torchrun(Peer):
    """PyTorch's elastic restart, with asynchronous checkpoints every 20 steps."""

    name = "torchrun"

    def launch(self) -> None:
        self.processes.start(
            *(self.python, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2),
            *("--max-restarts", 1000, PEERS / "elastic.py", self.folder),
        )


class Torchft(Peer):
    """Two replica groups of a worker, each under torchrun, and a lighthouse as its README starts it."""

    name = "torchft"
    whole_losses = False
    lighthouse: tuple[object, ...] = ()

    def launch(self) -> None:
        port = free_port()
        self.processes.start(
            *(Path(self.python).parent / "torchft_lighthouse", "--bind", f"127.0.0.1:{port}"),
            *("--min_replicas", 1, "--quorum_tick_ms", 100, "--join_timeout_ms", 10000, *self.lighthouse),
        )
        for replica in range(2):
            self.processes.start(
                *(self.python, "-m", "torch.distributed.run", "--nnodes", 1, "--nproc-per-node", 1),
                *("--master-addr", "127.0.0.1", "--master-port", free_port(), "--max-restarts", 1000),
                *(PEERS / "torchft_run.py", self.folder, replica),
                TORCHFT_LIGHTHOUSE=f"http://127.0.0.1:{port}",
            )


class TorchftTuned(Torchft):
    """The same, a replica without a heartbeat for half a second counting as dead (5 s by default)."""

    name = "torchft, tuned"
    lighthouse = ("--heartbeat_timeout_ms", 500)


class InProcess(Peer):
    """NVIDIA's in-process restart: two workers and one in reserve. It can lose any but rank 0."""

    name = "NVRx in-process"
    one_fault_each = True
    victims = (1,)  # rank 0 has the store; its failure "causes termination of the entire job" (usage guide)
    seconds: tuple[object, ...] = ()

    def launch(self) -> None:
        port = free_port()
        for rank in range(3):
            self.processes.start(
                *(self.python, PEERS / "nvrx_run.py", "in-process", self.folder, *self.seconds),
                RANK=str(rank),
                LOCAL_RANK=str(rank),
                WORLD_SIZE="3",
                MASTER_ADDR="127.0.0.1",
                MASTER_PORT=str(port),
            )


class InProcessTuned(InProcess):
    """The same, watching every tenth of a second (1 s by default)."""

    name = "NVRx in-process, tuned"
    seconds = (0.1,)


class Launcher(Peer):
    """NVIDIA's ft_launcher, from the same checkpoints as torchrun."""

    name = "NVRx ft_launcher"

    def launch(self) -> None:
        self.processes.start(
            *(Path(self.python).parent / "ft_launcher", "--nproc-per-node", 2, "--max-restarts", 1000),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{free_port()}"),
            *("--ignore-missing-fault-tol-cfg", PEERS / "nvrx_run.py", "launcher", self.folder),
        )


PEER_MODULES: dict[type[Peer], str] = {
    Torchrun: "torch",
    Torchft: "torchft",
    TorchftTuned: "torchft",
    InProcess: "nvidia_resiliency_ext",
    InProcessTuned: "nvidia_resiliency_ext",
    Launcher: "nvidia_resiliency_ext",
}
NAMES = [Colossi.name, *(kind.name for kind in PEER_MODULES)]


def free_port() -> int:
    """With its two neighbours free as well, in all likelihood: below those that the system deals out."""
    while True:
        port = random.randrange(20000, 32000, 4)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def contestants_in(folder: Path, peers: str, only: list[str]) -> Iterator[Contestant]:
    """Those that are installed, each with a run folder of its own."""
    (folder / "corpus.txt").write_text("".join(TEXT.format(n, n * n, n % 7) for n in range(4000)))
    spec_file = folder / "recovery.toml"
    spec_file.write_text(SPEC.replace("corpus.txt", str(folder / "corpus.txt")))
    spec = read_spec(spec_file)
    if not only or Colossi.name in only:
        yield Colossi(_run_folder(folder / "colossi", spec))
    for kind, module in PEER_MODULES.items():
        if only and kind.name not in only:
            continue
        python = sys.executable if kind is Torchrun else peers
        if not python or not _has(python, module):
            sys.stderr.write(f"{kind.name}: not installed\n")
            continue
        yield kind(_run_folder(folder / re.sub(r"\W+", "-", kind.name), spec), python)


def _run_folder(folder: Path, spec: Spec) -> Path:
    begin(folder, spec, lambda *_: None)
    return folder


def _has(python: str, module: str) -> bool:
    code = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({module!r}) is None)"
    return subprocess.run([python, "-c", code], capture_output=True).returncode == 0
