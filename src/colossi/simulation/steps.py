"""
How far the training of one incarnation is: steps and checkpoints counted, not played.

From one checkpoint to the next are so many steps and a stall, so whole rounds are counted at once, and a week
costs as much as a minute.
"""

from dataclasses import dataclass, field

KEPT = 2  # checkpoints on disk
ROUNDING = 1e-6  # [s] a step that ends at a moment has ended at it


@dataclass(slots=True)
class Steps:
    """Times in [s] since the run began."""

    every: int  # steps between checkpoints; 0 for none
    write: float  # [s] by which one holds up the run
    pace: float  # [s] a step
    step: int = 0  # the last one done
    since: float = 0.0  # the end of that step, or the beginning of training
    stall: float = 0.0  # [s] after it, for a checkpoint
    writing: bool = False  # that stall is a checkpoint of this step
    saved: list[int] = field(default_factory=list)  # steps on disk, the newest last
    storage_until: float = 0.0  # no checkpoint can be written before

    def begin(self, step: int, now: float) -> None:
        """An incarnation that was restored after this step begins the next one."""
        self.step, self.since, self.stall, self.writing = step, now, 0.0, False

    @property
    def next_end(self) -> float:
        """When the step that is under way will be done."""
        return self.since + self.stall + self.pace

    def end_of(self, last: int) -> float:
        """When this step will be done, if nothing happens."""
        left = last - self.step
        stalls = (self.step % self.every + left - 1) // self.every if self.every else 0
        return self.since + self.stall + left * self.pace + stalls * self.write

    def save(self) -> None:
        """A checkpoint after the last step that is done."""
        self.stall, self.writing = self.stall + self.write, True

    def advance(self, now: float) -> tuple[int, float]:
        """Go to the last step that has ended by now: how many, and how long all stood for checkpoints [s]."""
        spent = now - self.since - self.stall + ROUNDING
        if spent < 0:
            return 0, 0.0
        if self.writing:
            self._write_ends(self.step, self.since + self.stall)
        into = self.step % self.every if self.every else 0
        whole = self.every * self.pace + self.write if self.every else float("inf")
        rounds, rest = divmod(spent + into * self.pace, whole)
        last = int(rest / self.pace)
        if self.every and last > self.every:  # it stands
            last = self.every
        if rounds and not last:  # no step since that checkpoint
            rounds, last = rounds - 1, self.every
        steps = int(rounds) * self.every + last - into
        if not steps:
            return 0, 0.0
        stood = self.stall + rounds * self.write
        begun = self.since + self.stall - into * self.pace + (rounds * whole if rounds else 0.0)
        if rounds:
            self._write_ends(self.step + steps - last, begun)
        self.step, self.since = self.step + steps, begun + last * self.pace
        self.stall, self.writing = (self.write, True) if last == self.every else (0.0, False)
        if self.writing and self.since + self.write <= now + ROUNDING:
            self._write_ends(self.step, self.since + self.write)
        return steps, stood

    def _write_ends(self, step: int, when: float) -> None:
        """A checkpoint is whole, unless the storage was away."""
        self.writing = False
        if when > self.storage_until and step not in self.saved:
            self.saved = [*self.saved, step][-KEPT:]
