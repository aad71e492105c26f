"""The results of checks for people: of one machine all, of a fleet who failed and what was done about it."""

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.acceptance.result import Result, Status, quantity, verdict

COLOURS: dict[Status, str] = {"pass": "green", "warn": "yellow", "fail": "bold red", "skipped": "dim"}
SHOWN = {  # check -> the head of its column
    "processor.product": "product",
    "memory.triad": "triad",
    "disk.write": "disk",
    "loopback.rate": "loopback",
    "pairs.rate": "pairs",
    "gpu.product": "GPU",
}
MOST = 40  # nodes in a table: those that did not pass come first


def render_machine(name: str, results: Sequence[Result]) -> RenderableType:
    """Every result of one machine."""
    table = Table(box=None, pad_edge=False)
    for head in ("check", "value", "limit", "", "why"):
        table.add_column(head, justify="right" if head == "value" else "left", overflow="fold")
    for each in results:
        colour = COLOURS[each.status]
        table.add_row(
            each.name, quantity(each.value, each.unit), each.limit, Text(each.status, colour), each.why
        )
    seconds = sum({each.check.partition(".")[0]: each.seconds for each in results}.values())
    return Group(_head(name, verdict(results), f"{len(results)} results in {seconds:.1f} s"), table)


def _head(name: str, status: Status, more: str) -> Text:
    return Text.assemble((name, "bold"), "  ", (status, COLOURS[status]), f"  {more}")


def render_fleet(
    name: str,
    results: Mapping[str, Sequence[Result]],
    racks: Mapping[str, str],
    done: Mapping[str, Mapping[str, str]],
) -> RenderableType:
    """A row for each node, the worst first; then what was done, and what was not."""
    verdicts = {node: verdict(own) for node, own in results.items()}
    count = {status: sum(each == status for each in verdicts.values()) for status in COLOURS}
    head = Text.assemble(
        (name, "bold"), f"  {len(results)} nodes tested: {count['pass'] + count['warn']} pass"
    )
    if count["warn"]:
        head.append(f" ({count['warn']} with a warning)", "yellow")
    head.append(f", {count['fail']} fail", COLOURS["fail"] if count["fail"] else "")
    shown = [check for check in SHOWN if any(_value(own, check) is not None for own in results.values())]
    table = Table(box=None, pad_edge=False)
    in_racks = any(racks.values())
    for column in ("node", *(["rack"] if in_racks else []), ""):
        table.add_column(column)
    for check in shown:
        table.add_column(SHOWN[check], justify="right")
    order = sorted(results, key=lambda node: ("fail", "warn", "pass").index(verdicts[node]))
    for node in order[:MOST]:
        own, status = results[node], verdicts[node]
        rack = [racks.get(node, "")] if in_racks else []
        table.add_row(node, *rack, Text(status, COLOURS[status]), *(_shown(own, check) for check in shown))
    lines: list[RenderableType] = [head, table]
    if len(order) > MOST:
        lines.append(Text(f"and {len(order) - MOST} more; --json has all", "dim"))
    lines += _whys(results)
    for words, nodes in done.items():
        lines += [Text(f"{node} {words}: {why}") for node, why in list(nodes.items())[:MOST]]
    return Group(*lines)


def _whys(results: Mapping[str, Sequence[Result]]) -> list[Text]:
    """Each reason once, with the nodes that have it."""
    found: dict[tuple[Status, str], list[str]] = {}
    for node, own in results.items():
        for each in own:
            if each.status in ("fail", "warn"):
                found.setdefault((each.status, f"{each.name}: {each.why}"), []).append(node)
    lines = []
    for (status, why), nodes in sorted(found.items(), key=lambda item: (item[0][0], item[1][0]))[:MOST]:
        names = ", ".join(nodes[:4]) + (f" and {len(nodes) - 4} more" if len(nodes) > 4 else "")
        lines.append(Text.assemble((status, COLOURS[status]), f"  {names}: {why}"))
    return lines


def _value(results: Sequence[Result], check: str) -> Result | None:
    """The worst of several, as of eight GPUs: all checks that are shown but one are better when higher."""
    values = [each for each in results if each.check == check and each.value is not None]
    worst = max if check == "processor.product" else min
    return worst(values, key=lambda each: each.value or 0.0) if values else None


def _shown(results: Sequence[Result], check: str) -> str:
    found = _value(results, check)
    return quantity(found.value, found.unit) if found else ""
