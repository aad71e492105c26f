"""
The Slurm engine: a run as one batch job, `RUN/slurm.sh`, with an agent on each node of the allocation.

`submit` and `follow` are for the machine where somebody typed `colossi train`. In the job the script runs
`python -m colossi.engines.slurm RUN`, the controller, and on each node the same with `--agent`. Slurm gives
nodes and says when it wants them back; what that means for the run is the controller's to decide.
"""

import argparse
import asyncio
import json
import os
import re
import shlex
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from colossi.control.actions import Finish
from colossi.engines.agent import Agent, Place
from colossi.engines.chaos import Chaos
from colossi.engines.command import Command
from colossi.engines.local import alone
from colossi.engines.takeover import command_of, quarantined_of, readmit
from colossi.errors import BadInput, ColossiError, TrainingFailed, WorkFailed
from colossi.files import write_whole
from colossi.ledger.clock import ENDS
from colossi.ledger.events import Event
from colossi.ledger.run import Run, open_run
from colossi.spec import Spec

WARNED_SECONDS = 120  # before the time limit; a step and a checkpoint must fit in
LOOK_SECONDS = 0.2  # between two looks into the ledger
ASK_SECONDS = 5.0  # between two questions to slurmctld, which has others to answer too
SHARE_SECONDS = 30.0  # for others who read the ledger to let go of it, on a busy machine
ENDING_SECONDS = 0.5  # the same, when the ledger says that the job is about to end
ENDED = {"BOOT_FAIL", "CANCELLED", "COMPLETED", "DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY"}
ENDED |= {"PREEMPTED", "REVOKED", "TIMEOUT"}

# Exit codes of the controller, by which the script knows what to do next; all others are accidents.
GAVE_UP = 3
GO_ON_LATER = 75  # it has saved, as the nodes are wanted back: the job is to be requeued
WAIT_FOR_SLURM = 76  # agents got SIGTERM and the job did not: Slurm is going to say whether it is requeued

SCRIPT = r"""
# Sends a signal of Slurm's on to the controller.
tell() { kill -s "$1" "$controller" 2>/dev/null; }
trap 'tell USR1' USR1            # the nodes are wanted back: save, then go on later
trap 'tell USR2' USR2            # somebody wants the run to stop
trap 'ended=yes; tell TERM' TERM # the job ends; what becomes of it Slurm knows

# The exit code of a process, also when signals interrupt the waiting.
outcome() {
    while kill -0 "$1" 2>/dev/null; do wait "$1"; done
    wait "$1"
}

# An agent on a node, a new one when it is lost. Each has a srun of its own: the loss of a node is no other's.
keep() {
    while :; do
        srun --nodes=1 --ntasks=1 --nodelist="$1" --overlap --cpu-bind=none --input=none \
            "${colossi[@]}" --agent >>"$run/logs/$1.log" 2>&1
        sleep 15
    done
}
for node in $(scontrol show hostnames "$SLURM_JOB_NODELIST"); do
    keep "$node" &
done

accidents=0
again=
ended=
while :; do
    "${colossi[@]}" $again &
    controller=$!
    outcome "$controller"
    code=$?
    case $code in
        0 | 2 | 3 | 75) break ;;
        138) code=75; break ;;      # USR1 before it listened
        140 | 143) code=0; break ;; # USR2, TERM
        76) # SIGKILL comes soon; if it does not, nobody wanted the job to end
            again=
            for ((second = 0; second < 600; second++)); do
                [ -z "$ended" ] || exit 0
                sleep 1
            done ;;
        *)  # a new controller takes over; the agents wait for it for a minute
            again=--again
            accidents=$((accidents + 1))
            [ $accidents -le 3 ] || break
            sleep $((accidents * accidents)) ;;
    esac
done
kill $(jobs -p) 2>/dev/null # the keepers; the agents have been told
if [ $code = 75 ]; then
    scontrol requeue "$SLURM_JOB_ID"
    exit
fi
exit $code
"""


@dataclass(frozen=True, slots=True)
class Job:
    """A job of ours: its number, and the last event in the ledger before it was submitted."""

    number: str
    after: int


# --- where somebody typed `colossi train` ---------------------------------------------------------------


def refuse_what_cannot_be(chaos: Chaos) -> None:
    """Before any work is done."""
    if shutil.which("sbatch") is None:
        raise BadInput("sbatch: not found", "Slurm's commands must be on the PATH; or use --engine local")
    if chaos.on:
        raise BadInput(
            "--chaos: faults on purpose are for the local engine", "scancel and scontrol make real ones"
        )


