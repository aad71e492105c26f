"""A construction plan for people and for programs: milestones, the choice of power, what limits it."""

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from colossi.site.milestones import FIRST_RACK, FIRST_TRAINING, Milestone
from colossi.site.options import Choice, sensible
from colossi.site.scheduling import Plan

SHOWN = 8  # choices, and changes that would help
MEGA = 1e6


def render(plan: Plan) -> RenderableType:
    """Everything."""
    built = plan.construction
    shifts = f"{built.hours_a_day} hours a day, {built.days_a_week} days a week"
    head = Text.assemble(
        (plan.spec.name, "bold"),
        f"  {plan.gpus:,} GPUs in {len(plan.design.racks):,} racks, {plan.kilowatts / 1e3:,.1f} MW\n",
        f"{len(plan.project.tasks):,} tasks from {built.start}, {shifts}",
    )
    parts = (_milestones(plan), _choices(plan), _limits(plan), _busy(plan), _levers(plan))
    return Group(head, *(line for part in parts for line in part))


def date_of(plan: Plan, milestone: Milestone) -> str:
    """As 2024-07-03."""
    moment = plan.calendar.moment if milestone.begins else plan.calendar.end
    return moment(milestone.hour).date().isoformat()


def day_of(plan: Plan, milestone: Milestone) -> float:
    """Days after the first one's midnight."""
    return plan.calendar.day(milestone.hour)


def _part(title: str, table: Table, note: str = "") -> list[RenderableType]:
    """A title, a table, and what is to be said of it."""
    return [Text(f"\n{title}", "bold"), table, *([Text(note, "dim")] if note else [])]


def _table() -> Table:
    return Table(box=None, pad_edge=False)


def _milestones(plan: Plan) -> list[RenderableType]:
    table = _table()
    table.add_column("")
    table.add_column("date", no_wrap=True)
    table.add_column("day", justify="right")
    table.add_column("most of the days until then")
    for each in sorted(plan.milestones, key=lambda each: each.hour):
        most = list(_days_by_reason(plan, each).items())[:2]
        words = ", ".join(f"{name} {days:.0f}" for name, days in most)
        table.add_row(each.name, date_of(plan, each), f"{day_of(plan, each):.1f}", words)
    length, bound = plan.schedule.makespan, plan.schedule.bound
    least = f"none takes less than {bound:,}" if bound < length else "no plan takes less"
    return _part("milestones", table, f"the whole takes {length:,} hours of work, and {least}")


def _choices(plan: Plan) -> list[RenderableType]:
    rows = sensible(plan.choices)
    built = plan.construction
    when = f" by {built.target}" if built.target else ""
    table = _table()
    table.add_column("")
    for name in ("MW", "training", "all", "saves days", "costs M$", "worth M$"):
        table.add_column(name, justify="right", no_wrap=True)
    waiting = plan.choices[0]
    shown = sorted(rows, key=lambda each: each.dollars)
    for each in shown[: SHOWN - 1] + [each for each in shown[SHOWN - 1 :] if each is plan.choice]:
        table.add_row(
            ("* " if each is plan.choice else "  ") + choice_name(each),
            f"{each.supply.kilowatts / 1e3:,.0f}",
            f"{each.training_days:,.1f}" if each.starts else "never",
            f"{each.days:,.1f}" if each.starts else f"{each.missing / 1e3:,.1f} MW too few",
            f"{waiting.days - each.days:,.1f}" if each.starts and waiting.starts else "",
            f"{each.dollars / MEGA:,.1f}" if each.starts else "",
            f"{each.gain / MEGA:,.1f}" if each.starts else "",
        )
    note = f"* {plan.why}{when if plan.choice.meets else ''}"
    if built.target and not plan.choice.meets:
        late = plan.calendar.end(plan.last.hour).date() - built.target
        note += f"; {late.days} days after the target, {built.target}"
    if plan.schedule.starts is not plan.choice.starts:
        note += "; choices are compared by plans from front to back, and the solver's is shorter"
    return _part(f"power: {len(rows)} of {len(plan.choices)} choices, those that none beats", table, note)


def choice_name(choice: Choice) -> str:
    """The offers that are taken."""
    return " + ".join(choice.offers) or "wait for the feeds"


def _limits(plan: Plan) -> list[RenderableType]:
    table = _table()
    table.add_column("")
    table.add_column("days", justify="right")
    for name, days in _days_by_reason(plan, plan.last).items():
        table.add_row(name, f"{days:.1f}")
    return _part(f"what the days until {plan.last.name} go to: the critical chain", table)


def _days_by_reason(plan: Plan, milestone: Milestone) -> dict[str, float]:
    """Of the critical chain, in days of the calendar."""
    days_an_hour = plan.calendar.day(milestone.hour) / max(milestone.hour, 1)
    return {name: hours * days_an_hour for name, hours in plan.hours_by_reason(milestone).items()}


def _busy(plan: Plan) -> list[RenderableType]:
    table = _table()
    table.add_column("")
    table.add_column("share", justify="right")
    for name, share in sorted(plan.busy.items(), key=lambda item: -item[1]):
        table.add_row(name, f"{share:.0%}")
    return _part(f"in use, from {FIRST_RACK} to {plan.last.name}", table)


def _levers(plan: Plan) -> list[RenderableType]:
    table = _table()
    table.add_column("")
    table.add_column("days", justify="right")
    helping = [lever for lever in plan.levers if abs(lever.days) >= 0.05]
    for lever in helping[:SHOWN]:
        table.add_row(lever.change, f"{lever.days:+.1f}")
    useless = [lever.change for lever in plan.levers if abs(lever.days) < 0.05]
    note = f"no day: {', '.join(useless)}" if useless else ""
    return _part("what would help, each alone", table, note)


def as_json(plan: Plan) -> dict[str, Any]:
    """All of it but the tasks, which --export writes."""
    first = next(each for each in plan.milestones if each.name == FIRST_RACK)
    training = next((each for each in plan.milestones if each.name == FIRST_TRAINING), first)
    return {
        "name": plan.spec.name,
        "gpus": plan.gpus,
        "racks": len(plan.design.racks),
        "megawatts": plan.kilowatts / 1e3,
        "tasks": len(plan.project.tasks),
        "start": plan.construction.start.isoformat(),
        "milestones": [
            {
                "name": each.name,
                "date": date_of(plan, each),
                "day": day_of(plan, each),
                "critical_hours": plan.hours_by_reason(each),
            }
            for each in plan.milestones
        ],
        "days": day_of(plan, plan.last),
        "days_from_first_rack_to_training": day_of(plan, training) - day_of(plan, first),
        "makespan_hours": plan.schedule.makespan,
        "bound_hours": plan.schedule.bound,
        "choices": [_choice(plan, each) for each in plan.choices],
        "chosen": list(plan.choice.offers),
        "why": plan.why,
        "critical_chain": [
            {"task": link.task.name, "kind": link.task.kind, "hour": link.start, "why": link.why}
            for link in plan.links[plan.last.name]
        ],
        "busy": plan.busy,
        "levers": {lever.change: lever.days for lever in plan.levers},
    }


def _choice(plan: Plan, each: Choice) -> dict[str, Any]:
    there = bool(each.starts)
    return {
        "offers": list(each.offers),
        "megawatts": each.supply.kilowatts / 1e3,
        "megawatts_missing": each.missing / 1e3,
        "training_day": each.training_days if there else None,
        "day": each.days if there else None,
        "dollars": each.dollars if there else None,
        "rented_until_day": each.rented_until if there and each.offers else None,
        "worth_dollars": each.gain if there else None,
        "meets_target": each.meets,
    }
