"""
One request's answers on the HTTP side: tickets at the engine, and their news as it comes.

It lives in the server's event loop; the engine's thread only wakes it.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

from colossi.data.tokenizer import Tokenizer
from colossi.serve.engine import Engine, Said, Ticket
from colossi.serve.words import Words

Finish = Literal["stop", "length"]


class Late(Exception):
    """It waited longer for its turn than the server lets anybody wait."""


class Stopped(Exception):
    """The engine does not answer any more."""


@dataclass(frozen=True, slots=True)
class Part:
    """News of one answer: text and tokens since the last, and why it ended if it has."""

    index: int
    text: str
    said: Sequence[Said]
    finish: Finish | None


@dataclass(slots=True)
class _One:
    index: int
    ticket: Ticket
    words: Words
    tokens: int = 0
    ended: bool = False


@dataclass(slots=True)
class Answering:
    """All answers of one request."""

    engine: Engine
    tickets: Sequence[Ticket]
    tokenizer: Tokenizer
    stops: Sequence[str]
    trim: bool
    _all: list[_One] = field(init=False)
    _news: asyncio.Event = field(default_factory=asyncio.Event, init=False)

    def __post_init__(self) -> None:
        loop = asyncio.get_running_loop()

        def tell() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
                loop.call_soon_threadsafe(self._news.set)

        self._all = [
            _One(index, ticket, Words(self.tokenizer, self.stops, self.trim))
            for index, ticket in enumerate(self.tickets)
        ]
        for ticket in self.tickets:
            ticket.tell = tell
        self.engine.ask(*self.tickets)

    async def parts(self) -> AsyncIterator[Part]:
        """The news; whoever stops listening cancels what is not finished."""
        try:
            while not all(one.ended for one in self._all):
                await self._news.wait()
                self._news.clear()
                for one in self._all:
                    if not one.ended and (part := self._hear(one)) is not None:
                        yield part
        finally:
            self.cancel()

    def cancel(self) -> None:
        """Nobody waits for these answers any more."""
        for one in self._all:
            if one.ticket.finish is None:
                self.engine.cancel(one.ticket)

    def _hear(self, one: _One) -> Part | None:
        finish = one.ticket.finish  # read first: no token comes after it
        text, said = "", []
        while not one.words.ended and not one.ticket.said.empty():
            token = one.ticket.said.get()
            text += one.words.feed(token.token)
            said.append(token)
        one.tokens += len(said)
        if one.words.ended:
            one.ended = True
            self.engine.cancel(one.ticket)
            return Part(one.index, text, said, "stop")
        if finish is None:
            return Part(one.index, text, said, None) if said else None
        one.ended = True
        if finish == "late":
            raise Late
        if finish in ("stop", "length"):
            ended: Finish = "stop" if finish == "stop" else "length"
            text += one.words.end()
            return Part(one.index, text, said, "stop" if one.words.ended else ended)
        raise Stopped

    @property
    def tokens(self) -> int:
        """Said so far, by all of them."""
        return sum(one.tokens for one in self._all)

    @property
    def reused(self) -> int:
        """Prompt tokens that needed no computing."""
        return sum(ticket.reused for ticket in self.tickets)
