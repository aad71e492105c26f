"""What a run asks of its nodes, in the few numbers that deciding needs, and to what sizes it can shrink."""

from bisect import bisect_right
from dataclasses import dataclass
from functools import lru_cache

from colossi.control import policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A world of `places` nodes with `per_node` workers each, that is `replicate` copies of the model."""

    places: int
    per_node: int
    copy: int  # ranks of one copy of the model
    shares: int  # the batch of one copy is a multiple of this: its data shares, and a pipeline's rounds
    global_batch: int  # [sequences]
    steps: int
    spares: int = 0  # nodes beside those of the world that are to come
    patience_seconds: float = 0.0  # [s] to wait for a node before the world shrinks
    wait_seconds: float = policy.WAIT_SECONDS  # [s] to wait for the first nodes, or where not one copy fits
    checkpoint_seconds: float | None = (
        None  # [s] between Checkpoints; None: the workers count steps themselves
    )
    strikes: int | None = policy.STRIKES  # failures in a day before a node is quarantined; None for never
    fruitless: int = policy.FRUITLESS  # incarnations in a row without one step before giving up

    def __post_init__(self) -> None:
        if self.places * self.per_node % self.copy:
            raise ValueError(
                f"{self.places} nodes of {self.per_node} do not hold whole copies of {self.copy} ranks"
            )
        if self.global_batch % (self.replicate * self.shares):
            shares = self.replicate * self.shares
            raise ValueError(f"a batch of {self.global_batch} cannot be dealt out over {shares} data shares")

    @property
    def replicate(self) -> int:
        """Copies of the model in the whole world."""
        return self.places * self.per_node // self.copy

    def nodes(self, replicate: int) -> int:
        """How many nodes so many copies take."""
        return replicate * self.copy // self.per_node

    def largest(self, nodes: int) -> int | None:
        """The most copies that so many nodes can train, with full nodes and an even batch; None for none."""
        replicates = _sizes(self)
        fit = bisect_right(replicates, nodes, key=self.nodes)
        return replicates[fit - 1] if fit else None


@lru_cache(maxsize=64)
def _sizes(plan: Plan) -> tuple[int, ...]:
    """The numbers of copies that fill whole nodes and divide the batch, in rising order."""
    return tuple(
        replicate
        for replicate in range(1, plan.replicate + 1)
        if replicate * plan.copy % plan.per_node == 0 and plan.global_batch % (replicate * plan.shares) == 0
    )
