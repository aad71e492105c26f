"""Forecasts and plans of specs, as their users get them."""

import json
import math
from pathlib import Path

import pytest

from colossi.errors import SpecError
from colossi.plan.forecast import forecast
from colossi.plan.plan import plan
from colossi.plan.sweep import sweep_of
from colossi.spec import Spec, build_spec, read_spec
from colossi.spec.size import count_parameters

EXAMPLES = Path(__file__).parents[2] / "examples"
RUN = {
    "name": "run",
    "model": {"preset": "grok-1"},
    "training": {
        "sequence_length": 8192,
        "global_batch": 4096,
        "tokens": 10**12,
        "precision": "bf16",
        "gradient_precision": "bf16",
    },
    "layout": {
        "tensor": 4,
        "pipeline": 8,
        "interleave": 8,
        "expert": 8,
        "expert_tensor": 4,
        "context": 2,
        "shard": 32,
        "zero": 1,
        "micro_batch": 1,
        "sequence_parallel": True,
    },
    "cluster": {"gpu": "H100-SXM", "gpus": 2048},
}
KEYS = {
    *("step_seconds", "mfu", "tflops_per_gpu", "memory_gib", "fits", "tokens_per_second", "days", "goodput"),
    *("gpu_hours", "cost_usd", "energy_mwh", "breakdown", "memory"),
}


def spec(**tables: dict[str, object]) -> Spec:
    """RUN with other keys in some tables."""
    document = {**RUN}
    for name, keys in tables.items():
        document[name] = {**document.get(name, {}), **keys}  # type: ignore[dict-item]
    return build_spec(document, "run.toml")


def test_grok_1_on_2048_h100s_as_nvidia_measured_it() -> None:
    # NVIDIA/dgxc-benchmarking v25.04.02, grok1: 21.29 s, 40.6% MFU, attention half; other vocabulary.
    found = forecast(spec())
    assert found.step_seconds == pytest.approx(21.29, rel=0.05)
    assert found.mfu == pytest.approx(0.406, rel=0.05)
    assert found.fits


def test_json_has_the_promised_keys_and_adds_up() -> None:
    facts = forecast(spec()).as_json()
    assert facts.keys() >= KEYS
    json.dumps(facts, allow_nan=False)
    assert sum(facts["breakdown"].values()) == pytest.approx(facts["step_seconds"])
    assert sum(facts["memory"].values()) == pytest.approx(facts["memory_gib"])
    assert facts["tokens_per_second"] * facts["step_seconds"] == pytest.approx(4096 * 8192)
    assert facts["gpu_hours"] == pytest.approx(2048 * 24 * facts["days"])
    assert facts["days"] * 86400 * facts["ettr"] == pytest.approx(facts["steps"] * facts["step_seconds"])
    assert facts["steps"] == math.ceil(10**12 / (4096 * 8192))


def test_one_gpu_holds_what_the_model_has() -> None:
    alone = spec(
        layout=dict.fromkeys(("tensor", "pipeline", "interleave", "context", "expert", "shard"), 1)
        | {"sequence_parallel": False, "expert_tensor": None},
        cluster={"gpus": 1},
        training={"global_batch": 1},
    )
    held = forecast(alone).memory
    parameters = count_parameters(alone.model).total
    assert held.weights / 2 == pytest.approx(parameters, rel=1e-4)  # norms are counted roughly
    assert held.optimizer / 12 == pytest.approx(parameters, rel=1e-4)


def test_faster_with_more_of_anything() -> None:
    base = forecast(spec()).step_seconds
    assert forecast(spec(cluster={"gpu": "B200"})).step_seconds < base
    assert forecast(spec(training={"precision": "fp8"})).step_seconds < base
    assert forecast(spec(layout={"recompute": "full"})).step_seconds > 1.2 * base
    assert forecast(spec(layout={"overlap": []})).step_seconds > base
    assert forecast(spec(training={"imbalance": 1.5})).step_seconds > base
    assert forecast(spec(layout={"recompute": "full"})).memory.total < forecast(spec()).memory.total


