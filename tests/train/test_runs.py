"""Whole runs with real workers: killed at random moments, stopped, under other layouts, out of disk."""

import contextlib
import random
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from colossi.ledger.run import Run, complete

from .runs import colossi, kill_all, kinds_of, report_of, spec_file, start, steps_done, wait_for_step

STEPS = 30
KILLS = 20
LONG = 500  # steps, enough to outlive them


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[tuple[int, float], ...]:
    """The losses of a run that nothing happens to."""
    folder = tmp_path_factory.mktemp("undisturbed")
    done = colossi("train", spec_file(folder, STEPS), "--run", folder / "run")
    assert done.returncode == 0, done.stderr
    return report_of(folder / "run").losses


@pytest.mark.timeout(900)
def test_killed_at_twenty_random_moments_the_curve_is_the_same_to_the_last_bit(tmp_path: Path) -> None:
    # Checkpoints every 3 steps take about as long as the steps between: many of the kills fall into a save.
    spec, run, quiet = spec_file(tmp_path, LONG, every=3), tmp_path / "run", tmp_path / "quiet"
    done = colossi("train", spec, "--run", quiet)
    assert done.returncode == 0, done.stderr
    moments = random.Random(11)
    for _ in range(KILLS):
        process = start("train", spec, "--run", run)
        wait_for_step(run, steps_done(run) + 1, process)
        time.sleep(moments.uniform(0.0, 0.25))
        kill_all(process, run)
    assert "finished" not in kinds_of(run), "too few steps for so many kills"
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 0, done.stderr
    assert report_of(run).losses == report_of(quiet).losses
    assert len(report_of(run).incarnations) == KILLS + 1


def test_ctrl_c_saves_and_the_same_command_goes_on(
    undisturbed: tuple[tuple[int, float], ...], tmp_path: Path
) -> None:
    spec, run = spec_file(tmp_path, STEPS, every=0), tmp_path / "run"
    process = start("train", spec, "--run", run)
    wait_for_step(run, 1, process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=30) == 0
    assert "stopped" in kinds_of(run) and len(complete(run / "checkpoints")) == 1
    assert len(report_of(run).losses) < STEPS
    again = colossi("train", spec, "--run", run)
    assert again.returncode == 0, again.stderr
    assert report_of(run).losses == undisturbed


@pytest.mark.parametrize(
    "layout", [{"shard": 2}, {"tensor": 2}, {"expert": 2}], ids=lambda layout: next(iter(layout))
)
def test_a_checkpoint_goes_on_under_another_layout(
    layout: dict[str, int], undisturbed: tuple[tuple[int, float], ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    half = colossi("train", spec_file(tmp_path, STEPS // 2), "--run", run)
    assert half.returncode == 0, half.stderr
    rest = colossi("train", spec_file(tmp_path, STEPS, **layout), "--run", run)
    assert rest.returncode == 0, rest.stderr
    losses = dict(report_of(run).losses)
    assert len(losses) == STEPS
    # cosine at 15 steps is not cosine at 30: the second half is compared with a run of the same two specs
    same = tmp_path / "same"
    for steps in (STEPS // 2, STEPS):
        colossi("train", spec_file(tmp_path, steps), "--run", same)
    for step, loss in report_of(same).losses:
        assert losses[step] == pytest.approx(loss, rel=2e-3), step


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 3, workers=1), tmp_path / "run"
    assert colossi("train", spec, "--run", run).returncode == 0
    events = kinds_of(run)
    assert colossi("train", spec, "--run", run).returncode == 0
    assert kinds_of(run) == events


def test_another_spec_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 3, workers=1), tmp_path / "run"
    assert colossi("train", spec, "--run", run).returncode == 0
    refused = colossi("train", spec, "--run", run, "--set", "training.learning_rate=0.5")
    assert refused.returncode == 2
    assert "training.learning_rate = 0.003" in refused.stderr and "0.5" in refused.stderr
    assert "Traceback" not in refused.stderr


def test_a_damaged_checkpoint_is_reported_and_the_one_before_is_used(
    undisturbed: tuple[tuple[int, float], ...], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    spec = spec_file(tmp_path, STEPS, every=5)
    process = start("train", spec, "--run", run)
    while len(complete(run / "checkpoints")) < 2:
        assert process.poll() is None
        time.sleep(0.02)
    kill_all(process, run)
    newest, before = complete(run / "checkpoints")[:2]
    shard = next(newest.glob("__0_*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1  # one bit
    shard.write_bytes(content)
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 0, done.stderr
    with Run(run).ledger() as ledger:
        damaged = [event.text("folder") for _, event in ledger.events("checkpoint_damaged")]
        resumed = [event.step for _, event in ledger.events("resumed")]
    assert damaged == [newest.name] and resumed == [int(before.name.removeprefix("step-"))]
    assert report_of(run).losses == undisturbed


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own; needs the right to mount."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def test_a_full_disk_costs_a_checkpoint_not_the_run(tiny_disk: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    spec = spec_file(tmp_path, 12, every=4)
    first = colossi("train", spec, "--run", run, "--set", "training.steps=4")
    assert first.returncode == 0, first.stderr
    good = complete(run / "checkpoints")[0]
    shutil.move(run / "checkpoints", tiny_disk)  # to the small disk, and linked back
    (run / "checkpoints").symlink_to(tiny_disk / "checkpoints")
    filler = tiny_disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))
    done = colossi("train", spec, "--run", run)
    assert done.returncode == 1
    assert "last checkpoint could not be written" in done.stderr and "No space left" in done.stderr
    assert "Traceback" not in done.stderr
    assert kinds_of(run).count("checkpoint_failed") == 2 and len(report_of(run).losses) == 12
    assert [path.name for path in complete(run / "checkpoints")] == [good.name]
    filler.unlink()
    again = colossi("train", spec, "--run", run)
    assert again.returncode == 0, again.stderr
    assert complete(run / "checkpoints")[0].name == "step-00000012"


def test_a_loss_that_is_no_number_stops_the_run_and_says_where(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 30, workers=1), tmp_path / "run"
    done = colossi("train", spec, "--run", run, "--set", "training.learning_rate=3e38")
    assert done.returncode == 1
    error = done.stderr[done.stderr.index("error: ") :]
    words = r"error: rank 0 on node-0: step \d+: loss nan, .*(not finite: |not finite after )\w+"
    assert re.match(words, error), error
    assert error.count("\n") == 2 and "\nhint: lower training.learning_rate" in error
    with Run(run).ledger() as ledger:
        assert len(list(ledger.events("gave_up"))) == 1
    assert all(loss == loss for _, loss in report_of(run).losses)


def test_a_loss_above_the_limit_stops_the_run(tmp_path: Path) -> None:
    spec, run = spec_file(tmp_path, 30, workers=1), tmp_path / "run"
    done = colossi("train", spec, "--run", run, "--set", "training.loss_limit=1.0")
    assert done.returncode == 1 and "error: rank 0 on node-0: step 1: loss 5." in done.stderr