def batch_script(folder: Path, spec: Spec, excluded: Sequence[str] = ()) -> str:
    """What sbatch is given. Its options give way to variables such as SBATCH_PARTITION.

    Nodes that are `excluded` are not given to it: they are quarantined, and the run would not use them.
    """
    cluster, run = spec.cluster, folder.resolve()
    options = {
        "job-name": spec.name,
        "nodes": f"{cluster.nodes}-{cluster.nodes + cluster.spares}" if cluster.spares else cluster.nodes,
        "exclusive": None,
        "mem": 0,  # all that the nodes have
        "no-kill": None,  # a node that dies does not end the job
        "requeue": None,
        "signal": f"B:USR1@{WARNED_SECONDS}",
        "open-mode": "append",
        "output": str(run / "logs" / "slurm.log").replace("%", "%%"),
    }
    if cluster.device == "cuda":
        options["gpus-per-node"] = cluster.workers_per_node
    if excluded:
        options["exclude"] = ",".join(excluded)
    words = [f"--{key}" + ("" if value is None else f"={value}") for key, value in options.items()]
    command = shlex.join([sys.executable, "-m", "colossi.engines.slurm", str(run)])
    lines = ["#!/bin/bash", "# Written by colossi train for each submission: changes are lost."]
    lines += [f"#SBATCH {shlex.quote(word)}" for word in words]
    return "\n".join([*lines, f"run={shlex.quote(str(run))}", f"colossi=({command})"]) + "\n" + SCRIPT


def submit(run: Run, spec: Spec, readmitted: Sequence[str] = ()) -> Job:
    """The job of this run: the one that there is, else a new one, which uses `readmitted` nodes again."""
    known, script = run.folder / "slurm.json", run.folder / "slurm.sh"
    if known.exists():
        job = Job(**json.loads(known.read_text(encoding="utf-8")))
        if state_of(job, script) not in ENDED:
            if readmitted:
                raise BadInput(
                    f"--readmit {readmitted[0]}: job {job.number} is going on", "stop it by Ctrl-C first"
                )
            return job
    with alone(run.folder), run.ledger() as ledger:
        readmit(ledger, readmitted)
        quarantined = quarantined_of(ledger)
        after = ledger.newest()
    share(run.ledger_file)
    # Slurm refuses names that it does not know: the run may have been on other machines before.
    its_nodes = ask("sinfo", "--noheader", "--Node", "--format=%N").split() if quarantined else ()
    excluded = sorted(set(its_nodes) & set(quarantined))
    write_whole(script, batch_script(run.folder, spec, excluded))
    job = Job(ask("sbatch", "--parsable", str(script)).strip().partition(";")[0], after)
    write_whole(known, json.dumps(asdict(job)) + "\n")
    return job


def share(ledger: Path) -> None:
    """Let several machines write: SQLite's WAL is memory of one; its older journal is a file for all."""
    deadline = time.monotonic() + SHARE_SECONDS
    while True:
        try:
            with sqlite3.connect(ledger) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
            connection.close()
            return
        except sqlite3.OperationalError as error:  # nobody else may have it open, not even to read
            if time.monotonic() > deadline:
                raise WorkFailed(
                    f"{ledger}: {error}", "end what reads it, such as a report, and try again"
                ) from None
            time.sleep(0.05)


def follow(run: Run, job: Job, watch: Callable[[Event], None]) -> None:
    """Until the job has ended; every event from now on goes to `watch`. Ctrl-C: save and stop; twice: end."""
    script = run.folder / "slurm.sh"
    with run.ledger() as ledger, _interrupts() as interrupts:
        after = ledger.newest()
        state, obeyed, ending = "UNKNOWN", 0, False
        next_question = 0.0
        while state not in ENDED:
            for number, event in ledger.events(after=after):
                after, ending = number, event.kind in ENDS
                watch(event)
            asked = len(interrupts) > obeyed
            if asked or time.monotonic() >= next_question:
                state = state_of(job, script)
                next_question = time.monotonic() + (ENDING_SECONDS if ending else ASK_SECONDS)
            if asked and state not in ENDED:
                obeyed, ending = len(interrupts), True
                _stop(job, at_once=obeyed > 1 or state == "PENDING")
            time.sleep(LOOK_SECONDS)
        for _, event in ledger.events(after=after):
            watch(event)
        ends = [event for _, event in ledger.events(after=job.after) if event.kind in ENDS]
    if not (obeyed == 1 and state == "CANCELLED"):  # that was us, before it began
        _raise_unless_well(run, job, state, ends[-1] if ends else None)


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """Ctrl-C inside becomes one more entry of this list."""
    found: list[int] = []

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        found.append(number)

    before = signal.signal(signal.SIGINT, on_interrupt)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(job: Job, at_once: bool) -> None:
    """By USR2 the script knows that it is not Slurm who wants the run to end."""
    ask("scancel", *(() if at_once else ("--signal=USR2", "--batch")), job.number)


def _raise_unless_well(run: Run, job: Job, state: str, end: Event | None) -> None:
    """An end of the job that is no end of the run is a failure."""
    if end is not None and end.kind == "gave_up":
        raise TrainingFailed(end.text("why"), f"{run.logs} says more")
    if end is None or (end.kind == "stopped" and state not in ("COMPLETED", "CANCELLED")):
        raise TrainingFailed(
            f"Slurm job {job.number} ended as {state}", f"{run.logs / 'slurm.log'} says more"
        )


