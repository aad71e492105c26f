"""Training while the cluster is built: what must hold in every life, and what a change is worth."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from colossi.simulation.building import compare_growth, elastic, grow
from colossi.simulation.scenario import Arrivals
from colossi.spec import read_spec
from colossi.spec.spec import Spec

from ..train.runs import colossi
from .small import SCENARIO, at, fault, of_kind, plan, play

ROOT = Path(__file__).parents[2]
MODEL = """
[model]
preset = "grok-1"
layers = 16

[training]
sequence_length = 8192
global_batch = 512
tokens = 400_000_000_000
precision = "bf16"
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small site, and a quarter of Grok-1 to be trained on it for days."""
    path = tmp_path_factory.mktemp("growth") / "small.toml"
    path.write_text((ROOT / "examples" / "site.toml").read_text() + MODEL)
    return path


@pytest.fixture(scope="module")
def spec(file: Path) -> Spec:
    return read_spec(file)


def silent(label: str, done: float, total: float | None) -> None:
    """Nobody watches."""


def test_the_layout_has_as_many_copies_as_fit(spec: Spec) -> None:
    grown, forecast = elastic(spec)
    assert forecast.fits and (grown.layout.replicate or 1) > 1
    half = spec.model_copy(update={"layout": grown.layout})
    assert elastic(half)[0].layout == grown.layout  # what is said is left


def test_each_life_keeps_to_the_bounds(spec: Spec) -> None:
    """No sooner than all GPUs from the first day on; later lots do not matter to those that are trained."""
    found = grow(spec, 3, silent)
    for first, complete, day, life in zip(
        found.first_training, found.complete, found.trained, found.lives, strict=True
    ):
        assert life.finished and complete > 0
        assert day > first + found.alone
        assert life.tokens == found.scenario.plan.steps * found.scenario.tokens_per_step
        assert life.days == pytest.approx(day - first)
    assert found.trained == grow(spec, 3, silent).trained


def test_a_later_seed_has_the_luck_of_its_own(spec: Spec) -> None:
    pods = np.array([0, 0, 1], np.int32)
    assert Arrivals(pods, np.array([[0.0, 5.0], [1.0, 7.0]])).of(2) == (1.0, 1.0, 7.0)


def test_what_changes_nothing_is_worth_nothing_and_sooner_racks_are_worth_days(file: Path) -> None:
    change = ["construction.deliveries.first_day=180.0,180,120.0"]
    (first, _, _), (same, gain, margin), (sooner, days, _) = compare_growth(file, [], change, 3, silent)
    assert (gain, margin) == (0.0, 0.0) and same.trained == first.trained
    assert days == pytest.approx(np.mean(first.trained) - np.mean(sooner.trained))


def test_the_command(file: Path) -> None:
    done = colossi("simulate", file, "--while-building", "--seeds", 2, "--json")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert said["unfinished"] == 0 and len(said["per_seed"]) == 2
    assert said["first_training_day"]["mean"] < said["trained_day"]["mean"]


def test_what_cannot_be_is_refused(file: Path) -> None:
    done = colossi("simulate", file, "--while-building", "--days", 3)
    assert done.returncode == 2 and done.stderr.startswith("error: --days: ")
    done = colossi("simulate", ROOT / "examples" / "llama3.toml", "--while-building")
    assert done.returncode == 2 and "[site] is missing" in done.stderr


def test_nodes_join_the_run_as_they_are_built() -> None:
    """It waits 1 s and 20 more, then half the nodes do 40 steps of 2 s; the others have come at 100 s."""
    alone = plan(copy=2, shares=1, steps=100, wait_seconds=1.0)
    machinery = replace(SCENARIO.machinery, nodes=4)
    history = play(plan=alone, machinery=machinery, arrivals=(0.0, 0.0, 100.0, 100.0), checkpoint_every=0)
    first, second = of_kind(history, "incarnation_started")
    assert (first.data["replicate"], second.data["replicate"]) == (2, 4)
    assert at(second) == 101.0
    # Begun again after step 39, as the copy of the 40th is not whole yet.
    assert at(of_kind(history, "finished")[0]) == pytest.approx(101 + 20 + 61 + 5)
    assert not of_kind(history, "fault") and not of_kind(history, "node_lost")


def test_what_is_not_built_cannot_fail() -> None:
    alone = plan(copy=2, shares=1, steps=100, wait_seconds=0.0)
    machinery = replace(SCENARIO.machinery, nodes=4)
    changes: dict[str, Any] = {"plan": alone, "machinery": machinery, "arrivals": (0.0, 0.0, 100.0, 100.0)}
    early = [fault(50.0, effect, 3) for effect in ("loss", "crash", "hang", "slow", "flap", "corrupt")]
    assert play(*early, **changes) == play(**changes)
