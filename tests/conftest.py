"""What every test shares: one thread for torch, as ranks on this machine have, so that nothing waits for a core."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
