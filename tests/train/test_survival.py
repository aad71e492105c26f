"""Runs that outlive what is done to them: whatever dies, the losses are those of a quiet run, bit for bit."""

import json
import os
import signal
import socket
import subprocess
import time
from pathlib import Path
from typing import cast

import pytest

from colossi.channel import Channel, Refused
from colossi.ledger.events import Event
from colossi.ledger.run import Run

from .runs import (
    colossi,
    events_of,
    kill_all,
    kinds_of,
    processes_of,
    report_of,
    spec_file,
    start,
    steps_done,
    wait_for_step,
    worker_of,
)

STEPS = 90
Losses = tuple[tuple[int, float], ...]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Losses:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = colossi("train", spec_file(folder, STEPS, workers=1, nodes=2), "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return report_of(folder / "run").losses


def survive(folder: Path, chaos: str, spares: int, steps: int = STEPS, **more: int) -> Path:
    """A run of two nodes with these faults, to its end."""
    run = folder / "run"
    spec = spec_file(folder, steps, workers=1, nodes=2, spares=spares, **more)
    done = colossi("train", spec, "--run", run, "--chaos", chaos)
    assert done.returncode == 0, done.stderr
    assert processes_of(run) == []
    return run


def causes(run: Path) -> list[str]:
    return [event.text("cause") for event in events_of(run, "fault")]


def restored_from(run: Path) -> list[str]:
    return [event.text("source") for event in events_of(run, "restored")]


def test_workers_and_a_node_die_in_every_way_and_the_curve_is_the_same(
    undisturbed: Losses, tmp_path: Path
) -> None:
    faults = (
        "kill worker 1 at step 12; kill worker 0 at step 22; stop worker 1 at step 32; "
        "raise worker 0 at step 45; kill node 1 at step 60"
    )
    run = survive(tmp_path, faults, spares=1)
    assert report_of(run).losses == undisturbed
    found = causes(run)
    assert found[0] == "worker 1 killed by SIGKILL" and found[1] == "worker 0 killed by SIGKILL"
    assert found[2].startswith("worker 1 silent for 2") and "raised on purpose" in found[3]
    assert found[4].startswith("node-1 lost")
    assert restored_from(run) == ["memory"] * 5 and "resumed" not in kinds_of(run)
    assert [event.text("node") for event in events_of(run, "promoted")] == ["node-2"]
    report = report_of(run)
    assert len(report.interruptions) == 5 and sum(report.time.values()) == pytest.approx(
        report.worker_seconds
    )


def test_two_nodes_that_were_buddies_are_lost_and_the_run_goes_on_from_disk(
    undisturbed: Losses, tmp_path: Path
) -> None:
    run = survive(tmp_path, "kill node 0 at step 33; kill node 1 at step 33", spares=0)
    assert dict(report_of(run).losses) == pytest.approx(dict(undisturbed), rel=1e-5)  # it shrank meanwhile
    assert "resumed" in kinds_of(run)


def test_a_flipped_bit_is_found_and_the_steps_after_it_are_done_again(
    undisturbed: Losses, tmp_path: Path
) -> None:
    run = survive(tmp_path, "flip rank 1 at step 40", spares=1)
    assert report_of(run).losses == undisturbed
    assert causes(run)[0].startswith("copies of the weights differ after step 4")
    (corrupted,) = events_of(run, "corrupted")
    assert corrupted.text("node") == "node-1" and corrupted.whole("rank") == 1


@pytest.mark.parametrize("kind", ["hang worker 1", "stop node 1"])
def test_what_hangs_is_found_and_replaced(kind: str, undisturbed: Losses, tmp_path: Path) -> None:
    run = survive(tmp_path, f"{kind} at step 20", spares=1)
    assert report_of(run).losses == undisturbed
    assert len(report_of(run).interruptions) == 1


def test_a_slow_worker_is_reported_and_replaced(undisturbed: Losses, tmp_path: Path) -> None:
    run = survive(tmp_path, "slow worker 1 at step 40 by 0.2 s", spares=1)
    assert report_of(run).losses == undisturbed
    assert any(event.whole("rank") == 1 for event in events_of(run, "straggler"))
    assert events_of(run, "promoted")


def test_a_node_that_was_slow_is_checked_and_serves_again(undisturbed: Losses, tmp_path: Path) -> None:
    run = survive(tmp_path, "slow worker 1 at step 20 by 0.2 s; kill node 0 at step 86", spares=1)
    assert report_of(run).losses == undisturbed
    (checked,) = events_of(run, "checked")
    assert checked.data == {"node": "node-1", "passed": True, "why": ""}
    assert [event.text("node") for event in events_of(run, "promoted")] == ["node-2", "node-1"]


# What Python runs before the check of node-1, and only there: a bit of what it computes with is another.
BROKEN = """
import os, sys
with open(f"/proc/{os.getppid()}/cmdline", "rb") as parent:
    if "colossi.acceptance.cores" in sys.orig_argv and b"node-1" in parent.read():
        import numpy
        whole = numpy.arange
        def arange(*given, **more):
            numbers = whole(*given, **more)
            numbers[1000] ^= 1 << 31
            return numbers
        numpy.arange = arange
"""


def test_a_node_that_fails_its_check_is_never_used_again(undisturbed: Losses, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    spec, run = spec_file(tmp_path, STEPS, workers=1, nodes=2, spares=1), tmp_path / "run"
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    faults = "slow worker 1 at step 20 by 0.2 s; kill node 0 at step 75"
    done = colossi("train", spec, "--run", run, "--chaos", faults, env={"PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    (quarantined,) = events_of(run, "quarantined")
    assert quarantined.text("node") == "node-1" and "multiplies wrongly" in quarantined.text("why")
    assert [event.data["passed"] for event in events_of(run, "checked")] == [False]
    assert [event.text("node") for event in events_of(run, "promoted")] == ["node-2"]
    assert "shrunk" in kinds_of(run)  # rather than with node-1
    assert dict(report_of(run).losses) == pytest.approx(dict(undisturbed), rel=1e-5)


def test_without_a_spare_the_run_shrinks_and_grows_again(tmp_path: Path) -> None:
    steps = 400
    quiet, disturbed = tmp_path / "quiet", tmp_path / "disturbed"
    for folder in (quiet, disturbed):
        folder.mkdir()
    done = colossi("train", spec_file(quiet, steps, workers=1, nodes=2), "--run", quiet / "run")
    assert done.returncode == 0, done.stderr
    run = survive(disturbed, "kill node 1 at step 50", spares=0, steps=steps)
    assert [kind for kind in kinds_of(run) if kind in ("shrunk", "grown")] == ["shrunk", "grown"]
    assert "resumed" not in kinds_of(run)
    losses = dict(report_of(quiet / "run").losses)
    for step, loss in report_of(run).losses[:200]:  # the order of sums differs, and differences grow slowly
        assert loss == pytest.approx(losses[step], rel=1e-5), step


def test_a_new_controller_takes_over_and_nobody_notices(undisturbed: Losses, tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, STEPS, workers=1, nodes=2), tmp_path / "run"
    first = start("train", spec, "--run", run)
    wait_for_step(run, 10, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    agents = set(processes_of(run))
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 0, done.stderr
    assert report_of(run).losses == undisturbed
    assert [event.data["took_over"] for event in events_of(run, "controller_started")] == [False, True]
    assert agents and len(events_of(run, "incarnation_started")) == 1


def test_a_new_controller_finds_a_collective_that_never_returns(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 100_000, workers=1, nodes=2), tmp_path / "run"
    first = start("train", spec, "--run", run)
    wait_for_step(run, 10, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    step = steps_done(run) + 300
    second = start("train", spec, "--run", run, "--chaos", f"hang worker 1 at step {step}")
    wait_for_step(run, step + 3, second)
    kill_all(second, run)
    assert [event.data["took_over"] for event in events_of(run, "controller_started")] == [False, True]
    assert causes(run)[0].startswith("no step for 10") and restored_from(run) == ["memory"]


def test_a_worker_dies_while_there_is_no_controller(undisturbed: Losses, tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, STEPS, workers=1, nodes=2), tmp_path / "run"
    first = start("train", spec, "--run", run)
    wait_for_step(run, 10, first)
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    worker = max(processes_of(run))  # forked last
    os.kill(worker, signal.SIGKILL)
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 0, done.stderr
    assert report_of(run).losses == undisturbed
    assert restored_from(run) == ["memory"]


def begin_again(run: Path, spec: Path, *more: str) -> tuple[subprocess.Popen[bytes], tuple[str, ...]]:
    """The run goes on; its process, and the nodes that it begins on, once they have done a step."""
    done = steps_done(run)
    process = start("train", spec, "--run", run, *more)
    wait_for_step(run, done + 1, process)
    last = events_of(run, "incarnation_started")[-1]
    return process, tuple(cast(list[str], last.data["nodes"]))


def interrupt(process: subprocess.Popen[bytes]) -> None:
    """Ctrl-C: it saves and stops."""
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0


def kill_worker(run: Path, node: str, process: subprocess.Popen[bytes]) -> None:
    """SIGKILL, and wait until the run goes on."""
    begun = len(events_of(run, "incarnation_started"))
    os.kill(worker_of(run, node), signal.SIGKILL)
    deadline = time.monotonic() + 30
    while len(events_of(run, "incarnation_started")) == begun and process.poll() is None:
        assert time.monotonic() < deadline, f"no incarnation after the worker of {node} was killed"
        time.sleep(0.02)
    wait_for_step(run, steps_done(run) + 1, process)


def test_a_run_that_begins_again_remembers_which_node_failed_until_it_is_readmitted(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 100_000, workers=1, nodes=2, spares=1), tmp_path / "run"
    process, nodes = begin_again(run, spec)
    assert nodes == ("node-0", "node-1")
    kill_worker(run, "node-1", process)
    kill_worker(run, "node-1", process)
    interrupt(process)
    process, nodes = begin_again(run, spec)
    assert nodes == ("node-0", "node-1") and not events_of(run, "quarantined")
    kill_worker(run, "node-1", process)  # the third time in a day
    (quarantined,) = events_of(run, "quarantined")
    assert quarantined.text("node") == "node-1" and "3 times in a day" in quarantined.text("why")
    interrupt(process)
    process, nodes = begin_again(run, spec)
    assert set(nodes) == {"node-0", "node-2"}
    interrupt(process)
    again = ("--readmit", "node-1")
    process, nodes = begin_again(run, spec, *again)
    assert set(nodes) == {"node-0", "node-1"}
    kill_worker(run, "node-1", process)  # the first one that counts
    assert len(events_of(run, "quarantined")) == 1
    interrupt(process)
    done = colossi("train", spec, "--run", run, *again)
    assert done.returncode == 2
    assert "error: --readmit node-1: it is not quarantined\nhint: no node of this run is\n" in done.stderr


def test_nobody_is_locked_out_of_the_own_machine(tmp_path: Path) -> None:
    """Without a spare a run begins at once on what is left; where nothing is left it says what to do."""
    spec, run = spec_file(tmp_path, 100_000, workers=1, nodes=2), tmp_path / "run"
    process, _ = begin_again(run, spec)
    interrupt(process)
    quarantine(run, "node-1")
    process, nodes = begin_again(run, spec)
    assert nodes == ("node-0",)
    interrupt(process)
    quarantine(run, "node-0")
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 2
    assert "error: node-0 is quarantined: it does not answer; node-1 is quarantined" in done.stderr
    assert "--readmit node-0 uses it again" in done.stderr
    process, nodes = begin_again(run, spec, "--readmit", "node-0", "--readmit", "node-1")
    assert set(nodes) == {"node-0", "node-1"}
    interrupt(process)


def quarantine(run: Path, node: str) -> None:
    """As a controller writes it."""
    data = {"node": node, "why": "it does not answer"}
    with Run(run).ledger() as ledger:
        number = ledger.next_incarnation() - 1
        ledger.append(Event(time=time.time(), kind="quarantined", incarnation=number, data=data))


def test_who_does_not_know_the_token_is_refused_and_logged(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 400, workers=1), tmp_path / "run"
    process = start("train", spec, "--run", run)
    wait_for_step(run, 1, process)
    assert (run / "token").stat().st_mode & 0o777 == 0o600
    address = json.loads((run / "controller.json").read_text())["address"]
    assert address.startswith("127.0.0.1:")
    with pytest.raises(Refused):
        Channel.connect(address, b"a guess", {"node": "stranger"})
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port))) as noise:
        noise.sendall(b"GET / HTTP/1.1\r\n\r\n")
        time.sleep(0.5)
    kill_all(process, run)
    assert len(events_of(run, "refused")) == 2
    with Run(run).ledger() as ledger:
        assert not any(event.text("node") == "stranger" for _, event in ledger.events("node_joined"))


def test_workers_that_cannot_even_start_are_an_error_at_once(tmp_path: Path) -> None:
    broken = tmp_path / "broken" / "torch"
    broken.mkdir(parents=True)
    (broken / "__init__.py").write_text("raise ImportError('torch is broken here')")
    spec, run = spec_file(tmp_path, 3, workers=1), tmp_path / "run"
    done = colossi("train", spec, "--run", run, env={"PYTHONPATH": str(broken.parent)})
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert "error: node-0: its agent ended before it could begin" in done.stderr
    log = run / "logs" / "node-0.log"
    assert f"hint: its log is {log}" in done.stderr and "torch is broken here" in log.read_text()
    assert processes_of(run) == []


@pytest.mark.long
@pytest.mark.timeout(900)
def test_a_hundred_random_faults_change_nothing(tmp_path: Path) -> None:
    spec = spec_file(tmp_path, 500, workers=1, nodes=2, spares=1)
    quiet, run = tmp_path / "quiet", tmp_path / "run"
    assert colossi("train", spec, "--run", quiet).returncode == 0
    done = colossi("train", spec, "--run", run, "--chaos", "random:3:0.25", timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]
    assert len(events_of(run, "chaos")) >= 100
    assert report_of(run).losses == report_of(quiet).losses
