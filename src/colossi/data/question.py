"""A question that is kept for evaluation, as it is written down; knows nothing of who made it or who judges
it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Question:
    """A held-out question; `task`, `options`, `seed` and `index` say how to draw it again."""

    task: str
    question: str
    answer: str
    index: int
    seed: int
    options: Mapping[str, Any] = field(default_factory=dict)
    metadata: Mapping[str, Any] = field(default_factory=dict)

    @property
    def messages(self) -> tuple[dict[str, str], ...]:
        """The chat that asks it."""
        return ({"role": "user", "content": self.question},)
