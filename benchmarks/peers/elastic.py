"""
A worker under torchrun's elastic restart: it dies with any other, and a new one goes on from the disk.

`torchrun --standalone --nproc-per-node 2 --max-restarts 100 elastic.py RUN`
"""

import sys
from pathlib import Path

from trainee import Log, Trainee, join, train


def main(folder: Path) -> None:
    """What torchrun runs, again after each failure."""
    join()
    train(Trainee.make(folder), Log(folder))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
