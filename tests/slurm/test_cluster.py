"""That the cluster under the other tests is one: racks, nodes that die alone, requeue, preemption."""

from pathlib import Path

from .cluster import ADDRESSES, NODES, Cluster, wait_until

# Each task says twice a second that it lives, until Slurm or the death of its node ends it.
BEAT = "while sleep 0.5; do date +%s.%N > {}/$SLURMD_NODENAME; done"
JOB = """#!/bin/bash
echo start ${{SLURM_RESTART_COUNT:-0}} $SLURM_JOB_NUM_NODES
trap 'echo warned' USR1
srun --no-kill --kill-on-bad-exit=0 sh -c '{}' &
while ! wait; do :; done
"""


def beats(folder: Path) -> dict[str, float]:
    files = {node: folder / node for node in NODES}
    return {node: float(file.read_text() or 0) for node, file in files.items() if file.exists()}


def begin(slurm: Cluster, folder: Path, *options: str) -> int:
    """A job whose tasks beat on all four nodes."""
    script = folder / "job.sh"
    script.write_text(JOB.format(BEAT.format(folder)))
    job = slurm.submit(
        "--nodes=3-4",
        "--exclusive",
        "--no-kill",
        "--requeue",
        "--open-mode=append",
        f"--output={folder}/output",
        *options,
        script,
    )
    wait_until(lambda: len(beats(folder)) == len(NODES), "each node beats")
    return job


def test_nodes_have_a_name_an_address_and_a_rack(slurm: Cluster) -> None:
    say = "echo $(hostname) $(getent hosts $(hostname) | cut -d' ' -f1) $SLURM_TOPOLOGY_ADDR"
    lines = slurm.run("srun", "--nodes=4", "sh", "-c", say).splitlines()
    racks = {"n1": "leaf1", "n2": "leaf1", "n3": "leaf2", "n4": "leaf2"}
    assert sorted(lines) == [f"{node} {ADDRESSES[node]} spine.{racks[node]}.{node}" for node in NODES]


def test_nodes_share_no_memory(slurm: Cluster) -> None:
    slurm.run("srun", "--nodes=1", "--nodelist=n1", "touch", "/dev/shm/mine")
    lists = slurm.run("srun", "--nodes=4", "--label", "sh", "-c", "echo $(ls /dev/shm)").splitlines()
    assert sorted(line.strip() for line in lists) == ["0: mine", "1:", "2:", "3:"]


def test_a_node_dies_alone(slurm: Cluster, tmp_path: Path) -> None:
    job = begin(slurm, tmp_path)
    slurm.kill_node("n3")
    before = beats(tmp_path)
    slurm.wait_for_node("n3", "down", "down*")
    wait_until(lambda: slurm.job(job, "NodeList") == "n[1-2,4]", "the job has lost its node")

    def alive() -> set[str]:
        later = beats(tmp_path)
        return {node for node in NODES if later[node] > before[node]}

    # Slurm may be quicker than the next beat of those that live.
    wait_until(lambda: alive() >= {"n1", "n2", "n4"}, "the others go on")
    assert alive() == {"n1", "n2", "n4"}
    assert slurm.job(job, "JobState") == "RUNNING"

    slurm.start_node("n3")
    slurm.wait_for_nodes("n3")


def test_a_silent_node_is_down_too(slurm: Cluster, tmp_path: Path) -> None:
    begin(slurm, tmp_path)
    slurm.freeze_node("n3")
    slurm.wait_for_node("n3", "down", "down*")
    assert any("slurmd" in command for command in slurm.processes("n3").values())  # it is there, only silent


def test_a_preempted_job_is_warned_and_starts_again(slurm: Cluster, tmp_path: Path) -> None:
    job = begin(slurm, tmp_path, "--signal=B:USR1@60")
    urgent = slurm.preempt(nodes=4, seconds=0)
    slurm.wait_for_job(urgent, "COMPLETED")
    slurm.wait_for_job(job, "RUNNING")
    assert slurm.job(job, "Restarts") == "1"
    wait_until(lambda: "start 1" in (tmp_path / "output").read_text(), "the job runs again")
    lines = (tmp_path / "output").read_text().splitlines()
    assert [line for line in lines if "start" in line or "warned" in line] == [
        "start 0 4",
        "warned",
        "start 1 4",
    ]
