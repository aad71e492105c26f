"""One Slurm for all tests of this folder; where there can be none, they are skipped."""

import os
from collections.abc import Iterator

import pytest

from .cluster import Cluster, cluster, missing


@pytest.fixture(scope="session")
def _slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    reason = missing()
    if reason and os.environ.get("COLOSSI_NEEDS_SLURM") == "1":
        pytest.fail(f"COLOSSI_NEEDS_SLURM=1, but {reason}")
    if reason:
        pytest.skip(reason)
    with cluster(tmp_path_factory.mktemp("slurm")) as it:
        yield it


@pytest.fixture
def slurm(_slurm: Cluster) -> Iterator[Cluster]:
    """The cluster, idle; afterwards no job is left and each node is back."""
    yield _slurm
    _slurm.mend()
