"""What only a GPU runs, against the same on the CPU; and what is said where there is none."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from colossi.errors import BadInput
from colossi.model.grok import Grok, Losses
from colossi.model.kernel import attend_range
from colossi.model.loss import Output, cross_entropy_sum
from colossi.train.parallel import number_format

from ..train.ranks import spec_of

ROOT = Path(__file__).parents[2]
GPU = torch.cuda.is_available()
on_gpu = pytest.mark.skipif(not GPU, reason="no GPU here")
compiles = pytest.mark.filterwarnings("ignore")  # the compiler's own


@on_gpu
@compiles
@pytest.mark.parametrize("cap", [0.0, 30.0])
def test_output_and_cross_entropy_on_a_gpu(cap: float) -> None:
    h, table = torch.randn(3, 700, 64).bfloat16(), torch.randn(1000, 64).bfloat16()
    targets, counted = torch.randint(0, 1000, (3, 700)), torch.rand(3, 700) < 0.7

    def by(device: str, dtype: torch.dtype) -> list[torch.Tensor]:
        leaves = [x.to(device, dtype).requires_grad_() for x in (h, table)]
        output = Output(0.5, cap, None)
        total = cross_entropy_sum(*leaves, targets.to(device), counted.to(device), output)
        return [x.detach().double().cpu() for x in (total, *torch.autograd.grad(total, leaves))]

    for found, expected in zip(by("cuda", torch.bfloat16), by("cpu", torch.float64), strict=True):
        assert float((found - expected).norm()) <= 0.01 * float(expected.norm())


@on_gpu
@compiles
def test_capped_attention_with_documents_on_a_gpu() -> None:
    q, k, v = torch.randn(2, 4, 256, 64), torch.randn(2, 2, 256, 64), torch.randn(2, 2, 256, 64)
    first = torch.arange(256, dtype=torch.int32)[None].expand(2, -1) // 100 * 100
    rest = (0.125, 30.0, 0, first)
    expected, _ = attend_range(q, k, v, *rest)
    found, _ = attend_range(*(x.cuda() for x in (q, k, v)), *rest[:3], first.cuda())
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-2)  # TF32 may be on


@on_gpu
@compiles
def test_a_pass_in_bfloat16_on_a_gpu() -> None:
    spec = spec_of(model={"hidden": 128, "heads": 2, "kv_heads": 1, "ffn_hidden": 128})
    grok = Grok(spec.model, dtype=torch.bfloat16)
    for parameter in grok.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    tokens = torch.randint(1, 64, (4, 128))
    sums = []
    for device in ("cpu", "cuda"):
        there = tokens.to(device)
        losses = grok.to(device)(there, there.roll(-1, 1), torch.ones_like(there, dtype=torch.bool))
        assert isinstance(losses, Losses)
        losses.cross_entropy.backward()
        assert all(p.grad is not None and bool(p.grad.isfinite().all()) for p in grok.parameters())
        sums.append(float(losses.cross_entropy.detach()))
    assert sums[1] == pytest.approx(sums[0], rel=0.02)


@pytest.mark.skipif(GPU, reason="there is a GPU here")
def test_the_benchmark_of_gpus_says_in_a_line_that_there_is_none() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/gpu.py"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2 and not done.stdout
    assert done.stderr.startswith("error: PyTorch sees no GPU here") and "Traceback" not in done.stderr


def test_a_number_format_that_training_does_not_have_is_refused() -> None:
    with pytest.raises(BadInput, match='precision = "fp8": training computes in'):
        number_format("fp8")
