"""Checks in processes of their own, and a fleet of real agents: who hangs, who dies, who is slow."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
import torch

from colossi.acceptance import checks, fleet, wire
from colossi.acceptance.result import Result, verdict
from colossi.spec.acceptance import acceptance_of
from colossi.train import products


def quiet(what: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.mark.parametrize(
    ("code", "why"),
    [
        ("import time; time.sleep(60)", "did not end in 0.5 s"),
        ("import os; os.kill(os.getpid(), 9)", "ended with exit code -9"),
        ("raise OSError('the driver is gone')", "OSError: the driver is gone"),
        ("print('hello')", "ended with exit code 0"),
        ("print('[{\"nonsense\": 1}]')", "ended with exit code 0"),
    ],
)
def test_a_check_that_does_not_end_well_fails_and_is_named(code: str, why: str) -> None:
    (result,) = checks.started("disk", [sys.executable, "-c", code], 0.5 if "sleep" in code else 20.0)
    assert result.check == "disk.ends" and result.status == "fail" and why in result.why


def test_this_machine_can_be_checked(tmp_path: Path) -> None:
    found = dict(checks.check_node(tmp_path, ["disk", "clock", "nic", "gpu"]))
    assert list(found) == ["disk", "clock", "nic", "gpu", "gpu-log", "gpu-rates"]
    results = [each for own in found.values() for each in own]
    assert [each for each in results if each.status == "fail"] == []
    assert all(
        each == Result.of(each.as_json()) for each in results if each.seconds == round(each.seconds, 3)
    )
    assert list(tmp_path.iterdir()) == []


def test_the_echo_refuses_who_does_not_know_the_token() -> None:
    echo = wire.Echo("127.0.0.1", b"secret")
    assert wire.exchange(echo.address, b"secret", 0.02) > 1e6
    with pytest.raises((OSError, wire.Refused)):
        wire.exchange(echo.address, b"guess", 0.02)
    echo.close()


@contextmanager
def agents(folder: Path, count: int) -> Iterator[tuple[fleet.Fleet, dict[str, int]]]:
    """A fleet of real agents on this machine, and the process of each."""
    names = [f"node-{number}" for number in range(count)]
    with ExitStack() as stack:
        listening, _ = stack.enter_context(fleet.gathering(folder, "127.0.0.1"))
        running = {}
        for name in names:
            words = [sys.executable, "-m", "colossi.acceptance.agent", str(folder), name, "rack"]
            running[name] = stack.enter_context(subprocess.Popen(words, stdin=subprocess.DEVNULL))
        members = fleet.join(listening, folder, names, 60.0, quiet)
        assert sorted(members) == names
        it = fleet.Fleet(members, at_once=False)
        stack.callback(it.end)
        yield it, {name: process.pid for name, process in running.items()}


@contextmanager
def held_up(pid: int) -> Iterator[None]:
    """It stands still nine tenths of the time."""
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            os.kill(pid, signal.SIGSTOP)
            time.sleep(0.09)
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def test_a_node_that_is_held_up_is_named_by_its_pairs(tmp_path: Path) -> None:
    with agents(tmp_path, 4) as (it, pids), held_up(pids["node-2"]):
        judged = fleet.check_fleet(it, acceptance_of(), quiet, ["clock", "pairs"])
    assert [node for node, own in judged.items() if verdict(own) == "fail"] == ["node-2"]
    assert {each.check for own in judged.values() for each in own} >= {"clock.offset", "pairs.rate"}
    assert not (tmp_path / "check.json").exists()


def test_a_node_that_dies_is_the_only_one_to_fail(tmp_path: Path) -> None:
    with agents(tmp_path, 3) as (it, pids):
        os.kill(pids["node-1"], signal.SIGKILL)
        judged = fleet.check_fleet(it, acceptance_of(), quiet, ["nic", "pairs"])
    assert [node for node, own in judged.items() if verdict(own) == "fail"] == ["node-1"]
    assert [each.check for each in judged["node-1"]] == ["agent.answers"]


def test_the_gpus_program_works_on_a_cpu() -> None:
    """Its code, with small sizes; what it would find on a GPU no test here can say."""
    cpu = torch.device("cpu")
    found = [Result.of(each) for each in products.of_device(cpu, "GPU 0", 64, 1 << 20, 1 << 20)]
    found += [Result.of(each) for each in products.between([cpu, cpu], 1 << 20)]
    assert [each.check for each in found] == [
        *("gpu.product", "gpu.memory", "gpu.host_to_device", "gpu.peer", "gpu.peer")
    ]
    assert all(each.value and each.value > 0 for each in found)


@pytest.mark.long
def test_so_does_its_all_reduce() -> None:
    (result,) = map(Result.of, products.all_reduce(2, 1 << 20, "gloo"))
    assert result.check == "gpu.all_reduce" and result.value and result.value > 0
