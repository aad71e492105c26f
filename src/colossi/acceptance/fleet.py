"""
The fleet's side of a check: it asks the agents of all nodes, and lets pairs of them measure each other.

Whoever does not answer in time is a node that failed, and no other waits for it. Answers carry the number of
their question: one that comes too late for its question is never taken for the answer to another.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from colossi.acceptance import judging, pairs
from colossi.acceptance.checks import CHECKS, GROUPS
from colossi.acceptance.clock import offset
from colossi.acceptance.result import Result, group_of
from colossi.acceptance.wire import SILENT_SECONDS
from colossi.channel import Channel, Message, Refused, token_of
from colossi.files import write_whole
from colossi.spec.acceptance import Acceptance

Watch = Callable[[str, int, int], None]  # what, how much of it, of how much
CLOCK_TRIES = 5
PAIR_SECONDS = 0.5
SLACK_SECONDS = 30.0  # for all that is around the checks


@dataclass(slots=True)
class Member:
    """A node whose agent has joined."""

    node: str
    rack: str
    pairs: str  # the address at which others measure themselves against it
    boot: float  # [unix s]
    channel: Channel
    lost: str = ""  # why it answers no more

    def send(self, message: Message) -> None:
        if not self.lost:
            try:
                self.channel.send(message)
            except OSError as error:
                self.lost = f"its agent is gone ({error})"

    def answer(self, number: int, deadline: float) -> Message | None:
        """To the question of this number; None when it did not come by the deadline [monotonic s]."""
        while not self.lost:
            try:
                self.channel.socket.settimeout(max(0.01, deadline - time.monotonic()))
                message = self.channel.receive()
            except TimeoutError:
                self.lost = "it did not answer in time"
                break
            except (OSError, ValueError) as error:
                self.lost = f"its agent is gone ({error})"
                break
            if message is None:
                self.lost = "its agent has ended"
            elif message.get("number") == number:
                return message
        return None


class Fleet:
    """The members, by name, in order."""

    def __init__(self, members: Mapping[str, Member], at_once: bool) -> None:
        self.members = dict(sorted(members.items()))
        self._at_once, self._number = at_once, 0

    def ask(
        self, questions: Mapping[str, Message], seconds: float, heard: Callable[[], None] = lambda: None
    ) -> dict[str, Message]:
        """What each node answers; who does not within these seconds is lost."""
        self._number += 1
        for node, question in questions.items():
            self.members[node].send(question | {"number": self._number})
        deadline, answers = time.monotonic() + seconds, {}
        for node in questions:
            answer = self.members[node].answer(self._number, deadline)
            if answer is not None:
                answers[node] = answer
            heard()
        return answers

    def check(self, groups: Mapping[str, Sequence[str]], watch: Watch) -> dict[str, list[Result]]:
        """The groups of checks that each node is to do: all at once, or on one machine one after another."""
        patience = sum(check.patience for check in CHECKS) + SLACK_SECONDS
        found, done = {}, 0

        def heard() -> None:
            nonlocal done
            done += 1
            watch("checking nodes", done, len(groups))

        turns = [list(groups)] if self._at_once else [[node] for node in groups]
        for turn in turns:
            questions = {node: {"ask": "checks", "groups": list(groups[node])} for node in turn}
            for node, answer in self.ask(questions, patience, heard).items():
                found[node] = [Result.of(each) for each in answer["results"]]
        return found

    def clocks(self) -> dict[str, Result]:
        """How far each clock is ahead of this machine's."""
        found = {}
        for node in self.live():
            exchanges = []
            for _ in range(CLOCK_TRIES):
                sent = time.time()
                answer = self.ask({node: {"ask": "clock"}}, SILENT_SECONDS).get(node)
                if answer is not None:
                    exchanges.append((sent, float(answer["time"]), time.time()))
            if exchanges:
                ahead, unsure = offset(exchanges)
                found[node] = Result("clock.offset", value=max(0.0, abs(ahead) - unsure), unit="s")
        return found

    def measure(self, rounds: Sequence[Sequence[pairs.Pair]], watch: Watch) -> dict[pairs.Pair, float]:
        """The rate of each pair, round by round, on one machine pair by pair; 0 for one that could not be."""
        rates: dict[pairs.Pair, float] = {}
        if not self._at_once:
            rounds = [[pair] for meeting in rounds for pair in meeting]
        for number, meeting in enumerate(rounds):
            live = [pair for pair in meeting if all(not self.members[node].lost for node in pair)]
            questions = {
                a: {"ask": "pair", "with": self.members[b].pairs, "seconds": PAIR_SECONDS} for a, b in live
            }
            answers = self.ask(questions, PAIR_SECONDS + 3 * SILENT_SECONDS)
            rates |= {(a, b): float(answers[a]["rate"]) if a in answers else 0.0 for a, b in live}
            watch("measuring pairs", number + 1, len(rounds))
        return rates

    def live(self) -> list[str]:
        """The nodes that still answer."""
        return [node for node, member in self.members.items() if not member.lost]

    def end(self) -> None:
        """Let them all go."""
        for member in self.members.values():
            member.send({"ask": "quit", "number": 0})
            member.channel.close()


