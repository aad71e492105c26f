"""A design for people: what stands where, what joins it, what feeds and cools it, what it costs."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.terminal.numerals import count

LINES = 12  # of the bill: the dearest; --json has all


def render(facts: dict[str, Any]) -> RenderableType:
    """Tables under one another."""
    power, pods = facts["power"], f"{facts['pods']:,} pod" + "s" * (facts["pods"] > 1)
    head = Text.assemble(
        (facts["name"], "bold"),
        f"  {facts['gpus']:,} GPUs in {facts['nodes']:,} {facts['node']}, {pods}, "
        f"{sum(each['number'] for each in facts['racks']):,} racks, {power['site_megawatts']:,.4g} MW, "
        f"${count(facts['dollars'])}",
    )
    tables = (_racks, _halls, _devices, _cables, _losses, _power, _cooling, _bill)
    return Group(head, *(table(facts) for table in tables))


def _table(title: str, text: str, *numbers: str) -> Table:
    table = Table(box=None, pad_edge=False, title=f"\n{title}", title_justify="left", title_style="dim")
    table.add_column(text)
    for head in numbers:
        table.add_column(head, justify="right")
    return table


def _racks(facts: dict[str, Any]) -> Table:
    title = f"racks; the first, unit by unit: {_contents(facts['rack'])}"
    table = _table(title, "of", "racks", "kW at most", "kg at most", "MW", "heat to")
    for each in facts["racks"]:
        table.add_row(
            each["of"],
            f"{each['number']:,}",
            f"{each['kilowatts_at_most']:.1f}",
            f"{each['kilograms_at_most']:,.0f}",
            f"{each['megawatts']:,.2f}",
            "liquid" if each["liquid"] else "air",
        )
    return table


def _contents(inside: list[dict[str, Any]]) -> str:
    """Such as: cdu 1-4, node 6-9 11-14."""
    units: dict[str, list[str]] = {}
    for each in inside:
        last = each["unit"] + each["height"] - 1
        span = f"{each['unit']}-{last}" if each["height"] > 1 else f"{last}"
        units.setdefault(each["device"].rsplit("-", 1)[0], []).append(span)
    return ", ".join(f"{kind} {' '.join(spans)}" for kind, spans in units.items())


def _halls(facts: dict[str, Any]) -> Table:
    table = _table("halls", "hall", "racks", "rows", "pods", "MW")
    for each in facts["halls"]:
        numbers = (f"{each[key]:,}" for key in ("racks", "rows", "pods"))
        table.add_row(each["name"], *numbers, f"{each['megawatts']:,.2f}")
    return table


def _devices(facts: dict[str, Any]) -> Table:
    table = _table("devices", "kind", "number")
    for kind, number in facts["devices"].items():
        table.add_row(kind, f"{number:,}")
    return table


def _cables(facts: dict[str, Any]) -> Table:
    """A row for each network and medium; lengths from the shortest to the longest."""
    table = _table("cables", "network", "medium", "number", "metres", "km in all")
    rows: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for each in facts["cables"]:
        rows.setdefault((each["network"], each["medium"]), []).append(each)
    for (network, medium), found in rows.items():
        metres = sum(each["metres"] * each["number"] for each in found)
        table.add_row(
            network,
            medium,
            f"{sum(each['number'] for each in found):,}",
            f"{found[0]['metres']:g} to {found[-1]['metres']:g}",
            f"{metres / 1000:,.1f}",
        )
    return table


def _losses(facts: dict[str, Any]) -> Table:
    widths = ", ".join(
        f"of a {each['tier']} at least {each['worst']:.2f} of what is below" for each in facts["bandwidth"]
    )
    title = "what one lost switch leaves" + (f" (bandwidth up, all well: {widths})" if widths else "")
    table = _table(title, "lost", "touches", "each keeps, of its cables up")
    for each in facts["losses"]["switches"]:
        below = each["below"] if each["touched"] == 1 else (each["below"] + "s").replace("leafs", "leaves")
        table.add_row(each["kind"], f"{each['touched']:,} {below}", f"{each['left']:.1%}")
    return table


def _power(facts: dict[str, Any]) -> Table:
    power = facts["power"]
    title = (
        f"power, redundancy {power['redundancy']}: racks {power['racks_megawatts']:,.4g} MW, "
        f"with the plant {power['site_megawatts']:,.4g}"
    )
    table = _table(title, "feed", "from day", "MW", "load", "after the worst loss", "racks dark without it")
    for each, loss in zip(power["feeds"], facts["losses"]["feeds"], strict=True):
        numbers = (f"{each[key]:,.4g}" for key in ("day", "megawatts", "load_megawatts", "worst_megawatts"))
        table.add_row(each["name"], *numbers, f"{loss['dark']:,}")
    return table


def _cooling(facts: dict[str, Any]) -> Table:
    cooling = facts["cooling"]
    table = _table("cooling", "heat to", "MW", "of", "")
    for what in ("liquid", "air"):
        limit = cooling[f"{what}_limit_megawatts"]
        more = (
            f"{cooling['cdus']:,} CDUs of {cooling['cdu_kilowatts']:.1f} kW each, {cooling['loops']:,} "
            f"loops, {cooling['litres_per_minute']:,.0f} l/min"
        )
        table.add_row(
            what,
            f"{cooling[f'{what}_megawatts']:,.4g}",
            "no limit" if limit is None else f"{limit:,.4g}",
            more if what == "liquid" and cooling["cdus"] else "",
        )
    return table


def _bill(facts: dict[str, Any]) -> Table:
    lines = sorted(facts["bill"], key=lambda line: -line["dollars"])
    largest = f", the {LINES} largest lines" if len(lines) > LINES else ""
    table = _table(f"bill: ${count(facts['dollars'])}{largest}", "item", "number", "dollars")
    for line in lines[:LINES]:
        table.add_row(line["item"], f"{line['number']:,}", f"{count(line['dollars'])}")
    return table
