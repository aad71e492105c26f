"""A worker as the agent of its node sees it: a process of its standby's, at the other end of a channel."""

import contextlib
import os
import signal
from dataclasses import dataclass

from colossi.channel import Channel, Message


@dataclass(slots=True)
class Worker:
    """A process that the standby has forked, or is about to."""

    number: int
    channel: Channel
    pid: int | None = None
    rank: int | None = None  # None while it has nothing to do
    was: int | None = None  # the rank that it had last
    heard: float | None = None  # [monotonic s] None before its first word: importing takes a while
    hung: bool = False
    why: str = ""  # its own last words

    def tell(self, message: Message) -> None:
        """Unless it is gone, which its standby will say."""
        with contextlib.suppress(OSError):
            self.channel.send(message)

    def signal(self, number: int) -> None:
        """The same."""
        if self.pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        """Whatever it does."""
        self.signal(signal.SIGKILL)

    def fault(self, message: Message) -> None:
        """Made on purpose: by a signal where one can do it, else by the worker itself."""
        number = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}.get(message["fault"])
        if number:
            self.signal(number)
        else:
            self.tell(message)


def in_words(code: int) -> str:
    """How a process ended."""
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
