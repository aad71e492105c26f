"""Ten thousand storms over the controller and its command; and that a seed is a storm."""

import json
import os
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest

import colossi
from colossi.torture import many
from colossi.torture.storm import LARGE, Outcome, run, shape_of

STORMS, PARTS = 10_000, 4


@pytest.mark.parametrize("part", range(PARTS))
def test_no_storm_breaks_a_promise(part: int) -> None:
    share = STORMS // PARTS
    found = many.storms(part * share, share, None, lambda label, done, total: None)
    assert found.broken is None
    assert found.storms == share
    assert found.ended["finished"] > 0.8 * share  # and that is how most end
    assert found.faults > 3 * share and found.controllers > 1.2 * share


def colossi_torture(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    package = str(Path(colossi.__file__).parents[1])
    return subprocess.run(
        [sys.executable, "-m", "colossi.cli", "torture", *arguments],
        env=os.environ | {"PYTHONPATH": package} | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_seed_is_a_storm_whatever_the_order_of_sets() -> None:
    """Not even the hashes of strings, which Python draws anew for each process, change a word of it."""
    stories = {
        colossi_torture("--storms", "1", "--seed", "12", PYTHONHASHSEED=seed).stdout for seed in ("1", "2")
    }
    assert len(stories) == 1
    (story,) = stories
    assert "wants Start(incarnation=1" in story and story.endswith("every promise was kept\n")


def test_some_clusters_are_large() -> None:
    assert run(LARGE - 1).nodes >= 200


def test_it_says_what_it_did_to_programs() -> None:
    done = colossi_torture("--storms", "20", "--json")
    assert done.returncode == 0
    said = json.loads(done.stdout)
    assert said["storms"] == 20 == sum(said["ended"].values()) and said["broken"] is None
    assert "storms  100%  20/20" in done.stderr


def test_a_broken_promise_prints_what_replays_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def third(seed: int) -> Outcome:
        broken = "two at once" if seed == 7 else ""
        return Outcome(seed, 3, 1, 1, 5, 1, 60.0, "" if broken else "finished", broken)

    monkeypatch.setattr(many, "run", third)
    found = many.storms(5, 10, None, lambda label, done, total: None)
    assert found.storms == 3
    assert list(found.lines())[-2:] == ["seed 7: two at once", "colossi torture --seed 7 --storms 1"]


def test_ctrl_c_ends_it_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def pressed(seed: int) -> Outcome:
        if seed == 2:
            raise KeyboardInterrupt
        return run(seed)

    monkeypatch.setattr(many, "run", pressed)
    assert many.storms(0, 10, None, lambda label, done, total: None).storms == 2


def test_time_ends_it() -> None:
    assert many.storms(0, None, 0.0, lambda label, done, total: None).storms == 0


def test_shapes_differ() -> None:
    shapes = [shape_of(Random(seed), large=False) for seed in range(100)]
    assert {shape.plan.places for shape in shapes} >= {1, 2, 12}
    assert {shape.spares for shape in shapes} == {0, 1, 2, 3}
