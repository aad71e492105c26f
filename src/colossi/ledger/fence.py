"""
A fence for workers that have been replaced and do not know it yet, as on a frozen node that thaws.

Where a world is one node, or all of its nodes were lost together, such workers would go on: nobody that they
need is missing. What they want to write is refused.
"""

from colossi.ledger.store import Ledger


class Fence:
    """Of one incarnation. Asking costs as much as there is new in the ledger."""

    def __init__(self, ledger: Ledger, incarnation: int) -> None:
        self._ledger, self._incarnation = ledger, incarnation
        self._seen = ledger.newest()
        self._newest = ledger.next_incarnation() - 1

    def replaced(self) -> bool:
        """Whether a newer incarnation has begun."""
        for number, event in self._ledger.events(after=self._seen):
            self._seen, self._newest = number, max(self._newest, event.incarnation)
        return self._newest > self._incarnation
