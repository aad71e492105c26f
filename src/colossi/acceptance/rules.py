"""
Who is taken out, and who may come back: the rules that operators ask for, as pure functions.

Each returns its answer and why. They know no scheduler: a drain is (who, why), a history is a list of times.
What such tools get wrong, in order of how often their users say so, is in docs/acceptance.md.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import floor

OURS = "colossi: "  # how each reason begins that is ours
LONGEST = 200  # letters of a reason: what sinfo -R still shows in one line

STALE_SECONDS = 600.0  # a finding older than this is no finding: two or three checks of a node take that long
FLAPS = 3  # times taken out within FLAP_SECONDS: see is_flapping
FLAP_SECONDS = 7 * 86_400.0


@dataclass(frozen=True, slots=True)
class Drain:
    """That a node is out for the scheduler; `why` begins with OURS when it is our doing."""

    why: str
    who: str = ""
    since: float | None = None  # [unix s]

    @property
    def ours(self) -> bool:
        return self.why.startswith(OURS)


@dataclass(frozen=True, slots=True)
class Bound:
    """How many nodes may be out at once: a share of the fleet, or a number."""

    share: float | None = None
    count: int | None = None

    @classmethod
    def of(cls, text: str) -> "Bound":
        """From "10%" or "3"; a ValueError says what to write instead."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?)(%?)", text.strip())
        if found and found[2] and float(found[1]) <= 100:
            return cls(share=float(found[1]) / 100)
        if found and not found[2] and float(found[1]).is_integer():
            return cls(count=int(found[1]))
        raise ValueError(f'{text!r}: give a share such as "10%", or a number of nodes such as "3"')

    def of_fleet(self, nodes: int) -> int:
        """The number, for a fleet of so many; a share allows at least one."""
        if self.count is not None:
            return self.count
        assert self.share is not None
        return max(1, floor(self.share * nodes + 1e-9)) if self.share else 0


@dataclass(frozen=True, slots=True)
class Taken:
    """Who is to be taken out, and who is not although it failed; each with its reason."""

    out: dict[str, str]
    left: dict[str, str]


def take_out(
    failed: Mapping[str, str],
    fleet: int,
    already: Mapping[str, Drain],
    bound: Bound,
) -> Taken:
    """Of the nodes that failed those that may be taken out now.

    `already` are all nodes that are out, whoever did it. Who is out stays as it is: the first reason is the
    one that counts, and somebody else's is not ours to change. If the others together would exceed the bound,
    none is: when so many fail at once, the test, the network or the room is likelier to be at fault.
    """
    left = {node: f"out already: {already[node].why}" for node in failed if node in already}
    new = {node: why for node, why in failed.items() if node not in already}
    most = bound.of_fleet(fleet)
    if len(already) + len(new) > most:
        why = f"{len(new)} failed, {len(already)} are out, and at most {most} of {fleet} may be out at once"
        return Taken({}, left | dict.fromkeys(new, why))
    return Taken({node: reason(why) for node, why in new.items()}, left)


def reason(why: str, who: str = "") -> str:
    """Of a drain: one short line that begins with our name."""
    line = " ".join(f"{OURS}{why}".split())
    by = f" (by {who})" if who else ""
    room = LONGEST - len(by)
    return (line if len(line) <= room else line[: room - 1] + "…") + by


def groups_needed(why: str, groups: Sequence[str]) -> set[str]:
    """The groups of checks that a node must pass to come back, by the reason for which it is out.

    Those that the reason names; all if it names none, as when training found the node to be bad.
    """
    named = {group for group in groups if re.search(rf"\b{group}[\w-]*\.\w+", why)}
    if "infiniband." in why:
        named.add("nic")
    return named or set(groups)


def is_stale(found: float, now: float, changed: float | None = None) -> str:
    """Why a finding says nothing any more; "" if it does. Times in [unix s].

    `changed` is when the node last became another: it booted, or was let in again.
    """
    if changed is not None and changed > found:
        return "the node has started anew since"
    if now - found > STALE_SECONDS:
        return f"it is {now - found:.0f} s old"
    return ""


def is_flapping(outs: Sequence[float], now: float) -> str:
    """Why a node that passes is not believed; "" if it is. `outs` are the times it was taken out [unix s].

    A sound node of the worst cluster that was counted fails 6.5e-3 times a day (control/policy.py, [RSC]), so
    three times in a week by chance with p = (7 * 6.5e-3)^3 / 6 = 1.6e-5. Who does so has what no test finds.
    """
    recent = [time for time in outs if 0 <= now - time <= FLAP_SECONDS]
    if len(recent) >= FLAPS:
        return (
            f"it was taken out {len(recent)} times in {FLAP_SECONDS / 86_400:.0f} days: it is to be repaired"
        )
    return ""


def may_return(
    passed: float | None, outs: Sequence[float], now: float, drain: Drain | None = None
) -> tuple[bool, str]:
    """Whether a node may be used again; `passed` is when it last passed all checks [unix s].

    Not while somebody else keeps it out, not untested since it was taken out, not by an old test, and not if
    it comes and goes.
    """
    if drain is not None and not drain.ours:
        return False, f"drained by {drain.who or 'somebody else'}: {drain.why}"
    if passed is None or (outs and passed < max(outs)):
        return False, "it has passed no test since it was taken out"
    if stale := is_stale(passed, now):
        return False, f"its test says nothing any more: {stale}"
    if flapping := is_flapping(outs, now):
        return False, flapping
    return True, "it has passed its test"
