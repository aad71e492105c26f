"""The time of a controller: its door to the clocks of the machine; `colossi torture` has another."""

import asyncio
import time
from collections.abc import Callable
from typing import Any


class Clock:
    """The machine's own time."""

    def now(self) -> float:
        """It never runs backwards [s]."""
        return time.monotonic()

    def date(self) -> float:
        """As the ledger writes it [unix s]."""
        return time.time()

    def later(self, seconds: float, call: Callable[..., None], *arguments: Any) -> None:
        """Call on the running event loop, so much later."""
        asyncio.get_running_loop().call_later(seconds, call, *arguments)
