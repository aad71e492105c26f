"""What every test shares: one thread for torch, as a rank has, and the same examples in every run."""

import os

from hypothesis import settings

os.environ.setdefault("OMP_NUM_THREADS", "1")
settings.register_profile("repeatable", derandomize=True)  # `make test-all` tries others each time
