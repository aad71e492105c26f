"""
One thread that answers all who ask: it joins the batch, the forward pass and the sampling.

Greedy answers are those of the plain model without a cache, whatever else is in the batch. Rounding differs
with the batch, so this is made sure of: where the two likeliest tokens are nearer each other than rounding
can move them, the plain model itself is asked; and where rounding may have sent a token of the sequence to
another expert, it is asked from there on. How often, the metrics tell (colossi_near_ties).
"""

import queue
import random
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from colossi.model.grok import Grok
from colossi.serve.batch import Batch, Sequence
from colossi.serve.forward import Paged
from colossi.serve.generate import Sampling, unspeak
from colossi.serve.metrics import Metrics
from colossi.serve.pages import Pages
from colossi.serve.sampling import Likely, likely, pick

PAGE = 16  # positions
NEAR_TOKENS = 1e-4  # as a share of the largest logit, or of 1; rounding was measured to move it by 5e-6
SETTLED = 2048  # positions; the plain model's pass over more would keep the others waiting too long


class Refused(Exception):
    """Too much is waiting already."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What is accepted."""

    running: int = 32  # sequences computed at once
    waiting: int = 256  # sequences that wait
    waiting_tokens: int = 1 << 16  # of their prompts together
    patience: float = 60.0  # seconds that one waits at most
    cache: int = 1 << 16  # positions of the cache


@dataclass(frozen=True, slots=True)
class Said:
    """One token of an answer."""

    token: int
    likely: Likely | None


@dataclass(slots=True, eq=False)
class Ticket:
    """One answer that somebody waits for; `tell` is called from the engine's thread when there is news."""

    prompt: list[int]
    most: int
    sampling: Sampling
    stop: frozenset[int]
    top: int | None = None  # how many likeliest tokens are told beside each; None: no probabilities
    every: bool = True  # tell of each token, not only of the last
    tell: Callable[[], None] = lambda: None
    said: "queue.SimpleQueue[Said]" = field(default_factory=queue.SimpleQueue)
    finish: str | None = None  # stop, length, late, cancelled or failed
    reused: int = 0  # prompt tokens that the cache had


@dataclass(slots=True, eq=False)
class _Running:
    ticket: Ticket
    sequence: Sequence
    random: random.Random
    begun: bool = False
    doubtful: bool = False


