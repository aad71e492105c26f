"""
Ratios on a machine that other programs share.

Absolute times mean nothing there, so contestants take turns, a step each, and every ratio is the median over
the rounds of what stood side by side in one round.
"""

import statistics
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch

PEAK_SIDE = 768  # of the square products whose rate is called the peak, as in colossi.train.peak

Step = Callable[[], object]
Clock = Callable[[], float]


@dataclass(frozen=True)
class Times:
    """Seconds of each contestant's step in each round."""

    seconds: dict[str, list[float]]

    def median(self, name: str) -> float:
        """Of a contestant's seconds."""
        return statistics.median(self.seconds[name])

    def best_of(self, *names: str) -> str:
        """Which of them was fastest."""
        return min((name for name in names if name in self.seconds), key=self.median)

    def speed_ratio(self, ours: str, theirs: str) -> float:
        """How many times as fast ours is for a step of equal work: above 1 is better."""
        pairs = zip(self.seconds[ours], self.seconds[theirs], strict=True)
        return statistics.median(their_seconds / our_seconds for our_seconds, their_seconds in pairs)


def take_turns(contestants: Mapping[str, Step], rounds: int, clock: Clock, warm_up: int = 2) -> Times:
    """Run every contestant once in each round; warm-up steps (and compilation) are not counted.

    The clock is `time.perf_counter`, or on a machine too busy for it `time.process_time` with one thread.
    """
    for step in contestants.values():
        for _ in range(warm_up):
            step()
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(rounds):
        for name, step in contestants.items():
            start = clock()
            step()
            seconds[name].append(clock() - start)
    return Times(seconds)


class MatrixProducts:
    """A contestant that only multiplies square float32 matrices: the peak of the machine."""

    def __init__(self, products: int = 40) -> None:
        self.products = products
        self.a, self.b = torch.randn(PEAK_SIDE, PEAK_SIDE), torch.randn(PEAK_SIDE, PEAK_SIDE)
        self.out = torch.empty(PEAK_SIDE, PEAK_SIDE)

    @property
    def flops(self) -> float:
        """Of one turn [FLOP]."""
        return self.products * 2.0 * PEAK_SIDE**3

    def __call__(self) -> None:
        for _ in range(self.products):
            torch.mm(self.a, self.b, out=self.out)