def test_goodput_falls_with_the_fleet() -> None:
    sizes = [
        forecast(spec(layout={"shard": n // 64}, cluster={"gpus": n})).goodput.ettr
        for n in (512, 2048, 16384)
    ]
    assert sizes == sorted(sizes, reverse=True)
    instant = spec(failures={"detection_seconds": 0.0, "restart_seconds": 0.0, "checkpoint_seconds": 0.0})
    assert forecast(instant).goodput.ettr > 0.98


@pytest.mark.parametrize("name", ["llama3"])
def test_examples_run(name: str) -> None:
    assert forecast(read_spec(EXAMPLES / f"{name}.toml")).fits


def test_colossus_is_planned() -> None:
    found = plan(read_spec(EXAMPLES / "colossus.toml"))
    assert found.gpus == 100_000 and len(found.best) == 10
    assert [float(each.step.seconds) for each in found.best] == sorted(
        float(e.step.seconds) for e in found.best
    )
    assert found.front[0].step.seconds == found.best[0].step.seconds
    assert {gain.change for gain in found.gains} >= {"twice the network", "twice the memory", "fp8 products"}
    assert all(gain.speedup >= 0.999 for gain in found.gains if gain.change != "twice the batch")


def test_the_best_layout_is_a_spec_with_the_same_forecast() -> None:
    document = {key: value for key, value in RUN.items() if key != "layout"}
    best = plan(build_spec(document, "run.toml"), 3).best
    for each in best:
        found = forecast(build_spec({**document, "layout": each.layout}, "run.toml"))
        assert found.step_seconds == pytest.approx(float(each.step.seconds), rel=1e-9)
        assert float(found.memory.total) == pytest.approx(float(each.memory.total), rel=1e-9)


def test_nothing_fits_says_how_much_is_missing() -> None:
    small = {key: value for key, value in RUN.items() if key != "layout"} | {
        "cluster": {"gpu": "H100-SXM", "gpus": 8}
    }
    with pytest.raises(
        SpecError, match=r"fits on none of [\d,]+ layouts: least is [\d.]+ GiB of 7\d\.\d a GPU"
    ):
        plan(build_spec(small, "run.toml"))


@pytest.mark.parametrize(
    ("tables", "line"),
    [
        ({"cluster": {"gpu": "H100"}}, 'GPU "H100" is not in the catalogue'),
        ({"cluster": {"gpus": 0}}, "cluster.gpus = 0: give a whole number, at least 1"),
        ({"training": {"global_batch": -5}}, "training.global_batch = -5"),
        ({"layout": {"tensor": 5}}, "does not divide"),
        ({"layout": {"expert": 7}}, "model.experts = 8 does not divide by layout.expert = 7"),
    ],
)
def test_what_cannot_be_is_refused(tables: dict[str, dict[str, object]], line: str) -> None:
    with pytest.raises(SpecError) as refusal:
        forecast(spec(**tables))
    assert line in str(refusal.value)


def test_a_forecast_wants_a_layout_and_a_machine() -> None:
    with pytest.raises(SpecError, match=r"\[layout\] is missing"):
        forecast(build_spec({key: value for key, value in RUN.items() if key != "layout"}, "run.toml"))
    with pytest.raises(SpecError, match="names no machine"):
        forecast(build_spec(RUN | {"cluster": {"gpus": 2048}}, "run.toml"))


def test_a_sweep_has_every_combination(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text(spec().to_toml())
    found = sweep_of([file], [], ["training.global_batch=2048,4096", "layout.micro_batch=1,3"])
    assert [row.values for row in found.rows] == [("2048", "1"), ("2048", "3"), ("4096", "1"), ("4096", "3")]
    assert [row.forecast is None for row in found.rows] == [False, True, False, True]
    assert "micro_batch = 3 does not divide" in found.rows[1].why
    assert found.as_json()[0]["step_seconds"] < found.as_json()[2]["step_seconds"]
