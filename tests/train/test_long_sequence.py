"""A sequence of 8,192 tokens on four processes: one process's loss and gradients, by either method."""

from pathlib import Path

import numpy as np
import pytest

from .ranks import run_ranks, spec_of
from .test_layouts import TOLERANCE, train

# A gradient is a sum over 8,192 tokens of what largely cancels here: of two orders of summation in float32
# one was 1.4e-5 away from the other, depending on the processor.
GRADIENTS = 3e-5
TRAINING = {"sequence_length": 8192, "global_batch": 1}


@pytest.mark.parametrize("method", ["gather", "ring"])
@pytest.mark.parametrize("documents", [False, True])
def test_four_processes_share_a_long_sequence(method: str, documents: bool, tmp_path: Path) -> None:
    training = TRAINING | {"document_mask": documents}
    expected = train(0, 1, spec_of(training=training), 1)
    layout = {"context": 4, "context_method": method}
    losses, gradients, figures = run_ranks(4, train, spec_of(layout, 4, training), 1, folder=tmp_path)
    np.testing.assert_allclose(losses, expected[0], rtol=TOLERANCE)
    np.testing.assert_allclose(figures, expected[2], rtol=TOLERANCE)
    for key, gradient in expected[1].items():
        assert (gradients[key] - gradient).norm() <= GRADIENTS * gradient.norm(), key
