"""
Who computes what in the next step: continuous batching, without knowing what is computed.

A step has a budget of tokens. Sequences that speak come first, a token each; what is left reads prompts, in
pieces. When no page is free for one that speaks, the one that came last gives up its pages and waits again
at the front; it is computed again from its own tokens, so its answer stays the same.
"""

from collections import deque
from dataclasses import dataclass, field

from colossi.serve.pages import ROOT, Key, Pages, key_of

TOKENS = 512  # in a step: about what keeps those who speak waiting no longer than a few of their tokens


@dataclass(slots=True, eq=False)
class Sequence:
    """Tokens of one answer, prompt first, and how many of them the cache holds."""

    tokens: list[int]
    prompt: int  # how many of the tokens are the prompt
    most: int  # tokens to say
    since: float = 0.0  # when it began to wait [s]
    cached: int = 0
    reused: int = 0  # prompt tokens that another sequence had computed
    pages: list[int] = field(default_factory=list)
    keys: list[Key] = field(default_factory=list)  # of its full pages, as far as they are published
    private: bool = False  # its further pages are not for others

    @property
    def said(self) -> int:
        """Tokens beyond the prompt."""
        return len(self.tokens) - self.prompt


@dataclass(frozen=True, slots=True)
class Piece:
    """Tokens [start, stop) of a sequence, to be computed now; the last of them says what comes next."""

    sequence: Sequence
    start: int
    stop: int

    @property
    def speaks(self) -> bool:
        """Whether this makes a new token."""
        return self.stop == len(self.sequence.tokens)


class Batch:
    """Sequences that wait and sequences that run, at most `most` of them."""

    def __init__(self, pages: Pages, most: int, tokens: int = TOKENS) -> None:
        self.pages, self.most, self.tokens = pages, most, tokens
        self.waiting: deque[Sequence] = deque()
        self.running: list[Sequence] = []

    def add(self, sequence: Sequence) -> None:
        """Let it wait; it must fit the cache when it is alone."""
        longest = len(sequence.tokens) + sequence.most
        if self.pages.needed(longest) > self.pages.count:
            raise ValueError(f"{longest} tokens do not fit {self.pages.count} pages of {self.pages.size}")
        self.waiting.append(sequence)

    def next_step(self) -> list[Piece]:
        """What to compute now; nothing where nobody waits."""
        pieces: list[Piece] = []
        budget = self.tokens
        for sequence in list(self.running):
            if sequence in self.running and budget > 0 and sequence.cached == len(sequence.tokens) - 1:
                budget -= self._read(sequence, 1, pieces)
        for sequence in list(self.running):
            if sequence in self.running and budget > 0 and sequence.cached < len(sequence.tokens) - 1:
                budget -= self._read(sequence, budget, pieces)
        pieces = [piece for piece in pieces if piece.sequence in self.running]
        while self.waiting and len(self.running) < self.most and budget > 0:
            sequence = self.waiting[0]
            self._begin(sequence)
            missing = self.pages.needed(len(sequence.tokens) + 1) - len(sequence.pages)
            if self.running and missing > self.pages.free - len(self.running):  # each who runs may need one
                self._give_back(sequence)
                break
            self.waiting.popleft()
            self.running.append(sequence)
            budget -= self._read(sequence, budget, pieces)
        return pieces

    def done(self, piece: Piece) -> None:
        """The cache holds the piece; its full pages are for others now."""
        sequence, size = piece.sequence, self.pages.size
        sequence.cached = piece.stop
        while not sequence.private and (len(sequence.keys) + 1) * size <= sequence.cached:
            at = len(sequence.keys)
            before = sequence.keys[-1] if sequence.keys else ROOT
            key = key_of(before, sequence.tokens[at * size : (at + 1) * size])
            self.pages.publish(sequence.pages[at], key)
            sequence.keys.append(key)

    def remove(self, sequence: Sequence) -> None:
        """It is finished, or nobody waits for it any more."""
        if sequence in self.running:
            self.running.remove(sequence)
        elif sequence in self.waiting:
            self.waiting.remove(sequence)
        self._give_back(sequence)

    def _begin(self, sequence: Sequence) -> None:
        sequence.pages, sequence.keys = self.pages.reuse(sequence.tokens)
        sequence.cached = len(sequence.pages) * self.pages.size
        if not sequence.said:
            sequence.reused = sequence.cached

    def _read(self, sequence: Sequence, budget: int, pieces: list[Piece]) -> int:
        """As much of it as the budget and the free pages allow; gives how many tokens that is."""
        stop = min(len(sequence.tokens), sequence.cached + budget)
        if not self._make_room(sequence, stop):
            return 0
        pieces.append(Piece(sequence, sequence.cached, stop))
        return stop - sequence.cached

    def _make_room(self, sequence: Sequence, positions: int) -> bool:
        """Pages for so many positions, if need be from those that came later; False if it had to give up."""
        while len(sequence.pages) < self.pages.needed(positions):
            if self.pages.free:
                sequence.pages.append(self.pages.take())
                continue
            last = self.running.pop()
            self._give_back(last)
            self.waiting.appendleft(last)
            if last is sequence:
                return False
        return True

    def _give_back(self, sequence: Sequence) -> None:
        self.pages.release(sequence.pages)
        sequence.pages, sequence.keys, sequence.cached = [], [], 0
