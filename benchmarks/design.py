# ruff: noqa: T201 (a script talks by printing)
"""
How long a whole design takes: `PYTHONPATH=src python benchmarks/design.py`.

100,000 and 200,000 GPUs of examples/colossus.toml, from the file to every rack, port, cable and price, on one
core. The aims are 10 s and 20 s, and 4 GB; each size runs in a process of its own, whose memory is its peak.
"""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

COLOSSUS = Path(__file__).parents[1] / "examples/colossus.toml"
AIMS = {100_000: 10.0, 200_000: 20.0}  # seconds
AIM_BYTES = 4e9


def one(gpus: int) -> None:
    """In this process."""
    begin = time.perf_counter()
    from colossi.site.cluster import design
    from colossi.site.summary import facts_of
    from colossi.spec import read_spec

    spec = read_spec(COLOSSUS, [f"cluster.gpus={gpus}"], needs=("site",))
    found = design(spec)
    designed = time.perf_counter() - begin
    assert spec.site is not None
    facts_of(found, spec.site)
    seconds = time.perf_counter() - begin
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    good = "" if seconds < AIMS[gpus] and peak < AIM_BYTES else "  over the aim"
    print(
        f"{gpus:>8,} GPUs  {len(found.racks):>6,} racks {len(found.devices):>7,} devices "
        f"{len(found.cables):>8,} cables  {designed:5.2f} s, with counts and losses {seconds:5.2f} s "
        f"(aim {AIMS[gpus]:g})  "
        f"{peak / 1e9:.2f} GB (aim {AIM_BYTES / 1e9:g}){good}"
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        one(int(sys.argv[1]))
    else:
        threads = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        for size in AIMS:
            subprocess.run([sys.executable, __file__, str(size)], check=True, env=os.environ | threads)
