"""What can be planned and not be trained is refused by `train`, in one line, and by it alone."""

from pathlib import Path

import pytest

from colossi.errors import SpecError
from colossi.spec import read_spec

GOOD = """
[model]
preset = "laptop"
[data]
sources = [{ kind = "python-stdlib" }]
[training]
sequence_length = 64
global_batch = 12
steps = 5
"""

REFUSED = {
    ("model.gated_ffn=false",): "model.gated_ffn = false can be planned and not be trained: use true",
    ("model.window=128",): "model.window = 128 can be planned and not be trained: use 0",
    ("layout.zero=1",): "layout.zero = 1 can be planned and not be trained: use 3",
    ("layout.recompute=selective",): "layout.recompute = 'selective' can be planned and not be trained: "
    "use 'none' or 'full'",
    ("layout.expert_tensor=1",): "layout.expert_tensor = 1 can be planned and not be trained: use no value",
    ("training.precision=fp8",): "training.precision = 'fp8' can be planned and not be trained: "
    "use 'fp32' or 'bf16'",
    ("cluster.gpus=2",): "cluster.gpus = 2 can be planned and not be trained: use no value",
    (
        "layout.shard=5",
        "cluster.nodes=5",
        "training.global_batch=10",
    ): "model.hidden = 192 does not divide by "
    "layout.shard * context * expert = 5: use 4 or 6 there, or hidden = 190 or 195",
}


@pytest.mark.parametrize(
    ("changes", "line"), REFUSED.items(), ids=lambda x: x[0] if isinstance(x, tuple) else ""
)
def test_planned_and_not_trained(changes: tuple[str, ...], line: str, tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    read_spec(path, list(changes))
    with pytest.raises(SpecError) as refusal:
        read_spec(path, list(changes), needs=("data", "training"))
    assert line in refusal.value.message


def test_a_good_one_passes(tmp_path: Path) -> None:
    path = tmp_path / "good.toml"
    path.write_text(GOOD)
    assert read_spec(path, needs=("data", "training")).name == "laptop"
