"""`colossi calibrate` on a few tiny shapes, and a report that lays its forecast beside the measured step."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from colossi.cli import app
from colossi.ledger.events import Event
from colossi.ledger.run import begin_run
from colossi.plan.profile import read_profile
from colossi.spec import read_spec
from colossi.train import calibrate, timings

from .runs import spec_file

FEW = {
    "PRODUCTS": ((64, 32, 16), (16, 64, 32), (32, 32, 64)),
    "GROUPED": ((64, 2, 32, 32), (32, 2, 16, 32)),
    "ATTENTION": ((2, 2, 1, 32, 16), (2, 2, 1, 64, 16), (1, 2, 2, 64, 32)),
    "BLOCKS": tuple(
        (32, 32, 2, 1, 16, experts, min(2, experts), batch, 16) for experts in (1, 4) for batch in (1, 8)
    ),
    "HEADS": ((32, 64, 2, 16), (32, 256, 2, 16)),
    "OPTIMIZED": ((32, 32, 2), (64, 64, 2)),
    "CHUNKS": 1,
    "CHUNK_SECONDS": 0.001,
}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """One worker that measures in this process, in a moment."""
    for name, value in FEW.items():
        monkeypatch.setattr(timings, name, value)

    def here(workers: int, environment: dict[str, str], progress: object) -> timings.Timings:
        assert environment["OMP_WAIT_POLICY"] == "passive"
        found: timings.Timings = {}
        for kind, numbers in timings.pieces(1):
            found.setdefault(kind, []).append(numbers)
        return found

    monkeypatch.setattr(calibrate, "measure", here)
    monkeypatch.setattr(calibrate, "WORLDS", ((1, False),))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path


def test_calibrate_and_report(tiny: Path) -> None:
    done = CliRunner().invoke(app, ["calibrate", "--name", "tiny", "--json"])
    assert done.exit_code == 0, done.output
    said = json.loads(done.stdout.splitlines()[-1])
    profile = read_profile("tiny")
    assert said["path"].endswith("tiny.toml") and Path(said["path"]).is_file()
    assert [world.workers for world in profile.worlds] == [1]
    assert profile.worlds[0].peak > 1e8 and profile.worlds[0].memory_rate > 1e8

    spec = read_spec(spec_file(tiny, workers=1), ["cluster.profile=tiny"])
    run = begin_run(tiny / "run", spec)
    with run.ledger() as ledger:
        for step, seconds in enumerate((9.0, 0.02, 0.01, 0.03), 1):
            data = {"seconds": seconds, "cpu_seconds": seconds / 2, "loss": 1.0, "tokens": 1}
            ledger.append(Event(time=float(step), kind="step_done", incarnation=1, step=step, data=data))
    shown = CliRunner().invoke(app, ["report", str(run.folder), "--json"])
    found = json.loads(shown.stdout)
    assert found["step_seconds"] == 0.02 and found["cpu_seconds"] == 0.01  # without the first
    alone = CliRunner().invoke(app, ["forecast", str(run.spec_file), "--json"])
    assert found["forecast_step_seconds"] == json.loads(alone.stdout)["step_seconds"] > 0
    page = CliRunner().invoke(app, ["report", str(run.folder)]).stdout
    assert "a step" in page and "forecast" in page and "%)" in page

    read_profile("tiny")
    Path(said["path"]).unlink()
    without = CliRunner().invoke(app, ["report", str(run.folder), "--json"])
    assert (
        without.exit_code == 0
        and json.loads(without.stdout.splitlines()[-1])["forecast_step_seconds"] is None
    )


def test_a_name_that_no_spec_could_have() -> None:
    done = CliRunner().invoke(app, ["calibrate", "--name", "../mine"])
    assert done.exit_code != 0 and "letters, digits" in str(done.exception)


@pytest.mark.long
def test_two_workers_measure_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two real processes, from their start to their collectives; each kind at each of its shapes."""
    monkeypatch.setenv("PYTHONPATH", str(Path(calibrate.__file__).parents[2]))
    heard: list[tuple[int, int]] = []
    found = calibrate.measure(2, {}, lambda done, total: heard.append((done, total)))
    assert heard[-1] == (timings.count(2), timings.count(2))
    assert [size for size, _ in found["all_reduce"]] == list(timings.SIZES)
    assert all(row[-1] > 0 for kind in ("block", "head", "all_gather") for row in found[kind])
