"""
Faults on purpose: `--chaos "kill worker 1 at step 20; stop worker 0 at step 35; kill node 1 at step 50"`.

Or `random:SEED:RATE`, where RATE is the chance of a fault at each step; which fault a step gets is a pure
function of the seed and the step. Each fault happens once, however often its step is done.
"""

import os
import random
import re
import signal
from collections.abc import Iterable
from dataclasses import dataclass, field

from colossi.errors import BadInput

KINDS = {
    "kill worker": "SIGKILL",
    "stop worker": "SIGSTOP: it hangs",
    "raise worker": "it raises an exception",
    "hang worker": "it never reaches the next collective",
    "slow worker": "each of its steps takes a second longer",
    "flip rank": "one bit of its weights is another",
    "kill node": "its agent and all below it die; a fresh one comes later",
    "stop node": "its agent hangs",
}
SHAPE = re.compile(r"(\w+) (worker|rank|node) (\d+) at step (\d+)(?: by ([\d.]+) s)?")
AT_RANDOM = (*("kill worker",) * 4, "raise worker", "raise worker", "stop worker", "kill node", "flip rank")


@dataclass(frozen=True, slots=True)
class Fault:
    """What happens to whom, when a step is done."""

    kind: str
    what: str  # worker or node
    number: int
    step: int
    seconds: float = 1.0

    def __str__(self) -> str:
        return f"{self.kind} {'rank' if self.kind == 'flip' else self.what} {self.number} at step {self.step}"


@dataclass(slots=True)
class Chaos:
    """The faults that are still to come."""

    planned: list[Fault] = field(default_factory=list)
    seed: int = 0
    rate: float = 0.0
    _seen: int = 0

    @classmethod
    def parse(cls, text: str) -> "Chaos":
        """From the command line; a BadInput says what is wrong with it."""
        if text.startswith("random:"):
            try:
                _, seed, rate = text.split(":")
                chaos = cls(seed=int(seed), rate=float(rate))
            except ValueError:
                raise BadInput(f"--chaos {text!r}: not random:SEED:RATE", "e.g. random:7:0.1") from None
            if not 0 <= chaos.rate <= 1:
                raise BadInput(f"--chaos {text!r}: RATE is a chance for each step, 0 to 1")
            return chaos
        return cls([_fault(part.strip()) for part in text.split(";") if part.strip()])

    @property
    def on(self) -> bool:
        """Whether any fault will be made."""
        return bool(self.planned or self.rate)

    def due(self, step: int) -> list[Fault]:
        """Those of a step, once."""
        now = [fault for fault in self.planned if fault.step == step]
        self.planned = [fault for fault in self.planned if fault.step != step]
        if step > self._seen and self.rate:
            now += _at_random(self.seed, step, self.rate)
        self._seen = max(self._seen, step)
        return now

    def at_node(self, fault: Fault, pid: int) -> None:
        """Signal an agent; its workers end with it."""
        os.kill(pid, signal.SIGKILL if fault.kind == "kill" else signal.SIGSTOP)


def _fault(text: str) -> Fault:
    match = SHAPE.fullmatch(text)
    if match is None or f"{match[1]} {match[2]}" not in KINDS:
        raise BadInput(
            f"--chaos: {text!r} is no fault",
            f"write e.g. 'kill worker 1 at step 20'; the faults are {', '.join(KINDS)}",
        )
    what = "node" if match[2] == "node" else "worker"
    return Fault(match[1], what, int(match[3]), int(match[4]), float(match[5] or 1.0))


def _at_random(seed: int, step: int, rate: float) -> Iterable[Fault]:
    draw = random.Random(f"{seed}/{step}")
    if draw.random() >= rate:
        return []
    kind, what = draw.choice(AT_RANDOM).split()
    return [Fault(kind, "node" if what == "node" else "worker", draw.randrange(1 << 16), step)]
