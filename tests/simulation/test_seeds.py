"""Many lives: one that is broken off goes on where it was, and comes to the same."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from colossi.simulation.scenario import Scenario
from colossi.simulation.seeds import lives
from colossi.spec.failures import FailuresSpec
from colossi.world.failures import rates_of

from .small import scenario

ROOT = Path(__file__).parent.parent.parent
SEEDS = 60


def machine() -> Scenario:
    """A small one, whose lives take no time."""
    return scenario(rates=rates_of(FailuresSpec()), seconds=1e4)


def sweep(folder: Path) -> "subprocess.Popen[str]":
    """A real one, in a process group of its own; it takes some seconds."""
    words = ("simulate", "examples/llama3.toml", "--days", "3", "--seeds", str(SEEDS), "--json")
    return subprocess.Popen(
        [sys.executable, "-m", "colossi.cli", *words, "--run", str(folder)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": ":".join(sys.path), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=heed_ctrl_c,
    )


def heed_ctrl_c() -> None:
    """As under a terminal: what a shell has put into the background ignores it, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def wait_for_lives(kept: Path, process: "subprocess.Popen[str]", wanted: int) -> None:
    """Until so many are kept."""
    while not kept.exists() or kept.read_bytes().count(b"\n") < wanted:
        assert process.poll() is None, f"it ended too soon: {process.communicate()}"
        time.sleep(0.005)


def gone(group: int) -> bool:
    """Whether no process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


def result_of(process: "subprocess.Popen[str]") -> object:
    out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> object:
    """What a sweep comes to that nobody disturbs."""
    return result_of(sweep(tmp_path_factory.mktemp("whole") / "run"))


def test_killed_it_goes_on_and_comes_to_the_same(tmp_path: Path, whole: object) -> None:
    kept = tmp_path / "run" / "seeds.jsonl"
    for wanted in (2, 8):
        process = sweep(tmp_path / "run")
        wait_for_lives(kept, process, wanted)
        process.kill()  # it alone: its workers must see to themselves
        process.communicate()
        while not gone(process.pid):
            time.sleep(0.01)  # the test's own time-out ends this
        lines = kept.read_bytes().split(b"\n")
        assert wanted <= len(lines) - 1 < SEEDS
        assert all(json.loads(line) for line in lines[:-1])
        kept.write_bytes(kept.read_bytes() + lines[0][:40])  # a line that the kill has cut off
    begun = {line for line in kept.read_text().splitlines() if line.endswith("}")}
    assert result_of(sweep(tmp_path / "run")) == whole
    seeds = [json.loads(line)["seed"] for line in kept.read_text().splitlines()]
    assert sorted(seeds) == list(range(1, SEEDS + 1))
    assert begun < set(kept.read_text().splitlines())  # they were not lived again


def test_ctrl_c_ends_it_in_a_word(tmp_path: Path, whole: object) -> None:
    """A terminal interrupts the whole group, as here."""
    process = sweep(tmp_path / "run")
    wait_for_lives(tmp_path / "run" / "seeds.jsonl", process, 2)
    os.killpg(process.pid, signal.SIGINT)
    out, err = process.communicate()
    assert process.returncode == 130
    assert out == ""
    assert "Traceback" not in err
    while not gone(process.pid):
        time.sleep(0.01)  # the test's own time-out ends this
    assert result_of(sweep(tmp_path / "run")) == whole


def test_a_line_that_was_cut_off_is_no_life_and_hurts_no_other(tmp_path: Path) -> None:
    kept = tmp_path / "seeds.jsonl"
    found = lives(machine(), 3, kept)
    whole = kept.read_bytes()
    first = whole.index(b"\n")
    for cut in (0, 1, first - 1, first, first + 1, first + 40, len(whole) - 1):
        kept.write_bytes(whole[:cut])
        assert lives(machine(), 3, kept) == found
        assert lives(machine(), 3, kept) == found  # as it stands now
        assert kept.read_bytes().count(b"\n") == 3


def test_lives_that_are_kept_are_not_lived_again(tmp_path: Path) -> None:
    kept = tmp_path / "seeds.jsonl"
    lives(machine(), 2, kept)
    told: list[tuple[int, int]] = []
    lives(machine(), 3, kept, lambda done, total: told.append((done, total)))
    assert told == [(2, 3), (3, 3)]
