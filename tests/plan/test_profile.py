"""Constants are found again in timings made from them; profiles are written, read and refused."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from colossi.errors import SpecError
from colossi.plan.efficiency import Efficiency
from colossi.plan.fitting import fit, least_squares
from colossi.plan.forecast import forecast
from colossi.plan.profile import Measured, Profile, profile_path, read_profile, write_profile
from colossi.spec.spec import Spec

PEAK, RATE = 5e10, 8e9  # FLOP/s, bytes/s


def product(m: float, n: float, k: float) -> float:
    """2 m n k / peak, half of it lost at an inner side of 50, columns of 20 or rows of 10; 3 us a call."""
    return 2 * m * n * k / PEAK * (1 + 50 / k + 20 / n + 10 / m) + 3e-6


def both(m: float, n: float, k: float) -> tuple[float, float]:
    return product(m, n, k), product(m, k, n) + product(k, n, m) - 3e-6


SHAPES = ((512, 192, 64), (768, 256, 192), (256, 512, 512), (2048, 128, 128), (64, 64, 1024), (1024, 32, 256))
SENT = (1 << 12, 1 << 16, 1 << 20, 1 << 24)


def timings() -> dict[str, list[list[float]]]:
    """Of a machine whose gathers take 0.2 ms and 1 s for each GB, and its all-reduces three times that."""
    gathers = {size: 2e-4 + size / 2 / 1e9 for size in SENT}
    attention = []
    for batch, heads, length, size in ((8, 4, 64, 32), (4, 4, 256, 64), (2, 8, 512, 64), (4, 2, 128, 32)):
        scores = batch * heads * length**2 / 2
        forward = 4 * scores * size / (0.5 * PEAK) + 2e-9 * scores
        attention.append([batch, heads, heads, length, size, forward, 2 * forward])
    return {
        "product": [[*shape, *both(*shape)] for shape in SHAPES],
        "grouped": [
            [rows, 4, 128, 128, *(4 * 2 * each for each in both(rows / 4, 128, 128))] for rows in (512, 4096)
        ],
        "attention": attention,
        "block": [
            [64, 64, 2, 1, 32, experts, k, batch, 64, 2e-3 * (1 + batch) * (1 + k)]
            for experts, k in ((1, 1), (4, 2))
            for batch in (1, 4, 16)
        ],
        "head": [[64, vocabulary, 8, 64, 1e-3 + 1e-5 * vocabulary] for vocabulary in (256, 1024, 4096)],
        "adamw": [[hidden, 64, 2, hidden * 1e-5] for hidden in (64, 128, 512)],
        "muon": [[hidden, 64, 2, hidden * 1e-4] for hidden in (64, 128, 512)],
        "memory": [[RATE]],
        "all_gather": [[size, gathers[size]] for size in SENT],
        "reduce_scatter": [[size, gathers[size]] for size in SENT],
        "sharded": [[hidden, 64, 2, 1, 1, 2, 64, 10.0] for hidden in (64, 128, 256)],
        "all_reduce": [[size, 3 * gathers[size]] for size in SENT],
    }


def test_constants_are_found_again() -> None:
    found = fit(2, False, 1e9, timings())
    e = found.efficiency
    assert found.peak == pytest.approx(PEAK, rel=0.02) and found.memory_rate == RATE
    assert (e.product_depth, e.product_width, e.product_rows) == pytest.approx((50, 20, 10), rel=0.1)
    assert found.attention_share == pytest.approx(0.5, rel=0.03)
    assert e.score_seconds == pytest.approx(2e-9, rel=0.05)
    assert e.product_grouped == pytest.approx(0.5, rel=0.05)
    assert found.link == pytest.approx(1e9) and e.link_delay == pytest.approx(2e-4)
    assert e.reduce_rounds == pytest.approx(3)


def test_nothing_is_fitted_below_zero() -> None:
    x = np.array([1.0, 2.0, 3.0, 4.0])
    columns = np.stack([x, np.ones(4)], 1)
    assert least_squares(columns, 2 * x + 5) == pytest.approx([2, 5])
    slope, constant = least_squares(columns, 2 * x - 1)
    assert constant == 0 and 1 < slope < 2


@pytest.fixture
def data_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    return tmp_path


def profile_of(*workers: int) -> Profile:
    one = fit(2, False, 1e9, timings())
    return Profile("two cores", "2026-11-25", tuple(replace(one, workers=each) for each in workers))


def spec_of(workers: int = 2, **layout: int) -> Spec:
    return Spec.model_validate(
        {
            "name": "small",
            "model": {
                "layers": 4,
                "hidden": 64,
                "heads": 4,
                "kv_heads": 4,
                "ffn_hidden": 128,
                "vocabulary": 256,
            },
            "training": {"sequence_length": 64, "global_batch": 8, "steps": 10},
            "layout": layout,
            "cluster": {"workers_per_node": workers, "profile": "mine"},
        }
    )


def test_what_is_written_is_read(data_home: Path) -> None:
    profile = profile_of(1, 2)
    path = write_profile("mine", profile)
    assert path == profile_path("mine") == data_home / "colossi" / "profiles" / "mine.toml"
    assert read_profile("mine") == profile


def test_a_forecast_takes_the_world_of_its_workers(data_home: Path) -> None:
    slow, fast = profile_of(1, 2).worlds
    write_profile("mine", Profile("two cores", "2026-11-25", (replace(slow, peak=PEAK / 100), fast)))
    two, one = forecast(spec_of(2)), forecast(spec_of(1))
    # All that two workers do at once one does in turn, at a hundredth of the speed.
    assert one.step_seconds > 20 * two.step_seconds
    assert two.step.data > 0 and one.step.data == 0
    assert two.peak == pytest.approx(PEAK, rel=0.02) and two.energy == 0


def test_nothing_hides_on_a_device_that_is_its_own_host(data_home: Path) -> None:
    """Gathers of weights are seen in full: the same in a step that computes ten times as long."""
    write_profile("mine", profile_of(2))
    short, long = (
        forecast(spec_of(2, shard=2)),
        forecast(
            spec_of(2, shard=2).model_copy(
                update={
                    "training": spec_of(2).training.model_copy(update={"global_batch": 80}),  # type: ignore[union-attr]
                    "layout": spec_of(2, shard=2).layout.model_copy(update={"micro_batch": 40}),
                }
            )
        ),
    )
    assert long.step.compute > 4 * short.step.compute
    assert short.step.data == pytest.approx(long.step.data) and short.step.data > 0


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "there is no"),
        ("worlds = [", "cannot be read"),
        ('device = "x"', "is no profile"),
        (
            'device = "x"\ndate = "y"\n[[worlds]]\nworkers = 1\n[worlds.efficiency]\nspeed = 1.0',
            "is no profile",
        ),
    ],
)
def test_a_profile_that_is_none_is_refused(data_home: Path, text: str | None, said: str) -> None:
    path = profile_path("mine")
    if text is not None:
        path.parent.mkdir(parents=True)
        path.write_text(text)
    with pytest.raises(SpecError, match=said) as refused:
        forecast(spec_of())
    assert refused.value.hint == "colossi calibrate --name mine measures this device"
    assert "\n" not in refused.value.message


def test_workers_that_were_not_measured_are_refused(data_home: Path) -> None:
    write_profile("mine", profile_of(1, 2))
    with pytest.raises(SpecError, match="no world of 8 workers: use 1 or 2"):
        forecast(spec_of(8))


def test_sharded_weights_have_their_own_world(data_home: Path) -> None:
    kept = fit(2, False, 1e9, timings())
    returned: Measured = replace(kept, returned=True, efficiency=Efficiency())
    both = Profile("two cores", "2026-11-25", (kept, returned))
    assert both.world(2, True) is returned and both.world(2, False) is kept