def check_fleet(
    fleet: Fleet, limits: Acceptance, watch: Watch, groups: Sequence[str] = GROUPS
) -> dict[str, list[Result]]:
    """Everything, judged. Who fails by comparison alone is measured once more, and that counts."""
    nodes = fleet.live()
    found = fleet.check(dict.fromkeys(nodes, groups), watch)
    for node, result in fleet.clocks().items() if "clock" in groups else ():
        found.setdefault(node, []).append(result)
    nodes = fleet.live()
    rates = fleet.measure(pairs.tournament(nodes), watch) if len(nodes) > 1 and "pairs" in groups else {}
    judged = judging.judge(_with_pairs(found, rates), limits)
    if again := judging.doubtful(judged):
        twice = {node: sorted({*map(group_of, checks)} - {"pairs"}) for node, checks in again.items()}
        twice = {node: own for node, own in twice.items() if own and node in fleet.live()}
        found = _better(found, fleet.check(twice, watch))
        if any("pairs.rate" in checks for checks in again.values()):
            second = fleet.measure(pairs.tournament(fleet.live()), watch)
            rates = {pair: max(rate, second.get(pair, 0.0)) for pair, rate in rates.items()}
        judged = judging.judge(_with_pairs(found, rates), limits)
    for node, member in fleet.members.items():
        if member.lost:
            judged.setdefault(node, []).append(Result("agent.answers", "fail", why=member.lost))
    return judged


def _with_pairs(
    found: Mapping[str, Sequence[Result]], rates: Mapping[pairs.Pair, float]
) -> dict[str, list[Result]]:
    """Each node's results and the median of its pairs."""
    middle = pairs.medians(rates)
    rate = {node: [Result("pairs.rate", value=value, unit="B/s")] for node, value in middle.items()}
    return {node: [*own, *rate.get(node, [])] for node, own in found.items()}


def _better(
    first: Mapping[str, Sequence[Result]], second: Mapping[str, Sequence[Result]]
) -> dict[str, list[Result]]:
    """Of what was measured twice the value that speaks for the node; what is broken stays broken."""
    merged = {node: list(own) for node, own in first.items()}
    for node, own in second.items():
        later = {(each.check, each.what): each for each in own}
        for number, each in enumerate(merged.get(node, [])):
            other = later.get((each.check, each.what))
            if (
                other is None
                or each.value is None
                or other.value is None
                or each.check not in judging.COMPARED
            ):
                continue
            best = max if judging.COMPARED[each.check][0] == "low" else min
            merged[node][number] = replace(each, value=best(each.value, other.value))
    return merged


@contextmanager
def gathering(folder: Path, host: str) -> Iterator[tuple[socket.socket, str]]:
    """An ear for agents on `host`; where it is stands in FOLDER/check.json meanwhile."""
    with socket.create_server((host, 0), backlog=1024) as listening:
        address = "{}:{}".format(*listening.getsockname()[:2])
        file = folder / "check.json"
        token_of(folder)
        write_whole(file, json.dumps({"address": address}) + "\n")
        try:
            yield listening, address
        finally:
            file.unlink(missing_ok=True)


def join(
    listening: socket.socket,
    folder: Path,
    expected: Sequence[str],
    seconds: float,
    watch: Watch,
    alive: Callable[[], str] = lambda: "",
) -> dict[str, Member]:
    """The agents that come in these seconds; at once when all are here, or `alive` says why none will."""
    token, members = token_of(folder), dict[str, Member]()
    deadline = time.monotonic() + seconds
    while len(members) < len(expected) and time.monotonic() < deadline and not alive():
        listening.settimeout(0.2)
        with suppress(TimeoutError, Refused):
            connected, _ = listening.accept()
            channel, hello = Channel.accept(connected, token)
            if hello.get("node") in expected:
                members[hello["node"]] = _member(hello, channel)
                watch("nodes that have come", len(members), len(expected))
    return members


def _member(hello: Mapping[str, Any], channel: Channel) -> Member:
    return Member(hello["node"], hello["rack"], hello["pairs"], float(hello["boot"]), channel)
