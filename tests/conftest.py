"""What every test shares: one thread for torch, as a rank has, so that nothing waits for a core."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