def state_of(job: Job, script: Path) -> str:
    """As squeue says it. Of a job that Slurm has forgotten, or whose number is another's now: COMPLETED."""
    options = ("--noheader", "--states=all", "--format=%T %o")
    try:
        state, _, command = ask("squeue", *options, f"--jobs={job.number}").strip().partition(" ")
    except WorkFailed as error:
        if "Invalid job id" in error.message:
            return "COMPLETED"
        return "UNKNOWN"  # slurmctld is away; the job goes on without it
    return state if command == str(script.resolve()) else "COMPLETED"


def ask(*command: str) -> str:
    """What one of Slurm's commands prints; what it refuses is an error of ours."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise BadInput(f"{command[0]}: not found", "Slurm's commands must be on the PATH") from None
    if done.returncode:
        said = [
            line.removeprefix(f"{command[0]}: ").removeprefix("error: ") for line in done.stderr.splitlines()
        ]
        raise WorkFailed(f"{command[0]}: {'; '.join(said)}", "sinfo shows what there is")
    return done.stdout


# --- in the job -----------------------------------------------------------------------------------------


def control(run: Run, host: str, agents_live: bool) -> int:
    """The controller's loop until the run ends or the nodes are wanted back; the exit code for the script."""
    spec = run.spec()
    with alone(run.folder), run.ledger() as ledger:
        command, _ = command_of(run, ledger, spec, host, agents_live=agents_live)
        codes: list[int] = []
        asyncio.run(_serve(command, codes))
    stopped = isinstance(command.ended, Finish) and command.ended.stopped
    return (codes or [WAIT_FOR_SLURM])[-1] if stopped else 0


async def _serve(command: Command, codes: list[int]) -> None:
    """Each of the script's signals ends the run, and adds the code to end with."""
    loop = asyncio.get_running_loop()
    for number, why, code in (
        (signal.SIGUSR1, "Slurm wants its nodes back", GO_ON_LATER),
        (signal.SIGUSR2, "asked to stop", 0),
        (signal.SIGTERM, "its Slurm job is to end", 0),
    ):
        loop.add_signal_handler(number, _on_signal, command, why, codes, code)
    await command.serve()


def _on_signal(command: Command, why: str, codes: list[int], code: int) -> None:
    codes.append(code)
    command.stop_wanted(why)


def serve_node(run: Run, node: str, host: str, rack: str, job: str) -> int:
    """The agent of a node; when the job has lost its first node, and with it all control, Slurm is told."""
    # Blocked in all that it starts, too: SIGTERM may reach every process of the job, and they are to save.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    agent = Agent(run.folder, Place(node, rack, host, "", run.spec().cluster.workers_per_node, 1))
    threading.Thread(target=_report_sigterm, args=(agent, node), daemon=True).start()
    code = agent.run()
    if code and is_headless(ask("scontrol", "show", "job", job)):
        ask("scontrol", "requeue", job)
    return code


def _report_sigterm(agent: Agent, node: str) -> None:
    while signal.sigwait({signal.SIGTERM}):
        agent.stop_wanted(f"Slurm sent SIGTERM to {node}")


def is_headless(said: str) -> bool:
    """Whether a job, as scontrol shows it, goes on without the node that its script ran on."""
    host, nodes = (re.search(rf"\s{key}=(\S+)", said) for key in ("BatchHost", "NodeList"))
    return (
        host is not None
        and nodes is not None
        and host[1] not in ask("scontrol", "show", "hostnames", nodes[1]).split()
    )


def address_of(node: str) -> str:
    """By which Slurm reaches a node: on the node itself its name may well mean 127.0.1.1."""
    found = re.search(r"NodeAddr=(\S+)", ask("scontrol", "show", "node", node))
    return socket.gethostbyname(found[1] if found else node)


def rack_of(topology: str) -> str:
    """From spine.leaf1.n1, the switches above a node and its name, as Slurm knows them; "" without any."""
    return topology.rpartition(".")[0]


def main() -> int:
    """A process of the job; the exit code says how it ended."""
    parser = argparse.ArgumentParser(prog="python -m colossi.engines.slurm")
    parser.add_argument("run", type=Path)
    parser.add_argument("--agent", action="store_true", help="of this node, not the controller")
    parser.add_argument("--again", action="store_true", help="the controller before died, agents may live")
    asked = parser.parse_args()
    variables = os.environ
    node = variables["SLURMD_NODENAME"]
    try:
        run, host = open_run(asked.run), address_of(node)
        if asked.agent:
            rack = rack_of(variables.get("SLURM_TOPOLOGY_ADDR", ""))
            return serve_node(run, node, host, rack, variables["SLURM_JOB_ID"])
        return control(run, host, agents_live=asked.again)
    except ColossiError as error:
        sys.stderr.write(f"error: {error}\n")
        return GAVE_UP if isinstance(error, TrainingFailed) else error.exit_code


if __name__ == "__main__":
    sys.exit(main())
