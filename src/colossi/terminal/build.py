"""How a build stands, for people: pods, yield, and the nodes accepted beside those that were planned."""

from datetime import datetime

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.ledger.build import STATES, Build, PodStanding

MOST = 30  # pods in a table, those that want somebody first
BAR = 30  # letters


def render(name: str, build: Build, now: float) -> RenderableType:
    """Head, pods, why some are out, burn-down."""
    total = sum(build.nodes.values())
    head = Text.assemble((name, "bold"), f"  {total:,} nodes: ")
    head.append(", ".join(f"{build.nodes[state]:,} {state}" for state in STATES))
    lines: list[RenderableType] = [head]
    if build.first_yield is not None and build.last_yield is not None:
        tested = (
            f"of those tested {build.first_yield:.1%} passed at first, {build.last_yield:.1%} are accepted"
        )
        lines.append(Text(tested))
    done = sum(pod.state == "accepted" for pod in build.pods)
    late = [pod for pod in build.pods if pod.late(now)]
    line = Text(f"{done} of {len(build.pods)} pods are accepted")
    if any(pod.due is not None for pod in build.pods):
        due = sum(pod.due is not None and pod.due <= now for pod in build.pods)
        line.append(f"; the plan wanted {due} by now", "")
        line.append(f", {len(late)} of them are late", "red" if late else "")
    lines += [line, _pods(build, now)]
    if len(build.pods) > MOST:
        lines.append(Text(f"and {len(build.pods) - MOST} more; --json has all", "dim"))
    lines += [Text(f"{node}: {why}", "red") for node, why in list(build.whys.items())[:MOST]]
    if build.burn_down:
        lines += [Text("\nnodes accepted", "dim"), _burn_down(build, total)]
    return Group(*lines)


def _pods(build: Build, now: float) -> Table:
    table = Table(box=None, pad_edge=False)
    planned = any(pod.due is not None for pod in build.pods)
    for head in ("pod", "", *STATES, *(["due"] if planned else [])):
        table.add_column(head, justify="right" if head in STATES else "left")
    order = sorted(build.pods, key=lambda pod: (not pod.late(now), _rank(pod), pod.pod))
    for pod in order[:MOST]:
        colour = {"accepted": "green", "in test": "yellow"}.get(pod.state, "dim")
        due = [Text(_day(pod.due), "red" if pod.late(now) else "")] if planned else []
        table.add_row(pod.pod, Text(pod.state, colour), *(f"{pod.nodes[s]:,}" for s in STATES), *due)
    return table


def _rank(pod: PodStanding) -> int:
    return ("in test", "awaited", "accepted").index(pod.state)


def _burn_down(build: Build, total: int) -> Table:
    table = Table(
        box=None, pad_edge=False, show_header=any(planned is not None for *_, planned in build.burn_down)
    )
    for head in ("", "", "accepted", "planned"):
        table.add_column(head, justify="right" if head else "left")
    for at, accepted, planned in build.burn_down:
        bar = "█" * round(BAR * accepted / total) if total else ""
        table.add_row(
            _day(at, minutes=True),
            Text(bar, "green"),
            f"{accepted:,}",
            "" if planned is None else f"{planned:,}",
        )
    return table


def _day(time: float | None, minutes: bool = False) -> str:
    if time is None:
        return ""
    return datetime.fromtimestamp(time).strftime("%Y-%m-%d %H:%M" if minutes else "%Y-%m-%d")
