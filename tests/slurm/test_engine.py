"""Runs on a real Slurm: whatever dies or is preempted, the losses are bit for bit those of a local run."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import pytest

from colossi.engines.slurm import batch_script, rack_of
from colossi.ledger.events import Event
from colossi.ledger.run import Run
from colossi.spec import read_spec

from ..train.runs import (
    colossi,
    events_of,
    kinds_of,
    report_of,
    spec_file,
    steps_done,
    wait_for_step,
)
from .cluster import NODES, Cluster, wait_until

STEPS, EVERY = 120, 20
RACKS = {"n1": "spine.leaf1", "n2": "spine.leaf1", "n3": "spine.leaf2", "n4": "spine.leaf2"}
Losses = tuple[tuple[int, float], ...]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    """Of a local run with as many nodes, and half of the cores for each."""
    folder = tmp_path_factory.mktemp("undisturbed")
    spec = spec_file(folder, STEPS, every=EVERY, workers=1, nodes=2)
    done = colossi("train", spec, "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return report_of(folder / "run").losses


@contextmanager
def training(
    slurm: Cluster, folder: Path, steps: int = STEPS
) -> Iterator[tuple[Path, subprocess.Popen[bytes]]]:
    """`colossi train --engine slurm` with two nodes and a spare; what it says is shown if it ends badly."""
    halve_the_cores(slurm)
    spec, run = spec_file(folder, steps, every=EVERY, workers=1, nodes=2, spares=1), folder / "run"
    words = [sys.executable, "-m", "colossi.cli", "train", str(spec), "--run", str(run), "--engine", "slurm"]
    with (folder / "said").open("w+") as said:
        process = subprocess.Popen(words, env=slurm.env, stdout=said, stderr=said)
        try:
            yield run, process
            assert process.wait(timeout=200) == 0
        except BaseException:
            logs = sorted((run / "logs").glob("*.log"))
            sys.stderr.write("\n".join([(folder / "said").read_text(), *map(Path.read_text, logs)]))
            raise
        finally:
            process.kill()
            process.wait()
    wait_until(
        lambda: not [each for node in NODES for each in ours(slurm, node)], "nothing is left on the nodes"
    )


def halve_the_cores(slurm: Cluster) -> None:
    """Sums over the threads of another number of cores would end in other bits."""
    cores = sorted(os.sched_getaffinity(0))
    half = max(1, len(cores) // 2)
    for number, node in enumerate(NODES):
        for pid in slurm.processes(node) if node in slurm.daemons else ():
            os.sched_setaffinity(pid, cores[:half] if number % 2 else cores[-half:])


def ours(slurm: Cluster, node: str) -> dict[int, str]:
    """Processes of colossi on a node, with their command lines."""
    if node not in slurm.daemons:
        return {}
    return {pid: words for pid, words in slurm.processes(node).items() if "-m colossi." in words}


def job_of(run: Path) -> int:
    return int(json.loads((run / "slurm.json").read_text())["number"])


def places(run: Path) -> list[str]:
    """The nodes that train, by place."""
    return cast(list[str], events_of(run, "incarnation_started")[-1].data["nodes"])


def test_a_run_through_slurm_has_the_losses_of_a_local_one(
    slurm: Cluster, undisturbed: Losses, tmp_path: Path
) -> None:
    with training(slurm, tmp_path) as (run, _):
        pass
    assert report_of(run).losses == undisturbed
    joined = {event.text("node"): event.text("rack") for event in events_of(run, "node_joined")}
    assert joined == {node: RACKS[node] for node in ("n1", "n2", "n3")}
    assert f"finished at step {STEPS}" in (tmp_path / "said").read_text()
    assert slurm.job(job_of(run), "JobState") == "COMPLETED"


def test_a_node_dies_and_the_spare_takes_over_from_memory(
    slurm: Cluster, undisturbed: Losses, tmp_path: Path
) -> None:
    with training(slurm, tmp_path) as (run, process):
        wait_for_step(run, 10, process)
        wait_until(lambda: len(events_of(run, "node_joined")) == 3, "the spare is there")
        victim = max(places(run))  # not n1, where the script runs
        slurm.kill_node(victim)
    assert report_of(run).losses == undisturbed
    assert events_of(run, "restored")[0].text("source") in ("memory", "buddy")
    assert "resumed" not in kinds_of(run)
    assert f"it takes the place of {victim}" in [event.text("why") for event in events_of(run, "promoted")]
    assert slurm.job(job_of(run), "Restarts") == "0"


def test_a_preempted_run_saves_and_goes_on_by_itself(
    slurm: Cluster, undisturbed: Losses, tmp_path: Path
) -> None:
    with training(slurm, tmp_path) as (run, process):
        wait_for_step(run, 10, process)
        urgent = slurm.preempt(nodes=4, seconds=0)
        slurm.wait_for_job(urgent, "COMPLETED")
    assert report_of(run).losses == undisturbed
    (stopped,) = events_of(run, "stopped")
    assert [event.step for event in events_of(run, "resumed")] == [stopped.step]
    assert [event.data["took_over"] for event in events_of(run, "controller_started")] == [False, False]
    assert slurm.job(job_of(run), "Restarts") == "1"


def test_a_new_controller_takes_over_and_ctrl_c_saves_and_stops(slurm: Cluster, tmp_path: Path) -> None:
    with training(slurm, tmp_path, steps=4000) as (run, process):
        wait_for_step(run, 10, process)
        (controller,) = [pid for pid, words in ours(slurm, "n1").items() if words.endswith(str(run))]
        os.kill(controller, signal.SIGKILL)
        wait_until(lambda: len(events_of(run, "controller_started")) == 2, "there is a new controller")
        process.send_signal(signal.SIGINT)
    assert events_of(run, "controller_started")[1].data["took_over"]
    assert not events_of(run, "fault") and not events_of(run, "node_lost")
    (stopped,) = events_of(run, "stopped")
    assert [step for step, _ in report_of(run).losses] == list(range(1, (stopped.step or 0) + 1))
    assert slurm.job(job_of(run), "JobState") == "COMPLETED" and slurm.job(job_of(run), "Restarts") == "0"


def test_the_script_asks_for_nodes_and_spares_and_to_be_warned(tmp_path: Path) -> None:
    spec = read_spec(spec_file(tmp_path, nodes=2, spares=1, workers=4), ["cluster.device=cuda"])
    lines = batch_script(tmp_path / "my run", spec).splitlines()
    assert [line.removeprefix("#SBATCH ") for line in lines if line.startswith("#SBATCH")] == [
        "--job-name=tiny",
        "--nodes=2-3",
        "--exclusive",
        "--mem=0",
        "--no-kill",
        "--requeue",
        "--signal=B:USR1@120",
        "--open-mode=append",
        f"'--output={tmp_path}/my run/logs/slurm.log'",
        "--gpus-per-node=4",
    ]
    assert f"colossi=({sys.executable} -m colossi.engines.slurm '{tmp_path}/my run')" in lines
    assert subprocess.run(["bash", "-n"], input="\n".join(lines), text=True, check=False).returncode == 0
    assert "#SBATCH --nodes=4" in batch_script(tmp_path, read_spec(spec_file(tmp_path, nodes=4)))


@pytest.mark.parametrize(
    "topology, rack",
    [("spine.leaf1.n1", "spine.leaf1"), ("n1", ""), ("", "")],
    ids=["tree", "flat", "unknown"],
)
def test_the_rack_of_a_node_is_what_is_above_it(topology: str, rack: str) -> None:
    assert rack_of(topology) == rack


def test_without_sbatch_it_is_refused_in_one_line(tmp_path: Path) -> None:
    words = ("train", spec_file(tmp_path), "--run", tmp_path / "run", "--engine", "slurm")
    done = colossi(*words, env={"PATH": str(tmp_path)})
    assert done.returncode == 2 and done.stderr.startswith("error: sbatch: not found\nhint: ")
    assert not (tmp_path / "run").exists()


def test_what_sbatch_refuses_is_one_line(slurm: Cluster, tmp_path: Path) -> None:
    words = ("train", spec_file(tmp_path), "--run", tmp_path / "run", "--engine", "slurm")
    done = colossi(*words, env=slurm.env | {"SBATCH_PARTITION": "none"})
    assert done.returncode == 1
    assert "\nerror: sbatch: invalid partition specified: none; Batch job submission failed" in done.stderr
    assert not steps_done(tmp_path / "run") and Run(tmp_path / "run").spec().cluster.engine == "slurm"


def test_a_quarantined_node_is_not_asked_for(slurm: Cluster, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("train", spec_file(tmp_path, nodes=2, spares=1), "--run", run, "--engine", "slurm")
    refused = slurm.env | {"SBATCH_PARTITION": "none"}
    assert colossi(*words, env=refused).returncode == 1
    with Run(run).ledger() as ledger:
        for node in ("n1", "elsewhere"):  # Slurm has no node of that name, and would refuse it
            ledger.append(
                Event(time=0.0, kind="quarantined", incarnation=0, data={"node": node, "why": "slow"})
            )
    assert colossi(*words, env=refused).returncode == 1
    assert "#SBATCH --exclude=n1\n" in (run / "slurm.sh").read_text()
    told = slurm.run("bash", "-c", f"sbatch --test-only {run / 'slurm.sh'} 2>&1")
    assert "on nodes n[2-4]" in told