class Engine:
    """A model and those who wait for it."""

    def __init__(self, grok: Grok, limits: Limits | None = None, metrics: Metrics | None = None) -> None:
        self.grok, self.limits = grok, limits or Limits()
        count = max(1, self.limits.cache // PAGE)
        self.pages = Pages(count, PAGE)
        self.batch = Batch(self.pages, self.limits.running)
        self.paged = Paged(grok, count, PAGE)
        self.longest = min(grok.model.max_positions, count * PAGE)  # prompt and answer together
        self.metrics = metrics or Metrics()
        self._inbox: queue.SimpleQueue[tuple[str, Ticket | None]] = queue.SimpleQueue()
        self._of: dict[Ticket, _Running] = {}
        self._by_sequence: dict[Sequence, _Running] = {}
        self._lock = threading.Lock()
        self._asked, self._waiting_tokens = 0, 0  # answers that are not finished; prompts that wait
        self._thread = threading.Thread(target=self._run, name="engine", daemon=True)

    def start(self) -> None:
        """Begin to answer."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread; who still waits is told that it failed."""
        self._inbox.put(("stop", None))
        self._thread.join()

    @property
    def alive(self) -> bool:
        """Whether it answers."""
        return self._thread.is_alive()

    def ask(self, *tickets: Ticket) -> None:
        """Let all of them wait, or none: Refused where too much waits already."""
        tokens = sum(len(ticket.prompt) for ticket in tickets)
        with self._lock:
            many = self._asked + len(tickets) > self.limits.running + self.limits.waiting
            # A prompt longer than the limit may still wait alone.
            long = self._waiting_tokens and self._waiting_tokens + tokens > self.limits.waiting_tokens
            if many or long:
                raise Refused(f"{self._asked} answers are asked for already")
            self._asked += len(tickets)
            self._waiting_tokens += tokens
        for ticket in tickets:
            self._inbox.put(("ask", ticket))

    def cancel(self, ticket: Ticket) -> None:
        """Nobody waits for it any more; also when it is finished."""
        self._inbox.put(("cancel", ticket))

    def _run(self) -> None:
        try:
            while self._hear():
                try:
                    self._step()
                except Exception:  # a bug, of which only those pay whose answers it met
                    traceback.print_exc()
                    self._fail()
        finally:
            self._fail()
            self._hear_nobody()

    def _fail(self) -> None:
        """All that run."""
        for running in list(self._of.values()):
            self._finish(running, "failed")

    def _hear(self) -> bool:
        """Take what is in the inbox, waiting for it where there is nothing else to do; False: stop."""
        while True:
            try:
                what, ticket = self._inbox.get(block=not self._of)
            except queue.Empty:
                return True
            if ticket is None:
                return False
            if what == "ask":
                sequence = Sequence(list(ticket.prompt), len(ticket.prompt), ticket.most, time.monotonic())
                running = _Running(ticket, sequence, random.Random(ticket.sampling.seed))
                self._of[ticket] = self._by_sequence[sequence] = running
                self.batch.add(sequence)
            elif ticket in self._of:
                self._finish(self._of[ticket], "cancelled")

    def _hear_nobody(self) -> None:
        while not self._inbox.empty():
            _, ticket = self._inbox.get()
            if ticket is not None and ticket.finish is None:
                ticket.finish = "failed"
                ticket.tell()

    @torch.inference_mode()
    def _step(self) -> None:
        self._send_away()
        before = set(self.batch.waiting)  # a preempted sequence may begin again; it is counted once
        pieces = self.batch.next_step()
        self._begun(before - set(self.batch.waiting))
        if not pieces:
            return
        found = self.paged.forward(pieces)
        speaking = []
        for at, piece in enumerate(pieces):
            running = self._by_sequence[piece.sequence]
            if found.doubtful[at]:
                running.doubtful = piece.sequence.private = True
            self.batch.done(piece)
            if piece.speaks:
                speaking.append((at, running))
        self.metrics.step(pieces, self.batch)
        if speaking:
            logits = found.logits[[at for at, _ in speaking]] if len(speaking) < len(pieces) else found.logits
            self._speak([running for _, running in speaking], logits)

    def _speak(self, speakers: list[_Running], logits: Tensor) -> None:
        logits = self._settled(speakers, unspeak(logits))
        rules = [running.ticket.sampling for running in speakers]
        tokens = pick(logits, rules, [running.random.random() for running in speakers])
        values: dict[int, Likely] = {}
        asked = [at for at, running in enumerate(speakers) if running.ticket.top is not None]
        if asked:
            top = max(running.ticket.top or 0 for running in speakers)
            worth = likely(logits[asked], [tokens[at] for at in asked], top)
            values = dict(zip(asked, worth, strict=True))
        for at, (running, token) in enumerate(zip(speakers, tokens, strict=True)):
            self._say(running, token, values.get(at))

    def _say(self, running: _Running, token: int, value: Likely | None) -> None:
        ticket, sequence = running.ticket, running.sequence
        if token in ticket.stop:
            return self._finish(running, "stop")
        if value is not None:
            value = Likely(value.logprob, value.top[: ticket.top])
        if not sequence.said:
            self.metrics.first_token.observe(time.monotonic() - sequence.since)
        sequence.tokens.append(token)
        ticket.said.put(Said(token, value))
        if sequence.said == ticket.most:
            return self._finish(running, "length")
        if ticket.every:
            ticket.tell()
        return None

    def _settled(self, speakers: list[_Running], logits: Tensor) -> Tensor:
        """The logits, those of greedy rows that rounding could decide by the plain model."""
        greedy = [at for at, running in enumerate(speakers) if running.ticket.sampling.greedy]
        if not greedy:
            return logits
        first, second = logits.topk(2, dim=-1).values.T.tolist()
        for at in greedy:
            near = first[at] - second[at] < NEAR_TOKENS * max(1.0, abs(first[at]))
            if near or speakers[at].doubtful:
                tokens = speakers[at].sequence.tokens
                settled = len(tokens) <= SETTLED
                self.metrics.near_ties.labels("settled" if settled else "left").inc()
                if settled:
                    logits[at] = unspeak(plain(self.grok, tokens))
        return logits

    def _send_away(self) -> None:
        """Those who waited too long."""
        now = time.monotonic()
        for running in [self._by_sequence[sequence] for sequence in self.batch.waiting]:
            if not running.begun and now - running.sequence.since > self.limits.patience:
                self._finish(running, "late")

    def _begun(self, sequences: "set[Sequence]") -> None:
        for running in [self._by_sequence[sequence] for sequence in sequences]:
            if not running.begun:
                running.begun = True
                running.ticket.reused = running.sequence.reused
                self.metrics.tokens.labels("reused").inc(running.sequence.reused)
                self._leave_queue(running.sequence)

    def _leave_queue(self, sequence: Sequence) -> None:
        with self._lock:
            self._waiting_tokens -= sequence.prompt

    def _finish(self, running: _Running, why: str) -> None:
        if not running.begun:
            self._leave_queue(running.sequence)
        self.batch.remove(running.sequence)
        del self._of[running.ticket], self._by_sequence[running.sequence]
        with self._lock:
            self._asked -= 1
        running.ticket.finish = why
        running.ticket.tell()
        if not self._of:
            self.metrics.count(self.batch)


@torch.inference_mode()
def plain(grok: Grok, tokens: list[int]) -> Tensor:
    """What follows, by the plain model without a cache. [1, V]"""
    logits = grok(torch.tensor([tokens]))
    assert isinstance(logits, Tensor)
    return logits[0, -1:]
