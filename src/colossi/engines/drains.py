"""
Slurm's own word on nodes: who is drained, by whom and why; and our drains, which say that they are ours.

Somebody else's drain is neither changed nor undone. Between the question and the order there is a moment in
which another may act; Slurm has no order that would rule it out.
"""

import getpass
import re
import time
from collections.abc import Iterable
from dataclasses import dataclass

from colossi.acceptance.rules import Drain
from colossi.engines.slurm import ask
from colossi.errors import WorkFailed

OUT = {"DRAIN", "DOWN", "FAIL", "FAILING", "NOT_RESPONDING", "INVAL", "FUTURE"}
FREE = {
    "IDLE",
    "RESERVED",
    "MAINTENANCE",
    "CLOUD",
    "DYNAMIC_NORM",
}  # parts of the state of a node that can be had
PREFIX = "colossi-"  # of reservations
MARK = re.compile(r"(?P<why>.*?)\s*\[(?P<who>[^\]@]*)@(?P<since>[^\]]+)\]$")


@dataclass(frozen=True, slots=True)
class SlurmNode:
    """As scontrol shows it."""

    name: str
    states: frozenset[str]
    drain: Drain | None  # where it is out
    started: float | None  # [unix s] its slurmd, or the machine

    @property
    def idle(self) -> bool:
        """Whether it can be had at once."""
        return "IDLE" in self.states and self.states <= FREE

    @property
    def why_not(self) -> str:
        """In a few words, for one that cannot be had."""
        if self.drain is not None:
            return f"out already: {self.drain.why}" + (f" ({self.drain.who})" if self.drain.who else "")
        return "+".join(sorted(self.states)).lower()


def parse(said: str) -> dict[str, SlurmNode]:
    """From `scontrol -o show node`: one line for each."""
    found = {}
    for line in said.splitlines():
        name, state = _value(line, "NodeName"), _value(line, "State")
        if not name:
            continue
        states = frozenset(state.replace("*", "+NOT_RESPONDING").upper().split("+"))
        reason = re.search(r"Reason=(.*?)(?:\s+Comment=.*)?$", line)
        drain = _drain(reason[1].strip() if reason else "", states) if states & OUT else None
        times = [_time(_value(line, key)) for key in ("BootTime", "SlurmdStartTime")]
        found[name] = SlurmNode(name, states, drain, max((t for t in times if t is not None), default=None))
    return found


def _value(line: str, key: str) -> str:
    found = re.search(rf"(?:^|\s){key}=(\S*)", line)
    return found[1] if found else ""


def _drain(reason: str, states: frozenset[str]) -> Drain:
    """Slurm adds [who@when] to a reason."""
    found = MARK.match(reason)
    if found:
        return Drain(found["why"], found["who"], _time(found["since"]))
    return Drain(reason or "+".join(sorted(states & OUT)).lower())


def _time(text: str) -> float | None:
    """Slurm's local time as [unix s]; None for "None" and "Unknown"."""
    try:
        return time.mktime(time.strptime(text, "%Y-%m-%dT%H:%M:%S"))
    except ValueError:
        return None


def nodes() -> dict[str, SlurmNode]:
    """All that Slurm knows. `sinfo -N` would take minutes for 25,000 nodes; this takes a second."""
    return parse(ask("scontrol", "-o", "show", "node"))


def drain(node: str, why: str) -> None:
    """It gets no new job; what runs on it goes on."""
    ask("scontrol", "update", f"nodename={node}", "state=drain", f"reason={why}")


def undrain(node: str) -> None:
    """Undo our own drain; another's is refused here too, whoever asks."""
    found = nodes().get(node)
    if found is None or found.drain is None:
        return
    if not found.drain.ours:
        raise WorkFailed(f"{node}: {found.why_not}", "who drained it must resume it")
    ask("scontrol", "update", f"nodename={node}", "state=resume")


def reserve(node: str) -> str:
    """Keep all others off a node while it is tested; the name of the reservation."""
    name = f"{PREFIX}{node}"
    if name not in _reservations():
        ask(
            *("scontrol", "create", "reservation", f"reservationname={name}", f"nodes={node}"),
            *(f"users={getpass.getuser()}", "flags=maint,ignore_jobs", "starttime=now", "duration=infinite"),
        )
    return name


def release(names: Iterable[str]) -> None:
    """The reservations of tests that are over."""
    for name in names:
        ask("scontrol", "delete", f"reservationname={name}")


def _reservations() -> set[str]:
    return set(re.findall(r"ReservationName=(\S+)", ask("scontrol", "-o", "show", "reservation")))
